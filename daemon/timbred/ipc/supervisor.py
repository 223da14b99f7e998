"""A child process that waits with its imports done, to take the place of one that is lost.

It is started only after a first success, while nothing else is to be done and where there is memory for it, and it
imports at the lowest priority. It is told to go on by one line on its standard input: where its daemon is, and the
token to show.

    state      entered when                                     left when
    -------    ---------------------------------------------    -----------------------------------
    absent     at first; it ended; it was taken into use        the policy has allowed one for `settle_s`
    warming    it was started                                   it says that it is warm, or ends
    warm       its imports are done                             it is taken into use, ends, or memory is short
"""

import asyncio
import contextlib
import json
import logging
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec
import psutil
import zmq
import zmq.asyncio

from timbred import __version__
from timbred.ipc.child_exit import SPARE_OPTION, TOKEN_VARIABLE, WARM_LINE
from timbred.ipc.isolation import child_environment, safe_folder
from timbred.ipc.socket_folder import Addresses
from timbred.task_supervision import Supervisor

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""Pause between two looks at whether a spare may be started, or must end for want of memory."""

RETRY_AFTER_S = 60.0
"""Pause after a spare that ended by itself: whatever ended it may end the next one."""


@dataclass(frozen=True)
class SparePolicy:
    """Conditions for a spare. `is_idle` reports that there is no other work; it must hold for `settle_s`.

    `needed_bytes` of memory have to be available for one to be started, and half of them for it to stay.
    """

    is_idle: Callable[[], bool]
    needed_bytes: int
    settle_s: float = 3.0


class Spare:
    """The spare process of one kind of child. Runs on the event loop."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], policy: SparePolicy) -> None:
        self._name = name
        self._command = [*command, SPARE_OPTION]
        self._environment = environment
        self._policy = policy
        self._process: subprocess.Popen[bytes] | None = None
        self._warm = threading.Event()
        self._allowed = False
        self._not_before = 0.0

    @property
    def pid(self) -> int | None:
        """The process, while there is one, warm or not."""
        return self._process.pid if self._process else None

    @property
    def is_warm(self) -> bool:
        """Tell whether there is one with its imports done."""
        return self._process is not None and self._warm.is_set() and self._process.poll() is None

    def allow(self) -> None:
        """The child is ready for work: from now on there may be a spare."""
        self._allowed = True

    async def keep(self) -> None:
        """Start a spare whenever there may be one, and end it when memory is short; until cancelled."""
        idle_since: float | None = None
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._process is not None:
                self._look_after(self._process)
                continue
            now = time.monotonic()
            if not (self._allowed and self._policy.is_idle()):
                idle_since = None
                continue
            idle_since = now if idle_since is None else idle_since
            settled = now - idle_since >= self._policy.settle_s and now >= self._not_before
            if settled and psutil.virtual_memory().available >= self._policy.needed_bytes:
                self._start()

    def take(self, address: str, token: str) -> subprocess.Popen[bytes] | None:
        """Have a warm spare go on as the child; None when there is none. Another comes after the next success."""
        process = self._process
        if process is None or not self.is_warm:
            return None
        self._process, self._allowed = None, False
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([address, token]).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            end_process(process)
            return None
        return process

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        end_process(process)

    def _start(self) -> None:
        self._warm = warm = threading.Event()
        try:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=safe_folder(),
                env=child_environment(**self._environment),
            )  # fmt: skip
        except OSError as error:
            log.warning("no spare %s process can be started: %s", self._name, error)
            self._not_before = time.monotonic() + RETRY_AFTER_S
            return
        self._process = process
        threading.Thread(target=_watch, args=(process, warm), name=f"{self._name}-spare", daemon=True).start()

    def _look_after(self, process: subprocess.Popen[bytes]) -> None:
        status = process.poll()
        if status is not None:
            log.warning("the spare %s process ended with status %d", self._name, status)
            self._process, self._not_before = None, time.monotonic() + RETRY_AFTER_S
            end_process(process)
        elif psutil.virtual_memory().available < self._policy.needed_bytes // 2:
            log.info("the spare %s process is ended: memory is short", self._name)
            self._not_before = time.monotonic() + RETRY_AFTER_S
            self.stop()


