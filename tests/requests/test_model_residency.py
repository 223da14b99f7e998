"""`load` and `unload` with several engines, and what the daemon knows of their memory."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.requests.test_resolve import resolved
from tests.requests.test_scheduler import CARD, READY
from timbred import errors
from timbred.audio import Clip
from timbred.ipc import engine_messages
from timbred.ipc.devices import EnginePlace
from timbred.models import registry
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId
from timbred.requests.model_residency import MAX_GROUP_BYTES, split_words
from timbred.requests.scheduler import JobScheduler

CLIENT = ClientId("a")


class Sent:
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[m.Event] = []

    def send(self, client: ClientId, event: m.Event, clip: Clip | None = None) -> None:
        self.events.append(event)

    def send_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        raise AssertionError("nobody asked for a list")


class Engine:
    """Keeps its orders, except those of every new engine."""

    def __init__(self, number: int) -> None:
        self.place = EnginePlace(number=number)
        self.up = True
        self.orders: list[engine_messages.ToEngine] = []

    def send(self, message: engine_messages.ToEngine) -> bool:
        if not isinstance(message, engine_messages.SetYield):
            self.orders.append(message)
        return True

    def kinds(self) -> list[type]:
        """The kinds of its orders since the last call."""
        kinds = [type(order) for order in self.orders]
        self.orders.clear()
        return kinds


class Stage:
    """A scheduler with engines that are up, and what they say."""

    def __init__(self, engines: int = 1, *, up: bool = True) -> None:
        self.sent = Sent()
        self.engines = [Engine(number) for number in range(1, engines + 1)]
        finishing: Any = None
        entries = registry.build(registry.pocket_folder(), {})
        self.scheduler = JobScheduler(self.sent, entries, finishing, lambda _: self.engines)
        self.loads = self.scheduler.loads
        if up:
            for number in range(1, engines + 1):
                self.scheduler.engine_ready(number, READY)

    def say(self, message: engine_messages.FromEngine, engine: int = 1) -> None:
        self.scheduler.engine_message_received(engine, message, [])

    def loaded(self, engine: int = 1, memory: int = 7) -> None:
        self.say(engine_messages.ModelLoaded(model=resident(memory)), engine)

    def unloaded(self, engine: int = 1) -> None:
        self.say(engine_messages.ModelUnloaded(name="pocket"), engine)

    def events(self) -> list[m.Event]:
        """The events since the last call."""
        events = list(self.sent.events)
        self.sent.events.clear()
        return events

    @property
    def sizes(self) -> list[dict[str, int]]:
        return [record.sizes for record in self.scheduler.engines.records.values()]


def resident(memory: int, name: str = "pocket") -> engine_messages.ResidentModel:
    return engine_messages.ResidentModel(name=name, memory=memory)


def beat(*models: engine_messages.ResidentModel) -> engine_messages.EngineHeartbeat:
    return engine_messages.EngineHeartbeat(memory_used=50, memory_total=100, resident=models)


LOADED, UNLOADED = m.Loaded(model="pocket"), m.Unloaded(model="pocket")


def with_pocket(engines: int = 1) -> Stage:
    """A stage whose first engine has the model."""
    stage = Stage(engines)
    stage.loads.load(CLIENT, "pocket")
    assert stage.engines[0].kinds() == [engine_messages.LoadModel]
    assert stage.events() == []
    stage.loaded()
    assert stage.events() == [LOADED]
    return stage


def test_load_requests_keep_the_latest_size_from_the_engine():
    stage = with_pocket()
    assert stage.sizes == [{"pocket": 7}]
    stage.say(beat(resident(9)))
    assert stage.sizes == [{"pocket": 9}]
    assert stage.scheduler.engines.memory == (50, 100)


def test_load_requests_ignore_an_earlier_heartbeat():
    stage = with_pocket()
    stage.unloaded()
    stage.say(beat(resident(7), resident(3, "bell")))
    assert stage.sizes == [{}]


def test_load_requests_load_a_model_anew_that_is_being_unloaded():
    stage = with_pocket()
    stage.loads.unload(CLIENT, "pocket")
    assert not stage.scheduler.engines.is_resident("pocket")
    stage.loads.load(CLIENT, "pocket")
    assert stage.events() == []
    stage.unloaded()
    stage.loaded()
    assert stage.events() == [UNLOADED, LOADED]
    assert stage.scheduler.engines.is_resident("pocket")


def test_load_requests_answer_two_unloads_together():
    stage = with_pocket()
    stage.loads.unload(CLIENT, "pocket")
    stage.loads.unload(CLIENT, "pocket")
    assert stage.engines[0].kinds() == [engine_messages.UnloadModel]
    assert stage.events() == []
    stage.unloaded()
    assert stage.events() == [UNLOADED] * 2


def test_load_requests_load_a_model_into_one_engine():
    stage = with_pocket(engines=2)
    assert stage.engines[1].orders == []
    stage.loads.load(CLIENT, "pocket")
    assert stage.events() == [LOADED]
    assert stage.engines[1].orders == []


def test_load_requests_preload_a_model_into_every_engine():
    stage = Stage(2, up=False)
    stage.loads.preload("pocket")
    assert stage.loads.is_loading("pocket")
    for number in (1, 2):
        stage.scheduler.engine_ready(number, READY)
        assert stage.engines[number - 1].kinds() == [engine_messages.LoadModel]
        stage.loaded(number)
    assert not stage.loads.is_loading("pocket")
    assert stage.scheduler.engines.residents()["pocket"] == {1: 7, 2: 7}


def test_load_requests_unload_a_model_from_all_engines():
    stage = Stage(3)
    stage.loaded(1)
    stage.loaded(3)
    stage.loads.unload(CLIENT, "pocket")
    assert [engine.kinds() for engine in stage.engines] == [
        [engine_messages.UnloadModel],
        [],
        [engine_messages.UnloadModel],
    ]
    stage.unloaded(3)
    assert stage.events() == []
    stage.scheduler.engine_lost(1, "killed")
    assert stage.events() == [UNLOADED], "what was lost is unloaded too"


def test_load_requests_wait_for_the_first_engine():
    stage = Stage(2, up=False)
    stage.loads.load(CLIENT, "pocket")
    stage.scheduler.engine_ready(2, READY)
    assert stage.engines[1].kinds() == [engine_messages.LoadModel]
    stage.scheduler.engine_ready(1, READY)
    assert stage.engines[0].kinds() == []
    stage.loaded(2)
    assert stage.events() == [LOADED]


def test_load_requests_fail_with_the_engine_that_loads_only():
    stage = Stage(2)
    stage.loads.load(CLIENT, "pocket")
    stage.say(engine_messages.JobFailed(code="out-of-memory", message="full", model="pocket"), engine=2)
    stage.scheduler.engine_lost(2, "killed")
    assert stage.events() == []
    stage.scheduler.engine_lost(1, "killed")
    (failure,) = stage.events()
    assert isinstance(failure, m.Fail)
    assert (failure.id, failure.code) == ("load", "worker-lost")
    stage.scheduler.engine_ready(2, READY)
    stage.loads.load(CLIENT, "pocket")
    stage.say(engine_messages.JobFailed(code="out-of-memory", message="full", model="pocket"), engine=2)
    (failure,) = stage.events()
    assert isinstance(failure, m.Fail)
    assert (failure.id, failure.code) == ("load", "out-of-memory")


def test_load_requests_are_refused_when_no_engine_can_be_started():
    stage = Stage(2, up=False)
    stage.loads.load(CLIENT, "pocket")
    stage.scheduler.engine_cannot_start(1, "no GPU")
    assert stage.events() == []
    assert stage.scheduler.engines.state == "starting"
    stage.scheduler.engine_cannot_start(2, "no memory")
    (failure,) = stage.events()
    assert isinstance(failure, m.Fail)
    assert "engine 1: no GPU; engine 2: no memory" in failure.message
    with pytest.raises(errors.WorkerLost, match="engine 1: no GPU"):
        stage.loads.load(CLIENT, "pocket")
    stage.scheduler.engine_ready(2, READY)
    assert (stage.scheduler.engines.state, stage.scheduler.engines.trouble) == ("up", "")


async def test_model_residency_renders_a_trial_once_an_engine_is_up():
    stage = Stage(2, up=False)
    measuring = asyncio.ensure_future(stage.scheduler.calibration.measure(resolved(CARD, model="pocket")))
    await asyncio.sleep(0)
    stage.scheduler.engine_ready(2, READY)
    assert stage.engines[1].kinds() == [engine_messages.RenderJob]
    stage.scheduler.engine_lost(1, "killed")
    assert not measuring.done()
    stage.scheduler.engine_lost(2, "killed")
    with pytest.raises(errors.WorkerLost, match="ended while it was timed"):
        await measuring


def test_split_words_keeps_every_word_in_texts_that_fit():
    words = [f"bell {number} é" for number in range(900)]
    texts = split_words(words)
    assert ", ".join(texts).split(", ") == words
    assert 2 < len(texts) < 6
    assert max(len(text.encode()) for text in texts) <= MAX_GROUP_BYTES
    assert split_words([]) == []
