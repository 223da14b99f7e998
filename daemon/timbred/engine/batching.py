"""Which jobs take the next step together. Pure: knows nothing of models or devices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


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
