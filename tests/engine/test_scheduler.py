"""A job that has no time to spare steps before all others and alone; one that has shares the network as any other."""

from pathlib import Path
from typing import Any

import pytest
import torch

import timbred.engine.scheduler as engine_module
from tests.engine.families.test_latent_diffusion import order
from tests.engine.test_scheduler_pauses import FakeLink
from timbred.engine import device
from timbred.engine.scheduler import EngineScheduler
from timbred.ipc import engine_messages

OTHER, WANTED = 1, 2
STEPS = {OTHER: 12, WANTED: 6}


class Steps(FakeLink):
    """Keeps whose steps were done, in order; ends the engine after both sounds."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.rendered = 0

    def send(self, message: engine_messages.EngineMessage, *payload: bytes) -> None:
        if isinstance(message, engine_messages.StepDone):
            self.steps.append(message.job)
        self.rendered += isinstance(message, engine_messages.JobRendered)
        if self.rendered == len(STEPS):
            self.inbox.put(engine_messages.QuitEngine())


@pytest.mark.parametrize(
    ("within", "rank", "expected"),
    [
        (None, 0, [OTHER, WANTED] * 6 + [OTHER] * 6),
        (0.0, 0, [WANTED] * 6 + [OTHER] * 12),
        (0.0, 2, [WANTED] * 6 + [OTHER] * 12),
        # how long it takes is seen with its first step
        (1e6, 0, [WANTED] + [OTHER, WANTED] * 5 + [OTHER] * 7),
    ],
)
def test_engine_scheduler_steps_urgent_jobs_first_and_alone(
    audioldm2: Path, monkeypatch: pytest.MonkeyPatch, within: float | None, rank: int, expected: list[int]
) -> None:
    link = Steps()

    def make_link(*_: object) -> Steps:
        return link

    monkeypatch.setattr(engine_module, "DaemonLink", make_link)
    subject = EngineScheduler(device.ComputeDevice(torch.device("cpu"), "CPU", torch.float32), "", "", 1.0)
    model = engine_messages.ModelSource(name="tiny", folder=str(audioldm2))
    keys: dict[int, dict[str, Any]] = {OTHER: {"rank": 0}, WANTED: {"rank": rank, "within": within}}
    for job, steps in STEPS.items():
        link.inbox.put(engine_messages.RenderJob(job=job, model=model, order=order(steps=steps), **keys[job]))
    subject.run()
    assert link.steps == expected
