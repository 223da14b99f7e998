"""The daemon's end of one engine process: starts it, shakes hands, watches it, starts it again.

The process is a child with a pair of sockets of its own. When it ends or falls silent, the one who uses the link
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import zmq
import zmq.asyncio

from timbred import __version__
from timbred.engine import wire

log = logging.getLogger(__name__)

BACK_OFF = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before each new start of an engine that keeps ending; the last one repeats."""

HANDSHAKE_PATIENCE = 180.0
"""Seconds that a new process gets for its imports, on a cold disk."""

STEADY_AFTER = 30.0
"""Seconds after which a process counts as steady, and its end as the first one again."""


ENGINE_PROGRAM = (sys.executable, "-m", "timbred.engine.worker")
"""The command that starts an engine."""


class EngineUser(Protocol):
    """Who uses the link: hears of the engine's life and of its messages, on the event loop."""

    def engine_up(self, ready: wire.Ready) -> None:
        """A process is there and takes orders."""
        ...

    def engine_down(self, reason: str) -> None:
        """The process ended or fell silent; what it held is lost. A new one comes by itself."""
        ...

    def engine_said(self, message: wire.FromEngine, payload: Sequence[memoryview]) -> None:
        """The engine sent a message; `payload` are the frames that follow it."""
        ...


@dataclass(frozen=True)
class EngineSettings:
    """How an engine process is started: see the settings of the same names."""

    device: str = "auto"
    threads: int = 0
    memory: float = 0.0
    heartbeat: float = 1.0
    patience: float = 30.0
    log_level: str = "info"
    program: tuple[str, ...] = ENGINE_PROGRAM


class _Silent(Exception):
    """No sign of life within the patience."""


class EngineLink:
    """One engine process, kept alive."""

    def __init__(self, settings: EngineSettings, user: EngineUser) -> None:
        self.settings = settings
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
        self._task = asyncio.get_running_loop().create_task(self._keep_alive(), name="engine-link")

    def send(self, message: wire.ToEngine) -> bool:
        """Send an order; False when no engine is there to take it."""
        if not self.up or self._socket is None:
            return False
        self._socket.send(wire.encode(message))
        return True

    async def stop(self, patience: float) -> None:
        """Ask the process to quit, and end it if it doesn't within `patience` seconds."""
        self._stopping = True
        self.send(wire.Quit())
        process = self._process
        if process is not None and self.up:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, patience)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep_alive(self) -> None:
        ends = 0
        while True:
            await asyncio.sleep(BACK_OFF[min(ends, len(BACK_OFF) - 1)])
            began = time.monotonic()
            reason = await self._one_life()
            if self._stopping:
                return
            ends = 1 if time.monotonic() - began > STEADY_AFTER else ends + 1
            log.error("the engine process ended (%s); starting it again", reason)
            self.user.engine_down(reason)

    async def _one_life(self) -> str:
        """From the start of a process to its end, whose reason is returned."""
        context = zmq.asyncio.Context()
        folder = tempfile.mkdtemp(prefix="timbred-")
        self._socket = context.socket(zmq.PAIR)
        self._socket.linger = 0
        token = secrets.token_hex(16)
        try:
            address = _bind(self._socket, folder)
            self._process = self._spawn(address, token)
            return await self._converse(self._process, self._socket, token)
        except OSError as error:
            return f"it can't be started: {error}"
        finally:
            self.up = False
            await asyncio.shield(asyncio.to_thread(_end, self._process))
            self._process = None
            self._socket.close()
            context.destroy(linger=0)
            shutil.rmtree(folder, ignore_errors=True)

    def _spawn(self, address: str, token: str) -> subprocess.Popen[bytes]:
        settings = self.settings
        command = [
            *settings.program,
            "--address", address, "--token", token, "--device", settings.device,
            "--threads", str(settings.threads), "--memory", str(int(settings.memory * 1e6)),
            "--heartbeat", str(settings.heartbeat),
            "--log-level", settings.log_level,
        ]  # fmt: skip
        # models are read from folders: nothing in the engine asks a network for anything
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads leave the cores to the music software
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what `exact` needs on CUDA
        }
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)

    async def _converse(self, process: subprocess.Popen[bytes], socket: zmq.asyncio.Socket, token: str) -> str:
        ended = _when_ended(process)
        try:
            await self._shake_hands(socket, token, ended)
            while True:
                frames = await self._next(socket, self.settings.patience, ended)
                self.user.engine_said(wire.read_in_daemon(frames[0].bytes), [frame.buffer for frame in frames[1:]])
        except EOFError:
            return f"exit status {process.wait()}"
        except _Silent as silence:
            return str(silence)
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
            return f"it sent what can't be read: {error}"

    async def _shake_hands(self, socket: zmq.asyncio.Socket, token: str, ended: "asyncio.Future[None]") -> None:
        frames = await self._next(socket, HANDSHAKE_PATIENCE, ended)
        ready = wire.read_in_daemon(frames[0].bytes)
        if not isinstance(ready, wire.Ready) or not secrets.compare_digest(ready.token, token):
            raise ValueError("a stranger answered in the engine's place")
        if (ready.wire_version, ready.version) != (wire.WIRE_VERSION, __version__):
            raise ValueError(
                f"the engine is timbred {ready.version}, the daemon {__version__}; install one of them anew"
            )
        self.up = True
        log.info("engine ready on %s (%s, %s), pid %d", ready.device, ready.device_name, ready.precision, ready.pid)
        self.user.engine_up(ready)

    async def _next(
        self, socket: zmq.asyncio.Socket, patience: float, ended: "asyncio.Future[None]"
    ) -> list[zmq.Frame]:
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


def _bind(socket: zmq.asyncio.Socket, folder: str) -> str:
    """A private address: a socket file in a folder of our own, or a loopback port where there are none."""
    if sys.platform == "win32":
        return f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
    address = f"ipc://{Path(folder) / 'engine'}"
    socket.bind(address)
    return address


def _when_ended(process: subprocess.Popen[bytes]) -> "asyncio.Future[None]":
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

    threading.Thread(target=wait, name="engine-watch", daemon=True).start()
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
