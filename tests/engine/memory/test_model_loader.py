"""A load beside those who generate: they take their steps whatever part of it is slow, and whatever is urgent passes.

Everything here is an order of events: a part of the load begins, and ends only when the test has seen enough.
"""

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.engine.memory.test_device_memory import cancel, render, source, until
from tests.forked_programs import forked_command
from tests.ipc.test_engine_client import EventRecorder, engine
from tests.patience import TIMEOUT_S
from timbred.ipc import engine_messages
from timbred.ipc.engine_client import EngineLink
from timbred.models.families import AUDIOLDM


class Gate:
    """The slow model's parts as they come; each waits until `go_on`."""

    def __init__(self) -> None:
        self._begun: asyncio.Queue[tuple[str, asyncio.StreamWriter]] = asyncio.Queue()
        self._writer: asyncio.StreamWriter | None = None
        self._open = False

    async def came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = (await reader.readline()).decode().strip()
        if self._open:
            writer.close()
        else:
            self._begun.put_nowait((name, writer))

    async def next(self) -> str:
        name, self._writer = await asyncio.wait_for(self._begun.get(), TIMEOUT_S)
        return name

    def go_on(self) -> None:
        assert self._writer is not None
        self._writer.close()

    def open(self) -> None:
        """Let this part and all others pass."""
        self._open = True
        self.go_on()


@asynccontextmanager
async def slow_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[tuple[EngineLink, EventRecorder, Gate]]:
    gate = Gate()
    path = tmp_path / "gate"
    monkeypatch.setenv("TIMBRED_TEST_GATE", str(path))
    async with (
        await asyncio.start_unix_server(gate.came, path),
        engine(forked_command("tests.engine.slow_worker")) as (link, recorder),
    ):
        await until(recorder, engine_messages.EngineReady)
        yield link, recorder, gate


def copy_of(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


class Generating:
    """One sound after the other, whose steps are counted."""

    def __init__(self, link: EngineLink, recorder: EventRecorder, model: engine_messages.ModelSource) -> None:
        self.link = link
        self.recorder = recorder
        self.model = model
        self.job = 0
        self.steps = 0
        self.begin()

    def begin(self) -> None:
        self.job += 1
        self.steps = 0
        assert self.link.send(render(self.job, self.model, steps=900))

    async def next(self) -> engine_messages.StepDone | engine_messages.ModelLoaded:
        """The next step, or the end of a load; steps come one by one, and each once."""
        while True:
            message, _ = await self.recorder.next()
            if isinstance(message, engine_messages.StepDone):
                assert (message.job, message.step) == (self.job, self.steps + 1)
                self.steps += 1
                return message
            if isinstance(message, engine_messages.ModelLoaded):
                return message
            assert isinstance(message, engine_messages.JobRendered), message
            self.begin()

    async def end(self) -> None:
        await cancel(self.link, self.recorder, self.job)


@pytest.mark.parametrize("twin", [False, True], ids=["new", "with a twin in memory"])
async def test_model_loader_lets_steps_run_during_every_part_of_a_load(
    audioldm: Path, audioldm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twin: bool
) -> None:
    """Each part pauses until five more steps are taken.

    Contents are compared, and where no resident model has the same, components are read and moved to the device.
    """
    async with slow_engine(tmp_path, monkeypatch) as (link, recorder, gate):
        if twin:
            assert link.send(engine_messages.LoadModel(model=source("twin", copy_of(audioldm, tmp_path))))
            await until(recorder, engine_messages.ModelLoaded)
        generating = Generating(link, recorder, source("here", audioldm2))
        await until(recorder, engine_messages.ModelLoaded)
        await generating.next()
        assert link.send(engine_messages.LoadModel(model=source("slow", audioldm)))
        parts: list[str] = []
        while parts.count("preparing") < 2:  # once for itself, and once for this engine: the last part
            parts.append(await gate.next())
            for _ in range(5 + recorder.events.qsize()):  # what came before this part doesn't count
                assert isinstance(await generating.next(), engine_messages.StepDone), (
                    "a load that stands still has ended"
                )
            gate.go_on()
        assert [part for part in parts if part in AUDIOLDM.components] == list(AUDIOLDM.components)
        assert {"sizes", "digest", "making"} <= set(parts)
        assert any(part.startswith("moving") for part in parts) is not twin
        while isinstance(message := await generating.next(), engine_messages.StepDone):
            pass
        assert message.model.name == "slow"
        await generating.end()


async def test_model_loader_lets_live_work_pass_a_background_load(
    audioldm: Path, audioldm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A background job's model stands still in the middle of a component.

    A live job's model is loaded and its sound made, and another one of a model that is there; only then does the
    background load go on.
    """
    async with slow_engine(tmp_path, monkeypatch) as (link, recorder, gate):
        assert link.send(render(1, source("slow", audioldm2), rank=2, steps=3))
        while await gate.next() != "unet":
            gate.go_on()
        live = source("live", audioldm)
        assert link.send(render(2, live, rank=0, steps=3))
        first = await until(recorder, engine_messages.JobRendered)
        assert first[-1].job == 2
        assert [message.model.name for message in first if isinstance(message, engine_messages.ModelLoaded)] == ["live"]
        assert link.send(render(3, live, rank=0, steps=3))
        second = await until(recorder, engine_messages.JobRendered)
        assert second[-1].job == 3
        assert not [message for message in second if isinstance(message, engine_messages.ModelLoaded)]
        gate.open()
        last = await until(recorder, engine_messages.JobRendered)
        assert [message.model.name for message in last if isinstance(message, engine_messages.ModelLoaded)] == ["slow"]
