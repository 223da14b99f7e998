"""A load beside those who generate: they take their steps whatever part of it is slow, and whatever is urgent passes.

Everything here is an order of events: a part of the load begins, and ends only when the test has seen enough.
"""

import asyncio
import shutil
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.engine.test_link import Heard, engine
from tests.engine.test_memory import render, source, until
from timbred.engine import step_priority as precedence_module
from timbred.engine.step_priority import FairLock, StepPriority
from timbred.ipc import engine_messages
from timbred.ipc.engine_client import EngineLink
from timbred.models.checkpoint import NEEDED

SLOW = (sys.executable, "-m", "tests.engine.slow_worker")
PATIENCE = 120.0
"""Seconds; a test that waits as long has failed."""


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
        name, self._writer = await asyncio.wait_for(self._begun.get(), PATIENCE)
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
) -> AsyncGenerator[tuple[EngineLink, Heard, Gate]]:
    gate = Gate()
    path = tmp_path / "gate"
    monkeypatch.setenv("TIMBRED_TEST_GATE", str(path))
    async with await asyncio.start_unix_server(gate.came, path), engine(SLOW) as (link, heard):
        await until(heard, engine_messages.EngineReady)
        yield link, heard, gate


def copy_of(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


class Generating:
    """One sound after the other, whose steps are counted."""

    def __init__(self, link: EngineLink, heard: Heard, model: engine_messages.ModelSource) -> None:
        self.link = link
        self.heard = heard
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
            message, _ = await self.heard.next()
            if isinstance(message, engine_messages.StepDone):
                assert (message.job, message.step) == (self.job, self.steps + 1)
                self.steps += 1
                return message
            if isinstance(message, engine_messages.ModelLoaded):
                return message
            assert isinstance(message, engine_messages.JobRendered), message
            self.begin()

    async def end(self) -> None:
        assert self.link.send(engine_messages.CancelJob(job=self.job))
        await until(self.heard, engine_messages.JobCancelled, job=self.job)


@pytest.mark.parametrize("twin", [False, True], ids=["new", "with a twin in memory"])
def test_no_part_of_a_load_holds_up_a_step(
    audioldm: Path, audioldm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twin: bool
) -> None:
    """Each part pauses until five more steps are taken.

    Contents are compared, and where no resident model has the same, components are read and moved to the device.
    """

    async def conversation() -> None:
        async with slow_engine(tmp_path, monkeypatch) as (link, heard, gate):
            if twin:
                assert link.send(engine_messages.LoadModel(model=source("twin", copy_of(audioldm, tmp_path))))
                await until(heard, engine_messages.ModelLoaded)
            generating = Generating(link, heard, source("here", audioldm2))
            await until(heard, engine_messages.ModelLoaded)
            await generating.next()
            assert link.send(engine_messages.LoadModel(model=source("slow", audioldm)))
            parts: list[str] = []
            while parts.count("preparing") < 2:  # once for itself, and once for this engine: the last part
                parts.append(await gate.next())
                for _ in range(5 + heard.events.qsize()):  # what came before this part doesn't count
                    assert isinstance(await generating.next(), engine_messages.StepDone), (
                        "a load that stands still has ended"
                    )
                gate.go_on()
            assert [part for part in parts if part in NEEDED["audioldm"]] == list(NEEDED["audioldm"])
            assert {"sizes", "digest", "making"} <= set(parts)
            assert any(part.startswith("moving") for part in parts) is not twin
            while isinstance(message := await generating.next(), engine_messages.StepDone):
                pass
            assert message.model.name == "slow"
            await generating.end()

    asyncio.run(conversation())


def test_live_work_passes_a_background_load_wherever_that_is(
    audioldm: Path, audioldm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A background job's model stands still in the middle of a component.

    A live job's model is loaded and its sound made, and another one of a model that is there; only then does the
    background load go on.
    """

    async def conversation() -> None:
        async with slow_engine(tmp_path, monkeypatch) as (link, heard, gate):
            assert link.send(render(1, source("slow", audioldm2), rank=2, steps=3))
            while await gate.next() != "unet":
                gate.go_on()
            live = source("live", audioldm)
            assert link.send(render(2, live, rank=0, steps=3))
            first = await until(heard, engine_messages.JobRendered, job=2)
            assert [message.model.name for message in first if isinstance(message, engine_messages.ModelLoaded)] == [
                "live"
            ]
            assert link.send(render(3, live, rank=0, steps=3))
            second = await until(heard, engine_messages.JobRendered, job=3)
            assert not [message for message in second if isinstance(message, engine_messages.ModelLoaded)]
            gate.open()
            last = await until(heard, engine_messages.JobRendered, job=1)
            assert [message.model.name for message in last if isinstance(message, engine_messages.ModelLoaded)] == [
                "slow"
            ]

    asyncio.run(conversation())


# who goes first


class Ticks:
    """Something to do in a thread of its own: it counts its calls until it is told to stop."""

    def __init__(self, precedence: StepPriority) -> None:
        self.count = 0
        self.stop = False
        self.began = threading.Event()
        self.thread = threading.Thread(target=precedence.behind, args=(self.work,))

    def tick(self) -> None:
        self.count += 1
        self.began.set()

    def work(self) -> None:
        while not self.stop:
            self.tick()


@pytest.fixture
def resting(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released whenever a thread begins to rest; it then rests for as long as it has to."""
    rests = threading.Semaphore(0)
    plain: Callable[[StepPriority], None] = getattr(StepPriority, "_rest")  # noqa: B009  private

    def rest(self: StepPriority) -> None:
        rests.release()
        plain(self)

    monkeypatch.setattr(StepPriority, "_rest", rest)
    monkeypatch.setattr(precedence_module, "REST", PATIENCE)
    monkeypatch.setattr(precedence_module, "MOMENT", 0.0)
    return rests


def test_others_make_no_call_while_the_first_is_at_work(resting: threading.Semaphore) -> None:
    subject = StepPriority()
    ticks = Ticks(subject)
    ticks.thread.start()
    assert ticks.began.wait(PATIENCE)
    for _ in range(3):
        with subject.first():
            assert resting.acquire(timeout=PATIENCE)
            before = ticks.count
            sum(range(1_000_000))
            assert ticks.count == before
        ticks.began.clear()
        assert ticks.began.wait(PATIENCE)
    ticks.stop = True
    ticks.thread.join()


def test_nobody_rests_with_what_the_first_may_need(resting: threading.Semaphore) -> None:
    subject, lock = StepPriority(), FairLock()
    has_it, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        with lock:
            has_it.set()
            assert go_on.wait(PATIENCE)
            for number in range(1000):
                str(number)
        done.set()

    thread = threading.Thread(target=subject.behind, args=(work,))
    thread.start()
    assert has_it.wait(PATIENCE)
    with subject.first():
        go_on.set()
        with lock:  # comes although all others rest
            assert not done.is_set() or thread.is_alive()
    thread.join()
    assert done.is_set()


def test_others_get_their_share_when_they_want_it(
    resting: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    monkeypatch.setattr(precedence_module.time, "sleep", shares.append)
    with StepPriority().first():
        pass
    assert shares == []
    subject = StepPriority()
    ticks = Ticks(subject)
    ticks.thread.start()
    assert ticks.began.wait(PATIENCE)
    with subject.first():
        assert resting.acquire(timeout=PATIENCE)
    ticks.stop = True
    ticks.thread.join()
    assert len(shares) == 1
    assert shares[0] > 0


def test_a_fault_comes_through_and_nothing_is_left_behind() -> None:
    before = sys.getprofile()

    def fails() -> None:
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        StepPriority().behind(fails)
    assert sys.getprofile() is before
    assert StepPriority().behind(lambda: 7) == 7
