"""The engine process as the daemon sees it: its life, its death, its silence. Real processes, no torch."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.patience import TIMEOUT_S, patient
from tests.processes import none_left, python_path
from timbred.ipc import engine_messages, socket_folder, supervisor
from timbred.ipc.child_exit import TOKEN_VARIABLE
from timbred.ipc.engine_client import EngineLink, EngineSettings
from timbred.task_supervision import Supervisor

PROGRAM = (sys.executable, "-m", "tests.fake_engine")
ROOT = Path(__file__).parents[2]


class EventRecorder:
    """Notes everything that the link tells."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    def engine_ready(self, number: int, ready: engine_messages.EngineReady) -> None:
        self.events.put_nowait(ready)

    def engine_lost(self, number: int, reason: str) -> None:
        self.events.put_nowait(reason)

    def engine_cannot_start(self, number: int, reason: str) -> None:
        self.events.put_nowait(("cannot start", reason))

    def engine_message_received(
        self, engine: int, message: engine_messages.FromEngine, payload: Sequence[memoryview]
    ) -> None:
        if not isinstance(message, engine_messages.EngineHeartbeat):
            self.events.put_nowait((message, [bytes(frame) for frame in payload]))

    async def next(self) -> Any:
        return await asyncio.wait_for(self.events.get(), TIMEOUT_S)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path(ROOT))


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


@asynccontextmanager
async def engine(
    program: tuple[str, ...] = PROGRAM, **settings: Any
) -> AsyncGenerator[tuple[EngineLink, EventRecorder]]:
    recorder = EventRecorder()
    settings.setdefault("timeout_s", TIMEOUT_S)
    link = EngineLink(EngineSettings(program=program, **settings), recorder)
    with patient(), none_left():
        link.start()
        try:
            yield link, recorder
        finally:
            await link.stop(5.0)


def render(prompt: str, job: int = 1, seconds: float = 0.1, steps: int = 3) -> engine_messages.RenderJob:
    order = engine_messages.RenderOrder(
        inputs=engine_messages.PromptInputs(prompt=prompt),
        seconds=seconds,
        steps=steps,
        guidance=1.0,
        eta=0.0,
        scheduler="ddim",
        seeds=(3, 4),
    )
    return engine_messages.RenderJob(job=job, model=engine_messages.ModelSource(name="m", folder=""), order=order)


async def test_engine_link_renders_from_handshake_to_samples():
    async with engine() as (link, recorder):
        ready = await recorder.next()
        assert isinstance(ready, engine_messages.EngineReady)
        assert ready.pid == link.process.pid
        assert link.send(render("hello"))
        kinds = [type((await recorder.next())[0]) for _ in range(5)]
        assert kinds == [
            engine_messages.ModelLoading,
            engine_messages.ModelLoaded,
            engine_messages.StepDone,
            engine_messages.StepDone,
            engine_messages.StepDone,
        ]
        message, payload = await recorder.next()
        assert isinstance(message, engine_messages.JobRendered)
        assert [len(frame) for frame in payload] == [1600 * 4] * 2


async def test_engine_link_stops_a_cancelled_render_at_its_next_step():
    async with engine() as (link, recorder):
        await recorder.next()
        link.send(render("slow", steps=1000))
        while not isinstance((await recorder.next())[0], engine_messages.StepDone):
            pass
        link.send(engine_messages.CancelJob(job=1))
        message, _ = await recorder.next()
        assert message == engine_messages.JobCancelled(job=1)


async def test_engine_link_reports_a_dead_engine_and_restarts_it():
    async with engine() as (link, recorder):
        first = await recorder.next()
        link.send(render("die"))
        while isinstance(reason := await recorder.next(), tuple):
            pass
        assert reason == "exit status 7"
        assert not link.up
        second = await recorder.next()
        assert isinstance(second, engine_messages.EngineReady)
        assert second.pid != first.pid


async def test_engine_link_keeps_messages_of_a_dead_engine_from_the_next_one():
    """It dies with hundreds of messages on their way; whatever of them still comes, comes before its end is told."""
    async with engine() as (link, recorder):
        for life in (1, 2):
            assert isinstance(await recorder.next(), engine_messages.EngineReady)
            link.send(render("die rendered", job=life, steps=400))
            reported: list[Any] = []
            while isinstance(said := await recorder.next(), tuple):
                reported.append(said[0])
            assert said == "exit status 7"
            assert {message.job for message in reported if not isinstance(message, engine_messages.ModelLoaded)} <= {
                life
            }
            steps = [message.step for message in reported if isinstance(message, engine_messages.StepDone)]
            assert steps == list(range(1, len(steps) + 1))


async def test_engine_link_reports_the_reason_that_an_engine_sends_before_it_ends():
    async with engine() as (link, recorder):
        await recorder.next()
        link.send(render("resigns"))
        while not isinstance(reason := await recorder.next(), str):
            pass
        assert reason == "told to resign"
        assert isinstance(await recorder.next(), engine_messages.EngineReady)


