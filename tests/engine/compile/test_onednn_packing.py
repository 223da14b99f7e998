"""Copies of weights that make calls faster: counted, held once, and the first to go."""

import asyncio
import gc
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import checkpoints
from tests.engine.families.test_latent_diffusion import loudened
from tests.engine.memory.test_device_memory import render, source, until
from tests.forked_programs import ENGINE, forked_command
from tests.ipc.test_engine_client import EventRecorder
from tests.patience import TIMEOUT_S
from timbred.engine.batching import BatchSplitter
from timbred.engine.compile import compiled_calls
from timbred.engine.compile.compiled_calls import CALLS_BEFORE_COMPILING, CompileQueue
from timbred.engine.device import count_module_bytes
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.component_loader import SharedComponents
from timbred.engine.memory.device_memory import DeviceMemory
from timbred.engine.model_manager import make_resident
from timbred.ipc import engine_messages
from timbred.ipc.engine_client import EngineLink, EngineSettings
from timbred.models import checkpoint

CPU = torch.device("cpu")


def load(
    folder: Path, workshop: CompileQueue, shared: SharedComponents, places: DeviceMemory | None = None
) -> LatentDiffusion:
    found = checkpoint.inspect(folder, folder.name, "")
    model = loudened(make_resident(found, folder.name, CPU, torch.float32, lambda _: None, shared, places))
    model.use_compile_queue(workshop)
    return model


def with_another_network(folder: Path, tmp_path: Path) -> Path:
    """A checkpoint that has all but the UNet in common with this one."""
    sibling = Path(shutil.copytree(folder, tmp_path / "sibling"))
    shutil.rmtree(sibling / "unet")
    shutil.copytree(checkpoints.audioldm(tmp_path / "other", seed=1) / "unet", sibling / "unet")
    return sibling


def decode_often(model: LatentDiffusion, rows: int = 1) -> None:
    latents = torch.randn((rows, *model.latent_layout.shape(0.5)))
    for _ in range(CALLS_BEFORE_COMPILING):
        model.codec.decode(latents)
    model.stages.compile_queue.wait()
    model.codec.decode(latents)


def test_onednn_packing_shares_the_copy_of_a_shared_decoder(audioldm: Path, tmp_path: Path):
    workshop, shared = CompileQueue("auto", CPU, tmp_path), SharedComponents()
    one = load(audioldm, workshop, shared)
    two = load(with_another_network(audioldm, tmp_path), workshop, shared)
    decode_often(one)
    assert workshop.counts.packed == 1
    assert (
        0.3 * count_module_bytes(one.pipeline.vae) < workshop.copied_bytes < 1.5 * count_module_bytes(one.pipeline.vae)
    )
    assert one.copied_bytes == two.copied_bytes == workshop.copied_bytes
    decode_often(two)
    assert workshop.counts.packed == 1
    assert one.denoiser.compiled_calls is not two.denoiser.compiled_calls


def test_onednn_packing_copies_are_freed_with_the_last_model_without_a_cycle_search(audioldm: Path, tmp_path: Path):
    workshop, shared = CompileQueue("auto", CPU, tmp_path), SharedComponents()
    # in a list: a name of this frame can hold its value longer, since a coverage tool's `f_locals` refers to it too
    models = [load(audioldm, workshop, shared), load(with_another_network(audioldm, tmp_path), workshop, shared)]
    decode_often(models[0])
    gc.collect()
    gc.disable()
    try:
        held = workshop.copied_bytes
        models.pop()
        assert workshop.copied_bytes == held > 0
        models.pop()
        assert workshop.copied_bytes == 0
    finally:
        gc.enable()


def test_onednn_packing_makes_copies_only_with_room(audioldm: Path, tmp_path: Path):
    room: list[bool] = []
    workshop = CompileQueue("auto", CPU, tmp_path, has_room=lambda: bool(room))
    model = load(audioldm, workshop, SharedComponents())
    decode_often(model)
    assert (workshop.counts.packed, workshop.copied_bytes) == (0, 0)
    room.append(True)
    decode_often(model)
    assert workshop.counts.packed == 1
    assert workshop.copied_bytes > 0


def test_onednn_packing_drops_the_least_recently_used_copies_first(audioldm: Path, audioldm2: Path, tmp_path: Path):
    workshop = CompileQueue("auto", CPU, tmp_path)
    old, new = (load(folder, workshop, SharedComponents()) for folder in (audioldm, audioldm2))
    for model in (old, new):
        decode_often(model)
    assert old.copied_bytes
    assert new.copied_bytes
    assert not workshop.free_bytes(0)
    assert workshop.free_bytes(1)
    assert old.copied_bytes == 0
    assert new.copied_bytes
    decode_often(old)  # it is worth it again
    assert old.copied_bytes


