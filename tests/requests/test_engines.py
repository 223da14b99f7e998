"""The records of engines: their states, what they share, and what placement knows of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.requests.test_eta import Clock
from tests.requests.test_model_residency import CLIENT, Engine, Stage, beat, resident
from tests.requests.test_resolve import resolved
from tests.requests.test_scheduler import CARD, READY
from timbred.ipc import engine_messages
from timbred.models import registry
from timbred.requests.deadline import EtaEstimates
from timbred.requests.engines import ENGINE_TRANSITIONS, EngineGroup, EngineRecord, EngineState
from timbred.requests.job import Job, JobStore, State

SOUND = resolved(CARD, model="pocket")
GPU = structs.replace(READY, device="cuda:0", device_name="card", model_memory=100)


@given(st.lists(st.sampled_from(EngineState), max_size=6))
def test_engine_record_moves_by_its_table_only(states: list[EngineState]):
    record = EngineRecord(1, Engine(1))
    for state in states:
        before = record.state
        if state in ENGINE_TRANSITIONS[before]:
            record.move(state)
            assert record.state is state
        else:
            with pytest.raises(RuntimeError, match="can't go from"):
                record.move(state)
            assert record.state is before


def test_engine_group_counts_the_memory_of_a_shared_device_once():
    stage = Stage(3)
    stage.scheduler.engine_lost(3, "killed")
    stage.scheduler.engine_ready(3, GPU)
    for number in (1, 2, 3):
        stage.say(beat(), number)
    assert stage.scheduler.engines.memory == (150, 200), "two engines on the CPU, one on a GPU"


def test_engine_group_describes_engines_that_are_not_up():
    stage = Stage(2, up=False)
    stage.scheduler.engine_cannot_start(1, "no GPU")
    stage.scheduler.engine_ready(2, GPU)
    stage.loaded(2)
    first, second = stage.scheduler.engines.describe()
    assert (first.state, first.device, first.trouble, first.models) == ("failed", "auto", "no GPU", "")
    assert (second.state, second.device, second.name, second.models) == ("up", "cuda:0", "card, float32", "pocket")


class Group:
    """A group with one GPU that holds jobs."""

    def __init__(self) -> None:
        self.clock, self.jobs = Clock(), JobStore()
        self.estimates = EtaEstimates()
        entries = registry.build(registry.pocket_folder(), {})
        self.group = EngineGroup(entries, [Engine(1)], self.jobs, self.estimates, self.clock)
        self.group.engine_ready(1, GPU)
        self.group.model_loaded(1, resident(30))

    def hold(self, number: int, seconds: float) -> Job:
        """A job in the engine that should be done after some seconds."""
        job = Job(number, CLIENT, number, SOUND, engine=1, expected_end=self.clock.now + seconds)
        self.jobs.add(job)
        job.move(State.RENDERING)
        return job


def test_engine_group_expects_a_late_job_to_take_as_long_again():
    stage = Group()
    stage.hold(1, 2.0)
    assert stage.group.loads()[0].first_end_s == 2.0
    stage.clock.now = 3.0
    assert stage.group.loads()[0].first_end_s == 1.0
    stage.clock.now = 10.0
    assert stage.group.loads()[0].first_end_s == 8.0


def test_engine_group_knows_what_an_engine_can_evict():
    stage = Group()
    (load,) = stage.group.loads()
    assert (load.kind, load.free_bytes, load.model_memory, load.room) == ("cuda card, float32", 70, 100, 8)
    assert [eviction.freed_bytes for eviction in load.evictions] == [30]
    stage.hold(1, 2.0)
    (load,) = stage.group.loads()
    assert (load.room, load.evictions) == (7, ())
    stage.group.order_load(stage.group.records[1], "pocket")
    (load,) = stage.group.loads()
    assert list(load.ready_at) == ["pocket"]
    stage.group.model_unloaded(1, "pocket")
    (load,) = stage.group.loads()
    assert load.resident == frozenset()


def test_engine_group_times_loads_for_all_engines_of_a_kind():
    stage = Group()
    stage.group.order_load(stage.group.records[1], "pocket")
    stage.clock.now += 7.0
    stage.group.model_loaded(1, resident(30))
    assert stage.estimates.of_load("pocket", "cuda card, float32") == 7.0
    assert stage.estimates.of_load("pocket", "another kind") == 7.0
    assert stage.group.demand(SOUND, 1).load_seconds == {}, "it is resident"


def test_engine_group_sends_cancellations_to_the_engine_of_the_job():
    stage = Stage(2)
    stage.scheduler.engines.cancel(2, 5)
    stage.scheduler.engines.cancel(0, 6)
    assert [engine.kinds() for engine in stage.engines] == [[], [engine_messages.CancelJob]]
