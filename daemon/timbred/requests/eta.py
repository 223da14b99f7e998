"""How long a job will take, from how long others took. Pure."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from timbred.requests.resolve import Parameters

NEWEST = 7
"""Measurements of which the middle one counts: one that was disturbed says nothing."""

ENOUGH = 3
"""Measurements that are relied on."""

REST = 5.0
"""Steps that all but the steps (the words, the decoder) counts as while that hasn't been timed."""


def sound_in(parameters: Parameters) -> float:
    """Seconds of sound that are made at once: of all takes."""
    return parameters.rendered_seconds * len(parameters.seeds)


def passes_in(parameters: Parameters) -> float:
    """Seconds of sound that go through the network in one step."""
    return sound_in(parameters) * (2 if parameters.guidance > 1 else 1)


@dataclass
class EtaEstimates:
    """The pace of each model as last measured: seconds for a second of sound, in a step and in all else."""

    _steps: dict[str, deque[float]] = field(default_factory=dict[str, deque[float]])
    _rests: dict[str, deque[float]] = field(default_factory=dict[str, deque[float]])

    def measured(self, parameters: Parameters, step: float | None, rest: float | None) -> None:
        """A job of these parameters took so many seconds for each step, and for all but its steps; None where that
        wasn't seen."""
        if step is not None:
            _take_in(self._steps, parameters.model, step / passes_in(parameters))
        if rest is not None:
            _take_in(self._rests, parameters.model, rest / sound_in(parameters))

    def knows(self, model: str) -> bool:
        """Whether a step of this model has been timed."""
        return model in self._steps

    def is_sure(self, model: str) -> bool:
        """Whether a model has been timed often enough to rely on."""
        return min(len(self._steps.get(model, ())), len(self._rests.get(model, ()))) >= ENOUGH

    def of_step(self, parameters: Parameters) -> float:
        """Seconds that a step should take; 0 while none was timed."""
        return _middle(self._steps, parameters.model, 0.0) * passes_in(parameters)

    def of_rest(self, parameters: Parameters) -> float:
        """Seconds that all but the steps should take."""
        if parameters.model not in self._rests:
            return REST * self.of_step(parameters)
        return _middle(self._rests, parameters.model, 0.0) * sound_in(parameters)

    def expected(self, parameters: Parameters) -> float:
        """Seconds that a job should take; 0 while its model hasn't been timed."""
        return self.of_rest(parameters) + self.of_step(parameters) * parameters.steps


def _take_in(kept: dict[str, deque[float]], model: str, seconds: float) -> None:
    kept.setdefault(model, deque(maxlen=NEWEST)).append(seconds)


def _middle(kept: dict[str, deque[float]], model: str, default: float) -> float:
    """The middle one; of few the least, for a model's first sounds are its slowest."""
    if model not in kept:
        return default
    return median(kept[model]) if len(kept[model]) >= ENOUGH else min(kept[model])


LATEST = 4
"""Steps of a job from which it is seen how fast it goes just now."""


@dataclass
class _TimedRun:
    """One job in the engine. Moments are of the monotonic clock."""

    parameters: Parameters
    began: float
    loading: bool = False
    first: float | None = None
    last: float = 0.0
    steps: int = 0
    latest: deque[float] = field(default_factory=lambda: deque[float](maxlen=LATEST + 1))


class JobTimer:
    """Hears what becomes of jobs, by their numbers. Of one that had to wait for its model only the steps count: all
    else in it is done for the first time, and slowly."""

    def __init__(self, estimates: EtaEstimates, clock: Callable[[], float] = time.monotonic) -> None:
        self.estimates = estimates
        self._clock = clock
        self._runs: dict[int, _TimedRun] = {}

    def began(self, number: int, parameters: Parameters) -> None:
        """The engine was given a job."""
        self._runs[number] = _TimedRun(parameters, self._clock())

    def loads(self, number: int) -> None:
        """The job waits for its model."""
        if number in self._runs:
            self._runs[number].loading = True

    def stepped(self, number: int) -> None:
        """A step is done."""
        run = self._runs.get(number)
        if run is not None:
            run.last = self._clock()
            run.first = run.last if run.first is None else run.first
            run.steps += 1
            run.latest.append(run.last)

    def step_now(self, number: int) -> float:
        """Seconds that each of a job's latest steps took; 0 while it hasn't done enough of them to tell."""
        run = self._runs.get(number)
        if run is None or len(run.latest) <= LATEST:
            return 0.0
        return (run.latest[-1] - run.latest[0]) / LATEST

    def rendered(self, number: int) -> None:
        """The job is done: what it took is taken in."""
        run = self._runs.pop(number, None)
        if run is None or run.first is None:
            return
        step = (run.last - run.first) / (run.steps - 1) if run.steps > 1 else None
        before = max(0.0, run.first - run.began - (step or 0.0))
        rest = None if run.loading else before + self._clock() - run.last
        self.estimates.measured(run.parameters, step, rest)

    def dropped(self, number: int) -> None:
        """The job ended in another way: its time says nothing."""
        self._runs.pop(number, None)
