"""Supervision of a child process, with an optional spare process that replaces a lost one.

A spare process has its imports done and waits for one line on its standard input with the daemon's address and the
token. It is started only after a first success, while the daemon is idle and enough memory is available, and it imports
at a low priority.

    state      entered when                                     left when
    -------    ---------------------------------------------    -----------------------------------
    absent     initially; it exited; it is in use               the policy has allowed one for `settle_s`
    warming    it was started                                   it reports that it is warm, or exits
    warm       its imports are done                             it is used, exits, or memory is short
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

SPARE_CHECK_INTERVAL_S = 1.0
"""Interval of the checks that start a spare, or end it because memory is short."""

RETRY_AFTER_S = 60.0
"""Pause after a spare that exited unexpectedly, because the next one may exit for the same reason."""


@dataclass(frozen=True)
class SparePolicy:
    """Conditions for a spare process.

    Attributes:
        is_idle: Tells if there is no other work.
        needed_bytes: Available memory from which one is started; below half of it the spare is ended.
        settle_s: Seconds for which `is_idle` must hold.
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
        """Process id of the spare, warm or not; None without one."""
        return self._process.pid if self._process else None

    @property
    def is_warm(self) -> bool:
        """True if the spare's imports are done."""
        return self._process is not None and self._warm.is_set() and self._process.poll() is None

    def allow(self) -> None:
        """Allow a spare from now on, because the child is ready for work."""
        self._allowed = True

    async def maintain(self) -> None:
        """Start a spare whenever the policy allows it, and end it when memory is short; until cancelled."""
        idle_since: float | None = None
        while True:
            await asyncio.sleep(SPARE_CHECK_INTERVAL_S)
            if self._process is not None:
                self._check_process(self._process)
                continue
            now = time.monotonic()
            if not (self._allowed and self._policy.is_idle()):
                idle_since = None
                continue
            idle_since = now if idle_since is None else idle_since
            settled = now - idle_since >= self._policy.settle_s and now >= self._not_before
            if settled and psutil.virtual_memory().available >= self._policy.needed_bytes:
                self._start()

    def take_over(self, address: str, token: str) -> subprocess.Popen[bytes] | None:
        """Use a warm spare as the child, and return its process; None without one.

        Another spare is started after the next success.
        """
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
        """End the spare process."""
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
        threading.Thread(target=_wait_until_warm, args=(process, warm), name=f"{self._name}-spare", daemon=True).start()

    def _check_process(self, process: subprocess.Popen[bytes]) -> None:
        status = process.poll()
        if status is not None:
            log.warning("the spare %s process ended with status %d", self._name, status)
            self._process, self._not_before = None, time.monotonic() + RETRY_AFTER_S
            end_process(process)
        elif psutil.virtual_memory().available < self._policy.needed_bytes // 2:
            log.info("the spare %s process is ended: memory is short", self._name)
            self._not_before = time.monotonic() + RETRY_AFTER_S
            self.stop()


def _wait_until_warm(process: subprocess.Popen[bytes], warm: threading.Event) -> None:
    """Wait for the line with which a spare reports that it is warm."""
    assert process.stdout is not None
    with contextlib.suppress(OSError, ValueError), process.stdout as line:
        if line.readline() == WARM_LINE:
            warm.set()


def end_process(process: subprocess.Popen[bytes] | None) -> None:
    """End a process by closing its standard input; kill it if it does not exit."""
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


