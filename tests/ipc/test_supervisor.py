"""Spare processes: when they are started, that they take over, and that none is left. Real processes, no torch."""

import asyncio
import math
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ipc.test_engine_client import EventRecorder, render
from tests.patience import TIMEOUT_S
from tests.processes import none_left
from timbred.ipc import engine_client as engine_link
from timbred.ipc import engine_messages, supervisor
from timbred.ipc.engine_client import EngineLink, EngineSettings

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "tests.fake_engine")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(supervisor, "SPARE_CHECK_INTERVAL_S", 0.01)


class Stage:
    """An engine link with spares, and whether its engine has nothing to do."""

    def __init__(self, program: tuple[str, ...] = PROGRAM, mode: Any = "on") -> None:
        self.recorder = EventRecorder()
        self.idle = True
        self.link = EngineLink(EngineSettings(program=program, spare=mode), self.recorder, is_idle=lambda: self.idle)
        policy = self.spare._policy  # pyright: ignore[reportPrivateUsage]
        self.spare._policy = supervisor.SparePolicy(policy.is_idle, policy.needed_bytes, settle_s=0.02)  # pyright: ignore[reportPrivateUsage]

    @property
    def spare(self) -> supervisor.Spare:
        found = self.link._child._spare  # pyright: ignore[reportPrivateUsage]
        assert found is not None
        return found

    async def make_sound(self) -> None:
        assert self.link.send(render("pad"))
        while not isinstance((await self.recorder.next())[0], engine_messages.JobRendered):
            pass

    async def until_warm(self) -> int:
        async with asyncio.timeout(TIMEOUT_S):
            while not self.spare.is_warm:
                await asyncio.sleep(0.01)
        assert self.link.process.spare_pid is not None
        return self.link.process.spare_pid

    async def looks(self, count: int) -> None:
        """So many turns in which the keeper may have started one."""
        for _ in range(count):
            await asyncio.sleep(2 * supervisor.SPARE_CHECK_INTERVAL_S)


@asynccontextmanager
async def stage(**keys: Any) -> AsyncGenerator[Stage]:
    with none_left():
        found = Stage(**keys)
        found.link.start()
        try:
            assert isinstance(await found.recorder.next(), engine_messages.EngineReady)
            yield found
        finally:
            await found.link.stop(5.0)


async def test_supervisor_replaces_the_process_by_a_warm_spare_and_starts_another():
    async with stage() as subject:
        await subject.make_sound()
        first, waiting = subject.link.process.pid, await subject.until_warm()
        assert first is not None
        os.kill(first, 9)
        assert "SIGKILL" in await subject.recorder.next()
        ready = await subject.recorder.next()
        assert isinstance(ready, engine_messages.EngineReady)
        assert ready.pid == waiting == subject.link.process.pid
        assert subject.link.process.spare_pid is None
        await subject.make_sound()
        assert await subject.until_warm() != waiting


async def test_supervisor_starts_no_spare_before_a_success_or_while_busy():
    async with stage() as subject:
        await subject.looks(20)
        assert subject.link.process.spare_pid is None
        subject.idle = False
        await subject.make_sound()
        await subject.looks(20)
        assert subject.link.process.spare_pid is None
        subject.idle = True
        await subject.until_warm()


async def test_supervisor_ends_a_spare_when_memory_is_short(monkeypatch: pytest.MonkeyPatch):
    available = engine_link.MIN_BYTES_FOR_SPARE_ENGINE

    class Memory:
        @property
        def available(self) -> int:
            return available

    async with stage(mode="auto") as subject:
        monkeypatch.setattr(supervisor.psutil, "virtual_memory", Memory)
        await subject.make_sound()
        process = psutil.Process(await subject.until_warm())
        available = engine_link.MIN_BYTES_FOR_SPARE_ENGINE // 2 - 1
        async with asyncio.timeout(TIMEOUT_S):
            while subject.link.process.spare_pid is not None:
                await asyncio.sleep(0.01)
        assert not process.is_running()
        await subject.looks(20)
        assert subject.link.process.spare_pid is None


async def test_supervisor_never_waits_for_a_killed_spare():
    async with stage() as subject:
        await subject.make_sound()
        os.kill(await subject.until_warm(), 9)
        first = subject.link.process.pid
        assert first is not None
        os.kill(first, 9)
        assert "SIGKILL" in await subject.recorder.next()
        ready = await subject.recorder.next()
        assert isinstance(ready, engine_messages.EngineReady)
        assert ready.pid != first
        await subject.make_sound()


def test_supervisor_starts_no_spare_when_off():
    link = EngineLink(EngineSettings(program=PROGRAM, spare="off"), EventRecorder())
    assert link.process.spare_pid is None
    assert link._child._spare is None  # pyright: ignore[reportPrivateUsage]


async def test_supervisor_pauses_only_after_ends_without_a_success(monkeypatch: pytest.MonkeyPatch):
    """Ends right after each other wait longer and longer; a success makes the next restart immediate."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float, *rest: Any) -> Any:
        if seconds in supervisor.RESTART_DELAYS_S:
            pauses.append(seconds)
            seconds = 0.0
        return await sleep(seconds, *rest)

    monkeypatch.setattr(supervisor, "HEALTHY_AFTER_S", math.inf)  # an engine may take long to start
    recorder = EventRecorder()
    link = EngineLink(EngineSettings(program=PROGRAM), recorder)
    with none_left():
        link.start()
        monkeypatch.setattr(supervisor.asyncio, "sleep", noted)
        try:
            for death in range(5):
                ready = await recorder.next()
                assert isinstance(ready, engine_messages.EngineReady)
                if death == 3:
                    assert link.send(render("pad"))
                    while not isinstance((await recorder.next())[0], engine_messages.JobRendered):
                        pass
                os.kill(ready.pid, 9)
                while isinstance(await recorder.next(), tuple):
                    pass
            assert isinstance(await recorder.next(), engine_messages.EngineReady)
            assert pauses == [0.0, 0.5, 1.0, 0.0, 0.5]
        finally:
            monkeypatch.setattr(supervisor.asyncio, "sleep", sleep)
            await link.stop(5.0)
