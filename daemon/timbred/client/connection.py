"""Discovery of a daemon, the ZeroMQ connection to it, the client's errors, and takes with their samples."""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import zmq
import zmq.asyncio
import zmq.utils.monitor

from timbred import config, errors
from timbred.access.keys import CurveKeys, hexadecimal
from timbred.audio import Samples
from timbred.protocol import json as frames
from timbred.protocol import messages as m


class DaemonNotFound(errors.ShuttingDown):
    """No daemon is running, or it exited during the request."""


class DaemonTimeout(errors.WorkerLost, TimeoutError):
    """The daemon no longer answers."""


class ClientClosed(errors.ShuttingDown):
    """The client was closed before the request, or during it."""


class RequestCancelled(errors.BadRequest):
    """The request was cancelled by another client."""


def error_of(fail: m.Fail) -> errors.TimbredError:
    """Return the error of a `fail` event, of the class that its code has in `timbred.errors`."""
    if fail.code == errors.Busy.code:
        return errors.Busy(fail.message, 1.0 if fail.retry_after_s is None else fail.retry_after_s)
    return errors.from_code(fail.code, fail.message)


LOOPBACK = "127.0.0.1"
SERVICE = "_oscjson._tcp.local."
"""The mDNS service of daemons; see `timbred.discovery.mdns`."""


@dataclass(frozen=True)
class DaemonAddress:
    """A daemon's host and its ZeroMQ ports."""

    host: str
    requests: int
    events: int

    def __str__(self) -> str:
        return f"{self.host}, port {self.requests}"

    @property
    def requests_url(self) -> str:
        """ZeroMQ URL of the port for requests."""
        return f"tcp://{self._host}:{self.requests}"

    @property
    def events_url(self) -> str:
        """ZeroMQ URL of the port for events."""
        return f"tcp://{self._host}:{self.events}"

    @property
    def _host(self) -> str:
        host = reachable(self.host)
        return f"[{host}]" if ":" in host else host


def reachable(host: str) -> str:
    """Return the address to connect to for a daemon that is bound to `host`."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)


def address_of_daemon(settings: config.Config) -> DaemonAddress:
    """Return the address of a daemon with these settings."""
    return DaemonAddress(settings["host"], settings["zmq.requests"], settings["zmq.events"])


def configured_address() -> DaemonAddress:
    """Return the daemon's address in the user's settings: the file, the environment, else the defaults.

    Raises:
        BadRequest: The settings can't be read.
    """
    return address_of_daemon(config.load(None, os.environ, ()))


async def browse(within: float) -> list[DaemonAddress]:
    """Return the first daemon that mDNS finds on the loopback interface within `within` seconds; empty if none."""
    addresses: list[DaemonAddress] = []
    try:
        async with asyncio.timeout(within), aclosing(_browse_services()) as services:
            async for address in services:
                addresses.append(address)
                break  # the first is used; waiting for others would delay the request
    except (TimeoutError, OSError):
        return addresses
    return addresses


async def _browse_services() -> AsyncGenerator[DaemonAddress]:
    from zeroconf import IPVersion, ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

    names: asyncio.Queue[str] = asyncio.Queue()

    def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Added:
            names.put_nowait(name)

    responder = AsyncZeroconf(interfaces=[LOOPBACK], ip_version=IPVersion.V4Only)
    try:
        AsyncServiceBrowser(responder.zeroconf, [SERVICE], handlers=[changed])
        while True:
            info = AsyncServiceInfo(SERVICE, await names.get())
            if await info.async_request(responder.zeroconf, 1000) and (address := _address_of(info)) is not None:
                yield address
    finally:
        await responder.async_close()


def _address_of(info: Any) -> DaemonAddress | None:
    """Return the address of an announced service; None if it isn't a timbred daemon."""
    properties = {key.decode(): (value or b"").decode() for key, value in info.properties.items()}
    ports = [properties.get(name, "") for name in ("zmq.requests", "zmq.events")]
    if not all(port.isdecimal() for port in ports) or not info.parsed_addresses():
        return None
    return DaemonAddress(info.parsed_addresses()[0], int(ports[0]), int(ports[1]))


