"""The engine rests for a render loop: how long, and that it does so after each of its steps."""

import queue
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timbred.engine import device, wire
from timbred.engine import engine as engine_module
from timbred.engine.engine import Engine
from timbred.engine.rest import LONGEST, rest_after

FINITE: dict[str, Any] = {"allow_nan": False, "allow_infinity": False}


@given(st.floats(0, 10, **FINITE), st.floats(1, 1000, **FINITE))
def test_a_rest_is_whole_frames_as_long_as_the_work_and_at_least_one(busy: float, frame_rate: float) -> None:
    rest = rest_after(busy, frame_rate)
    assert 0 < rest <= LONGEST
    if rest < LONGEST:
        frames = rest * frame_rate
        assert frames == pytest.approx(round(frames), abs=1e-6)
        assert rest >= min(busy, LONGEST) - 1e-5
        assert rest <= busy + 1 / frame_rate + 1e-5


class Letters:
    """The mailbox's place: orders as they are taken, events as they are sent."""

    def __init__(self) -> None:
        self.orders: queue.Queue[Any] = queue.Queue()
        self.sent: list[str] = []

    def start(self) -> None: ...

    def close(self) -> None: ...

    def forget(self, job: int) -> None: ...

    def is_cancelled(self, job: int) -> bool:
        return False

    def send(self, message: wire.Wire, *payload: bytes) -> None:
        self.sent.append(type(message).__name__)
        if isinstance(message, wire.Rendered):
            self.orders.put(wire.Quit())


@pytest.mark.parametrize("frame_rate", [0.0, 60.0])
def test_it_rests_after_each_step_and_only_when_told(
    audioldm2: Path, monkeypatch: pytest.MonkeyPatch, frame_rate: float
) -> None:
    letters = Letters()

    def mailbox(*_: object) -> Letters:
        return letters

    monkeypatch.setattr(engine_module, "Mailbox", mailbox)
    rests: list[float] = []
    monkeypatch.setattr(engine_module.time, "sleep", rests.append)
    order = wire.RenderOrder(
        words=wire.Words(prompt="kick"), seconds=0.3, steps=3, guidance=1.0, eta=0.0, scheduler="ddim", seeds=(1,)
    )
    subject = Engine(device.Device(torch.device("cpu"), "CPU", torch.float32), "", "", 1.0)
    letters.orders.put(wire.GiveWay(frame_rate=frame_rate))
    letters.orders.put(wire.Render(job=1, model=wire.ModelSource(name="tiny", folder=str(audioldm2)), order=order))
    subject.run()
    assert letters.sent.count("Step") == 3
    assert letters.sent[-1] == "Rendered"
    if frame_rate:
        assert len(rests) >= 3
        assert all(rest * 60 == pytest.approx(round(rest * 60)) and rest > 0 for rest in rests)
    else:
        assert rests == []
