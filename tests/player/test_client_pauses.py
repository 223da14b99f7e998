"""A player that says nothing: after a pause of all processes it is a healthy one, and alone it is started again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.patience import TIMEOUT_S

ROOT = Path(__file__).parents[2]

SILENCE_S = 5.0
"""Seconds of silence after which the player is started again here; 10 by default."""

DAEMON = f"""
import anyio, asyncio
from tests.player.player_stage import player
from timbred.ipc import player_messages

async def main():
    async with player("player.device=no such card", "player.patience={SILENCE_S}") as (subject, _):
        said = asyncio.Queue()
        hear, lost = subject.child_message_received, subject.child_lost

        def child_message_received(message, payload):
            hear(message, payload)
            said.put_nowait(message)

        def child_lost(reason):
            lost(reason)
            print("lost:", reason, flush=True)

        subject.child_message_received, subject.child_lost = child_message_received, child_lost
        while True:
            while not isinstance(await said.get(), player_messages.PlayerHeartbeat):
                pass
            print(subject.process.pid, flush=True)
            await asyncio.to_thread(input)
            while not said.empty():
                said.get_nowait()
            for _ in range(16):  # signs of life of a player that goes on
                await said.get()

anyio.run(main)
"""
"""Says the player's process number at each line that it reads, once 16 more messages of it have come."""


@contextmanager
def daemon() -> Generator[psutil.Popen]:
    """A player and its daemon, in a process group of their own."""
    process = psutil.Popen(
        [sys.executable, "-c", DAEMON], cwd=ROOT, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    children: list[psutil.Process] = []
    try:
        yield process
        children = process.children(recursive=True)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        psutil.wait_procs(children, TIMEOUT_S)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def said_by(process: psutil.Popen) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ask(process: psutil.Popen) -> None:
    print(file=process.stdin, flush=True)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes can't be stopped on Windows")
def test_client_pauses_of_daemon_and_player_together_end_neither() -> None:
    with daemon() as process:
        player = said_by(process)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(1.5 * SILENCE_S)  # the pause itself is what is tested
        os.killpg(process.pid, signal.SIGCONT)
        ask(process)
        assert said_by(process) == player


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes can't be stopped on Windows")
def test_client_pauses_of_the_player_alone_restart_it() -> None:
    with daemon() as process:
        player = said_by(process)
        psutil.Process(int(player)).send_signal(signal.SIGSTOP)
        assert said_by(process) == f"lost: no heartbeat for {SILENCE_S:g} s"
        ask(process)
        assert said_by(process).isdigit()
        assert not psutil.pid_exists(int(player))
