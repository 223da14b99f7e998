"""The scheduler hands on the pieces of a sound, under the id of the take to be, and says when they break off."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.requests.test_resolve import resolved
from tests.requests.test_scheduler import READY
from timbred.dsp.pipeline import StreamPiece
from timbred.ipc import engine_messages
from timbred.ipc.devices import EnginePlace
from timbred.models import registry
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId
from timbred.requests.completion import SoundListener
from timbred.requests.job import Job
from timbred.requests.postprocess import Postprocessor
from timbred.requests.scheduler import JobScheduler
from timbred.storage.library import Library
from timbred.storage.takes_folder import TakesFolder

CLIENT = ClientId("udp:a:1")
RATE, FRAMES = 16000, 3200


class Outbox:
    """Notes what clients are told, and calls `told` after each."""

    def __init__(self) -> None:
        self.events: list[m.Event] = []
        self.reported: Callable[[m.Event], None] = lambda _: None

    def send(self, client: ClientId, event: m.Event, clip: Any = None) -> None:
        self.events.append(event)
        self.reported(event)


class Engine:
    """Takes every order."""

    up = True
    place = EnginePlace()

    def __init__(self) -> None:
        self.orders: list[engine_messages.ToEngine] = []

    def send(self, message: engine_messages.ToEngine) -> bool:
        self.orders.append(message)
        return True


class Stage(SoundListener):
    """A scheduler that works on one job, and what it says of it."""

    def __init__(self, folder: Path, **keys: Any) -> None:
        self.outbox, self.engine = Outbox(), Engine()
        entries = registry.build(registry.pocket_folder(), {})
        library = Library(folder / "library.sqlite")
        finishing = Postprocessor(TakesFolder(folder, library), library, lambda _: "none")
        outbox: Any = self.outbox
        self.received: list[tuple[str, Any]] = []
        self.scheduler = JobScheduler(outbox, entries, finishing, lambda _: [self.engine], self)
        self.scheduler.engine_ready(1, READY)
        keys = {"model": "pocket", "seconds": 0.2, "to": "both", "voice": "1", **keys}
        self.scheduler.submit(CLIENT, "a", resolved(entries["pocket"].card, **keys))
        (self.job,) = self.scheduler.jobs.live()

    def pieces_discarded(self, job: Job) -> None:
        self.received.append(("broken", None))

    def piece(self, job: Job, piece: StreamPiece) -> None:
        self.received.append((job.streamed_take_id, (piece.first, piece.samples.shape, piece.last)))

    def say(self, first: int, last: int) -> None:
        message = engine_messages.PieceRendered(
            job=self.job.number, rate=RATE, channels=1, first=first, frames=FRAMES, peak=0.5, last=last == FRAMES
        )
        self.scheduler.engine_message_received(1, message, [memoryview(samples()[first:last].tobytes())])

    def order(self) -> engine_messages.RenderOrder:
        (order,) = [one.order for one in self.engine.orders if isinstance(one, engine_messages.RenderJob)][-1:]
        return order


def samples() -> np.ndarray:
    return (0.5 * np.sin(np.arange(FRAMES) / 9)).astype("<f4")


async def test_job_scheduler_sends_pieces_then_the_take_under_one_id(tmp_path: Path):
    await pieces_then_take(tmp_path)


async def pieces_then_take(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert stage.order().is_streamed
    stage.say(0, 1000)
    stage.say(1000, FRAMES)
    rendered = engine_messages.JobRendered(job=stage.job.number, rate=RATE, channels=1, seeds=stage.order().seeds)
    stage.scheduler.engine_message_received(1, rendered, [memoryview(samples().tobytes())])
    await stage.scheduler.stop(20.0)
    identity = stage.job.streamed_take_id
    assert stage.received == [(identity, (0, (1000, 1), False)), (identity, (1000, (FRAMES - 1000, 1), True))]
    take, done = stage.outbox.events[-2:]
    assert isinstance(take, m.Take)
    assert isinstance(done, m.Done)
    assert take.take_id == identity != ""


@pytest.mark.parametrize("how", ["cancelled", "failed", "lost", "lost twice"])
async def test_job_scheduler_reports_a_sound_that_breaks_off(tmp_path: Path, how: str):
    await breaks_off(tmp_path, how)


async def breaks_off(tmp_path: Path, how: str) -> None:
    stage = Stage(tmp_path)
    stage.say(0, 1000)
    first = stage.received[0][0]
    match how:
        case "cancelled":
            stage.scheduler.cancel(stage.job)
            stage.say(1000, 2000)
            stage.scheduler.engine_message_received(1, engine_messages.JobCancelled(job=stage.job.number), [])
        case "failed":
            failed = engine_messages.JobFailed(code="model-error", message="no", job=stage.job.number)
            stage.scheduler.engine_message_received(1, failed, [])
        case _:
            stage.scheduler.engine_lost(1, "it ended")
    assert [one for one, _ in stage.received] == [first, "broken"]
    if how == "lost twice":
        stage.scheduler.engine_ready(1, READY)
        stage.say(0, 1000)
        stage.scheduler.engine_lost(1, "it ended")
        assert [one for one, _ in stage.received][2:] == [stage.received[2][0], "broken"]
        assert stage.received[2][0] not in ("", first)
    await stage.scheduler.stop(0.1)


@pytest.mark.parametrize(
    ("keys", "early"),
    [
        ({}, True),
        ({"peak": "off"}, True),
        ({"takes": 2}, False),
        ({"trim": True}, False),
        ({"loop": True}, False),
        ({"loudness": -14.0}, False),
        ({"exact": True}, False),
        ({"to": "file"}, False),
    ],
    ids=str,
)
def test_job_scheduler_requests_pieces_only_when_they_suffice(keys: dict[str, Any], early: bool):
    played = {} if "to" in keys else {"to": "both", "voice": "1"}
    assert resolved(**played, **keys).order().is_streamed is early