def _watch(process: subprocess.Popen[bytes], warm: threading.Event) -> None:
    """Wait for the line that says that a spare is warm."""
    assert process.stdout is not None
    with contextlib.suppress(OSError, ValueError), process.stdout as line:
        if line.readline() == WARM_LINE:
            warm.set()


def end_process(process: subprocess.Popen[bytes] | None) -> None:
    """Make sure that a process is gone: it sees its standard input close; failing that it is killed."""
    if process is None:
        return
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


BACK_OFF_S = (0.0, 0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before each new start of a process that keeps ending without a success between; the last one repeats. The
first process of all, and the first after a success, are started at once."""

START_BACK_OFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds before each new start of a process that ended before it was ready; the last one repeats."""

HANDSHAKE_PATIENCE = 180.0
"""Seconds that a new process gets for its imports, on a cold disk."""

HEALTHY_AFTER_S = 60.0
"""Seconds after which a process counts as healthy, so that its end is the first one again."""

UNEXPLAINED_STARTS = 3
"""Starts in a row that may fail without a reason from the process before it counts as one that can't start."""

SILENCE_PARTS = 8
"""Parts of the patience in which silence is measured. A part that took longer, since this process didn't run, counts
twice at most: a daemon that was stopped heard nothing because it didn't listen."""

LONGEST_PART_S = 1.0

LAST_WORDS_WITHIN_S = 0.5
"""Time that the last message of a process that couldn't start takes through the socket, after its end was seen."""

Frame = bytes | memoryview
"""One part of a message, as the other side gets it."""


class Handshake(Protocol):
    """The first message of a process: proves that it is ours, and of our version."""

    @property
    def token(self) -> str:
        """Secret that the daemon gave to the process."""
        ...

    @property
    def wire_version(self) -> int:
        """Version of the messages."""
        ...

    @property
    def version(self) -> str:
        """Version of timbred."""
        ...


class Refusal(Protocol):
    """The last message of a process that can't start. `message` says why, and what to do."""

    @property
    def token(self) -> str:
        """Secret that the daemon gave to the process."""
        ...

    @property
    def message(self) -> str:
        """Cause and remedy."""
        ...


class ProcessObserver(Protocol):
    """The user of the process: receives its state changes and messages, on the event loop."""

    def child_up(self, ready: Any) -> None:
        """A process is there and takes orders; `ready` is its introduction."""
        ...

    def child_down(self, reason: str) -> None:
        """The process, which was up, ended or fell silent. A new one comes by itself."""
        ...

    def child_cannot_start(self, reason: str) -> None:
        """No process can be started, and the reason. It is tried again by itself; called after each such try."""
        ...

    def child_said(self, message: Any, payload: Sequence[memoryview]) -> None:
        """The process sent a message; `payload` are the frames that follow it."""
        ...


class ProcessView(Protocol):
    """State of a child process, to be read."""

    @property
    def up(self) -> bool:
        """True while a process is there and takes orders."""
        ...

    @property
    def state(self) -> Literal["starting", "up", "failed"]:
        """Failed: none can be started; see `trouble`."""
        ...

    @property
    def trouble(self) -> str:
        """Reason why no process can be started; empty while one runs or may still start."""
        ...

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        ...

    @property
    def spare_pid(self) -> int | None:
        """The spare process, while there is one."""
        ...

    @property
    def has_warm_spare(self) -> bool:
        """True while a spare process can take over at once."""
        ...


@dataclass(frozen=True)
class ProcessSpec:
    """A kind of child process: its name for the performer, its command, and the messages it speaks.

    Its first message is an `introduction`, or a `refusal` with its reason if it can't start. `patience` is in seconds
    without a message. `command` gets `--address` added.
    """

    name: str
    command: tuple[str, ...]
    introduction: type[Any]
    refusal: type[Any]
    wire_version: int
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    quit: Any
    patience: float = 30.0
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


class _HeartbeatLost(Exception):
    """No message within the patience."""


class _Refused(Exception):
    """The process can't start, for a reason that trying again doesn't change."""


@dataclass(frozen=True)
class _End:
    """The end of a process. `explained`: the reason why it could not start is known."""

    reason: str
    explained: bool = False


class SupervisedProcess:
    """One process of a trade, kept alive. Implements `ProcessView`."""

    def __init__(
        self,
        trade: ProcessSpec,
        user: ProcessObserver,
        supervisor: Supervisor | None = None,
        spare: SparePolicy | None = None,
    ) -> None:
        """With a policy for spares, a process that is lost is followed by one whose imports are done already."""
        self.trade = trade
        self.user = user
        self.up = False
        self.trouble = ""
        """Reason why no process can be started; empty while one runs or may still start."""
        self._supervisor = supervisor or Supervisor()
        self._addresses = Addresses(trade.name)
        self._failed_starts = 0
        self._ends = 0
        self._spare = Spare(trade.name, trade.command, dict(trade.environment), spare) if spare else None
        self._spare_task: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def state(self) -> Literal["starting", "up", "failed"]:
        """State of the process: up, or starting, or failed."""
        if self.up:
            return "up"
        return "failed" if self.trouble else "starting"

    @property
    def pid(self) -> int | None:
        """Process id; None while no process runs."""
        return self._process.pid if self._process else None

    @property
    def spare_pid(self) -> int | None:
        """The spare process, while there is one."""
        return self._spare.pid if self._spare else None

    @property
    def has_warm_spare(self) -> bool:
        """True if a spare process can take over at once."""
        return self._spare is not None and self._spare.is_warm

    def succeeded(self) -> None:
        """The process has done what it is for: its end, if it comes, counts as the first one."""
        self._ends = 0
        self.allow_spare()

    def allow_spare(self) -> None:
        """The process is ready for work: from now on there may be a spare one."""
        if self._spare is not None:
            self._spare.allow()

    def start(self) -> None:
        """Start the process and keep it alive until `stop`."""
        if self._spare is not None:
            self._spare_task = self._supervisor.keep(self._spare.keep, f"{self.trade.name}-spare")
        self._task = self._supervisor.keep(self._keep_alive, f"{self.trade.name}-link")

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
        for task in (self._spare_task, self._task):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await asyncio.to_thread(end_process, process)
        if self._spare is not None:
            await asyncio.to_thread(self._spare.stop)
        self._addresses.remove()

    async def _keep_alive(self) -> None:
        while not self._stopping:
            began = time.monotonic()
            was_up, end = await self._one_life()
            if self._stopping:
                return
            if was_up:
                self._ends = 1 if time.monotonic() - began > HEALTHY_AFTER_S else self._ends + 1
                log.error("the %s process ended (%s); starting it again", self.trade.name, end.reason)
                self._tell(self.user.child_down, end.reason)
                await asyncio.sleep(BACK_OFF_S[min(self._ends, len(BACK_OFF_S) - 1)])
            else:
                await asyncio.sleep(self._start_failed(end))

    def _start_failed(self, end: _End) -> float:
        """Tell of a process that ended before it was ready. Returns the seconds until the next try."""
        pause = START_BACK_OFF_S[min(self._failed_starts, len(START_BACK_OFF_S) - 1)]
        self._failed_starts += 1
        log.error("the %s can't be started (%s); tried again in %g s", self.trade.name, end.reason, pause)
        if end.explained or self._failed_starts >= UNEXPLAINED_STARTS or self.trouble:
            self.trouble = end.reason if end.explained else f"{end.reason}; the log may say why"
            self._tell(self.user.child_cannot_start, self.trouble)
        return pause

    def _tell(self, told: Callable[[str], None], reason: str) -> None:
        """Tell the user. A fault of theirs must not keep the next process from being started."""
        try:
            told(reason)
        except Exception as error:  # noqa: BLE001  whatever it is
            self._supervisor.failed(f"{self.trade.name}-link", error)

    async def _one_life(self) -> tuple[bool, _End]:
        """From the start of a process to its end. Says whether it was up, and how it ended."""
        context = zmq.asyncio.Context()
        self._socket = context.socket(zmq.PAIR)
        self._socket.linger = 0
        token = secrets.token_hex(16)
        try:
            self._process = self._spawn(self._addresses.bind(self._socket), token)
            end = await self._converse(self._process, self._socket, token)
        except (OSError, zmq.ZMQError) as error:
            end = _End(f"it can't be run: {error}", explained=True)
        finally:
            # first what can't be interrupted: a context left open would block whoever collects it
            was_up, self.up = self.up, False
            self._socket.close()
            context.destroy(linger=0)
            process, self._process = self._process, None
            await asyncio.shield(asyncio.to_thread(end_process, process))
        return was_up, end

    def _spawn(self, address: str, token: str) -> subprocess.Popen[bytes]:
        if self._spare is not None and (process := self._spare.take(address, token)) is not None:
            return process
        command = [*self.trade.command, "--address", address]
        environment = child_environment(**self.trade.environment, **{TOKEN_VARIABLE: token})
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, cwd=safe_folder()
        )

    async def _converse(self, process: subprocess.Popen[bytes], socket: zmq.asyncio.Socket, token: str) -> _End:
        ended = _when_ended(process, self.trade.name)
        try:
            await self._shake_hands(socket, token, ended)
            while True:
                self._hear(await _next(socket, self.trade.patience, ended))
        except EOFError:
            return _End(_exit_status(process.wait()))
        except _HeartbeatLost as silence:
            return _End(str(silence), explained=True)
        except _Refused as refusal:
            return _End(str(refusal), explained=True)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            return _End(f"it sent what can't be read: {error}", explained=True)
        except Exception as error:  # noqa: BLE001  a fault of ours: a new process is given what this one had
            self._supervisor.failed(f"{self.trade.name}-link", error)
            return _End(f"a fault in the daemon: {type(error).__name__}: {error}")

    def _hear(self, frames: list[zmq.Frame]) -> None:
        message = self.trade.decode(frames[0].bytes)
        self.user.child_said(message, [frame.buffer for frame in frames[1:]])

    async def _shake_hands(self, socket: zmq.asyncio.Socket, token: str, ended: "asyncio.Future[None]") -> None:
        trade = self.trade
        frames = await _next(socket, HANDSHAKE_PATIENCE, ended, LAST_WORDS_WITHIN_S)
        message = trade.decode(frames[0].bytes)
        if not secrets.compare_digest(str(getattr(message, "token", "")), token):
            raise _Refused(f"a stranger answered in the {trade.name}'s place")
        if isinstance(message, trade.refusal):
            refusal: Refusal = message
            raise _Refused(refusal.message)
        if not isinstance(message, trade.introduction):
            raise _Refused(f"the {trade.name} began with {type(message).__name__}; look for another timbred's process")
        ready: Handshake = message
        if (ready.wire_version, ready.version) != (trade.wire_version, __version__):
            raise _Refused(
                f"the {trade.name} is timbred {ready.version}, the daemon {__version__}; install one of them anew"
            )
        self.up, self.trouble, self._failed_starts = True, "", 0
        self.user.child_up(ready)


