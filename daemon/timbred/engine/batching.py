"""Selection of the jobs that take the next step together, errors of batches, learned durations and thread counts.

Rows of a batch can be circular over time, for loops. The networks' attention has no positions, and neither has their
normalisation: with time wrapped around in every convolution a network treats all moments of a loop alike, and a rotated
input gives the rotated output.
"""

import logging
import math
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from timbred import errors
from timbred.process_memory import RecentDict


@dataclass(frozen=True)
class Candidate:
    """A job that could take a step.

    Attributes:
        number: Arrival order.
        group: Candidates of equal group can share a network call.
        rank: 0 for live, 1 for normal, 2 for background.
        rows: Batch rows that it takes.
        exclusive: True if it must not share a batch.
        urgent_deadline: Deadline of a job that has no time to spare, else infinity.
    """

    number: int
    group: object
    rank: int
    rows: int
    exclusive: bool = False
    urgent_deadline: float = math.inf


def next_batch(candidates: Sequence[Candidate], max_rows: int) -> list[Candidate]:
    """Return the jobs that step next: the first by urgency, rank and arrival, and those that can join it.

    Others join in order while their rows fit; one that does not fit is skipped. Jobs of lower rank wait while a live
    job runs, because a larger batch is slower. A job with no time to spare steps first and alone, the earliest deadline
    first.
    """
    if len(candidates) < 2:
        return list(candidates)
    ordered = sorted(candidates, key=lambda candidate: (candidate.urgent_deadline, candidate.rank, candidate.number))
    first = ordered[0]
    if first.exclusive or first.urgent_deadline < math.inf:
        return [first]
    batch, rows = [first], first.rows
    for other in ordered[1:]:
        joins = other.group == first.group and not other.exclusive and (first.rank > 0 or other.rank == 0)
        if joins and rows + other.rows <= max_rows:
            batch.append(other)
            rows += other.rows
    return batch


MAX_PAUSE_S = 1.0
"""Maximum seconds of one pause, and so of the delay of a cancellation."""


def yield_duration(busy_s: float, frame_rate: float) -> float:
    """Return the pause in seconds after `busy_s` seconds of work: as long again, in whole frames, at least one frame.

    So a render loop of `frame_rate` frames a second has the device at least half of the time, and for a whole frame
    between any two steps.

    >>> yield_duration(0.040, 50.0), yield_duration(0.001, 50.0)
    (0.04, 0.02)
    """
    frames = max(1, math.ceil(round(busy_s * frame_rate, 6)))
    return min(MAX_PAUSE_S, frames / frame_rate)


def is_out_of_memory(error: Exception) -> bool:
    """Tell if an error means that the device or the computer is out of memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)


def to_timbred_error(error: Exception) -> errors.TimbredError:
    """Convert an error of torch or a model to one with a wire code."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if is_out_of_memory(error):
        return errors.OutOfMemory(f"the device's memory is full ({text})")
    if isinstance(error, errors.TimbredError | OSError):
        return errors.from_foreign(error)
    return errors.ModelError(f"the model failed: {type(error).__name__}: {text[:300]}")


def is_fatal(error: Exception) -> bool:
    """Tell if this process can't use the device any more (a CUDA context does not recover)."""
    return not isinstance(error, torch.OutOfMemoryError) and "CUDA error" in str(error)


log = logging.getLogger("timbred.engine.memory")

MAX_SHAPES = 1024
"""Maximum number of row shapes whose batch limit is kept, the latest ones."""


@dataclass
class BatchSplitter:
    """Splits batches that run out of memory, and remembers the limit for each shape of a row."""

    _max_rows: RecentDict[tuple[int, ...], int] = field(
        default_factory=lambda: RecentDict[tuple[int, ...], int](MAX_SHAPES)
    )

    def call(self, call: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Call on a batch; out of memory, on its halves one after the other, down to single rows.

        Raises:
            Exception: The call's own; out of memory only for a single row.
        """
        rows, shape = len(inputs[0]), tuple(inputs[0].shape[1:])
        if rows <= self._max_rows.get(shape, rows):
            try:
                return call(*inputs)
            except Exception as error:
                if not is_out_of_memory(error) or rows == 1:
                    raise
                log.warning("out of memory with %d rows (%s); retrying in halves", rows, error)
            self._max_rows[shape] = rows - rows // 2
        halves = [
            tuple(tensor[rows_of_half] for tensor in inputs)
            for rows_of_half in (slice(rows // 2), slice(rows // 2, None))
        ]
        return torch.cat([self.call(call, half) for half in halves])


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

MAX_TRIED_S = 0.25
"""Seconds of a step with all threads above which one thread isn't tried: the trial would be heard as a delay."""

_NEWEST_TIMING_WEIGHT = 0.4
"""Weight of the newest measurement in the mean of a thread count."""


@dataclass
class ThreadTuner:
    """Chooses one thread or `max_threads` for each kind of work by measured seconds.

    Work is a step, or the decoding of a sound. A single slow step is ignored, because other processes may have caused
    it; two in a row count.

    >>> tuner = ThreadTuner(2)
    >>> for seconds in (0.09, 0.09, 0.03, 0.03): tuner.record("work", tuner.choose_threads("work"), seconds)
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
        with_all = self._seconds.get((work, self.max_threads))
        if with_all is None:
            return self._begin_trial(work, self.max_threads)
        if (work, 1) not in self._seconds:
            return self.max_threads if with_all > MAX_TRIED_S else self._begin_trial(work, 1)
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


TIME_AXIS = 2
"""Time axis of latents and spectrograms, (batch, channels, time, bands)."""


class _CircularState(threading.local):
    """Mask of circular rows of the current thread; calls are traced and run in different threads."""

    circular_mask: torch.Tensor | None = None


_state = _CircularState()


@contextmanager
def circular_time(mask: torch.Tensor) -> Generator[None]:
    """Make convolutions circular for some rows.

    `mask` is 1 for each circular row of the batch and 0 for the others, or has one value for all.
    """
    previous, _state.circular_mask = _state.circular_mask, mask
    try:
        yield
    finally:
        _state.circular_mask = previous


def is_circular() -> bool:
    """Tell if the current thread is inside `circular_time`."""
    return _state.circular_mask is not None


class CircularConv2d(torch.nn.Conv2d):
    """A convolution whose first axis is time; plain unless `circular_time` is active."""

    def _conv_forward(
        self,
        input: torch.Tensor,  # noqa: A002  the base's name
        weight: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        padding, mask = self.padding, _state.circular_mask
        if mask is None or isinstance(padding, str) or padding[0] == 0:
            return super()._conv_forward(input, weight, bias)
        reach, row_mask = padding[0], mask.to(input.dtype)[:, None, None, None]
        wrapped = torch.cat([input[:, :, -reach:] * row_mask, input, input[:, :, :reach] * row_mask], dim=TIME_AXIS)
        return torch.nn.functional.conv2d(
            wrapped, weight, bias, self.stride, (0, padding[1]), self.dilation, self.groups
        )


def make_circular(module: torch.nn.Module) -> None:
    """Replace a network's convolutions by `CircularConv2d`, which changes nothing until `circular_time` is used."""
    for part in module.modules():
        if type(part) is torch.nn.Conv2d:
            part.__class__ = CircularConv2d
