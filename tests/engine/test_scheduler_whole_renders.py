"""Jobs whose steps run at once: only alone, when they are short, and when nobody needs what happens in between."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import structs

import timbred.engine.scheduler as engine_module
from tests.engine.families.renders import wave_order
from tests.engine.recorded_calls import RecordedCall
from tests.engine.test_scheduler_pauses import FakeLink
from timbred.engine import device
from timbred.engine.compile import compiled_calls
from timbred.engine.compile.compiled_calls import CompileQueue
from timbred.engine.diffusion import whole_render
from timbred.engine.scheduler import EngineScheduler
from timbred.ipc import engine_messages

ORDER = wave_order(scheduler="ping-pong", guidance=1.0, steps=4)
EACH, ONCE = [1, 2, 3, 4], [4]
"""Reported steps of a job step by step, and at once."""


class Sequential(FakeLink):
    """Sends groups of jobs, each after all sounds of the one before; keeps the reported steps of each job."""

    def __init__(self, groups: Sequence[Sequence[engine_messages.RenderJob]]) -> None:
        super().__init__()
        self.steps: dict[int, list[int]] = {}
        self._groups = list(groups)
        self._missing = 0
        self._send_next()

    def send(self, message: engine_messages.EngineMessage, *payload: bytes) -> None:
        if isinstance(message, engine_messages.StepDone):
            self.steps.setdefault(message.job, []).append(message.step)
        assert not isinstance(message, engine_messages.JobFailed), message
        if isinstance(message, engine_messages.JobRendered):
            self._missing -= 1
            if not self._missing:
                self._send_next()

    def _send_next(self) -> None:
        if not self._groups:
            self.inbox.put(engine_messages.QuitEngine())
            return
        jobs = self._groups.pop(0)
        self._missing = len(jobs)
        for job in jobs:
            self.inbox.put(job)


def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, groups: Sequence[Sequence[dict[str, Any]]], frame_rate: float = 0.0
) -> list[list[int]]:
    """Run an engine as on CUDA; returns the reported steps of each job, by number."""
    for module in (whole_render, compiled_calls):
        monkeypatch.setattr(module, "CudaGraphCall", RecordedCall)
    for name in ("records_graphs", "uses_inductor"):
        monkeypatch.setattr(CompileQueue, name, True)
    monkeypatch.setattr(CompileQueue, "submit", lambda *_: None)  # pyright: ignore[reportUnknownLambdaType]
    numbers = iter(range(100))

    def job(**keys: Any) -> engine_messages.RenderJob:
        model = engine_messages.ModelSource(name="tiny", folder=str(folder))
        order = keys.pop("order", ORDER)
        return engine_messages.RenderJob(job=next(numbers), model=model, order=order, **keys)

    link = Sequential([[job(**keys) for keys in group] for group in groups])

    def make_link(*_: object) -> FakeLink:
        return link

    monkeypatch.setattr(engine_module, "DaemonLink", make_link)
    subject = EngineScheduler(
        device.ComputeDevice(torch.device("cpu"), "CPU", torch.float32), "", "", 1.0, compile_setting="auto"
    )
    subject.frame_rate = frame_rate
    subject.run()
    return [link.steps[number] for number in sorted(link.steps)]


@pytest.fixture(autouse=True)
def short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps are short enough, however slow the machine is."""
    monkeypatch.setattr(engine_module, "MAX_WHOLE_RENDER_S", 1e9)


def test_engine_scheduler_runs_a_job_at_once_when_its_duration_is_known(
    stable_audio_3: Path, monkeypatch: pytest.MonkeyPatch
):
    other = {"order": structs.replace(ORDER, seconds=0.2)}
    groups = [[{}], [{}], [other], [other], [{}]]
    assert run(stable_audio_3, monkeypatch, groups) == [EACH, ONCE, EACH, ONCE, ONCE]


@pytest.mark.parametrize(
    "keys",
    [{"order": structs.replace(ORDER, preview=True)}, {"order": structs.replace(ORDER, exact=True)}, {"within": 1e6}],
    ids=["preview", "exact", "deadline"],
)
def test_engine_scheduler_runs_single_steps_where_progress_is_needed(
    stable_audio_3: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
):
    assert run(stable_audio_3, monkeypatch, [[{}], [keys], [{}]]) == [EACH, EACH, ONCE]


def test_engine_scheduler_runs_single_steps_beside_other_jobs(stable_audio_3: Path, monkeypatch: pytest.MonkeyPatch):
    assert run(stable_audio_3, monkeypatch, [[{}], [{}, {}], [{}]]) == [EACH, EACH, EACH, ONCE]


def test_engine_scheduler_runs_single_steps_beside_a_render_loop(stable_audio_3: Path, monkeypatch: pytest.MonkeyPatch):
    assert run(stable_audio_3, monkeypatch, [[{}], [{}]], frame_rate=60.0) == [EACH, EACH]


def test_engine_scheduler_runs_single_steps_where_a_cancel_would_wait_too_long(
    stable_audio_3: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_module, "MAX_WHOLE_RENDER_S", 1e-9)
    assert run(stable_audio_3, monkeypatch, [[{}], [{}]]) == [EACH, EACH]