log = logging.getLogger(__name__)

OnEvent = Callable[[m.Event, list[bytes]], None]
"""Called with an event and the frames that follow it."""

Refusal = Literal["keyless", "untrusted", "no keys", "other key"]
"""Reason of a failed handshake: the daemon demands a key, doesn't trust this one, has no keys, or has another one."""

MAX_FAILED_HANDSHAKES = 3
"""Handshakes that end without a reason before the daemon counts as refusing; one may be a daemon that exits."""

_FAILED_HANDSHAKES = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


UNSENT_LINGER_MS = 1000
"""Longest time in which a closed connection still sends its last requests, such as a cancellation, in milliseconds."""


def prepare(unconnected: zmq.asyncio.Socket, address: DaemonAddress, keys: CurveKeys | None) -> None:
    """Set the options of a socket before it is connected to a daemon."""
    unconnected.set(zmq.IPV6, int(":" in address.host))
    unconnected.set(zmq.LINGER, 0)
    if keys is not None:
        keys.apply_to(unconnected)


def access_denied(address: DaemonAddress, refusal: Refusal, keys: CurveKeys | None) -> errors.AccessDenied:
    """Return the error for a refused connection, with the commands that change it."""
    where = f"timbred at {address}"
    match refusal:
        case "keyless":
            remedy = (
                "demands a key. Run `timbred keys make` here, then `timbred keys trust NAME KEY --host "
                f"{address.host}` with its machine's key, and there `timbred keys trust NAME KEY` with this one's"
            )
        case "untrusted":
            own = "" if keys is None else f" {hexadecimal(keys.public)}"
            remedy = f"doesn't trust this machine's key; there, run: timbred keys trust NAME{own}"
        case "no keys":
            remedy = (
                "uses no keys, but there is a trusted key for its host; remove it (timbred keys remove NAME), or start "
                "that daemon without access.open"
            )
        case "other key":
            remedy = (
                "has another key than the one that is trusted for its host, or uses no keys; compare with `timbred "
                "keys` there, and replace it (timbred keys trust NAME KEY --replace) or remove it (timbred keys remove "
                "NAME)"
            )
    return errors.AccessDenied(f"{where} {remedy}")


