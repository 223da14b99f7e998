"""Placement: which waiting job goes to which engine, and what holds for every state of the engines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timbred.requests.placement import (
    MAX_OVERTAKEN,
    Demand,
    EngineLoad,
    Eviction,
    HeldJob,
    Placement,
    backlogs_of,
    choose_engine,
    load_wait,
    place,
    room_in,
)

LIVE, NORMAL, BACKGROUND = 0, 1, 2
NOW = 100.0
KINDS = ("cpu", "cuda")
SECONDS = {"cpu": 8.0, "cuda": 1.0}
LOAD_SECONDS = {"cpu": 2.0, "cuda": 5.0}


def demand(number: int = 1, model: str = "pad", rank: int = NORMAL, key: object = "k", **more: object) -> Demand:
    values: dict[str, object] = {"seconds": SECONDS, "load_seconds": LOAD_SECONDS, "model_bytes": 10, **more}
    return Demand(number, model, rank, key, **values)  # pyright: ignore[reportArgumentType]


def engine(
    number: int,
    *held: HeldJob,
    kind: str = "cuda",
    models: Sequence[str] = ("pad",),
    at_once: int = 2,
    **more: object,
) -> EngineLoad:
    cost = {"cuda": 0.2, "cpu": 0.85}[kind]
    values: dict[str, object] = {"resident": frozenset(models), **more}
    return EngineLoad(
        number,
        kind,
        cost,
        NOW,
        len(held),
        room_in(held, at_once),
        backlogs_of(held, cost),
        min((job.seconds for job in held), default=0.0),
        **values,  # pyright: ignore[reportArgumentType]
    )


def job(rank: int = NORMAL, key: object = "other", seconds: float = 4.0, alone: bool = False) -> HeldJob:
    return HeldJob(rank, key, seconds, alone)


def chosen(waiting: Sequence[Demand], *engines: EngineLoad) -> Placement | None:
    return place(waiting, engines, NOW)


def test_place_prefers_the_engine_that_has_the_model():
    assert chosen([demand()], engine(1, models=()), engine(2)) == Placement(0, 2)


def test_place_prefers_an_idle_engine_to_a_batch():
    assert chosen([demand()], engine(1, job(key="k")), engine(2)) == Placement(0, 2)


def test_place_prefers_a_batch_to_a_load():
    assert chosen([demand()], engine(1, job(key="k")), engine(2, models=())) == Placement(0, 1)


def test_place_prefers_a_batch_that_a_job_can_share():
    assert chosen([demand()], engine(1, job(key="x")), engine(2, job(key="k"))) == Placement(0, 2)


def test_place_prefers_the_faster_kind_of_device():
    assert chosen([demand()], engine(1, kind="cpu"), engine(2, job())) == Placement(0, 2)
    assert chosen([demand()], engine(1, kind="cpu"), engine(2, job(seconds=9.0))) == Placement(0, 1)


def test_place_waits_for_an_engine_that_will_be_faster_than_a_load():
    full = engine(1, job(seconds=0.5), at_once=1)
    assert chosen([demand()], full, engine(2, models=())) is None
    assert chosen([demand(1), demand(2, model="bell")], full, engine(2, models=("bell",))) == Placement(1, 2)


def test_place_loads_a_model_again_when_many_jobs_wait_for_it():
    full = engine(1, job(key="k", seconds=0.5), at_once=1)
    queue = [demand(number) for number in range(10)]
    placed = chosen(queue, full, engine(2, models=()))
    assert placed is not None
    assert placed.engine == 2
    assert placed.index > 2, "the first ones have their turn before a load would be done"
    assert chosen(queue, full, engine(2, models=(), model_memory=5.0)) is None, "the model doesn't fit there"


def test_place_evicts_models_where_they_were_not_used_for_long():
    recent = engine(1, models=("a",), free_bytes=0.0, evictions=(Eviction(10, 4.0),))
    unused = engine(2, models=("b",), free_bytes=0.0, evictions=(Eviction(10, 0.5),))
    empty = engine(3, models=(), free_bytes=10.0)
    assert chosen([demand()], recent, unused) == Placement(0, 2)
    assert chosen([demand()], recent, unused, empty) == Placement(0, 3)


def test_load_wait_counts_loads_before_it_and_models_in_use():
    assert load_wait(demand(), engine(1), NOW) == 0.0
    assert load_wait(demand(), engine(1, models=(), loads_until=NOW + 3.0), NOW) == 8.0
    assert load_wait(demand(), engine(1, models=(), ready_at={"pad": NOW + 1.5}), NOW) == 1.5
    assert load_wait(demand(), engine(1, job(seconds=7.0), models=("a",), free_bytes=0.0), NOW) == 12.0
    assert load_wait(demand(), engine(1, models=(), model_memory=9.0), NOW) == math.inf


def test_place_runs_a_job_of_a_lost_engine_alone():
    again = demand(runs_alone=True)
    busy = engine(1, job(seconds=1.0)), engine(2, job(seconds=2.0))
    assert chosen([again], *busy) is None
    assert chosen([again, demand(2)], *busy) == Placement(1, 2), "the engine that is free first is kept for it"
    assert chosen([again], engine(1), busy[1]) == Placement(0, 1)
    assert chosen([demand()], engine(1, job(seconds=5.0, alone=True)), busy[1]) == Placement(0, 2)


def test_place_takes_any_engine_once_a_job_was_overtaken_often():
    full = engine(1, job(seconds=0.5), at_once=1)
    late = demand(overtaken=MAX_OVERTAKEN)
    assert chosen([late], full, engine(2, models=())) == Placement(0, 2)


def test_place_without_an_engine_waits():
    assert place([demand(), demand(rank=LIVE)], [], NOW) is None


def test_place_tries_engines_that_are_all_too_small():
    assert chosen([demand()], engine(1, models=(), model_memory=1.0)) == Placement(0, 1)


MODELS = ("pad", "bell", "rain")
HELD = st.builds(
    HeldJob, st.integers(0, 2), st.sampled_from("ab"), st.floats(0.0, 60.0), st.sampled_from([False, False, True])
)


@st.composite
def engines_strategy(draw: st.DrawFn) -> list[EngineLoad]:
    return [
        engine(
            number,
            *draw(st.lists(HELD, max_size=4)),
            kind=draw(st.sampled_from(KINDS)),
            models=draw(st.lists(st.sampled_from(MODELS), max_size=3)),
            at_once=draw(st.integers(1, 4)),
            free_bytes=draw(st.sampled_from([0.0, 10.0, math.inf])),
            model_memory=draw(st.sampled_from([5.0, 100.0, math.inf])),
            ready_at=draw(st.dictionaries(st.sampled_from(MODELS), st.floats(NOW, NOW + 9), max_size=1)),
            loads_until=draw(st.floats(NOW - 1, NOW + 9)),
            evictions=tuple(draw(st.lists(st.builds(Eviction, st.integers(1, 20), st.floats(0, 9)), max_size=2))),
        )
        for number in range(1, draw(st.integers(1, 6)) + 1)
    ]


@st.composite
def queue_strategy(draw: st.DrawFn) -> list[Demand]:
    demands = [
        demand(
            number,
            draw(st.sampled_from(MODELS)),
            draw(st.integers(0, 2)),
            draw(st.sampled_from("ab")),
            runs_alone=draw(st.sampled_from([False, False, False, True])),
            overtaken=draw(st.integers(0, MAX_OVERTAKEN)),
        )
        for number in range(draw(st.integers(0, 8)))
    ]
    return sorted(demands, key=lambda one: (one.rank, not one.runs_alone, one.number))


@given(queue_strategy(), engines_strategy())
def test_place_gives_the_same_choice_for_the_same_inputs(waiting: list[Demand], engines: list[EngineLoad]):
    assert place(waiting, engines, NOW) == place(iter(waiting), tuple(engines), NOW)


@given(queue_strategy(), engines_strategy())
def test_place_puts_no_job_into_a_full_engine_but_live_ones(waiting: list[Demand], engines: list[EngineLoad]):
    placed = place(waiting, engines, NOW)
    if placed is None:
        return
    one = waiting[placed.index]
    (target,) = [load for load in engines if load.number == placed.engine]
    if one.runs_alone:
        assert target.job_count == 0
    elif one.rank != LIVE:
        assert target.room > 0


@given(engines_strategy(), st.sampled_from(MODELS))
def test_place_never_lets_a_live_job_wait(engines: list[EngineLoad], model: str):
    assert place([demand(model=model, rank=LIVE)], engines, NOW) is not None


@given(engines_strategy(), st.sampled_from(MODELS), st.data())
def test_choose_engine_counts_no_background_work_before_a_live_job(
    engines: list[EngineLoad], model: str, data: st.DataObject
):
    """Whatever background jobs engines hold, a live job is expected to be finished on the same engine as without."""
    held = [data.draw(st.lists(HELD, max_size=4)) for _ in engines]
    with_all = [replace(load, backlogs=backlogs_of(jobs, 0.2)) for load, jobs in zip(engines, held, strict=True)]
    live_only = [
        replace(load, backlogs=backlogs_of([job for job in jobs if job.rank == LIVE], 0.2))
        for load, jobs in zip(engines, held, strict=True)
    ]
    if any(load.free_bytes == 0.0 for load in engines):  # memory that running jobs need can't be freed for anybody
        return
    live = demand(model=model, rank=LIVE)
    best, _ = choose_engine(live, with_all, NOW, {}, frozenset())
    expected, _ = choose_engine(live, live_only, NOW, {}, frozenset())
    assert best is not None
    assert expected is not None
    assert best.number == expected.number


@dataclass
class _Worker:
    """An engine of a small simulation that renders one job after the other, in the order of rank and arrival."""

    number: int
    kind: str
    at_once: int
    models: set[str] = field(default_factory=set[str])
    held: list[Demand] = field(default_factory=list[Demand])

    def load(self) -> EngineLoad:
        jobs = [HeldJob(one.rank, one.batch_key, one.seconds[self.kind], one.runs_alone) for one in self.held]
        return engine(self.number, *jobs, kind=self.kind, models=sorted(self.models), at_once=self.at_once)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 3)), min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from(MODELS), st.integers(0, 2), st.booleans()), min_size=1, max_size=60),
    st.lists(st.integers(0, 3), min_size=200, max_size=200),
)
def test_place_starves_no_job(workers: list[tuple[str, int]], arrivals: list[tuple[str, int, bool]], turns: list[int]):
    """Every job is placed, and overtaken by few, in whatever order jobs arrive and engines finish them."""
    engines = [_Worker(number, kind, at_once) for number, (kind, at_once) in enumerate(workers, 1)]
    coming = [
        demand(number, model, rank, model, runs_alone=alone) for number, (model, rank, alone) in enumerate(arrivals)
    ]
    waiting: list[Demand] = []
    done: set[int] = set()
    for turn in range(20 * len(arrivals) + 20):
        if coming and (turn % 8 == 0 or turns[turn % len(turns)]):
            waiting.append(coming.pop(0))
            waiting.sort(key=lambda one: (one.rank, not one.runs_alone, one.number))
        while placed := place(waiting, [one.load() for one in engines], NOW):
            passed = [replace(one, overtaken=one.overtaken + 1) for one in waiting[: placed.index]]
            one = waiting[placed.index]
            waiting = passed + waiting[placed.index + 1 :]
            target = engines[placed.engine - 1]
            target.models.add(one.model)
            target.held.append(one)
            assert one.rank == LIVE or one.runs_alone or len(target.held) <= target.at_once
        worker = engines[turns[turn % len(turns)] % len(engines)]
        worker = worker if worker.held else next((other for other in engines if other.held), worker)
        if worker.held:
            done.add(worker.held.pop(0).number)
    assert not waiting
    assert done == set(range(len(arrivals)))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_backlogs_of_a_batch_take_little_longer_than_one_job(count: int):
    *_, backlog = backlogs_of([job(key="k", seconds=2.0)] * count, 0.25)
    assert backlog.seconds == pytest.approx(2.0 + 0.5 * (count - 1))
    assert backlog.batches["k"][0] == count