def test_onednn_packing_drops_the_copy_of_a_replaced_shape(
    audioldm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A shape that is in use keeps its copy; one that has not been called for a while is replaced."""
    workshop = CompileQueue("auto", CPU, tmp_path)
    model = load(audioldm, workshop, SharedComponents())
    model.codec.compiled_calls._max_shapes = 1  # pyright: ignore[reportPrivateUsage]
    decode_often(model)
    once = workshop.copied_bytes
    decode_often(model, rows=2)
    assert workshop.counts.packed == 1
    assert workshop.copied_bytes == once
    monkeypatch.setattr(compiled_calls, "MIN_UNUSED_S", 0.0)
    decode_often(model, rows=2)
    assert workshop.counts.packed == 2
    assert workshop.copied_bytes < 1.5 * once


def test_device_memory_frees_packed_copies_before_parts_of_the_model(audioldm: Path, tmp_path: Path):
    workshop = CompileQueue("auto", CPU, tmp_path)
    model = load(audioldm, workshop, SharedComponents(), DeviceMemory(CPU, 10**9))
    decode_often(model)
    whole = model.stages.device_memory.used_bytes
    tries: list[tuple[bool, int]] = []

    def work() -> None:
        tries.append((workshop.copied_bytes > 0, model.stages.device_memory.used_bytes))
        if len(tries) < 3:
            raise torch.OutOfMemoryError("full")

    model.stages.run_stage("denoiser", work)
    assert tries == [
        (True, whole),
        (False, whole),
        (False, sum(map(count_module_bytes, model.stages.parts["denoiser"]))),
    ]
    decode_often(model)
    rows: list[int] = []

    def call(given: torch.Tensor) -> torch.Tensor:
        rows.append(len(given))
        if workshop.copied_bytes:
            raise torch.OutOfMemoryError("full")
        return given

    batches = BatchSplitter()
    model.stages.run_stage("denoiser", lambda: batches.call(call, (torch.ones(4, 1),)))
    assert rows == [4, 2, 1, 1, 1, 1, 1]  # smaller batches first; once the copies are gone, as small as they were found


class WithBeats(EventRecorder):
    """Keeps the last figures too."""

    def __init__(self) -> None:
        super().__init__()
        self.beats: asyncio.Queue[dict[str, int]] = asyncio.Queue()

    def engine_message_received(
        self, engine: int, message: engine_messages.FromEngine, payload: Sequence[memoryview]
    ) -> None:
        if isinstance(message, engine_messages.EngineHeartbeat):
            self.beats.put_nowait({one.name: one.memory for one in message.resident})
        super().engine_message_received(engine, message, payload)

    async def reported(self, name: str, more_than: int = 0, less_than: int = 1 << 62) -> int:
        """The figure of a model as soon as it is in this range."""
        while True:
            figures = await asyncio.wait_for(self.beats.get(), TIMEOUT_S)
            if more_than < figures.get(name, -1) < less_than:
                return figures[name]


@contextmanager
def started(**settings: Any) -> Generator[tuple[EngineLink, WithBeats]]:
    recorder = WithBeats()
    yield (
        EngineLink(
            EngineSettings(
                program=forked_command(ENGINE), threads=1, heartbeat_s=0.05, timeout_s=TIMEOUT_S, **settings
            ),
            recorder,
        ),
        recorder,
    )


async def test_engine_reports_packed_copies_and_frees_them_before_a_model(audioldm: Path, tmp_path: Path):
    """Memory for two models, but not for packed copies too.

    A continuing job makes the copies, the second model's load frees them, and the first model stays. Heartbeats arrive
    while the job runs.
    """
    one, two = source("one", audioldm), source("two", checkpoints.audioldm(tmp_path / "two", seed=5))
    size = load(audioldm, CompileQueue("off", CPU, tmp_path), SharedComponents()).weight_bytes

    with started(memory=2.1 * size / 1e6, compile="auto", cache=str(tmp_path / "cache")) as (link, recorder):
        link.start()
        try:
            await until(recorder, engine_messages.EngineReady)
            assert link.send(engine_messages.LoadModel(model=one))
            loaded = (await until(recorder, engine_messages.ModelLoaded))[-1].model
            assert abs(loaded.memory - size) < 0.01 * size
            job = 1
            assert link.send(render(job, one, steps=900))
            with_copies = asyncio.create_task(recorder.reported("one", more_than=loaded.memory))
            while not with_copies.done():
                kinds = engine_messages.StepDone | engine_messages.JobRendered
                said = await until(recorder, kinds)  # pyright: ignore
                if isinstance(said[-1], engine_messages.JobRendered):
                    job += 1
                    assert link.send(render(job, one, steps=900))
            assert with_copies.result() < 2.2 * size
            assert link.send(engine_messages.LoadModel(model=two))
            messages = await until(recorder, engine_messages.ModelLoaded)
            assert not [message for message in messages if isinstance(message, engine_messages.ModelUnloaded)]
            while not recorder.beats.empty():
                recorder.beats.get_nowait()
            assert await recorder.reported("one", less_than=loaded.memory + 1) == loaded.memory
        finally:
            await link.stop(5.0)
