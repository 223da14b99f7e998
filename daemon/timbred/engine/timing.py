"""How long things take here, learned from what was measured."""

from dataclasses import dataclass, field

from timbred.caches import RecentDict

_NEWEST = 0.3
"""Weight of the newest measurement in the running mean."""

MAX_KINDS = 1024
"""Kinds of work that are known: the latest measured."""


@dataclass
class DurationEma:
    """Running means of durations in seconds, one for each kind of work.

    >>> pace = DurationEma()
    >>> pace.measured("step", 0.1)
    >>> pace.expected("step")
    0.1
    >>> pace.expected("decode")
    0.0
    """

    _means: RecentDict[object, float] = field(default_factory=lambda: RecentDict[object, float](MAX_KINDS))

    def measured(self, kind: object, seconds: float) -> None:
        """Take in one measurement."""
        mean = self._means.get(kind)
        self._means[kind] = seconds if mean is None else mean + _NEWEST * (seconds - mean)

    def expected(self, kind: object) -> float:
        """The mean so far, 0 when there is none."""
        return self._means.get(kind, 0.0)


@dataclass
class MaxLength:
    """The longest sounds that worked, and the shortest that didn't, in seconds, by model.

    >>> reach = MaxLength()
    >>> reach.advice("m", 40.0)
    20.0
    >>> reach.worked("m", 12.0)
    >>> reach.failed("m", 30.0)
    >>> reach.advice("m", 40.0)
    12.0
    """

    _worked: dict[str, float] = field(default_factory=dict[str, float])
    _failed: dict[str, float] = field(default_factory=dict[str, float])

    def worked(self, model: str, seconds: float) -> None:
        """A sound of this length was made."""
        self._worked[model] = max(self._worked.get(model, 0.0), seconds)

    def failed(self, model: str, seconds: float) -> None:
        """One of this length found no room."""
        self._failed[model] = min(self._failed.get(model, seconds), seconds)

    def advice(self, model: str, seconds: float) -> float:
        """A length to try instead of `seconds`: what worked before, else half of what is known to be too long."""
        worked = self._worked.get(model, 0.0)
        return worked if 0.0 < worked < seconds else min(seconds, self._failed.get(model, seconds)) / 2


TRIED_AGAIN_AFTER = 48
"""Steps after which the slower choice is tried again, to see whether the machine has changed."""

TRIAL = 2
"""Steps of a trial; only the last one counts, for changing the number of threads costs time itself."""

_NEWEST_TIMINGS = 0.4
"""Kinds of work that are known, each with one number of threads: the latest measured."""


@dataclass
class ThreadTuner:
    """One thread or `most`, for each kind of work: seconds as last measured, for the choice in use a running mean. One
    slow step alone says nothing, for anything may have come between; two of them do.

    >>> choice = ThreadTuner(2)
    >>> for seconds in (0.03, 0.03, 0.09, 0.09): choice.measured("work", choice.next("work"), seconds)
    >>> choice.next("work")
    1
    """

    most: int
    _seconds: RecentDict[tuple[object, int], float] = field(
        default_factory=lambda: RecentDict[tuple[object, int], float](MAX_KINDS)
    )
    _trial: RecentDict[object, tuple[int, int]] = field(
        default_factory=lambda: RecentDict[object, tuple[int, int]](MAX_KINDS)
    )
    _latest: RecentDict[tuple[object, int], float] = field(
        default_factory=lambda: RecentDict[tuple[object, int], float](MAX_KINDS)
    )
    _steps: int = 0

    def beside(self) -> int:
        """How many threads a step gets while something else in the process is at work: one core is left to that."""
        return max(1, self.most - 1)

    def next(self, work: object) -> int:
        """How many threads the next step of this kind of work gets."""
        if self.most <= 1:
            return 1
        if work in self._trial:
            return self._trial[work][0]
        for candidate in (1, self.most):
            if (work, candidate) not in self._seconds:
                return self._try(work, candidate)
        best = min((1, self.most), key=lambda count: self._seconds[work, count])
        self._steps += 1
        if self._steps % TRIED_AGAIN_AFTER == 0:
            return self._try(work, self.most if best == 1 else 1)
        return best

    def _try(self, work: object, count: int) -> int:
        self._trial[work] = (count, TRIAL)
        return count

    def measured(self, work: object, threads: int, seconds: float) -> None:
        """A step on so many threads took so long."""
        before = self._latest.get((work, threads), seconds)
        self._latest[work, threads] = seconds
        if work not in self._trial:
            known = self._seconds.get((work, threads), seconds)
            self._seconds[work, threads] = known + _NEWEST_TIMINGS * (min(before, seconds) - known)
            return
        left = self._trial[work][1] - 1
        if left:
            self._trial[work] = (threads, left)
        else:
            del self._trial[work]
            self._seconds[work, threads] = seconds
