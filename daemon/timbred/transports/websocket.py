"""WebSockets that are open: what waits to be sent to each client, and what comes from it."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from timbred.audio import Clip
from timbred.errors import BadRequest
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Incoming
from timbred.protocol.osc import encode_event, iterate_datagram
from timbred.task_supervision import hold_until_done
from timbred.transports.router import Router, deliver_each
from timbred.transports.web_api import is_own_page

_log = logging.getLogger(__name__)

REFUSED = 1008
"""The code that says: against the rules; here, from another page or too slow."""

_MOST_CLIENTS = 200
_MOST_UNSENT = 2000
_MOST_UNSENT_BYTES = 4 << 20
_READ_BELOW = 200
_GOING_AWAY = 1001


class WebSocketSession:
    """One WebSocket client and what waits to be sent to it, text or bytes; None is the end."""

    def __init__(self) -> None:
        self._unsent: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._unsent_size = 0
        self._full = False
        self._few = asyncio.Event()
        self._few.set()

    def put(self, message: str | bytes) -> None:
        """Let a message wait; a client that doesn't read is disconnected instead."""
        if self._full:
            return
        if self._unsent.qsize() >= _MOST_UNSENT or self._unsent_size > _MOST_UNSENT_BYTES:
            self._full = True
            self._few.set()
            self._unsent = asyncio.Queue()
            self._unsent.put_nowait(None)
            return
        self._unsent.put_nowait(message)
        self._unsent_size += len(message)
        if self._unsent.qsize() >= _READ_BELOW:
            self._few.clear()

    async def read(self) -> None:
        """Wait until most of what waits has been sent: a client that doesn't read isn't read from either."""
        await self._few.wait()

    def end(self) -> None:
        """Send what waits, then close."""
        self._unsent.put_nowait(None)

    async def send_to(self, made: WebSocket) -> None:
        """Send until the end."""
        try:
            while (message := await self._unsent.get()) is not None:
                self._unsent_size -= len(message)
                if self._unsent.qsize() < _READ_BELOW:
                    self._few.set()
                if isinstance(message, str):
                    await made.send_text(message)
                else:
                    await made.send_bytes(message)
            await made.close(REFUSED if self._full else _GOING_AWAY)
        finally:
            self._few.set()
            self._full = True


class WebSocketSessions:
    """All WebSockets of one kind, by client."""

    def __init__(self) -> None:
        self._open: dict[ClientId, WebSocketSession] = {}
        self._sending: set[asyncio.Task[Any]] = set()
        self.closing = False
        """Whether nothing more is to be taken in."""

    @property
    def full(self) -> bool:
        """Whether there are as many as may be."""
        return len(self._open) >= _MOST_CLIENTS

    @contextlib.contextmanager
    def listening(self, client: ClientId, made: WebSocket) -> Generator[None]:
        """Send the client what is put for it. One that it had before is ended."""
        if (before := self._open.get(client)) is not None:
            before.end()
        listener = self._open[client] = WebSocketSession()
        sending = asyncio.create_task(listener.send_to(made))
        hold_until_done(sending, self._sending)
        sending.add_done_callback(_log_failure)
        try:
            yield
        finally:
            if self._open.get(client) is listener:
                del self._open[client]
            sending.cancel()

    def __contains__(self, client: ClientId) -> bool:
        return client in self._open

    def put(self, client: ClientId, message: str | bytes) -> bool:
        """Let a message wait for a client. Never blocks; False for one that has gone."""
        listener = self._open.get(client)
        if listener is not None:
            listener.put(message)
        return listener is not None

    async def read(self, client: ClientId) -> None:
        """Wait until a client may be read from again."""
        listener = self._open.get(client)
        if listener is not None:
            await listener.read()

    async def close(self, patience: float) -> None:
        """Send what waits, for at most `patience` seconds, and end every connection."""
        self.closing = True
        for listener in self._open.values():
            listener.end()
        if self._sending:
            await asyncio.wait(self._sending, timeout=patience)


