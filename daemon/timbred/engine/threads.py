"""How many CPU threads a step runs on: learned by timing, since it hangs on who else is at work. Pure.

With a free core for each, more threads are faster. Beside music software that needs a core they are several times
slower, for every thread waits for the one that has no core.
"""

from dataclasses import dataclass, field

TRIED_AGAIN_AFTER = 40
"""Steps after which the slower choice gets another step, to see whether the machine has changed."""

_NEWEST = 0.4


@dataclass
class ThreadChoice:
    """One thread or `most`; running means of seconds for each kind of work.

    >>> choice = ThreadChoice(2)
    >>> choice.next("work"), choice.next("work")
    (1, 1)
    >>> choice.measured("work", 1, 0.03); choice.next("work")
    2
    >>> choice.measured("work", 2, 0.09); choice.next("work")
    1
    """

    most: int
    _means: dict[tuple[object, int], float] = field(default_factory=dict[tuple[object, int], float])
    _steps: int = 0

    def next(self, work: object) -> int:
        """How many threads the next step of this kind of work gets."""
        candidates = (1, self.most) if self.most > 1 else (1,)
        for candidate in candidates:
            if (work, candidate) not in self._means:
                return candidate
        by_speed = sorted(candidates, key=lambda count: self._means[work, count])
        self._steps += 1
        return by_speed[-1] if self._steps % TRIED_AGAIN_AFTER == 0 else by_speed[0]

    def measured(self, work: object, threads: int, seconds: float) -> None:
        """A step on so many threads took so long."""
        known = self._means.get((work, threads))
        self._means[work, threads] = seconds if known is None else known + _NEWEST * (seconds - known)