async def _next(
    socket: zmq.asyncio.Socket, patience: float, ended: "asyncio.Future[None]", last_words_within: float = 0.0
) -> list[zmq.Frame]:
    """The next message. One that the process sent before it ended may come `last_words_within` seconds later.

    Silence is measured in parts, and only while this process runs: after a pause (SIGSTOP, a machine that slept) what
    waits in the socket is read before anybody is judged, and the pause itself doesn't count.

    Raises:
        _Silent: None came within the patience.
        EOFError: The process ended, and all that it sent before has been read.
    """
    part = min(LONGEST_PART_S, patience / SILENCE_PARTS)
    silence = 0.0
    receiving = asyncio.ensure_future(socket.recv_multipart(copy=False))
    try:
        while silence < patience:
            began = time.monotonic()
            await asyncio.wait({receiving, ended}, timeout=part, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            if ended.done():
                await asyncio.wait({receiving}, timeout=last_words_within)
                if receiving.done():
                    return receiving.result()
                raise EOFError
            silence += min(time.monotonic() - began, 2 * part)
        raise _HeartbeatLost(f"no sign of life for {patience:g} s")
    finally:
        receiving.cancel()


def _exit_status(status: int) -> str:
    """An exit status in words; a negative one names the signal."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"exit status {status}, {signal.Signals(-status).name}"
    except ValueError:
        return f"exit status {status}"


def _when_ended(process: subprocess.Popen[bytes], name: str) -> "asyncio.Future[None]":
    """A future that is done once the process is gone."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ended.done():
            ended.set_result(None)

    def wait() -> None:
        try:
            process.wait()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                loop.call_soon_threadsafe(tell)

    threading.Thread(target=wait, name=f"{name}-watch", daemon=True).start()
    return ended
