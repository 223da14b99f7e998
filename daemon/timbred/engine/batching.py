"""Selection of the jobs that take the next step together, and errors of batches."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from timbred import errors
from timbred.caches import RecentDict


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
