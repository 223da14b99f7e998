"""Estimates of rendering times, and the number of steps that fit before a deadline (`by`). Pure.

Estimates come from earlier renderings.
"""

import math
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from timbred.errors import BadRequest
from timbred.player.beat_grid import GRID_TOLERANCE_BEATS
from timbred.requests.resolve import Parameters

USABLE_SHARE = 0.85
"""Share of the remaining time that is planned with: other load slows the machine down at times."""

HANDLING_S = 0.15
"""Seconds for everything outside the model: writing the file, starting the voice."""

MAX_STEPS_DIVISOR = 4
"""A deadline may reduce the steps to a fourth of the model's usual number; with fewer the sound becomes another."""

MAX_SECONDS_FROM_NOW = 3600.0
"""Seconds from now; a later deadline is refused as a mistake."""

BAR_PATTERN = re.compile(r"bar\s*(\d{1,6})")


class DeadlineTooSoon(BadRequest):
    """A deadline that can't be met."""


@dataclass(frozen=True)
class Deadline:
    """A deadline as requested.

    Attributes:
        bar: Bar counted from 1 (bar 33 begins after 32 bars); None for a deadline in seconds.
        seconds: Seconds from the arrival of the request.
        spent: Seconds since that arrival.
    """

    bar: int | None = None
    seconds: float = 0.0
    spent: float = 0.0

    def beat(self, beats_per_bar: float) -> float:
        """Return the beat on which the bar begins."""
        return ((self.bar or 1) - 1) * beats_per_bar

    def left(self, clock: "DeadlineClock | None") -> float:
        """Return the seconds until the deadline. `clock` is needed for a bar."""
        if self.bar is not None and clock is not None:
            return clock.until(self.beat(clock.beats_per_bar))
        return self.seconds - self.spent

    def __str__(self) -> str:
        """Return the deadline as error texts name it."""
        return f"bar {self.bar}" if self.bar is not None else f"{self.seconds:.3g} s from now"


@dataclass(frozen=True)
class DeadlineClock:
    """The current beat of the session, its tempo and its bars."""

    beat: float
    bpm: float
    beats_per_bar: float

    def until(self, beat: float) -> float:
        """Return the seconds until a beat."""
        return (beat - self.beat) * 60.0 / self.bpm

    def bar_after(self, seconds: float) -> int:
        """Return the first bar, counted from 1, that begins in `seconds` or later."""
        beat = self.beat + seconds * self.bpm / 60.0
        return math.ceil(beat / self.beats_per_bar - GRID_TOLERANCE_BEATS) + 1


@dataclass(frozen=True)
class StepPace:
    """Expected duration of a rendering, in seconds.

    Attributes:
        wait: Until the engine starts it.
        overhead: Everything but its steps.
        step: Each step.
    """

    wait: float
    overhead: float
    step: float

    def needed(self, steps: int) -> float:
        """Return the seconds from now that a rendering with this many steps needs, with a reserve."""
        return self.wait + HANDLING_S + (self.overhead + self.step * steps) / USABLE_SHARE


@dataclass(frozen=True)
class DeadlineRequest:
    """The deadline of a job.

    Attributes:
        left: Returns the seconds until the deadline, which a new tempo may change.
        min_steps: The fewest steps that it may be rendered with.
    """

    left: Callable[[], float]
    min_steps: int

    @property
    def within(self) -> float:
        """Seconds in which the engine must be done."""
        return max(0.0, self.left() - HANDLING_S)


def fewer_steps(deadline: DeadlineRequest, pace: StepPace, remaining: float, steps_left: int) -> int | None:
    """Return the steps to start a late rendering again with so that it is in time; None to continue it.

    A schedule can't be shortened during a rendering: its first steps would be those of another sound.

    Args:
        deadline: The job's deadline.
        pace: Its measured pace.
        remaining: Seconds that it still needs as it is.
        steps_left: Steps that it still needs as it is.
    """
    left = deadline.left()
    if pace.step <= 0 or remaining + HANDLING_S <= left:
        return None
    fitting = _fitting_steps(left, pace)
    return fitting if deadline.min_steps <= fitting < steps_left else None


