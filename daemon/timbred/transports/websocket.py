"""WebSocket sessions, and the OSCQuery WebSocket at `/`."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from timbred.audio import Clip
from timbred.errors import BadRequest
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Incoming
from timbred.protocol.osc import encode_event, iterate_datagram
from timbred.task_supervision import keep_until_done
from timbred.transports.router import Router, deliver_each
from timbred.transports.web_api import is_own_page

_log = logging.getLogger(__name__)

REFUSED_CLOSE_CODE = 1008
"""Close code \"policy violation\": the request came from another page, or the client is too slow."""

_MAX_CLIENTS = 200
_MAX_UNSENT_MESSAGES = 2000
_MAX_UNSENT_BYTES = 4 << 20
_READ_BELOW_UNSENT_MESSAGES = 200
_GOING_AWAY_CLOSE_CODE = 1001


class WebSocketSession:
    """The queue of messages to one WebSocket client, text or bytes; None ends it."""

    def __init__(self) -> None:
        self._unsent: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._unsent_size = 0
        self._is_too_slow = False
        self._is_readable = asyncio.Event()
        self._is_readable.set()

    def put(self, message: str | bytes) -> None:
        """Queue a message. A client that doesn't read is disconnected instead."""
        if self._is_too_slow:
            return
        if self._unsent.qsize() >= _MAX_UNSENT_MESSAGES or self._unsent_size > _MAX_UNSENT_BYTES:
            self._is_too_slow = True
            self._is_readable.set()
            self._unsent = asyncio.Queue()
            self._unsent.put_nowait(None)
            return
        self._unsent.put_nowait(message)
        self._unsent_size += len(message)
        if self._unsent.qsize() >= _READ_BELOW_UNSENT_MESSAGES:
            self._is_readable.clear()

    async def wait_until_read(self) -> None:
        """Wait until the client has read most of its messages; no requests are read from it before."""
        await self._is_readable.wait()

    def end(self) -> None:
        """Send the queued messages, then close."""
        self._unsent.put_nowait(None)

    async def send_to(self, websocket: WebSocket) -> None:
        """Send queued messages until the session ends."""
        try:
            while (message := await self._unsent.get()) is not None:
                self._unsent_size -= len(message)
                if self._unsent.qsize() < _READ_BELOW_UNSENT_MESSAGES:
                    self._is_readable.set()
                if isinstance(message, str):
                    await websocket.send_text(message)
                else:
                    await websocket.send_bytes(message)
            await websocket.close(REFUSED_CLOSE_CODE if self._is_too_slow else _GOING_AWAY_CLOSE_CODE)
        finally:
            self._is_readable.set()
            self._is_too_slow = True


class WebSocketSessions:
    """The open WebSockets of one endpoint, by client."""

    def __init__(self) -> None:
        self._open: dict[ClientId, WebSocketSession] = {}
        self._sending: set[asyncio.Task[Any]] = set()
        self.closing = False
        """True once no more requests are accepted."""

    @property
    def full(self) -> bool:
        """True if no further client is accepted."""
        return len(self._open) >= _MAX_CLIENTS

    @contextlib.contextmanager
    def session(self, client: ClientId, websocket: WebSocket) -> Generator[None]:
        """Send the client its messages while the context is open. An earlier session of the same client is ended."""
        if (previous := self._open.get(client)) is not None:
            previous.end()
        session = self._open[client] = WebSocketSession()
        sending = asyncio.create_task(session.send_to(websocket))
        keep_until_done(sending, self._sending)
        sending.add_done_callback(_log_failure)
        try:
            yield
        finally:
            if self._open.get(client) is session:
                del self._open[client]
            sending.cancel()

    def __contains__(self, client: ClientId) -> bool:
        return client in self._open

    def put(self, client: ClientId, message: str | bytes) -> bool:
        """Queue a message for a client. Never blocks; return False if the client has disconnected."""
        session = self._open.get(client)
        if session is not None:
            session.put(message)
        return session is not None

    async def wait_until_read(self, client: ClientId) -> None:
        """Wait until requests may be read from a client again."""
        session = self._open.get(client)
        if session is not None:
            await session.wait_until_read()

    async def close(self, timeout_s: float) -> None:
        """Send queued messages for at most `timeout_s` seconds, and close every connection."""
        self.closing = True
        for session in self._open.values():
            session.end()
        if self._sending:
            await asyncio.wait(self._sending, timeout=timeout_s)


