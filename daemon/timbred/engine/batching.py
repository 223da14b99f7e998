"""Which jobs take the next step together. Pure: knows nothing of models or devices."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from timbred import errors
from timbred.caches import RecentDict


@dataclass(frozen=True)
class Candidate:
    """A job that could take a step. Those of equal `group` can share a call of the network.

    `rank` is 0 for live, 1 for normal, 2 for background; `rows` is how much of a batch it takes; `number` orders jobs
    by arrival; `alone` is for jobs that must not share. `pressing` is the moment by which a job is wanted that has no
    time to spare.
    """

    number: int
    group: object
    rank: int
    rows: int
    alone: bool = False
    pressing: float = math.inf


def next_batch(candidates: Sequence[Candidate], most_rows: int) -> list[Candidate]:
    """The jobs that step next: the first by rank and arrival, and those that can join it.

    Others join only in their turn (rank, then arrival) while their rows fit; one that doesn't fit is passed over, for
    it loses nothing by a smaller one going first. Lower ranks wait while a live job runs: company would slow it down.
    One that has no time to spare goes before all, the one that is wanted soonest first, and has no company.
    """
    if len(candidates) < 2:
        return list(candidates)
    in_turn = sorted(candidates, key=lambda one: (one.pressing, one.rank, one.number))
    first = in_turn[0]
    if first.alone or first.pressing < math.inf:
        return [first]
    batch, rows = [first], first.rows
    for other in in_turn[1:]:
        joins = other.group == first.group and not other.alone and (first.rank > 0 or other.rank == 0)
        if joins and rows + other.rows <= most_rows:
            batch.append(other)
            rows += other.rows
    return batch


LONGEST = 1.0
"""Seconds that one rest lasts at most: a cancellation waits no longer than that."""


def rest_after(busy: float, frame_rate: float) -> float:
    """Seconds of rest after `busy` seconds of work: as long again, in whole frames, and at least one frame.

    A render loop of `frame_rate` frames a second so has the device for half of the time or more, and for at least one
    whole frame between any two steps.

    >>> rest_after(0.040, 50.0), rest_after(0.001, 50.0)
    (0.04, 0.02)
    """
    frames = max(1, math.ceil(round(busy * frame_rate, 6)))
    return min(LONGEST, frames / frame_rate)


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device, or the computer, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)


def translate(error: Exception) -> errors.TimbredError:
    """A fault of torch or a model as an error with a wire code."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if is_out_of_memory(error):
        return errors.OutOfMemory(f"the device's memory is full ({text})")
    if isinstance(error, errors.TimbredError | OSError):
        return errors.from_foreign(error)
    return errors.ModelError(f"the model failed: {type(error).__name__}: {text[:300]}")


def is_fatal(error: Exception) -> bool:
    """Whether the device is beyond use for this process (a CUDA context never recovers from such a fault)."""
    return not isinstance(error, torch.OutOfMemoryError) and "CUDA error" in str(error)


log = logging.getLogger("timbred.engine.memory")

MAX_SHAPES = 1024
"""Shapes of rows that are known to have no room for all: the latest."""


@dataclass
class BatchSplitter:
    """What is known of how many rows there is room for, by the shape of a row."""

    _most: RecentDict[tuple[int, ...], int] = field(
        default_factory=lambda: RecentDict[tuple[int, ...], int](MAX_SHAPES)
    )

    def call(self, call: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """A call on a batch; where memory is short, on its halves one after the other, and so on down to single rows.

        Raises:
            Exception: the call's own, out of memory only where a single row has no room.
        """
        rows, shape = len(inputs[0]), tuple(inputs[0].shape[1:])
        if rows <= self._most.get(shape, rows):
            try:
                return call(*inputs)
            except Exception as error:
                if not is_out_of_memory(error) or rows == 1:
                    raise
                log.warning("memory ran out with %d rows (%s); they go on in halves", rows, error)
            self._most[shape] = rows - rows // 2
        halves = [tuple(one[part] for one in inputs) for part in (slice(rows // 2), slice(rows // 2, None))]
        return torch.cat([self.call(call, half) for half in halves])