class DaemonConnection:
    """A DEALER connected to one daemon.

    Requests are not queued while no daemon is connected, because they could be executed much later.

    Args:
        context: The ZeroMQ context.
        address: The daemon's address.
        on_event: Called with each event and the frames that follow it.
        on_lost: Called when the connection is lost, after the last event.
        keys: The keys of an encrypted connection; None for a plain one.
    """

    def __init__(
        self,
        context: zmq.asyncio.Context,
        address: DaemonAddress,
        on_event: OnEvent,
        on_lost: Callable[[], None],
        keys: CurveKeys | None = None,
    ) -> None:
        self.address = address
        self.keys = keys
        self.refusal: Refusal | None = None
        self._failures = 0
        self._on_event = on_event
        self._on_lost = on_lost
        self._up = asyncio.Event()
        self._decided = asyncio.Event()
        self._socket = context.socket(zmq.DEALER)
        self._socket.set(zmq.IMMEDIATE, 1)
        prepare(self._socket, address, keys)
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | _FAILED_HANDSHAKES
        )
        self._socket.connect(address.requests_url)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._watch())]

    @property
    def up(self) -> bool:
        """True while a daemon is connected."""
        return self._up.is_set()

    async def wait_up(self, within: float) -> bool:
        """Wait until a daemon is connected; return False if that takes more than `within` seconds, or it refuses.

        `refusal` then has the reason, if the daemon has refused the connection.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._decided.wait()
        return self._up.is_set()

    def send(self, frame: bytes) -> None:
        """Send a request.

        Raises:
            DaemonNotFound: No daemon is connected.
        """
        sent = cast("asyncio.Future[Any]", self._socket.send(frame, zmq.NOBLOCK))
        if not sent.done() or sent.exception() is not None:
            sent.cancel()
            raise DaemonNotFound(
                f"the connection to timbred at {self.address} was lost; retry when it is running again"
            )

    async def close(self) -> None:
        """Close the connection; requests that aren't sent yet still are, within `UNSENT_LINGER_MS`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=UNSENT_LINGER_MS)

    async def _read(self) -> None:
        while True:
            self._handle(await self._socket.recv_multipart())

    def _handle(self, parts: list[bytes]) -> None:
        """Pass on an event. A failure is logged, so that later events are still read."""
        try:
            event = frames.read_event(json.loads(parts[0]))
            if event is None:
                log.debug("unknown event ignored: %s", parts[0])
            else:
                self._on_event(event, parts[1:])
        except Exception:
            log.exception("an event from timbred at %s can't be handled: %s", self.address, parts[0][:200])

    async def _watch(self) -> None:
        while True:
            status = zmq.utils.monitor.parse_monitor_message(await self._monitor.recv_multipart())
            event = status["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._up.set()
                self._decided.set()
            elif event & _FAILED_HANDSHAKES:
                self._fail_handshake(event, status["value"])
            elif self._up.is_set():
                self._up.clear()
                self._decided.clear()
                self._handle_received()
                self._on_lost()

    def _fail_handshake(self, event: int, value: int) -> None:
        """Store the reason of a failed handshake.

        One without details is tried again by libzmq: the daemon has another key or has just exited, or its reason was
        lost with the connection.
        """
        if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._failures += 1
            if self._failures >= MAX_FAILED_HANDSHAKES:
                self.refusal = "keyless" if self.keys is None else "other key"
                self._decided.set()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self.refusal = "untrusted"
            self._decided.set()
        elif value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:  # otherwise another program has the port
            self.refusal = "keyless" if self.keys is None else "no keys"
            self._decided.set()

    def _handle_received(self) -> None:
        """Handle the last events of a daemon that has exited, before the loss is reported."""
        while True:
            received = cast("asyncio.Future[list[bytes]]", self._socket.recv_multipart(zmq.NOBLOCK))
            if not received.done() or received.exception() is not None:
                received.cancel()
                return
            self._handle(received.result())


@dataclass(frozen=True, eq=False)
class Sound:
    """One take with its samples.

    `samples` has shape (frames, channels), float32, full scale -1..1, and is writable. `take` is the daemon's event;
    `others` are the other takes of the same request, in order of rank if they were ranked.
    """

    take: m.Take
    samples: Samples
    others: "tuple[Sound, ...]" = ()

    @property
    def rate(self) -> int:
        """Sample rate in Hz."""
        return self.take.rate

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.take.rate

    @property
    def path(self) -> str:
        """Path of the file; empty with `to="none"`."""
        return self.take.path

    @property
    def seed(self) -> int:
        """Seed with which the same sound can be rendered again."""
        return self.take.seed

    @property
    def take_id(self) -> str:
        """Id of the take, for `vary`, `play`, `noise=` and `init=`."""
        return self.take.take_id

    @property
    def knows(self) -> float | None:
        """Share of the prompt that the model knows, 0 to 1; None if it can't tell."""
        return self.take.knows

    def __repr__(self) -> str:
        where = self.path or "no file"
        known = "" if self.knows is None else f", knows {self.knows:.0%}"
        facts = f"{self.seconds:.3f} s, {self.samples.shape[1]} ch, {self.rate} Hz, seed {self.seed}{known}"
        return f"<Sound {facts}, {where}>"


def read_sound(take: m.Take, frame: bytes) -> Sound:
    """Read a sound from its event and the frame after it: float32, little-endian, interleaved."""
    samples = np.frombuffer(frame, "<f4").reshape(-1, take.channels).astype(np.float32)
    return Sound(take, samples)


def first_of(sounds: Sequence[Sound]) -> Sound:
    """Return the first of a request's takes, with the others in `others`."""
    first, *others = sorted(sounds, key=lambda sound: sound.take.index)
    return replace(first, others=tuple(others))
