"""Placement: which waiting job goes to which engine. Pure: the same inputs give the same choice.

A job goes to the engine on which it should be finished first. That is expected from measured times:

    finish = max(wait for jobs before it, wait for its model) + its own rendering

- Wait for jobs before it: an engine renders jobs of a lower rank first, then in the order of arrival, and those of
  equal `batch_key` together. A batch takes as long as its longest job, and `batch_cost` times each other job more.
- Wait for its model: none where it is resident, so that such engines come first. Elsewhere the load, after the loads
  that were ordered before, and what is lost by the eviction of other models if memory is short: least where these
  were not used for the longest time. Rendering and loading overlap.
- Its own rendering takes longer in a batch, by `batch_cost` for each job that is in it already.

A job whose best engine has no room waits, which counts as work of that engine for the jobs behind it. So when many
jobs of one model wait, the last of them wait for longer than a load takes, and another engine loads the model too.

A job that was overtaken by `MAX_OVERTAKEN` later jobs takes the first engine with room. A `live` job is always placed
at once, and only other live jobs count as work before it. A job that was in an engine when that was lost runs alone;
the engine that will be free first is kept free for it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

MAX_OVERTAKEN = 16
"""Later jobs of the same or a lower priority that may be placed before a waiting job."""

LOOKAHEAD_JOBS = 32
"""Waiting jobs that are considered for one placement, in the order in which they will run."""

BATCH_COSTS = {"cuda": 0.2, "mps": 0.7, "cpu": 0.85}
"""Part of a job's rendering time that each further job adds to a batch, by type of device.

Chosen conservatively: an engine with a faster batch is ready earlier than expected.
"""

EVICTION_HALF_LIFE_S = 60.0
"""Seconds without use after which the reload of an evicted model counts half."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Needs of one waiting job.

    Attributes:
        number: Number of the job.
        model: Its model.
        rank: 0 for live, 1 for normal, 2 for background.
        batch_key: Jobs of equal keys can share a batch.
        seconds: Expected duration of its rendering, by kind of device.
        load_seconds: Expected duration of loading its model, by kind of device.
        model_bytes: Memory that its model takes; 0 if unknown.
        runs_alone: True for a job that was in an engine when that was lost.
        overtaken: Later jobs that were placed before it.
    """

    number: int
    model: str
    rank: int
    batch_key: object
    seconds: Mapping[str, float]
    load_seconds: Mapping[str, float]
    model_bytes: int = 0
    runs_alone: bool = False
    overtaken: int = 0


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job that an engine holds; `seconds` is its expected remaining duration."""

    rank: int
    batch_key: object
    seconds: float
    runs_alone: bool = False