RESTART_DELAYS_S = (0.0, 0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Delays of the restarts after consecutive exits without a success between them; the last one repeats.

The first process, and the first after a success, are started immediately.
"""

START_RETRY_DELAYS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Delays of the restarts of a process that exited before it was ready; the last one repeats."""

HANDSHAKE_TIMEOUT_S = 180.0
"""Timeout of the first message of a new process: long enough for imports from a cold disk."""

HEALTHY_AFTER_S = 60.0
"""Seconds after which a process counts as healthy, so that its exit is counted as the first one."""

MAX_UNEXPLAINED_FAILURES = 3
"""Consecutive failed starts without a reason from the process after which `trouble` is reported."""

TIMEOUT_INTERVALS = 8
"""Intervals in which a timeout is measured.

An interval that took longer, because this process was suspended, counts twice at most.
"""

MAX_INTERVAL_S = 1.0

LAST_MESSAGE_TIMEOUT_S = 0.5
"""Timeout for the last message of a process that could not start, after its exit was noticed."""

Frame = bytes | memoryview
"""One part of a message."""


class Handshake(Protocol):
    """The first message of a process; proves its identity and version."""

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
    """The last message of a process that can't start; `message` has the reason and the remedy."""

    @property
    def token(self) -> str:
        """Secret that the daemon gave to the process."""
        ...

    @property
    def message(self) -> str:
        """Cause and remedy."""
        ...


class ProcessObserver(Protocol):
    """Receives the state changes and messages of a process, on the event loop."""

    def child_ready(self, ready: Any) -> None:
        """Handle a process that accepts orders; `ready` is its first message."""
        ...

    def child_lost(self, reason: str) -> None:
        """Handle the loss of a process that was up, by exit or timeout; it is restarted automatically."""
        ...

    def child_cannot_start(self, reason: str) -> None:
        """Handle a failed start; called after each attempt, which is repeated automatically."""
        ...

    def child_message_received(self, message: Any, payload: Sequence[memoryview]) -> None:
        """Handle a message of the process and the payload frames that follow it."""
        ...


class ProcessView(Protocol):
    """Readable state of a child process."""

    @property
    def up(self) -> bool:
        """True while a process accepts orders."""
        ...

    @property
    def state(self) -> Literal["starting", "up", "failed"]:
        """State of the process; `failed` while none can be started, see `trouble`."""
        ...

    @property
    def trouble(self) -> str:
        """Reason why no process can be started; empty while one runs or may still start."""
        ...

    @property
    def pid(self) -> int | None:
        """Process id; None while no process runs."""
        ...

    @property
    def spare_pid(self) -> int | None:
        """Process id of the spare; None without one."""
        ...

    @property
    def has_warm_spare(self) -> bool:
        """True while a warm spare process exists."""
        ...


@dataclass(frozen=True)
class ProcessSpec:
    """Specification of a child process.

    Attributes:
        name: Name in messages to the performer.
        command: Command line, to which `--address` is added.
        ready_type: Type of its first message.
        refusal_type: Type of its first message if it can't start.
        wire_version: Version of its messages.
        encode: Encodes a message.
        decode: Decodes a message.
        quit_message: Message that ends it.
        timeout_s: Seconds without a message after which it counts as lost.
        environment: Additional environment variables.
    """

    name: str
    command: tuple[str, ...]
    ready_type: type[Any]
    refusal_type: type[Any]
    wire_version: int
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    quit_message: Any
    timeout_s: float = 30.0
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


class _HeartbeatLost(Exception):
    """No message arrived within the timeout."""


class _Refused(Exception):
    """The process can't start or go on; the text is its own reason."""


@dataclass(frozen=True)
class _End:
    """The end of a process; `has_reason` is True if `reason` explains why it could not start."""

    reason: str
    has_reason: bool = False


class SupervisedProcess:
    """A child process that is restarted when it exits. Implements `ProcessView`.

    Args:
        spec: Specification of the process.
        observer: Receives state changes and messages.
        supervisor: Runs background tasks.
        spare: Policy for a spare process that replaces a lost one; None without spares.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        observer: ProcessObserver,
        supervisor: Supervisor | None = None,
        spare: SparePolicy | None = None,
    ) -> None:
        self.spec = spec
        self.observer = observer
        self.up = False
        self.trouble = ""
        """Reason why no process can be started; empty while one runs or may still start."""
        self._supervisor = supervisor or Supervisor()
        self._addresses = Addresses(spec.name)
        self._failed_starts = 0
        self._exit_count = 0
        self._spare = Spare(spec.name, spec.command, dict(spec.environment), spare) if spare else None
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
        """Process id of the spare; None without one."""
        return self._spare.pid if self._spare else None

    @property
    def has_warm_spare(self) -> bool:
        """True if a spare process can take over immediately."""
        return self._spare is not None and self._spare.is_warm

    def record_success(self) -> None:
        """Record that the process did its work: its next exit counts as the first one."""
        self._exit_count = 0
        self.allow_spare()

    def allow_spare(self) -> None:
        """Allow a spare process from now on, because the process is ready for work."""
        if self._spare is not None:
            self._spare.allow()

    def start(self) -> None:
        """Start the process and keep it alive until `stop`."""
        if self._spare is not None:
            self._spare_task = self._supervisor.keep(self._spare.maintain, f"{self.spec.name}-spare")
        self._task = self._supervisor.keep(self._keep_alive, f"{self.spec.name}-link")

    def send(self, message: Any, *payload: Frame) -> bool:
        """Send an order with its payload frames; returns False while no process accepts orders."""
        if not self.up or self._socket is None:
            return False
        self._socket.send_multipart([self.spec.encode(message), *payload], copy=not payload)
        return True

    async def stop(self, timeout_s: float) -> None:
        """Ask the process to quit, and kill it if it does not within `timeout_s` seconds."""
        self._stopping = True
        self.send(self.spec.quit_message)
        process = self._process
        if process is not None and self.up:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, timeout_s)
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
            started_at = time.monotonic()
            was_up, end = await self._run_process()
            if self._stopping:
                return
            if was_up:
                self._exit_count = 1 if time.monotonic() - started_at > HEALTHY_AFTER_S else self._exit_count + 1
                log.error("the %s process ended (%s); it is restarted", self.spec.name, end.reason)
                self._notify(self.observer.child_lost, end.reason)
                await asyncio.sleep(RESTART_DELAYS_S[min(self._exit_count, len(RESTART_DELAYS_S) - 1)])
            else:
                await asyncio.sleep(self._start_failed(end))

    def _start_failed(self, end: _End) -> float:
        """Report a process that exited before it was ready; returns the seconds until the next attempt."""
        pause = START_RETRY_DELAYS_S[min(self._failed_starts, len(START_RETRY_DELAYS_S) - 1)]
        self._failed_starts += 1
        log.error("the %s can't be started (%s); the next attempt is in %g s", self.spec.name, end.reason, pause)
        if end.has_reason or self._failed_starts >= MAX_UNEXPLAINED_FAILURES or self.trouble:
            self.trouble = end.reason if end.has_reason else f"{end.reason}; the log may say why"
            self._notify(self.observer.child_cannot_start, self.trouble)
        return pause

    def _notify(self, callback: Callable[[str], None], reason: str) -> None:
        """Call the observer; an exception there must not prevent the restart."""
        try:
            callback(reason)
        except Exception as error:  # noqa: BLE001  whatever it is
            self._supervisor.failed(f"{self.spec.name}-link", error)

    async def _run_process(self) -> tuple[bool, _End]:
        """Run one process until it exits; returns True if it was up, and its end."""
        context = zmq.asyncio.Context()
        self._socket = context.socket(zmq.PAIR)
        self._socket.linger = 0
        token = secrets.token_hex(16)
        try:
            self._process = self._spawn(self._addresses.bind(self._socket), token)
            end = await self._receive_messages(self._process, self._socket, token)
        except (OSError, zmq.ZMQError) as error:
            end = _End(f"it can't be run: {error}", has_reason=True)
        finally:
            # before any await: a context that stays open would block the garbage collection that destroys it
            was_up, self.up = self.up, False
            self._socket.close()
            context.destroy(linger=0)
            process, self._process = self._process, None
            await asyncio.shield(asyncio.to_thread(end_process, process))
        return was_up, end

    def _spawn(self, address: str, token: str) -> subprocess.Popen[bytes]:
        if self._spare is not None and (process := self._spare.take_over(address, token)) is not None:
            return process
        command = [*self.spec.command, "--address", address]
        environment = child_environment(**self.spec.environment, **{TOKEN_VARIABLE: token})
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, cwd=safe_folder()
        )

    async def _receive_messages(self, process: subprocess.Popen[bytes], socket: zmq.asyncio.Socket, token: str) -> _End:
        ended = _watch_exit(process, self.spec.name)
        try:
            await self._shake_hands(socket, token, ended)
            while True:
                self._handle_message(await _receive_next(socket, self.spec.timeout_s, ended))
        except EOFError:
            return _End(_exit_status(process.wait()))
        except _HeartbeatLost as silence:
            return _End(str(silence), has_reason=True)
        except _Refused as refusal:
            return _End(str(refusal), has_reason=True)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            return _End(f"it sent an invalid message: {error}", has_reason=True)
        except Exception as error:  # noqa: BLE001  a fault in the daemon must not prevent the restart
            self._supervisor.failed(f"{self.spec.name}-link", error)
            return _End(f"a fault in the daemon: {type(error).__name__}: {error}")

    def _handle_message(self, frames: list[zmq.Frame]) -> None:
        message = self.spec.decode(frames[0].bytes)
        if isinstance(message, self.spec.refusal_type):  # its last one: the reason why it exits
            refusal: Refusal = message
            raise _Refused(refusal.message)
        self.observer.child_message_received(message, [frame.buffer for frame in frames[1:]])

    async def _shake_hands(self, socket: zmq.asyncio.Socket, token: str, ended: "asyncio.Future[None]") -> None:
        spec = self.spec
        frames = await _receive_next(socket, HANDSHAKE_TIMEOUT_S, ended, LAST_MESSAGE_TIMEOUT_S)
        message = spec.decode(frames[0].bytes)
        if not secrets.compare_digest(str(getattr(message, "token", "")), token):
            raise _Refused(f"another program answered instead of the {spec.name}")
        if isinstance(message, spec.refusal_type):
            refusal: Refusal = message
            raise _Refused(refusal.message)
        if not isinstance(message, spec.ready_type):
            raise _Refused(f"the {spec.name} began with {type(message).__name__}; look for another timbred's process")
        ready: Handshake = message
        if (ready.wire_version, ready.version) != (spec.wire_version, __version__):
            raise _Refused(f"the {spec.name} is timbred {ready.version}, the daemon {__version__}; reinstall timbred")
        self.up, self.trouble, self._failed_starts = True, "", 0
        self.observer.child_ready(ready)


async def _receive_next(
    socket: zmq.asyncio.Socket, timeout_s: float, ended: "asyncio.Future[None]", last_message_timeout_s: float = 0.0
) -> list[zmq.Frame]:
    """Return the next message; one that was sent before an exit may arrive `last_message_timeout_s` seconds after it.

    The timeout is measured in intervals, and only while this process runs: after a suspension (SIGSTOP, a machine that
    slept) pending messages are read first, and the suspension itself does not count.

    Raises:
        _HeartbeatLost: No message arrived within the timeout.
        EOFError: The process has exited, and all its messages have been read.
    """
    interval_s = min(MAX_INTERVAL_S, timeout_s / TIMEOUT_INTERVALS)
    silent_s = 0.0
    receiving = asyncio.ensure_future(socket.recv_multipart(copy=False))
    try:
        while silent_s < timeout_s:
            waited_from = time.monotonic()
            await asyncio.wait({receiving, ended}, timeout=interval_s, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            if ended.done():
                await asyncio.wait({receiving}, timeout=last_message_timeout_s)
                if receiving.done():
                    return receiving.result()
                raise EOFError
            silent_s += min(time.monotonic() - waited_from, 2 * interval_s)
        raise _HeartbeatLost(f"no heartbeat for {timeout_s:g} s")
    finally:
        receiving.cancel()


def _exit_status(status: int) -> str:
    """Describe an exit status; a negative one by the name of its signal."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"exit status {status}, {signal.Signals(-status).name}"
    except ValueError:
        return f"exit status {status}"


def _watch_exit(process: subprocess.Popen[bytes], name: str) -> "asyncio.Future[None]":
    """Return a future that is done once the process has exited."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def set_ended() -> None:
        if not ended.done():
            ended.set_result(None)

    def wait() -> None:
        try:
            process.wait()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed, so nothing waits for the future
                loop.call_soon_threadsafe(set_ended)

    threading.Thread(target=wait, name=f"{name}-watch", daemon=True).start()
    return ended