def read_by(text: str) -> Deadline:
    """Read the value of `by`.

    >>> read_by("bar 33").bar
    33

    Raises:
        BadRequest: It is neither a bar nor a number of seconds.
    """
    word = text.strip().lower()
    if (bar := BAR_PATTERN.fullmatch(word)) and int(bar[1]) >= 1:
        return Deadline(bar=int(bar[1]))
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_SECONDS_FROM_NOW:
        raise BadRequest(
            f"by: got {text!r}, allowed is a bar as in `bar 33`, or 0 to {MAX_SECONDS_FROM_NOW:g} seconds from now"
        )
    return Deadline(seconds=seconds)


def steps_by(deadline: Deadline, pace: StepPace, fewest: int, most: int, clock: DeadlineClock | None) -> int:
    """Return the number of steps that fit, at most `most`. `clock` is needed for a bar.

    Raises:
        DeadlineTooSoon: Not even `fewest` steps fit; names a possible deadline.
        BadRequest: The bar is past.
    """
    left = deadline.left(clock)
    needed = pace.needed(fewest)
    if needed > left:
        could = f"bar {clock.bar_after(needed)}" if deadline.bar is not None and clock else f"{_round_up(needed):g}"
        state = "is past" if left <= 0 else f"is in {left:.2f} s" if deadline.bar is not None else "is too soon"
        kind = BadRequest if left <= 0 else DeadlineTooSoon
        raise kind(
            f"by: {deadline} {state}, and with the fewest sensible steps ({fewest}) it takes {needed:.2f} s; "
            f"it could be ready by {could}"
        )
    if pace.step <= 0:
        return most
    return max(fewest, min(most, _fitting_steps(left, pace)))


def _fitting_steps(left: float, pace: StepPace) -> int:
    """Return the steps that fit into `left` seconds."""
    return math.floor(((left - pace.wait - HANDLING_S) * USABLE_SHARE - pace.overhead) / pace.step)


def fewest_steps(of_model: int, of_scheduler: int, requested: int | None) -> int:
    """Return the fewest steps that a deadline may reduce a rendering to.

    Args:
        of_model: The model's usual number of steps.
        of_scheduler: The fewest that the noise scheduler can do.
        requested: The number in the request, if it has one.
    """
    sensible = max(of_scheduler, math.ceil(of_model / MAX_STEPS_DIVISOR), 2)
    return sensible if requested is None else max(of_scheduler, min(sensible, requested))


def _round_up(seconds: float) -> float:
    """Round up to tenths of a second."""
    return math.ceil(seconds * 10) / 10


MAX_MEASUREMENTS = 7
"""Latest measurements kept for each model; their median counts, so that one disturbed rendering doesn't matter."""

MIN_MEASUREMENTS = 3
"""Measurements from which an estimate is relied on."""

OVERHEAD_STEPS = 5.0
"""Steps that everything but the steps (text encoders, decoder) is assumed to take while it hasn't been timed."""


ASSUMED_LOAD_S = 1.0
"""Seconds of a load of no bytes, while none of the model has been timed."""

ASSUMED_LOAD_BYTES_PER_S = 500e6
"""Speed of a load, while none of the model has been timed: that of a usual disk."""


def sound_in(parameters: Parameters) -> float:
    """Return the total seconds of sound of all takes."""
    return parameters.rendered_seconds * len(parameters.seeds)


def passes_in(parameters: Parameters) -> float:
    """Return the seconds of sound that go through the denoiser in one step."""
    return sound_in(parameters) * (2 if parameters.guidance > 1 else 1)


Measurements = dict[str, dict[str, deque[float]]]
"""Latest measurements by model, and by kind of device."""


