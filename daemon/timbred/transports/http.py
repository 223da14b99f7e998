"""HTTP on one port: the WebSocket, the takes, the schema, the status and the panel."""

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import re
import socket
from collections.abc import Generator, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from timbred.audio import Clip
from timbred.protocol import describe, json
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Incoming
from timbred.storage.library import Library
from timbred.task_supervision import Supervisor
from timbred.transports.fair_turns import Turns
from timbred.transports.router import Router, deliver_each
from timbred.transports.web_api import WebApi, file_of, is_own_page
from timbred.transports.websocket import REFUSED, AddressSpace, OscWebSockets, WebSocketSessions, received

_log = logging.getLogger(__name__)

_LARGEST_TEXT = 16 << 20
_LARGEST_READ = 4096
_STATUS_PATIENCE = 5.0
_CLIENT_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")


class OwnHostOnly:
    """Refuses requests whose Host header isn't a name of this daemon's own, against DNS rebinding.

    A page from elsewhere can make its own name point at this machine, but can't change what the browser
    writes into Host.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = {"localhost", "127.0.0.1", "::1", host.lower()}
        self._any_number = host in ("0.0.0.0", "::", "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not self._known(HTTPConnection(scope)):
            refusal = PlainTextResponse("Host: this isn't a name of this machine; use 127.0.0.1", 403)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _known(self, connection: HTTPConnection) -> bool:
        try:
            name = urlsplit("//" + connection.headers.get("host", "")).hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            # a number can't be made to point elsewhere
            return self._any_number and bool(ipaddress.ip_address(name))
        except ValueError:
            return False


class InTurn:
    """Lets HTTP requests begin in turn with what other clients send."""

    def __init__(self, app: ASGIApp, turns: Turns) -> None:
        self._app = app
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._turns.begin()
        await self._app(scope, receive, send)


class WebSocketEndpoint:
    """The clients of `/ws`, each known as `ws:N`, or as `ws:NAME` when it connects to `/ws?client=NAME`.

    A client that has lost its connection comes back under its name: it hears the rest of its requests, and what it asks
    again by the same id is the same request. The new connection takes the place of the old one.
    """

    inline = False

    def __init__(self, front: Router) -> None:
        self._front = front
        self._numbers = itertools.count(1)
        self._listeners = WebSocketSessions()
        front.attach("ws", self)

    def streams(self, client: ClientId) -> bool:
        """A WebSocket hears events as they happen."""
        _ = client
        return True

    async def serve(self, made: WebSocket) -> None:
        """One client, from its handshake to its end."""
        if not is_own_page(made):
            _log.warning("a page from %s asked for /ws: refused", made.headers.get("origin"))
            await made.close(REFUSED)
            return
        name = made.query_params.get("client", str(next(self._numbers)))
        if not _CLIENT_NAME.fullmatch(name):
            _log.warning("/ws: client: got %r, allowed are 1 to 64 letters, digits and -", name[:80])
            await made.close(REFUSED)
            return
        if self._listeners.full:
            _log.warning("as many WebSockets are open as may be: one more is refused")
            await made.close(REFUSED)
            return
        await made.accept()
        client = ClientId(f"ws:{name}")
        try:
            with self._listeners.listening(client, made):
                async for message in received(made):
                    await self._front.turns.work(self._steps(client, message))
                    await self._listeners.read(client)
                    if self._listeners.closing:
                        break
        finally:
            if client not in self._listeners:  # it hasn't come back by another connection
                self._front.clients.forget(client)

    def _steps(self, client: ClientId, message: str | bytes) -> Iterator[None]:
        """Take in a message, in one step."""
        read = message.encode("utf-8", "replace") if isinstance(message, str) else message
        self._front.receive(client, json.read(read))
        yield

    async def close(self, patience: float) -> None:
        """Send what waits, for at most `patience` seconds, and end every connection."""
        await self._listeners.close(patience)

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Send an event as one text message."""
        _ = clip
        if not self._listeners.put(client, json.encode_event(event).decode()):
            _log.debug("%s has gone: %s is lost", client, event)

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Send each event, then the end."""
        _ = name
        deliver_each(self.deliver, client, events, end)


class _Questions:
    """HTTP clients: each asks once and gets the first event that answers."""

    inline = False

    def __init__(self, front: Router) -> None:
        self._front = front
        self._numbers = itertools.count(1)
        self._asked: dict[ClientId, asyncio.Future[m.Event]] = {}
        front.attach("http", self)

    def streams(self, client: ClientId) -> bool:
        """HTTP has one answer for each request."""
        _ = client
        return False

    async def ask(self, request: m.Request, name: str) -> m.Event:
        """The event that answers a request.

        Raises:
            TimeoutError: there was none within five seconds.
        """
        client = ClientId(f"http:{next(self._numbers)}")
        answer = self._asked[client] = asyncio.get_running_loop().create_future()
        try:
            self._front.receive(client, Incoming(request, name))
            async with asyncio.timeout(_STATUS_PATIENCE):
                return await answer
        finally:
            del self._asked[client]

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Answer with an event."""
        _ = clip
        answer = self._asked.get(client)
        if answer is not None and not answer.done():
            answer.set_result(event)

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Answer with the end of a list."""
        _ = name
        deliver_each(self.deliver, client, [] if end is not None else events[-1:], end)


class _InSmallReads(AutoHTTPProtocol):
    """HTTP, and WebSockets after it, whose sockets are read in small pieces.

    All that one read brings is parsed at once: 256 KB of small WebSocket frames would take 0.2 s.
    """

    def connection_made(self, transport: Any) -> None:
        """Begin with a connection."""
        if hasattr(transport, "max_size"):  # of asyncio's own transports; not of Windows' proactor
            transport.max_size = _LARGEST_READ
        super().connection_made(transport)


class _Server(uvicorn.Server):
    """uvicorn inside the daemon's own event loop: signals are the daemon's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class HttpServer:
    """The HTTP server and its WebSocket."""

    def __init__(
        self,
        front: Router,
        listener: socket.socket,
        host: str,
        takes: Path,
        library: Library | None = None,
        space: AddressSpace | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        """Without `library` the panel has no history, without `space` no address can be asked about."""
        self._supervisor = supervisor or Supervisor()
        self._listener = listener
        self._takes = takes
        self._panel = WebApi(takes, library)
        self._questions = _Questions(front)
        self._sockets = WebSocketEndpoint(front)
        self._osc = OscWebSockets(front, space)
        app = InTurn(OwnHostOnly(Starlette(routes=self._routes()), host), front.turns)
        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                http=_InSmallReads,
                ws="websockets-sansio",
                ws_max_size=_LARGEST_TEXT,
                ws_ping_timeout=None,  # after a pause of this process, answers that wait unread would count as silence
                timeout_graceful_shutdown=1,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    def _routes(self) -> list[Route | WebSocketRoute]:
        return [
            Route("/", self._root),
            Route("/timbred{path:path}", self._osc.page),
            *self._panel.routes(),
            Route("/schema.json", _schema),
            Route("/status", self._status),
            Route("/takes/{path:path}", self._take),
            WebSocketRoute("/ws", self._sockets.serve),
            WebSocketRoute("/", self._osc.serve),
        ]

    def start(self) -> None:
        """Begin to serve: the socket takes connections from now on."""
        self._listener.listen(512)
        self._serving = self._supervisor.require(self._server.serve(sockets=[self._listener]), "http")

    async def close(self, patience: float) -> None:
        """Send what waits, for at most `patience` seconds, then end every connection."""
        await asyncio.gather(self._sockets.close(patience), self._osc.close(patience))
        self._server.should_exit = True
        if self._serving is not None:
            done, _ = await asyncio.wait([self._serving], timeout=max(patience, 0.3))
            if not done:
                self._server.force_exit = True
                self._serving.cancel()
                await asyncio.gather(self._serving, return_exceptions=True)
        self._listener.close()

    async def _root(self, request: Request) -> Response:
        """The panel for a browser's window; for all else the root of the address space."""
        shown = not request.url.query and "text/html" in request.headers.get("accept", "")
        answer = await (self._panel.page(request) if shown else self._osc.page(request))
        answer.headers["Vary"] = "Accept"
        return answer

    async def _status(self, request: Request) -> Response:
        _ = request
        try:
            event = await self._questions.ask(m.Status(), "status")
        except TimeoutError:
            return PlainTextResponse("timbred doesn't answer; look at its log", 503)
        return _json(json.encode_event(event), 503 if isinstance(event, m.Fail) else 200)

    async def _take(self, request: Request) -> Response:
        found = await asyncio.to_thread(_inside, self._takes, request.path_params["path"])
        if found is None:
            return PlainTextResponse("no such take; ask `takes` for those there are", 404)
        return file_of(found, keep=False, save="save" in request.query_params)


def _inside(folder: Path, path: str) -> Path | None:
    """The file at `path` if it is one inside the folder; what begins with a dot is nobody's business."""
    if any(part.startswith(".") for part in path.split("/")) or "\x00" in path or "\\" in path:
        return None
    try:
        found = (folder / path).resolve()
        if found.is_relative_to(folder.resolve()) and found.is_file():
            return found
    except OSError as error:
        _log.debug("%s: %s", path, error)
    return None


def _json(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


async def _schema(request: Request) -> Response:
    _ = request
    return _json(_encoded_schema())


@cache
def _encoded_schema() -> bytes:
    return msgspec.json.encode(describe.json_schema())
