"""The engine rests for a render loop: how long, and that it does so after each of its steps."""

import queue
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timbred.engine import device
from timbred.engine import scheduler as engine_module
from timbred.engine.batching import MAX_PAUSE_S, yield_duration
from timbred.engine.scheduler import EngineScheduler
from timbred.ipc import engine_messages

ROOT = Path(__file__).parents[2]
FINITE: dict[str, Any] = {"allow_nan": False, "allow_infinity": False}


@given(st.floats(0, 10, **FINITE), st.floats(1, 1000, **FINITE))
def test_yield_duration_is_whole_frames_as_long_as_the_work_and_at_least_one(busy: float, frame_rate: float) -> None:
    rest = yield_duration(busy, frame_rate)
    assert 0 < rest <= MAX_PAUSE_S
    if rest < MAX_PAUSE_S:
        frames = rest * frame_rate
        assert frames == pytest.approx(round(frames), abs=1e-6)
        assert rest >= min(busy, MAX_PAUSE_S) - 1e-5
        assert rest <= busy + 1 / frame_rate + 1e-5


class FakeLink:
    """A link to the daemon: orders as they are taken, events as they are sent."""

    def __init__(self) -> None:
        self.inbox: queue.Queue[Any] = queue.Queue()
        self.sent: list[str] = []

    def start(self) -> None: ...

    def close(self) -> None: ...

    def forget(self, job: int) -> None: ...

    def is_cancelled(self, job: int) -> bool:
        return False

    def send(self, message: engine_messages.EngineMessage, *payload: bytes) -> None:
        self.sent.append(type(message).__name__)
        if isinstance(message, engine_messages.JobRendered):
            self.inbox.put(engine_messages.QuitEngine())


@pytest.mark.parametrize("frame_rate", [0.0, 60.0])
def test_engine_scheduler_pauses_after_each_step_and_only_when_set(
    audioldm2: Path, monkeypatch: pytest.MonkeyPatch, frame_rate: float
) -> None:
    link = FakeLink()

    def make_link(*_: object) -> FakeLink:
        return link

    monkeypatch.setattr(engine_module, "DaemonLink", make_link)
    rests: list[float] = []
    monkeypatch.setattr(engine_module.time, "sleep", rests.append)
    order = engine_messages.RenderOrder(
        inputs=engine_messages.PromptInputs(prompt="kick"),
        seconds=0.3,
        steps=3,
        guidance=1.0,
        eta=0.0,
        scheduler="ddim",
        seeds=(1,),
    )
    subject = EngineScheduler(device.ComputeDevice(torch.device("cpu"), "CPU", torch.float32), "", "", 1.0)
    link.inbox.put(engine_messages.SetYield(frame_rate=frame_rate))
    link.inbox.put(
        engine_messages.RenderJob(
            job=1, model=engine_messages.ModelSource(name="tiny", folder=str(audioldm2)), order=order
        )
    )
    subject.run()
    assert link.sent.count("StepDone") == 3
    assert link.sent[-1] == "JobRendered"
    if frame_rate:
        assert len(rests) >= 3
        assert all(rest * 60 == pytest.approx(round(rest * 60)) and rest > 0 for rest in rests)
    else:
        assert rests == []


FIRST_RENDER = """
import sys
import torch
from tests.engine.test_scheduler_pauses import FakeLink
from timbred.engine import device, scheduler
from timbred.ipc.engine_messages import LoadModel, ModelLoaded, ModelSource, PromptInputs, RenderJob, RenderOrder
from timbred.models.registry import pocket_folder

class Link(FakeLink):
    def send(self, message, *payload):
        super().send(message, *payload)
        if isinstance(message, ModelLoaded):
            before.update(sys.modules)
            self.inbox.put(RenderJob(job=1, model=source, order=order))

before, link, source = set(), Link(), ModelSource(name="pocket", folder=str(pocket_folder()))
scheduler.DaemonLink = lambda *_: link
order = RenderOrder(
    inputs=PromptInputs(prompt="kick"), seconds=0.3, steps=4, guidance=1.0, eta=0.0, scheduler="flow-euler", seeds=(1,)
)
link.inbox.put(LoadModel(model=source))
scheduler.EngineScheduler(device.ComputeDevice(torch.device("cpu"), "CPU", torch.float32), "", "", 1.0).run()
assert link.sent[-1] == "JobRendered", link.sent
print(sorted(set(sys.modules) - before))
"""


def test_engine_scheduler_imports_nothing_during_the_first_render() -> None:
    """PyTorch's compiler, for instance, takes a second of it."""
    command = [sys.executable, "-c", FIRST_RENDER]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