def _log_failure(sending: asyncio.Task[None]) -> None:
    if not sending.cancelled() and (error := sending.exception()) is not None:
        _log.debug("a WebSocket ended: %s", error)


async def received(made: WebSocket) -> AsyncGenerator[str | bytes]:
    """What a client sends, until it goes."""
    with contextlib.suppress(WebSocketDisconnect):
        while (message := await made.receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            yield message.get("bytes") or b"" if text is None else text


class AddressSpace(Protocol):
    """What can be asked about addresses: `timbred.discovery.oscquery` knows the answers.

    `push` is set by whoever can reach the clients: it sends one of them an OSC packet.
    """

    push: Callable[[ClientId, bytes], None]

    def answer(self, path: str, query: str) -> tuple[int, bytes]:
        """The HTTP status and the JSON for a path and what follows its `?`."""
        ...

    def command(self, client: ClientId, text: str) -> None:
        """Take in what a client sent as text.

        Raises:
            BadRequest: it is no command, or can't be carried out.
        """
        ...

    def forget(self, client: ClientId) -> None:
        """The client has gone."""
        ...

    def publish(self, client: ClientId, event: m.Event) -> None:
        """Hear of every event; see `front.Publisher`."""
        ...


class OscWebSockets:
    """The clients of the WebSocket at `/`, each known as `oscquery:N`. Their requests are answered where they came."""

    inline = False

    def __init__(self, front: Router, space: AddressSpace | None) -> None:
        self._front = front
        self._space = space
        self._numbers = itertools.count(1)
        self._listeners = WebSocketSessions()
        front.attach("oscquery", self)
        if space is not None:
            space.push = self.push
            front.publish_to(space)

    async def page(self, request: Request) -> Response:
        """A node, or one of its attributes, as JSON."""
        if self._space is None:
            return Response(status_code=404)
        status, content = self._space.answer(request.url.path, request.url.query)
        return Response(content, status, media_type="application/json")

    def streams(self, client: ClientId) -> bool:
        """A WebSocket hears events as they happen."""
        _ = client
        return True

    async def serve(self, made: WebSocket) -> None:
        """One client, from its handshake to its end."""
        if self._space is None or not is_own_page(made) or self._listeners.full:
            _log.warning("a WebSocket at / from %s is refused", made.headers.get("origin", "a program"))
            await made.close(REFUSED)
            return
        await made.accept()
        client = ClientId(f"oscquery:{next(self._numbers)}")
        try:
            with self._listeners.listening(client, made):
                async for message in received(made):
                    await self._front.turns.work(self._steps(client, message, self._space))
                    await self._listeners.read(client)
                    if self._listeners.closing:
                        break
        finally:
            self._space.forget(client)
            self._front.clients.forget(client)

    def _steps(self, client: ClientId, message: str | bytes, space: AddressSpace) -> Iterator[None]:
        """Take in a message, one request at each step."""
        if isinstance(message, str):
            self._take_command(client, message, space)
            return
        for incoming in iterate_datagram(message):
            if incoming.port is None:
                self._front.receive(client, incoming)
            else:
                refusal = BadRequest("port: it is for UDP; here answers come back on the same connection")
                self._front.receive(client, Incoming(refusal, incoming.id))
            yield

    def _take_command(self, client: ClientId, text: str, space: AddressSpace) -> None:
        try:
            space.command(client, text)
        except BadRequest as refusal:
            self._front.receive(client, Incoming(refusal, "oscquery"))

    async def close(self, patience: float) -> None:
        """Send what waits, for at most `patience` seconds, and end every connection."""
        await self._listeners.close(patience)

    def push(self, client: ClientId, packet: bytes) -> None:
        """Send an OSC packet. Never blocks; a client that has gone loses it."""
        self._listeners.put(client, packet)

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Send an event as one OSC packet."""
        _ = clip
        self.push(client, encode_event(event))

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Send each event, then the end."""
        _ = name
        deliver_each(self.deliver, client, events, end)
