"""Calls on batches that are made smaller when memory is short."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from timbred.engine.faults import is_out_of_memory
from timbred.engine.kept import RecentDict

log = logging.getLogger("timbred.engine.memory")

MAX_SHAPES = 1024
"""Shapes of rows that are known to have no room for all: the latest."""


@dataclass
class Batches:
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
