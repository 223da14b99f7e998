"""How many CPU threads a step runs on: learned by timing, since it hangs on who else is at work. Pure.

With a free core for each, more threads are faster. Beside music software that needs a core they are several times
slower, for every thread waits for the one that has no core.
"""

from dataclasses import dataclass, field

from timbred.engine.kept import RecentDict

TRIED_AGAIN_AFTER = 48
"""Steps after which the slower choice is tried again, to see whether the machine has changed."""

TRIAL = 2
"""Steps of a trial; only the last one counts, for changing the number of threads costs time itself."""

_NEWEST = 0.4

MAX_KINDS = 1024
"""Kinds of work that are known, each with one number of threads: the latest measured."""


@dataclass
class ThreadChoice:
    """One thread or `most`, for each kind of work: seconds as last measured, for the choice in use a running mean. One
    slow step alone says nothing, for anything may have come between; two of them do.

    >>> choice = ThreadChoice(2)
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
            self._seconds[work, threads] = known + _NEWEST * (min(before, seconds) - known)
            return
        left = self._trial[work][1] - 1
        if left:
            self._trial[work] = (threads, left)
        else:
            del self._trial[work]
            self._seconds[work, threads] = seconds
