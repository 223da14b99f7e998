"""The engine process as the daemon sees it: its life, its death, its silence. Real processes, no torch."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import none_left, python_path
from timbred.engine import wire
from timbred.engine.link import EngineLink, EngineSettings

PROGRAM = (sys.executable, "-m", "tests.fake_engine")
ROOT = Path(__file__).parents[2]


class Heard:
    """Notes everything that the link tells."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    def engine_up(self, ready: wire.Ready) -> None:
        self.events.put_nowait(ready)

    def engine_down(self, reason: str) -> None:
        self.events.put_nowait(reason)

    def engine_said(self, message: wire.FromEngine, payload: Sequence[memoryview]) -> None:
        if not isinstance(message, wire.Beat):
            self.events.put_nowait((message, [bytes(frame) for frame in payload]))

    async def next(self) -> Any:
        return await asyncio.wait_for(self.events.get(), 60)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path(ROOT))


@asynccontextmanager
async def engine(program: tuple[str, ...] = PROGRAM, **settings: Any) -> AsyncGenerator[tuple[EngineLink, Heard]]:
    heard = Heard()
    link = EngineLink(EngineSettings(program=program, **settings), heard)
    with none_left():
        link.start()
        try:
            yield link, heard
        finally:
            await link.stop(5.0)


def render(prompt: str, job: int = 1, seconds: float = 0.1, steps: int = 3) -> wire.Render:
    order = wire.RenderOrder(
        words=wire.Words(prompt=prompt),
        seconds=seconds,
        steps=steps,
        guidance=1.0,
        eta=0.0,
        scheduler="ddim",
        seeds=(3, 4),
    )
    return wire.Render(job=job, model=wire.ModelSource(name="m", folder=""), order=order)


def test_a_render_from_handshake_to_samples():
    async def conversation() -> None:
        async with engine() as (link, heard):
            ready = await heard.next()
            assert isinstance(ready, wire.Ready)
            assert ready.pid == link.pid
            assert link.send(render("hello"))
            kinds = [type((await heard.next())[0]) for _ in range(5)]
            assert kinds == [wire.Loading, wire.Loaded, wire.Step, wire.Step, wire.Step]
            message, payload = await heard.next()
            assert isinstance(message, wire.Rendered)
            assert [len(frame) for frame in payload] == [1600 * 4] * 2

    asyncio.run(conversation())


def test_a_cancelled_render_stops_at_its_next_step():
    async def conversation() -> None:
        async with engine() as (link, heard):
            await heard.next()
            link.send(render("slow", steps=1000))
            while not isinstance((await heard.next())[0], wire.Step):
                pass
            link.send(wire.Cancel(job=1))
            message, _ = await heard.next()
            assert message == wire.Cancelled(job=1)

    asyncio.run(conversation())


def test_a_dead_engine_is_told_and_started_again():
    async def conversation() -> None:
        async with engine() as (link, heard):
            first = await heard.next()
            link.send(render("die"))
            while isinstance(reason := await heard.next(), tuple):
                pass
            assert reason == "exit status 7"
            assert not link.up
            second = await heard.next()
            assert isinstance(second, wire.Ready)
            assert second.pid != first.pid

    asyncio.run(conversation())


def test_nothing_of_a_dead_engine_reaches_what_the_next_one_is_told_to_do():
    """It dies with hundreds of messages on their way; whatever of them still comes, comes before its end is told."""

    async def conversation() -> None:
        async with engine() as (link, heard):
            for life in (1, 2):
                assert isinstance(await heard.next(), wire.Ready)
                link.send(render("die rendered", job=life, steps=400))
                told: list[Any] = []
                while isinstance(said := await heard.next(), tuple):
                    told.append(said[0])
                assert said == "exit status 7"
                assert {message.job for message in told if not isinstance(message, wire.Loaded)} <= {life}
                steps = [message.step for message in told if isinstance(message, wire.Step)]
                assert steps == list(range(1, len(steps) + 1))

    asyncio.run(conversation())


def test_a_killed_engine_is_started_again():
    async def conversation() -> None:
        async with engine() as (link, heard):
            first = await heard.next()
            os.kill(first.pid, 9)
            assert "exit status" in await heard.next()
            assert (await heard.next()).pid == link.pid

    asyncio.run(conversation())


def test_a_silent_engine_is_ended_and_started_again():
    async def conversation() -> None:
        async with engine(heartbeat=0.05, patience=0.5) as (link, heard):
            first = await heard.next()
            link.send(render("hang"))
            while isinstance(reason := await heard.next(), tuple):
                pass
            assert reason == "no sign of life for 0.5 s"
            await heard.next()
            assert not psutil.pid_exists(first.pid)

    asyncio.run(conversation())


def test_an_engine_of_another_version_is_refused():
    async def conversation() -> None:
        async with engine((*PROGRAM, "--version", "0.0.1")) as (link, heard):
            assert "the engine is timbred 0.0.1" in await heard.next()
            assert not link.up

    asyncio.run(conversation())


def test_a_program_that_cannot_run_is_tried_again_not_raised():
    async def conversation() -> None:
        async with engine((sys.executable, "-c", "raise SystemExit(3)")) as (link, heard):
            assert await heard.next() == "exit status 3"
            assert await heard.next() == "exit status 3"
            assert not link.send(wire.Quit())

    asyncio.run(conversation())


def test_a_program_that_isnt_there_is_tried_again_not_raised():
    async def conversation() -> None:
        async with engine(("/no/such/program",)) as (_, heard):
            assert "it can't be started" in await heard.next()
            assert "it can't be started" in await heard.next()

    asyncio.run(conversation())


def test_an_engine_ends_with_a_daemon_that_was_killed(tmp_path: Path):
    """The child of a daemon that gets no chance to stop it, nor to remove the folder of their socket."""
    program = (
        "import asyncio\n"
        "from tests.engine.test_link import Heard, PROGRAM\n"
        "from timbred.engine.link import EngineLink, EngineSettings\n"
        "async def main():\n"
        "    heard = Heard()\n"
        "    EngineLink(EngineSettings(program=PROGRAM), heard).start()\n"
        "    print((await heard.next()).pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    daemon = psutil.Popen([sys.executable, "-c", program], stdout=-1, cwd=ROOT, env=environment)
    assert daemon.stdout is not None
    engine_process = psutil.Process(int(daemon.stdout.readline()))
    assert list(tmp_path.iterdir())
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    engine_process.wait(30)
    assert not list(tmp_path.iterdir())