def _log_failure(sending: asyncio.Task[None]) -> None:
    if not sending.cancelled() and (error := sending.exception()) is not None:
        _log.debug("a WebSocket ended: %s", error)


async def receive_messages(websocket: WebSocket) -> AsyncGenerator[str | bytes]:
    """Yield the messages of a client until it disconnects."""
    with contextlib.suppress(WebSocketDisconnect):
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            yield message.get("bytes") or b"" if text is None else text


class AddressSpace(Protocol):
    """Interface to the OSCQuery address space, which `timbred.discovery.oscquery` implements."""

    def answer(self, path: str, query: str) -> tuple[int, bytes]:
        """Return the HTTP status and the JSON for a path and its query string."""
        ...

    def command(self, client: ClientId, text: str, push: Callable[[bytes], None]) -> None:
        """Execute a command that a client sent as text; `push` sends the client an OSC packet.

        Raises:
            BadRequest: It is no command, or can't be executed.
        """
        ...

    def forget(self, client: ClientId) -> None:
        """Remove what is stored of a client that has disconnected."""
        ...

    def publish(self, client: ClientId, event: m.Event) -> None:
        """Receive every event; see `router.Publisher`."""
        ...


class OscWebSockets:
    """The WebSocket at `/`, whose clients have the ids `oscquery:N`. Requests are answered on the same connection."""

    inline = False

    def __init__(self, router: Router, space: AddressSpace | None) -> None:
        self._router = router
        self._space = space
        self._numbers = itertools.count(1)
        self._sessions = WebSocketSessions()
        router.attach("oscquery", self)
        if space is not None:
            router.publish_to(space)

    async def page(self, request: Request) -> Response:
        """Serve a node of the address space, or one of its attributes, as JSON."""
        if self._space is None:
            return Response(status_code=404)
        status, content = self._space.answer(request.url.path, request.url.query)
        return Response(content, status, media_type="application/json")

    def streams(self, client: ClientId) -> bool:
        """Return True: a WebSocket client gets events as they happen."""
        _ = client
        return True

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one client from its handshake to its end."""
        if self._space is None or not is_own_page(websocket) or self._sessions.full:
            _log.warning("a WebSocket at / from %s is refused", websocket.headers.get("origin", "a program"))
            await websocket.close(REFUSED_CLOSE_CODE)
            return
        await websocket.accept()
        client = ClientId(f"oscquery:{next(self._numbers)}")
        try:
            with self._sessions.session(client, websocket):
                async for message in receive_messages(websocket):
                    await self._router.turns.work(self._steps(client, message, self._space))
                    await self._sessions.wait_until_read(client)
                    if self._sessions.closing:
                        break
        finally:
            self._space.forget(client)
            self._router.clients.forget(client)

    def _steps(self, client: ClientId, message: str | bytes, space: AddressSpace) -> Iterator[None]:
        """Accept a message, one request per step."""
        if isinstance(message, str):
            self._execute(client, message, space)
            return
        for incoming in iterate_datagram(message):
            if incoming.port is None:
                self._router.receive(client, incoming)
            else:
                refusal = BadRequest("port: it is for UDP; here answers come back on the same connection")
                self._router.receive(client, Incoming(refusal, incoming.id))
            yield

    def _execute(self, client: ClientId, text: str, space: AddressSpace) -> None:
        try:
            space.command(client, text, partial(self.push, client))
        except BadRequest as refusal:
            self._router.receive(client, Incoming(refusal, "oscquery"))

    async def close(self, timeout_s: float) -> None:
        """Send queued messages for at most `timeout_s` seconds, and close every connection."""
        await self._sessions.close(timeout_s)

    def push(self, client: ClientId, packet: bytes) -> None:
        """Send an OSC packet. Never blocks; it is lost if the client has disconnected."""
        self._sessions.put(client, packet)

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Send an event as one OSC packet."""
        _ = clip
        self.push(client, encode_event(event))

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Send each event, then the end."""
        _ = name
        deliver_each(self.deliver, client, events, end)