@dataclass(frozen=True, slots=True)
class Backlog:
    """The work of an engine that goes before a job of one rank.

    Attributes:
        seconds: Duration of all of it.
        batches: Number of jobs and duration of each batch, by batch key.
    """

    seconds: float
    batches: Mapping[object, tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Eviction:
    """A resident model without jobs: the bytes that its eviction frees, and the seconds that it counts as."""

    freed_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """State of one engine. Moments are of the caller's clock.

    Attributes:
        number: Number of the engine.
        kind: Kind of its device; engines of one kind take the same time for the same job.
        batch_cost: Part of a job's duration that each further job adds to a batch.
        as_of: Moment at which its durations were expected.
        job_count: Jobs that it holds.
        room: Further jobs that it takes; `live` ones are always taken.
        backlogs: Work before a job of each rank.
        first_end_s: Seconds until the first of its jobs should be done.
        resident: Models in its memory.
        ready_at: Moments at which the models that are being loaded should be resident.
        loads_until: Moment at which all loads should be done.
        model_memory: Memory that its models may use; infinity if unknown.
        free_bytes: The part of it that is free.
        evictions: Models that it can evict, the least recently used first.
    """

    number: int
    kind: str
    batch_cost: float
    as_of: float
    job_count: int
    room: int
    backlogs: tuple[Backlog, Backlog, Backlog]
    first_end_s: float
    resident: frozenset[str]
    ready_at: Mapping[str, float] = field(default_factory=dict[str, float])
    loads_until: float = 0.0
    model_memory: float = math.inf
    free_bytes: float = math.inf
    evictions: tuple[Eviction, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """The next job to be placed: its index among the waiting jobs, and the number of its engine."""

    index: int
    engine: int


def backlogs_of(held: Sequence[HeldJob], batch_cost: float) -> tuple[Backlog, Backlog, Backlog]:
    """Return the work of these jobs that goes before a job of each rank.

    >>> [backlog.seconds for backlog in backlogs_of([HeldJob(0, "a", 2.0), HeldJob(2, "a", 4.0)], 0.25)]
    [2.0, 2.0, 4.5]
    """
    return _backlog(held, 0, batch_cost), _backlog(held, 1, batch_cost), _backlog(held, 2, batch_cost)


def _backlog(held: Sequence[HeldJob], rank: int, batch_cost: float) -> Backlog:
    batches: dict[object, list[float]] = {}
    for job in held:
        if job.rank <= rank:
            batches.setdefault(job.batch_key, []).append(job.seconds)
    durations = {key: (len(jobs), max(jobs) + batch_cost * (sum(jobs) - max(jobs))) for key, jobs in batches.items()}
    return Backlog(sum(seconds for _, seconds in durations.values()), durations)


def room_in(held: Sequence[HeldJob], jobs_at_once: int) -> int:
    """Return the number of further jobs that an engine takes: none beside one that runs alone."""
    if any(job.runs_alone for job in held):
        return 0
    return max(0, jobs_at_once - len(held))


def eviction_seconds(load_seconds: float, idle_s: float) -> float:
    """Return the seconds that the eviction of a model counts as: its load, less the longer it wasn't used.

    >>> eviction_seconds(4.0, 0.0), eviction_seconds(4.0, 60.0)
    (4.0, 2.0)
    """
    return load_seconds * EVICTION_HALF_LIFE_S / (EVICTION_HALF_LIFE_S + max(0.0, idle_s))


def load_wait(demand: Demand, engine: EngineLoad, now: float) -> float:
    """Return the seconds until an engine should have a job's model; infinity if it is too large for that engine.

    Models whose jobs an engine holds can be evicted once these are done.
    """
    if demand.model in engine.resident:
        return 0.0
    if demand.model in engine.ready_at:
        return max(0.0, engine.ready_at[demand.model] - now)
    if demand.model_bytes > engine.model_memory:
        return math.inf
    seconds = demand.load_seconds[engine.kind] + max(0.0, engine.loads_until - now)
    freed = engine.free_bytes
    for eviction in engine.evictions:
        if freed >= demand.model_bytes:
            return seconds
        freed += eviction.freed_bytes
        seconds += eviction.seconds
    return seconds if freed >= demand.model_bytes else seconds + engine.backlogs[2].seconds


def choose_engine(
    demand: Demand, engines: Sequence[EngineLoad], now: float, queued_s: Mapping[int, float], kept: frozenset[int]
) -> tuple[EngineLoad | None, EngineLoad | None]:
    """Return the engine on which a job should be finished first, and the first one among those with room.

    Engines are compared by the expected finish; one with room, then one with fewer jobs, then the first one comes
    before others of the same finish.

    Args:
        demand: The job.
        engines: All engines that are up.
        now: The moment.
        queued_s: Work of earlier waiting jobs, by number of the engine that they wait for.
        kept: Numbers of engines that are kept free for another job.
    """
    rank, model, key, runs_alone = demand.rank, demand.model, demand.batch_key, demand.runs_alone
    durations = demand.seconds
    best: EngineLoad | None = None
    best_open: EngineLoad | None = None
    best_finish = best_open_finish = math.inf
    for engine in engines:  # without calls where possible: with 64 engines each one takes microseconds
        elapsed = now - engine.as_of
        backlog = engine.backlogs[rank]
        finish = durations[engine.kind]
        wait = backlog.seconds - elapsed
        batch = backlog.batches.get(key)
        if batch is not None:
            wait -= batch[1]
            finish *= 1.0 + engine.batch_cost * batch[0]
        if model not in engine.resident:
            load_s = load_wait(demand, engine, now)
            wait = load_s if load_s > wait else wait
        is_open = engine.job_count == 0 if runs_alone else engine.room > 0 or rank == 0
        if kept and engine.number in kept:
            is_open = False
        if not is_open:
            free_s = (engine.backlogs[2].seconds if runs_alone else engine.first_end_s) - elapsed
            wait = free_s if free_s > wait else wait
        if queued_s:
            wait += queued_s.get(engine.number, 0.0)
        if wait > 0.0:
            finish += wait
        if best is None or finish < best_finish or (finish == best_finish and engine.job_count < best.job_count):
            best, best_finish = engine, finish
        if is_open and (
            best_open is None
            or finish < best_open_finish
            or (finish == best_open_finish and engine.job_count < best_open.job_count)
        ):
            best_open, best_open_finish = engine, finish
    if best_open is not None and best_open_finish <= best_finish:
        best = best_open
    return best, best_open


def place(waiting: Iterable[Demand], engines: Sequence[EngineLoad], now: float) -> Placement | None:
    """Return the next job to be placed, with its engine; None while all jobs wait.

    Args:
        waiting: The waiting jobs in the order in which they will run: by rank, then by arrival.
        engines: All engines that are up.
        now: The moment.
    """
    has_room = any(engine.room > 0 for engine in engines)
    queued_s: dict[int, float] = {}
    kept: frozenset[int] = frozenset()
    for index, demand in zip(range(LOOKAHEAD_JOBS), waiting, strict=False):
        if not engines or not (has_room or demand.rank == 0 or demand.runs_alone):
            return None
        best, best_open = choose_engine(demand, engines, now, queued_s, kept)
        if best_open is not None and (
            best is best_open or demand.rank == 0 or demand.runs_alone or demand.overtaken >= MAX_OVERTAKEN
        ):
            return Placement(index, best_open.number)
        assert best is not None
        if demand.runs_alone:
            kept |= {best.number}
        queued_s[best.number] = queued_s.get(best.number, 0.0) + _share(demand, best)
    return None


def _share(demand: Demand, engine: EngineLoad) -> float:
    """Return the seconds that a waiting job adds to the work of its engine, in a batch where it can be in one."""
    seconds = demand.seconds[engine.kind]
    batch = engine.backlogs[2].batches.get(demand.batch_key)
    if batch is None:
        return seconds
    count = batch[0]
    return seconds * (1.0 + engine.batch_cost * (count - 1)) / count
