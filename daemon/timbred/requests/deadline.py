"""`by`: as many steps as fit before a deadline. Pure."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from timbred.errors import BadRequest
from timbred.player.beat_grid import GRAIN

SPARE = 0.85
"""Part of the time there is that is planned with: a machine that does other things too is slower at times."""

HANDLING = 0.15
"""Seconds for what the model doesn't do: the file, the way to the voice."""

SENSIBLE = 4
"""A sound may get a fourth of its model's steps; with fewer it is another sound."""

FARTHEST = 3600.0
"""Seconds from now; beyond it, a deadline is a mistake."""

BAR = re.compile(r"bar\s*(\d{1,6})")


class DeadlineTooSoon(BadRequest):
    """A deadline that can't be met."""


@dataclass(frozen=True)
class Deadline:
    """`bar` counts from 1, as musicians do: bar 33 begins after 32 bars. Or `seconds` from when it was asked for, of
    which some are `spent`."""

    bar: int | None = None
    seconds: float = 0.0
    spent: float = 0.0

    def beat(self, beats_per_bar: float) -> float:
        """The beat on which the bar begins."""
        return ((self.bar or 1) - 1) * beats_per_bar

    def left(self, clock: "DeadlineClock | None") -> float:
        """Seconds until it. `clock` is needed for a bar."""
        if self.bar is not None and clock is not None:
            return clock.until(self.beat(clock.beats_per_bar))
        return self.seconds - self.spent

    def __str__(self) -> str:
        return f"bar {self.bar}" if self.bar is not None else f"{self.seconds:.3g} s from now"


@dataclass(frozen=True)
class DeadlineClock:
    """The session's bars: which beat it is, at which tempo."""

    beat: float
    bpm: float
    beats_per_bar: float

    def until(self, beat: float) -> float:
        """Seconds until a beat."""
        return (beat - self.beat) * 60.0 / self.bpm

    def bar_after(self, seconds: float) -> int:
        """The first bar, counted from 1, that begins in so many seconds or later."""
        beat = self.beat + seconds * self.bpm / 60.0
        return math.ceil(beat / self.beats_per_bar - GRAIN) + 1


@dataclass(frozen=True)
class StepPace:
    """What a sound takes, in seconds: `wait` until the engine turns to it, `rest` besides its steps, `step` each."""

    wait: float
    rest: float
    step: float

    def needed(self, steps: int) -> float:
        """Seconds from now that it takes with so many steps, with some to spare."""
        return self.wait + HANDLING + (self.rest + self.step * steps) / SPARE


@dataclass(frozen=True)
class DeadlineRequest:
    """What a job with a deadline is held to while it runs: `left` tells the seconds until then, which a new tempo may
    change; `fewest` are the fewest sensible steps."""

    left: Callable[[], float]
    fewest: int

    @property
    def within(self) -> float:
        """Seconds in which the engine must be done."""
        return max(0.0, self.left() - HANDLING)


def steps_anew(wanted: DeadlineRequest, pace: StepPace, remaining: float, steps_left: int) -> int | None:
    """How many steps to begin anew with, for a job that would be too late as it is and then be in time; None to go on.

    `remaining` are the seconds that it still takes as it is, for `steps_left`. A schedule can't be shortened under way:
    its first steps would be those of another sound.
    """
    left = wanted.left()
    if pace.step <= 0 or remaining + HANDLING <= left:
        return None
    fitting = _fitting(left, pace)
    return fitting if wanted.fewest <= fitting < steps_left else None


def read_by(text: str) -> Deadline:
    """A deadline as it was sent.

    >>> read_by("bar 33").bar
    33

    Raises:
        BadRequest: it is neither a bar nor seconds.
    """
    word = text.strip().lower()
    if (found := BAR.fullmatch(word)) and int(found[1]) >= 1:
        return Deadline(bar=int(found[1]))
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= FARTHEST:
        raise BadRequest(f"by: got {text!r}, allowed is a bar as in `bar 33`, or 0 to {FARTHEST:g} seconds from now")
    return Deadline(seconds=seconds)


def steps_by(deadline: Deadline, pace: StepPace, fewest: int, most: int, clock: DeadlineClock | None) -> int:
    """As many steps as fit, at most `most`. `clock` is needed for a bar.

    Raises:
        TooSoon: not even `fewest` steps fit; says when it could be.
        BadRequest: the bar is past.
    """
    left = deadline.left(clock)
    needed = pace.needed(fewest)
    if needed > left:
        could = f"bar {clock.bar_after(needed)}" if deadline.bar is not None and clock else f"{_up(needed):g}"
        state = "is past" if left <= 0 else f"is in {left:.2f} s" if deadline.bar is not None else "is too soon"
        kind = BadRequest if left <= 0 else DeadlineTooSoon
        raise kind(
            f"by: {deadline} {state}, and with the fewest sensible steps ({fewest}) it takes {needed:.2f} s; "
            f"it could be ready by {could}"
        )
    if pace.step <= 0:
        return most
    return max(fewest, min(most, _fitting(left, pace)))


def _fitting(left: float, pace: StepPace) -> int:
    """Steps that fit into so many seconds."""
    return math.floor(((left - pace.wait - HANDLING) * SPARE - pace.rest) / pace.step)


def fewest_steps(of_model: int, of_scheduler: int, asked: int | None) -> int:
    """The fewest sensible steps, from a model's usual number, what its scheduler can, and what was asked for."""
    sensible = max(of_scheduler, math.ceil(of_model / SENSIBLE), 2)
    return sensible if asked is None else max(of_scheduler, min(sensible, asked))


def _up(seconds: float) -> float:
    return math.ceil(seconds * 10) / 10
