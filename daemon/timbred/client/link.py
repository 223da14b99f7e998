"""The line to one daemon: connects, notices when it is lost, and connects again by itself."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, cast

import zmq
import zmq.asyncio
import zmq.utils.monitor

from timbred.client.finding import Place
from timbred.client.trouble import NoDaemon
from timbred.protocol import frames
from timbred.protocol import messages as m

log = logging.getLogger(__name__)

Heard = Callable[[m.Event, list[bytes]], None]
"""Takes an event and the frames that follow it."""


class Link:
    """One DEALER. Nothing is sent while no daemon is there: what would wait could be carried out much later."""

    def __init__(self, context: zmq.asyncio.Context, place: Place, heard: Heard, lost: Callable[[], None]) -> None:
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
            raise NoDaemon(f"the connection to timbred at {self.place} has just ended; ask again once it is back")

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