@dataclass
class EtaEstimates:
    """Measured pace of each model on each kind of device; engines of one kind share their measurements.

    Renderings are measured in seconds for each second of sound, in a step and in everything else (overhead); loads in
    seconds. On a kind of device on which a model wasn't timed yet, or without a kind, the slowest other one counts.
    """

    _steps: Measurements = field(default_factory=Measurements)
    _overheads: Measurements = field(default_factory=Measurements)
    _loads: Measurements = field(default_factory=Measurements)

    def add(self, parameters: Parameters, step: float | None, overhead: float | None, kind: str = "") -> None:
        """Add a rendering: seconds for each step and for everything else; None where that wasn't measured."""
        if step is not None:
            _append(self._steps, parameters.model, kind, step / passes_in(parameters))
        if overhead is not None:
            _append(self._overheads, parameters.model, kind, overhead / sound_in(parameters))

    def add_load(self, model: str, kind: str, seconds: float) -> None:
        """Add the duration of a load."""
        _append(self._loads, model, kind, seconds)

    def knows(self, model: str) -> bool:
        """Tell if a step of this model has been timed."""
        return model in self._steps

    def is_sure(self, model: str) -> bool:
        """Tell if a model has been timed often enough on some kind of device to rely on."""
        overheads = self._overheads.get(model, {})
        steps = self._steps.get(model, {})
        counts = (min(len(steps[kind]), len(overheads.get(kind, ()))) for kind in steps)
        return max(counts, default=0) >= MIN_MEASUREMENTS

    def of_step(self, parameters: Parameters, kind: str = "") -> float:
        """Return the expected seconds of a step; 0 while none was timed."""
        return _typical(self._steps.get(parameters.model), kind) * passes_in(parameters)

    def of_overhead(self, parameters: Parameters, kind: str = "") -> float:
        """Return the expected seconds of everything but the steps."""
        if parameters.model not in self._overheads:
            return OVERHEAD_STEPS * self.of_step(parameters, kind)
        return _typical(self._overheads[parameters.model], kind) * sound_in(parameters)

    def expected(self, parameters: Parameters, kind: str = "") -> float:
        """Return the expected seconds of a job; 0 while its model hasn't been timed."""
        return self.of_overhead(parameters, kind) + self.of_step(parameters, kind) * parameters.steps

    def of_load(self, model: str, kind: str, size: int = 0) -> float:
        """Return the expected seconds of loading a model of this many bytes (0: unknown), measured or assumed."""
        return _typical(self._loads.get(model), kind) or ASSUMED_LOAD_S + size / ASSUMED_LOAD_BYTES_PER_S


def _append(table: Measurements, model: str, kind: str, seconds: float) -> None:
    table.setdefault(model, {}).setdefault(kind, deque(maxlen=MAX_MEASUREMENTS)).append(seconds)


def _typical(by_kind: Mapping[str, deque[float]] | None, kind: str) -> float:
    """Return the median, or the least of a few: a model's first renderings are its slowest; 0 without any."""
    if not by_kind:
        return 0.0
    chosen = [by_kind[kind]] if kind in by_kind else by_kind.values()
    return max(median(latest) if len(latest) >= MIN_MEASUREMENTS else min(latest) for latest in chosen)


LATEST_STEPS = 4
"""Steps from which the current pace of a job is measured."""


@dataclass
class JobTimer:
    """Times one rendering in the engine; moments are of `clock`.

    If the rendering had to wait for its model, only the steps count: everything else is slower the first time.

    Attributes:
        parameters: What is rendered.
        loading: True if it waits or waited for its model.
        kind: Kind of the engine's device.
    """

    parameters: Parameters
    clock: Callable[[], float] = time.monotonic
    loading: bool = False
    kind: str = ""
    _first: float | None = None
    _last: float = 0.0
    _steps: int = 0
    _latest: deque[float] = field(default_factory=partial(deque[float], maxlen=LATEST_STEPS + 1))
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def add_step(self) -> None:
        """Record that a step is done."""
        self._last = self.clock()
        self._first = self._last if self._first is None else self._first
        self._steps += 1
        self._latest.append(self._last)

    @property
    def step_now(self) -> float:
        """Seconds that each of the latest steps took; 0 before there are enough."""
        if len(self._latest) <= LATEST_STEPS:
            return 0.0
        return (self._latest[-1] - self._latest[0]) / LATEST_STEPS

    def finish(self, estimates: EtaEstimates) -> None:
        """Add the completed rendering to the estimates."""
        if self._first is None:
            return
        step = (self._last - self._first) / (self._steps - 1) if self._steps > 1 else None
        before = max(0.0, self._first - self._began - (step or 0.0))
        overhead = None if self.loading else before + self.clock() - self._last
        estimates.add(self.parameters, step, overhead, self.kind)
