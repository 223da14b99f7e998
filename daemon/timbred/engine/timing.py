"""Learned durations, lengths and thread counts."""

from dataclasses import dataclass, field

from timbred.caches import RecentDict

_NEWEST_WEIGHT = 0.3
"""Weight of the newest measurement in the running mean."""

MAX_KINDS = 1024
"""Maximum number of kinds of work that are kept, the latest ones."""


@dataclass
class DurationEma:
    """Running means of durations in seconds, one for each kind of work.

    >>> pace = DurationEma()
    >>> pace.record("step", 0.1)
    >>> pace.mean_s("step")
    0.1
    >>> pace.mean_s("decode")
    0.0
    """

    _means: RecentDict[object, float] = field(default_factory=lambda: RecentDict[object, float](MAX_KINDS))

    def record(self, kind: object, seconds: float) -> None:
        """Add one measurement."""
        mean = self._means.get(kind)
        self._means[kind] = seconds if mean is None else mean + _NEWEST_WEIGHT * (seconds - mean)

    def mean_s(self, kind: object) -> float:
        """Return the mean so far; 0 without measurements."""
        return self._means.get(kind, 0.0)


@dataclass
class MaxLength:
    """The longest lengths that succeeded and the shortest that failed, in seconds, by model.

    >>> max_length = MaxLength()
    >>> max_length.suggest_length("m", 40.0)
    20.0
    >>> max_length.record_success("m", 12.0)
    >>> max_length.record_failure("m", 30.0)
    >>> max_length.suggest_length("m", 40.0)
    12.0
    """

    _longest_success_s: dict[str, float] = field(default_factory=dict[str, float])
    _shortest_failure_s: dict[str, float] = field(default_factory=dict[str, float])

    def record_success(self, model: str, seconds: float) -> None:
        """Record a length that was rendered."""
        self._longest_success_s[model] = max(self._longest_success_s.get(model, 0.0), seconds)

    def record_failure(self, model: str, seconds: float) -> None:
        """Record a length that ran out of memory."""
        self._shortest_failure_s[model] = min(self._shortest_failure_s.get(model, seconds), seconds)

    def suggest_length(self, model: str, seconds: float) -> float:
        """Return a length to try instead of `seconds`: one that worked, else half of the shortest that failed."""
        worked = self._longest_success_s.get(model, 0.0)
        return worked if 0.0 < worked < seconds else min(seconds, self._shortest_failure_s.get(model, seconds)) / 2


RETRIAL_INTERVAL_STEPS = 48
"""Steps after which the slower choice is measured again."""

TRIAL_STEPS = 2
"""Steps of a trial; only the last one counts, because changing the number of threads costs time."""

_NEWEST_TIMING_WEIGHT = 0.4
"""Weight of the newest measurement in the mean of a thread count."""


@dataclass
class ThreadTuner:
    """Chooses one thread or `max_threads` for each kind of work by measured seconds.

    A single slow step is ignored, because other processes may have caused it; two in a row count.

    >>> tuner = ThreadTuner(2)
    >>> for seconds in (0.03, 0.03, 0.09, 0.09): tuner.record("work", tuner.choose_threads("work"), seconds)
    >>> tuner.choose_threads("work")
    1
    """

    max_threads: int
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

    def threads_beside_other_work(self) -> int:
        """Return the threads of a step while other work runs in the process, which gets one core."""
        return max(1, self.max_threads - 1)

    def choose_threads(self, work: object) -> int:
        """Return the threads of the next step of a kind of work."""
        if self.max_threads <= 1:
            return 1
        if work in self._trial:
            return self._trial[work][0]
        for candidate in (1, self.max_threads):
            if (work, candidate) not in self._seconds:
                return self._begin_trial(work, candidate)
        best = min((1, self.max_threads), key=lambda count: self._seconds[work, count])
        self._steps += 1
        if self._steps % RETRIAL_INTERVAL_STEPS == 0:
            return self._begin_trial(work, self.max_threads if best == 1 else 1)
        return best

    def _begin_trial(self, work: object, count: int) -> int:
        self._trial[work] = (count, TRIAL_STEPS)
        return count

    def record(self, work: object, threads: int, seconds: float) -> None:
        """Record the duration of a step with a number of threads."""
        before = self._latest.get((work, threads), seconds)
        self._latest[work, threads] = seconds
        if work not in self._trial:
            known = self._seconds.get((work, threads), seconds)
            self._seconds[work, threads] = known + _NEWEST_TIMING_WEIGHT * (min(before, seconds) - known)
            return
        remaining_steps = self._trial[work][1] - 1
        if remaining_steps:
            self._trial[work] = (threads, remaining_steps)
        else:
            del self._trial[work]
            self._seconds[work, threads] = seconds
