"""What the daemon knows of the engine's memory."""

from collections.abc import Sequence

from timbred.audio import Clip
from timbred.ipc import engine_messages
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId
from timbred.requests.model_residency import ModelResidency

CLIENT = ClientId("a")
SOURCE = engine_messages.ModelSource(name="pad", folder="/models/pad")


class Sent:
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[m.Event] = []

    def send(self, client: ClientId, event: m.Event, clip: Clip | None = None) -> None:
        self.events.append(event)

    def send_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        raise AssertionError("nobody asked for a list")


def resident(memory: int, name: str = "pad") -> engine_messages.ResidentModel:
    return engine_messages.ResidentModel(name=name, memory=memory)


def beat(*models: engine_messages.ResidentModel) -> engine_messages.EngineHeartbeat:
    return engine_messages.EngineHeartbeat(memory_used=50, memory_total=100, resident=models)


def with_pad() -> tuple[ModelResidency, Sent]:
    sent = Sent()
    subject = ModelResidency(sent)
    assert subject.request_load(CLIENT, SOURCE)
    subject.engine_message_received(engine_messages.ModelLoaded(model=resident(7)))
    assert sent.events.pop() == m.Loaded(model="pad")
    return subject, sent


def test_model_residency_keeps_the_latest_size_from_the_engine():
    subject, _ = with_pad()
    assert subject.sizes == {"pad": 7}
    subject.engine_message_received(beat(resident(9)))
    assert subject.sizes == {"pad": 9}
    assert (subject.memory_used, subject.memory_total) == (50, 100)


def test_model_residency_ignores_an_earlier_heartbeat():
    subject, _ = with_pad()
    subject.engine_message_received(engine_messages.ModelUnloaded(name="pad"))
    subject.engine_message_received(beat(resident(7), resident(3, "bell")))
    assert subject.sizes == {}


def test_model_residency_does_not_report_a_model_that_is_being_unloaded():
    """Whoever wants it then has it loaded anew."""
    subject, sent = with_pad()
    assert subject.request_unload(CLIENT, "pad")
    assert not subject.is_resident("pad")
    assert subject.request_load(CLIENT, SOURCE)
    assert sent.events == []
    subject.engine_message_received(engine_messages.ModelUnloaded(name="pad"))
    subject.engine_message_received(engine_messages.ModelLoaded(model=resident(7)))
    assert sent.events == [m.Unloaded(model="pad"), m.Loaded(model="pad")]
    assert subject.is_resident("pad")


def test_model_residency_answers_two_unload_requests_together():
    subject, sent = with_pad()
    assert subject.request_unload(CLIENT, "pad")
    assert not subject.request_unload(CLIENT, "pad")
    assert sent.events == []
    subject.engine_message_received(engine_messages.ModelUnloaded(name="pad"))
    assert sent.events == [m.Unloaded(model="pad")] * 2
