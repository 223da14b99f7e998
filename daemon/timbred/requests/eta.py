"""Estimates of rendering times from earlier renderings. Pure."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from timbred.requests.resolve import Parameters

MAX_MEASUREMENTS = 7
"""Latest measurements kept for each model; their median counts, so that one disturbed rendering doesn't matter."""

MIN_MEASUREMENTS = 3
"""Measurements from which an estimate is relied on."""

OVERHEAD_STEPS = 5.0
"""Steps that everything but the steps (text encoders, decoder) is assumed to take while it hasn't been timed."""


def sound_in(parameters: Parameters) -> float:
    """Return the seconds of sound that are rendered at once, of all takes."""
    return parameters.rendered_seconds * len(parameters.seeds)


def passes_in(parameters: Parameters) -> float:
    """Return the seconds of sound that go through the denoiser in one step."""
    return sound_in(parameters) * (2 if parameters.guidance > 1 else 1)


@dataclass
class EtaEstimates:
    """Measured pace of each model: seconds for each second of sound, in a step and in everything else (overhead)."""

    _steps: dict[str, deque[float]] = field(default_factory=dict[str, deque[float]])
    _overheads: dict[str, deque[float]] = field(default_factory=dict[str, deque[float]])

    def add(self, parameters: Parameters, step: float | None, overhead: float | None) -> None:
        """Add a rendering: seconds for each step and for everything else; None where that wasn't measured."""
        if step is not None:
            _append(self._steps, parameters.model, step / passes_in(parameters))
        if overhead is not None:
            _append(self._overheads, parameters.model, overhead / sound_in(parameters))

    def knows(self, model: str) -> bool:
        """Tell if a step of this model has been timed."""
        return model in self._steps

    def is_sure(self, model: str) -> bool:
        """Tell if a model has been timed often enough to rely on."""
        return min(len(self._steps.get(model, ())), len(self._overheads.get(model, ()))) >= MIN_MEASUREMENTS

    def of_step(self, parameters: Parameters) -> float:
        """Return the expected seconds of a step; 0 while none was timed."""
        return _typical(self._steps.get(parameters.model)) * passes_in(parameters)

    def of_overhead(self, parameters: Parameters) -> float:
        """Return the expected seconds of everything but the steps."""
        if parameters.model not in self._overheads:
            return OVERHEAD_STEPS * self.of_step(parameters)
        return _typical(self._overheads[parameters.model]) * sound_in(parameters)

    def expected(self, parameters: Parameters) -> float:
        """Return the expected seconds of a job; 0 while its model hasn't been timed."""
        return self.of_overhead(parameters) + self.of_step(parameters) * parameters.steps


def _append(by_model: dict[str, deque[float]], model: str, seconds: float) -> None:
    by_model.setdefault(model, deque(maxlen=MAX_MEASUREMENTS)).append(seconds)


def _typical(measurements: deque[float] | None) -> float:
    """Return the median, or the least of a few: a model's first renderings are its slowest."""
    if not measurements:
        return 0.0
    return median(measurements) if len(measurements) >= MIN_MEASUREMENTS else min(measurements)


LATEST_STEPS = 4
"""Steps from which the current pace of a job is measured."""


@dataclass
class JobTimer:
    """Times one rendering in the engine; moments are of `clock`.

    If the rendering had to wait for its model, only the steps count: everything else is slower the first time.

    Attributes:
        parameters: What is rendered.
        loading: True if it waits or waited for its model.
    """

    parameters: Parameters
    clock: Callable[[], float] = time.monotonic
    loading: bool = False
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
        estimates.add(self.parameters, step, None if self.loading else before + self.clock() - self._last)