async def test_engine_link_restarts_a_killed_engine():
    async with engine() as (link, recorder):
        first = await recorder.next()
        os.kill(first.pid, 9)
        assert "exit status" in await recorder.next()
        assert (await recorder.next()).pid == link.process.pid


async def test_engine_link_ends_a_silent_engine_and_restarts_it():
    async with engine(heartbeat_s=0.05, timeout_s=0.5) as (link, recorder):
        first = await recorder.next()
        link.send(render("hang"))
        while isinstance(reason := await recorder.next(), tuple):
            pass
        assert reason == "no heartbeat for 0.5 s"
        await recorder.next()
        assert not psutil.pid_exists(first.pid)


@pytest.mark.parametrize(("timeout_s", "interval"), [(30.0, "1.0"), (4.0, "1.0"), (2.0, "0.5"), (0.5, "0.125")])
def test_engine_settings_fit_four_heartbeats_into_the_timeout(timeout_s: float, interval: str) -> None:
    command = EngineSettings(timeout_s=timeout_s).command
    assert command[command.index("--heartbeat") + 1] == interval


async def test_engine_link_refuses_an_engine_of_another_version():
    async with engine((*PROGRAM, "--version", "0.0.1")) as (link, recorder):
        reported, reason = await recorder.next()
        assert reported == "cannot start"
        assert "the engine is timbred 0.0.1" in reason
        assert not link.up


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of 10 ms between attempts to start the engine."""
    for name in ("RESTART_DELAYS_S", "START_RETRY_DELAYS_S"):
        monkeypatch.setattr(supervisor, name, (0.01,))


@pytest.mark.usefixtures("short_pauses")
async def test_engine_link_retries_a_program_that_cannot_run():
    async with engine((sys.executable, "-c", "raise SystemExit(3)")) as (link, recorder):
        for _ in range(2):
            assert await recorder.next() == ("cannot start", "exit status 3; the log may say why")
        assert not link.send(engine_messages.QuitEngine())


@pytest.mark.usefixtures("short_pauses")
async def test_engine_link_retries_a_missing_program():
    async with engine(("/no/such/program",)) as (_, recorder):
        for _ in range(2):
            reported, reason = await recorder.next()
            assert reported == "cannot start"
            assert "No such file" in reason


async def test_engine_link_reports_why_an_engine_refuses_to_start_and_retries(tmp_path: Path):
    reason = tmp_path / "reason"
    reason.touch()
    async with engine((*PROGRAM, "--cannot-start-while", str(reason))) as (link, recorder):
        assert await recorder.next() == ("cannot start", f"told not to start by {reason}; remove it")
        assert (link.process.state, link.process.trouble) == ("failed", f"told not to start by {reason}; remove it")
        reason.unlink()
        while isinstance(reported := await recorder.next(), tuple):
            assert reported[0] == "cannot start"
        assert isinstance(reported, engine_messages.EngineReady)
        assert (link.process.state, link.process.trouble) == ("up", "")


@pytest.mark.usefixtures("short_pauses")
async def test_engine_link_tries_an_engine_that_ends_at_its_start_three_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    reason = tmp_path / "reason"
    reason.touch()
    async with engine((*PROGRAM, "--ends-at-start-while", str(reason))) as (link, recorder):
        assert link.process.state == "starting"
        assert await recorder.next() == ("cannot start", "exit status 3; the log may say why")
        assert caplog.text.count("the engine can't be started (exit status 3)") == 3


async def test_engine_link_retries_an_engine_that_was_killed_at_its_start(tmp_path: Path):
    reason = tmp_path / "reason"
    reason.touch()
    async with engine((*PROGRAM, "--ends-at-start-while", str(reason))) as (link, recorder):
        while link.process.pid is None:
            await asyncio.sleep(0.001)
        reason.unlink()
        assert isinstance(await recorder.next(), engine_messages.EngineReady)


async def test_engine_link_reports_a_fault_in_its_listener_and_ends_the_engine(caplog: pytest.LogCaptureFixture):
    """The daemon must not go on with an engine of which it missed a message: jobs would have no end."""

    class Faulty(EventRecorder):
        def engine_message_received(
            self, engine: int, message: engine_messages.FromEngine, payload: Sequence[memoryview]
        ) -> None:
            if isinstance(message, engine_messages.JobRendered):
                raise KeyError(message.job)
            super().engine_message_received(engine, message, payload)

    recorder, supervisor = Faulty(), Supervisor()
    link = EngineLink(EngineSettings(program=PROGRAM), recorder, supervisor)
    with none_left():
        link.start()
        try:
            assert isinstance(await recorder.next(), engine_messages.EngineReady)
            link.send(render("hello"))
            while isinstance(reported := await recorder.next(), tuple):
                pass
            assert reported == "a fault in the daemon: KeyError: 1"
            assert isinstance(await recorder.next(), engine_messages.EngineReady)
            assert [fault.task for fault in supervisor.faults] == ["engine-link"]
        finally:
            await link.stop(5.0)


async def test_engine_link_restarts_the_engine_after_a_fault_in_hearing_of_its_end():
    class Faulty(EventRecorder):
        def engine_lost(self, number: int, reason: str) -> None:
            super().engine_lost(number, reason)
            raise KeyError(reason)

    recorder = Faulty()
    link = EngineLink(EngineSettings(program=PROGRAM), recorder)
    with none_left():
        link.start()
        try:
            os.kill((await recorder.next()).pid, 9)
            assert await recorder.next() == "exit status -9, SIGKILL"
            assert isinstance(await recorder.next(), engine_messages.EngineReady)
        finally:
            await link.stop(5.0)


async def test_engine_link_restarts_the_engine_after_its_socket_folder_was_deleted(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    places = [short_folder / "first", short_folder / "second"]
    for place in places:
        place.mkdir()
    monkeypatch.setattr(socket_folder, "candidate_folders", lambda: iter(places))

    async def conversation() -> None:
        async with engine() as (_, recorder):
            first = await recorder.next()
            assert list(places[0].iterdir())
            shutil.rmtree(places[0])
            os.kill(first.pid, 9)
            assert "exit status" in await recorder.next()
            assert isinstance(await recorder.next(), engine_messages.EngineReady)
            assert list(places[1].iterdir())

    await conversation()
    assert not list(places[1].iterdir())


async def test_engine_link_uses_a_port_without_a_place_for_a_socket(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(socket_folder, "candidate_folders", lambda: iter(()))

    async def conversation() -> None:
        async with engine() as (link, recorder):
            ready = await recorder.next()
            assert isinstance(ready, engine_messages.EngineReady)
            assert "tcp://127.0.0.1:" in " ".join(psutil.Process(ready.pid).cmdline())
            link.send(render("hello"))
            while not isinstance((await recorder.next())[0], engine_messages.JobRendered):
                pass

    await conversation()
    assert "the engine is connected over a loopback port" in caplog.text


async def test_engine_link_keeps_the_token_out_of_the_command_line():
    """Others on the machine can read command lines, and connect to a loopback port."""
    async with engine() as (_, recorder):
        process = psutil.Process((await recorder.next()).pid)
        token = process.environ()[TOKEN_VARIABLE]
        assert len(token) == 32
        assert token not in " ".join(process.cmdline())


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes can't be stopped on Windows")
def test_engine_link_ignores_a_pause_of_all_processes():
    """A laptop's lid, a stalled machine: neither side runs, so neither side is judged."""
    program = (
        "import anyio, asyncio, sys\n"
        "from tests.ipc.test_engine_client import EventRecorder, PROGRAM, render\n"
        "from timbred.ipc.engine_client import EngineLink, EngineSettings\n"
        "async def main():\n"
        "    recorder = EventRecorder()\n"
        "    link = EngineLink(EngineSettings(program=PROGRAM, heartbeat_s=0.2, timeout_s=5.0), recorder)\n"
        "    link.start()\n"
        "    print((await recorder.next()).pid, flush=True)\n"
        "    await asyncio.to_thread(sys.stdin.readline)\n"
        "    link.send(render('hello'))\n"
        "    while isinstance(event := await recorder.next(), tuple) "
        "and event[0].__class__.__name__ != 'JobRendered':\n"
        "        pass\n"
        "    print(event[0].__class__.__name__ if isinstance(event, tuple) else event, link.process.pid, flush=True)\n"
        "    await link.stop(5.0)\n"
        "anyio.run(main)\n"
    )
    daemon = psutil.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    try:
        pid = daemon.stdout.readline().strip()
        os.killpg(daemon.pid, signal.SIGSTOP)
        time.sleep(7.5)  # longer than the timeout: the pause itself is what is tested
        os.killpg(daemon.pid, signal.SIGCONT)
        print(file=daemon.stdin, flush=True)
        assert daemon.stdout.readline().split() == ["JobRendered", pid]
    finally:
        daemon.kill()
        daemon.wait()
        daemon.stdin.close()
        daemon.stdout.close()


def test_engine_link_engine_ends_with_a_killed_daemon(short_folder: Path):
    """The child of a daemon that gets no chance to stop it, nor to remove the folder of their socket."""
    program = (
        "import anyio, asyncio\n"
        "from tests.ipc.test_engine_client import EventRecorder, PROGRAM\n"
        "from timbred.ipc.engine_client import EngineLink, EngineSettings\n"
        "async def main():\n"
        "    recorder = EventRecorder()\n"
        "    EngineLink(EngineSettings(program=PROGRAM), recorder).start()\n"
        "    print((await recorder.next()).pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "anyio.run(main)\n"
    )
    environment = {**os.environ, "TMPDIR": str(short_folder)}
    daemon = psutil.Popen([sys.executable, "-c", program], stdout=-1, cwd=ROOT, env=environment)
    assert daemon.stdout is not None
    engine_process = psutil.Process(int(daemon.stdout.readline()))
    assert list(short_folder.iterdir())
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    engine_process.wait(TIMEOUT_S)
    assert not list(short_folder.iterdir())
