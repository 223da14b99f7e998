"""Which models give way when another needs room. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Resident:
    """A model in memory: its size in bytes, when it was last used, and whether a job is using it now."""

    name: str
    memory: int
    last_used: float
    in_use: bool


def to_evict(residents: Sequence[Resident], needed: int, budget: int) -> list[str]:
    """The models to drop so that `needed` bytes fit into `budget`: least recently used first, never one in use.

    Where even that doesn't suffice, everything that may go goes: the device itself says whether it is enough.

    >>> old, new = Resident("old", 6, 1.0, False), Resident("new", 6, 2.0, False)
    >>> to_evict([new, old], 4, 12)
    ['old']
    >>> to_evict([new, old], 4, 16)
    []
    """
    occupied = sum(resident.memory for resident in residents)
    leaving: list[str] = []
    for resident in sorted((one for one in residents if not one.in_use), key=lambda one: one.last_used):
        if occupied + needed <= budget:
            break
        leaving.append(resident.name)
        occupied -= resident.memory
    return leaving
