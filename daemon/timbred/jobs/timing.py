"""A stopwatch for each job that the engine works on: what it shows becomes estimates."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from timbred.jobs.estimates import Estimates
from timbred.jobs.parameters import Parameters

LATEST = 4
"""Steps of a job from which it is seen how fast it goes just now."""


@dataclass
class _Run:
    """One job in the engine. Moments are of the monotonic clock."""

    parameters: Parameters
    began: float
    loading: bool = False
    first: float | None = None
    last: float = 0.0
    steps: int = 0
    latest: deque[float] = field(default_factory=lambda: deque[float](maxlen=LATEST + 1))


class Timing:
    """Hears what becomes of jobs, by their numbers. Of one that had to wait for its model only the steps count: all
    else in it is done for the first time, and slowly."""

    def __init__(self, estimates: Estimates, clock: Callable[[], float] = time.monotonic) -> None:
        self.estimates = estimates
        self._clock = clock
        self._runs: dict[int, _Run] = {}

    def began(self, number: int, parameters: Parameters) -> None:
        """The engine was given a job."""
        self._runs[number] = _Run(parameters, self._clock())

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
