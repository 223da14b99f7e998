"""The HTTP server: panel, WebSocket, takes, schema and status on one port."""

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import re
import socket
from collections.abc import Generator, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from timbred.access.policy import AccessRules
from timbred.audio import Clip
from timbred.protocol import describe, json
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Incoming
from timbred.storage.library import Library
from timbred.task_supervision import Supervisor
from timbred.transports.clients import Turns
from timbred.transports.router import Router, deliver_each
from timbred.transports.tokens import (
    CheckedProtocol,
    SmallReadsProtocol,
    TokenCheck,
    TokenRequired,
    UncheckedConnections,
)
from timbred.transports.web_api import WebApi, file_of, is_own_page
from timbred.transports.websocket import (
    REFUSED_CLOSE_CODE,
    AddressSpace,
    OscWebSockets,
    WebSocketSessions,
    receive_messages,
)

_log = logging.getLogger(__name__)

_MAX_TEXT_BYTES = 16 << 20
_STATUS_TIMEOUT_S = 5.0
_CLIENT_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")


class OwnHostOnly:
    """Middleware that refuses requests whose Host header doesn't name this machine, against DNS rebinding.

    Another page can make its own name resolve to this machine, but can't change the Host header that the browser sends.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = {"localhost", "127.0.0.1", "::1", host.lower()}
        self._any_number = host in ("0.0.0.0", "::", "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        if scope["type"] in ("http", "websocket") and not self._is_own_name(HTTPConnection(scope)):
            refusal = PlainTextResponse("Host: this isn't a name of this machine; use 127.0.0.1", 403)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_own_name(self, connection: HTTPConnection) -> bool:
        try:
            name = urlsplit("//" + connection.headers.get("host", "")).hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            # a numeric address isn't resolved, so it can't be rebound
            return self._any_number and bool(ipaddress.ip_address(name))
        except ValueError:
            return False


class InTurn:
    """Middleware that starts HTTP requests in turn with the requests of other clients."""

    def __init__(self, app: ASGIApp, turns: Turns) -> None:
        self._app = app
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on when its turn comes."""
        if scope["type"] == "http":
            await self._turns.begin()
        await self._app(scope, receive, send)


