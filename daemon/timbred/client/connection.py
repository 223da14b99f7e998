"""What can go wrong between a program and a daemon, beside what the daemon itself answers."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import zmq
import zmq.asyncio
import zmq.utils.monitor

from timbred import config, errors
from timbred.protocol import json as frames
from timbred.protocol import messages as m


class DaemonNotFound(errors.ShuttingDown):
    """No daemon is there, or it ended while it worked on this. Ask again once it is back."""


class DaemonTimeout(errors.WorkerLost, TimeoutError):
    """A daemon is there and doesn't answer any more."""


class RequestCancelled(errors.BadRequest):
    """Somebody else cancelled this request."""


def error_of(fail: m.Fail) -> errors.TimbredError:
    """The error that a `fail` stands for, of the class that its code has in `timbred.errors`."""
    if fail.code == errors.Busy.code:
        return errors.Busy(fail.message, fail.retry_after_s or 1.0)
    return errors.from_code(fail.code, fail.message)


LOOPBACK = "127.0.0.1"
SERVICE = "_oscjson._tcp.local."
"""What daemons are announced as; see `timbred.discovery.mdns`."""


@dataclass(frozen=True)
class DaemonAddress:
    """A daemon's ZeroMQ ports."""

    host: str
    requests: int
    events: int

    def __str__(self) -> str:
        return f"{self.host}, port {self.requests}"

    @property
    def requests_url(self) -> str:
        return f"tcp://{self._host}:{self.requests}"

    @property
    def events_url(self) -> str:
        return f"tcp://{self._host}:{self.events}"

    @property
    def _host(self) -> str:
        host = reachable(self.host)
        return f"[{host}]" if ":" in host else host


def reachable(host: str) -> str:
    """The address to connect to for a daemon that is bound to `host`."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)


def place_of(settings: config.Config) -> DaemonAddress:
    """Where these settings put a daemon."""
    return DaemonAddress(settings["host"], settings["zmq.requests"], settings["zmq.events"])


def usual_place() -> DaemonAddress:
    """Where the user's own settings put it: the file, the environment, else the defaults.

    Raises:
        BadRequest: the settings can't be read.
    """
    return place_of(config.load(None, os.environ, ()))


async def announced(within: float) -> list[DaemonAddress]:
    """The daemons that zeroconf tells of on this machine's loopback interface, in at most `within` seconds."""
    found: list[DaemonAddress] = []
    try:
        async with asyncio.timeout(within), aclosing(_browsed()) as browsed:
            async for place in browsed:
                found.append(place)
                break  # the first that answers: a performer waits
    except (TimeoutError, OSError):
        return found
    return found


async def _browsed() -> AsyncGenerator[DaemonAddress]:
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
            if await info.async_request(responder.zeroconf, 1000) and (place := _place(info)) is not None:
                yield place
    finally:
        await responder.async_close()


def _place(info: Any) -> DaemonAddress | None:
    """Where an announced service is; None when it is none of timbred's."""
    told = {key.decode(): (value or b"").decode() for key, value in info.properties.items()}
    ports = [told.get(name, "") for name in ("zmq.requests", "zmq.events")]
    if not all(port.isdecimal() for port in ports) or not info.parsed_addresses():
        return None
    return DaemonAddress(info.parsed_addresses()[0], int(ports[0]), int(ports[1]))


log = logging.getLogger(__name__)

Heard = Callable[[m.Event, list[bytes]], None]
"""Takes an event and the frames that follow it."""


class DaemonConnection:
    """One DEALER. Nothing is sent while no daemon is there: what would wait could be carried out much later."""

    def __init__(
        self, context: zmq.asyncio.Context, place: DaemonAddress, heard: Heard, lost: Callable[[], None]
    ) -> None:
        """`heard` takes each event; `lost` hears that the connection broke, after the last event."""
        self.place = place
        self._heard = heard
        self._lost = lost
        self._up = asyncio.Event()
        self._socket = context.socket(zmq.DEALER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.IMMEDIATE, 1)
        self._socket.set(zmq.IPV6, int(":" in place.host))
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._socket.connect(place.requests_url)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._watch())]

    @property
    def up(self) -> bool:
        return self._up.is_set()

    async def wait_up(self, within: float) -> bool:
        """Whether a daemon is there, in at most `within` seconds."""
        try:
            async with asyncio.timeout(within):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    def send(self, frame: bytes) -> None:
        """Send a request.

        Raises:
            NoDaemon: there is none at this moment.
        """
        sent = cast("asyncio.Future[Any]", self._socket.send(frame, zmq.NOBLOCK))
        if not sent.done() or sent.exception() is not None:
            sent.cancel()
            raise DaemonNotFound(f"the connection to timbred at {self.place} has just ended; ask again once it is back")

    async def close(self) -> None:
        """End it; what waits to be sent is lost."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)

    async def _read(self) -> None:
        while True:
            self._take(await self._socket.recv_multipart())

    def _take(self, parts: list[bytes]) -> None:
        """Hand on an event. One that can't be read, or whose handling fails, must not end the reading of others."""
        try:
            event = frames.read_event(json.loads(parts[0]))
            if event is None:
                log.debug("an event that this version doesn't know: %s", parts[0])
            else:
                self._heard(event, parts[1:])
        except Exception:
            log.exception("an event from timbred at %s is lost: %s", self.place, parts[0][:200])

    async def _watch(self) -> None:
        while True:
            told = zmq.utils.monitor.parse_monitor_message(await self._monitor.recv_multipart())
            if told["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._up.set()
            elif self._up.is_set():
                self._up.clear()
                self._take_what_is_left()
                self._lost()

    def _take_what_is_left(self) -> None:
        """What the daemon said last may lie here still; it comes before the loss."""
        while True:
            received = cast("asyncio.Future[list[bytes]]", self._socket.recv_multipart(zmq.NOBLOCK))
            if not received.done() or received.exception() is not None:
                received.cancel()
                return
            self._take(received.result())
