"""The daemon's end of one child process: starts it, shakes hands, watches it, starts it again.

The process is a child with a pair of sockets of its own. When it ends or falls silent, the one who uses it
is told, and after a back-off a new one is started.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec
import zmq
import zmq.asyncio

from timbred import __version__
from timbred.processes.ending import SOCKETS

log = logging.getLogger(__name__)

BACK_OFF = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before each new start of a process that keeps ending; the last one repeats."""

HANDSHAKE_PATIENCE = 180.0
"""Seconds that a new process gets for its imports, on a cold disk."""

STEADY_AFTER = 30.0
"""Seconds after which a process counts as steady, and its end as the first one again."""

Frame = bytes | memoryview
"""One part of a message, as the other side gets it."""


class Introduction(Protocol):
    """The first message of a process: proves that it is ours, and of our version."""

    @property
    def token(self) -> str: ...
    @property
    def wire_version(self) -> int: ...
    @property
    def version(self) -> str: ...


class ChildUser(Protocol):
    """Who uses the process: hears of its life and of its messages, on the event loop."""

    def child_up(self, ready: Any) -> None:
        """A process is there and takes orders; `ready` is its introduction."""
        ...

    def child_down(self, reason: str) -> None:
        """The process ended or fell silent. A new one comes by itself."""
        ...

    def child_said(self, message: Any, payload: Sequence[memoryview]) -> None:
        """The process sent a message; `payload` are the frames that follow it."""
        ...


@dataclass(frozen=True)
class Trade:
    """What a kind of child process is: its name for the performer, its command, and the messages it speaks.

    `patience` is in seconds without a sign of life. `command` gets `--address` and `--token` added.
    """

    name: str
    command: tuple[str, ...]
    introduction: type[Any]
    wire_version: int
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    quit: Any
    patience: float = 30.0
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


class _Silent(Exception):
    """No sign of life within the patience."""


class Child:
    """One process of a trade, kept alive."""

    def __init__(self, trade: Trade, user: ChildUser) -> None:
        self.trade = trade
        self.user = user
        self.up = False
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process and keep it alive until `stop`."""
        self._task = asyncio.get_running_loop().create_task(self._keep_alive(), name=f"{self.trade.name}-link")

    def send(self, message: Any, *payload: Frame) -> bool:
        """Send an order and the frames that go with it; False when no process is there to take it."""
        if not self.up or self._socket is None:
            return False
        self._socket.send_multipart([self.trade.encode(message), *payload], copy=not payload)
        return True

    async def stop(self, patience: float) -> None:
        """Ask the process to quit, and end it if it doesn't within `patience` seconds."""
        self._stopping = True
        self.send(self.trade.quit)
        process = self._process
        if process is not None and self.up:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, patience)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(_end, process)

    async def _keep_alive(self) -> None:
        ends = 0
        while True:
            await asyncio.sleep(BACK_OFF[min(ends, len(BACK_OFF) - 1)])
            began = time.monotonic()
            reason = await self._one_life()
            if self._stopping:
                return
            ends = 1 if time.monotonic() - began > STEADY_AFTER else ends + 1
            log.error("the %s process ended (%s); starting it again", self.trade.name, reason)
            self.user.child_down(reason)

    async def _one_life(self) -> str:
        """From the start of a process to its end, whose reason is returned."""
        context = zmq.asyncio.Context()
        folder = tempfile.mkdtemp(prefix=SOCKETS)
        self._socket = context.socket(zmq.PAIR)
        self._socket.linger = 0
        token = secrets.token_hex(16)
        try:
            address = _bind(self._socket, Path(folder) / self.trade.name)
            self._process = self._spawn(address, token)
            return await self._converse(self._process, self._socket, token)
        except OSError as error:
            return f"it can't be started: {error}"
        finally:
            # first what can't be interrupted: a context left open would block whoever collects it
            self.up = False
            self._socket.close()
            context.destroy(linger=0)
            shutil.rmtree(folder, ignore_errors=True)
            process, self._process = self._process, None
            await asyncio.shield(asyncio.to_thread(_end, process))

    def _spawn(self, address: str, token: str) -> subprocess.Popen[bytes]:
        command = [*self.trade.command, "--address", address, "--token", token]
        environment = {**os.environ, **self.trade.environment}
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)

    async def _converse(self, process: subprocess.Popen[bytes], socket: zmq.asyncio.Socket, token: str) -> str:
        ended = _when_ended(process, self.trade.name)
        try:
            await self._shake_hands(socket, token, ended)
            while True:
                frames = await _next(socket, self.trade.patience, ended)
                self.user.child_said(self.trade.decode(frames[0].bytes), [frame.buffer for frame in frames[1:]])
        except EOFError:
            return f"exit status {process.wait()}"
        except _Silent as silence:
            return str(silence)
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
            return f"it sent what can't be read: {error}"

    async def _shake_hands(self, socket: zmq.asyncio.Socket, token: str, ended: "asyncio.Future[None]") -> None:
        trade = self.trade
        frames = await _next(socket, HANDSHAKE_PATIENCE, ended)
        message = trade.decode(frames[0].bytes)
        ready: Introduction | None = message if isinstance(message, trade.introduction) else None
        if ready is None or not secrets.compare_digest(ready.token, token):
            raise ValueError(f"a stranger answered in the {trade.name}'s place")
        if (ready.wire_version, ready.version) != (trade.wire_version, __version__):
            raise ValueError(
                f"the {trade.name} is timbred {ready.version}, the daemon {__version__}; install one of them anew"
            )
        self.up = True
        self.user.child_up(ready)


async def _next(socket: zmq.asyncio.Socket, patience: float, ended: "asyncio.Future[None]") -> list[zmq.Frame]:
    receiving = asyncio.ensure_future(socket.recv_multipart(copy=False))
    try:
        await asyncio.wait({receiving, ended}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if receiving.done():
            return receiving.result()
        if ended.done():
            raise EOFError
        raise _Silent(f"no sign of life for {patience:g} s")
    finally:
        receiving.cancel()


def _bind(socket: zmq.asyncio.Socket, place: Path) -> str:
    """A private address: a socket file in a folder of our own, or a loopback port where there are none."""
    if sys.platform == "win32":
        return f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
    address = f"ipc://{place}"
    socket.bind(address)
    return address


def _when_ended(process: subprocess.Popen[bytes], name: str) -> "asyncio.Future[None]":
    """A future that is done once the process is gone."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ended.done():
            ended.set_result(None)

    def wait() -> None:
        process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=wait, name=f"{name}-watch", daemon=True).start()
    return ended


def _end(process: subprocess.Popen[bytes] | None) -> None:
    """Make sure that the process is gone: it sees its standard input close; failing that it is killed."""
    if process is None:
        return
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