class WebSocketEndpoint:
    """The WebSocket at `/ws`, whose clients have the ids `ws:N`, or `ws:NAME` after connecting to `/ws?client=NAME`.

    A client that reconnects under its name gets the remaining events of its requests, and a request that it repeats
    with the same id is the same request. The new connection replaces the old one.
    """

    inline = False

    def __init__(self, router: Router) -> None:
        self._router = router
        self._numbers = itertools.count(1)
        self._sessions = WebSocketSessions()
        router.attach("ws", self)

    def streams(self, client: ClientId) -> bool:
        """Return True: a WebSocket client gets events as they happen."""
        _ = client
        return True

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one client from its handshake to its end."""
        if not is_own_page(websocket):
            _log.warning("a page from %s requested /ws: refused", websocket.headers.get("origin"))
            await websocket.close(REFUSED_CLOSE_CODE)
            return
        name = websocket.query_params.get("client", str(next(self._numbers)))
        if not _CLIENT_NAME.fullmatch(name):
            _log.warning("/ws: client: got %r, allowed are 1 to 64 letters, digits and -", name[:80])
            await websocket.close(REFUSED_CLOSE_CODE)
            return
        if self._sessions.full:
            _log.warning("the most WebSockets that are allowed are open: one more is refused")
            await websocket.close(REFUSED_CLOSE_CODE)
            return
        await websocket.accept()
        client = ClientId(f"ws:{name}")
        try:
            with self._sessions.session(client, websocket):
                async for message in receive_messages(websocket):
                    await self._router.turns.work(self._steps(client, message))
                    await self._sessions.wait_until_read(client)
                    if self._sessions.closing:
                        break
        finally:
            if client not in self._sessions:  # it hasn't reconnected
                self._router.clients.forget(client)

    def _steps(self, client: ClientId, message: str | bytes) -> Iterator[None]:
        """Accept a message in one step."""
        frame = message.encode("utf-8", "replace") if isinstance(message, str) else message
        self._router.receive(client, json.read(frame))
        yield

    async def close(self, timeout_s: float) -> None:
        """Send queued messages for at most `timeout_s` seconds, and close every connection."""
        await self._sessions.close(timeout_s)

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Send an event as one text message."""
        _ = clip
        if not self._sessions.put(client, json.encode_event(event).decode()):
            _log.debug("%s has disconnected: %s is lost", client, event)

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Send each event, then the end."""
        _ = name
        deliver_each(self.deliver, client, events, end)


class _HttpRequests:
    """The transport of requests over HTTP: each has a separate client, and the first event is its answer."""

    inline = False

    def __init__(self, router: Router) -> None:
        self._router = router
        self._numbers = itertools.count(1)
        self._pending: dict[ClientId, asyncio.Future[m.Event]] = {}
        router.attach("http", self)

    def streams(self, client: ClientId) -> bool:
        """Return False: HTTP has one answer for each request."""
        _ = client
        return False

    async def ask(self, request: m.Request, name: str) -> m.Event:
        """Send a request and return the event that answers it.

        Raises:
            TimeoutError: There was no answer within five seconds.
        """
        client = ClientId(f"http:{next(self._numbers)}")
        answer = self._pending[client] = asyncio.get_running_loop().create_future()
        try:
            self._router.receive(client, Incoming(request, name))
            async with asyncio.timeout(_STATUS_TIMEOUT_S):
                return await answer
        finally:
            del self._pending[client]

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Answer a request with an event."""
        _ = clip
        answer = self._pending.get(client)
        if answer is not None and not answer.done():
            answer.set_result(event)

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Answer a request with the end of a list."""
        _ = name
        deliver_each(self.deliver, client, [] if end is not None else events[-1:], end)


class _Server(uvicorn.Server):
    """uvicorn in the daemon's event loop, which handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class HttpServer:
    """The HTTP server and its WebSockets.

    Without `library` the panel has no history; without `space` OSCQuery's questions are refused. With `access` every
    request needs a token.
    """

    def __init__(
        self,
        router: Router,
        listener: socket.socket,
        host: str,
        takes: Path,
        library: Library | None = None,
        space: AddressSpace | None = None,
        supervisor: Supervisor | None = None,
        access: AccessRules | None = None,
    ) -> None:
        self._supervisor = supervisor or Supervisor()
        self._listener = listener
        self._takes = takes
        self._panel = WebApi(takes, library)
        self._questions = _HttpRequests(router)
        self._sockets = WebSocketEndpoint(router)
        self._osc = OscWebSockets(router, space)
        served = Starlette(routes=self._routes())
        self._unchecked: UncheckedConnections | None = None
        if access is None:
            app, protocol = InTurn(OwnHostOnly(served, host), router.turns), SmallReadsProtocol
        else:  # any name of this machine will do: another page has neither the token nor the cookie
            check = TokenCheck(access, listener.getsockname()[1])
            self._unchecked = UncheckedConnections(check)
            app = InTurn(TokenRequired(served, check), router.turns)
            protocol = cast("type[asyncio.Protocol]", partial(CheckedProtocol, self._unchecked))
        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                http=protocol,
                ws="websockets-sansio",
                ws_max_size=_MAX_TEXT_BYTES,
                ws_ping_timeout=None,  # after a pause of this process, pongs that wait unread would count as missing
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
        """Start to serve: the socket accepts connections from now on."""
        self._listener.listen(512)
        self._serving = self._supervisor.require(self._server.serve(sockets=[self._listener]), "http")

    async def close(self, timeout_s: float) -> None:
        """Send queued messages for at most `timeout_s` seconds, then close every connection."""
        await asyncio.gather(self._sockets.close(timeout_s), self._osc.close(timeout_s))
        if self._unchecked is not None:
            self._unchecked.close()
        self._server.should_exit = True
        if self._serving is not None:
            done, _ = await asyncio.wait([self._serving], timeout=max(timeout_s, 0.3))
            if not done:
                self._server.force_exit = True
                self._serving.cancel()
                await asyncio.gather(self._serving, return_exceptions=True)
        self._listener.close()

    async def _root(self, request: Request) -> Response:
        """Serve the panel to a browser's window, and the root of the address space to everything else."""
        is_page = not request.url.query and "text/html" in request.headers.get("accept", "")
        answer = await (self._panel.page(request) if is_page else self._osc.page(request))
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
        file = await asyncio.to_thread(_find_inside, self._takes, request.path_params["path"])
        if file is None:
            return PlainTextResponse("no such take; ask `takes` for those there are", 404)
        return file_of(file, keep=False, save="save" in request.query_params)


def _find_inside(folder: Path, path: str) -> Path | None:
    """Return the file at `path` if it is inside the folder and no part of the path is hidden, else None."""
    if any(part.startswith(".") for part in path.split("/")) or "\x00" in path or "\\" in path:
        return None
    try:
        file = (folder / path).resolve()
        if file.is_relative_to(folder.resolve()) and file.is_file():
            return file
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
