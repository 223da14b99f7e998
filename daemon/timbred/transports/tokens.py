"""Tokens of HTTP and WebSocket clients beyond loopback: in a header, or as a cookie that a one-time link sets.

Each connection's first request is checked on its bytes, before the HTTP server reads it: a stranger costs little, and
has a short time to send it. Every request is checked again as the server has read it.
"""

import asyncio
import html
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from timbred.access.policy import (
    COOKIE_LIFETIME_S,
    AccessRules,
    is_cookie,
    is_equal,
    make_cookie,
    read_bearer,
    read_cookie,
)
from timbred.errors import AccessDenied
from timbred.transports.web_api import PAGE_HEADERS

LINKS_PATH = "/access/links"
"""Path that makes a one-time link, for programs with the token."""

LINK_PREFIX = "/access/link/"
"""Beginning of the paths of one-time links."""

MAX_READ_BYTES = 4096
"""Bytes of one read of an HTTP or WebSocket connection: 256 KB of small frames would take 0.2 s to parse."""

_FIRST_REQUEST_TIMEOUT_S = 5.0
_MAX_HEAD_BYTES = 32768
_MAX_UNCHECKED_CONNECTIONS = 256
_TOKEN_PARAMETERS = frozenset({"token", "access_token", "access.token", "bearer", "authorization"})
_ACCEPTS_PAGE = re.compile(rb"(?i)\naccept:[^\n]*text/html")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (\S{1,16384}) HTTP/1\.[01]")


class Verdict(Enum):
    """Decision about one request. The value of a refusal is its message."""

    ALLOWED = "allowed"
    LINK = "a valid one-time link"
    NO_TOKEN = (
        "this daemon demands a token: send the header `Authorization: Bearer TOKEN`, or open the link that "
        "`timbred keys link` prints on its machine"
    )
    WRONG_TOKEN = (
        "the token is wrong: on the daemon's machine, `timbred keys token` prints it, and `timbred keys link` a link "
        "for a browser"
    )
    TOKEN_IN_URL = (
        "a token in a URL is refused, because histories and logs keep URLs: send the header `Authorization: Bearer "
        "TOKEN`, and make a new token if others may have read this one (timbred keys make --replace)"
    )
    MALFORMED = "this isn't a request of HTTP/1.1"

    @property
    def is_refusal(self) -> bool:
        """True if the request must not be served."""
        return self not in (Verdict.ALLOWED, Verdict.LINK)


@dataclass(frozen=True)
class RequestHead:
    """The parts of a request that decide about it: the target is the path with the query, as sent."""

    method: str
    target: str
    authorizations: Sequence[str]
    cookies: Sequence[str]


def read_head(head: bytes) -> RequestHead | None:
    r"""Read the head of a request; None if it is malformed.

    >>> read_head(b"GET /a?b HTTP/1.1\r\nCookie: c=d").cookies
    ['c=d']
    """
    first, *lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        return None
    fields: dict[str, list[str]] = {"authorization": [], "cookie": []}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            return None
        if name.lower() in fields:
            fields[name.lower()].append(value.strip())
    return RequestHead(match[1], match[2], fields["authorization"], fields["cookie"])


class TokenCheck:
    """The decision about each request.

    Args:
        access: The demands of the daemon.
        port: The HTTP port, which is part of the cookie's name, because cookies are shared by all ports of a host.
        clock: Seconds since 1970.
    """

    def __init__(self, access: AccessRules, port: int, clock: Callable[[], float] = time.time) -> None:
        self.access = access
        self.cookie_name = f"timbred_{port}"
        self._clock = clock

    def decide(self, request: RequestHead) -> Verdict:
        """Decide about a request; nothing is changed by it."""
        path, _, query = request.target.partition("?")
        if self._has_token(path, query):
            return Verdict.TOKEN_IN_URL
        if request.authorizations:
            bearer = read_bearer(request.authorizations[0]) if len(request.authorizations) == 1 else None
            is_right = bearer is not None and is_equal(bearer, self.access.token)
            return Verdict.ALLOWED if is_right else Verdict.WRONG_TOKEN
        if path.startswith(LINK_PREFIX) and request.method == "GET":
            is_valid = self.access.links.is_valid(path.removeprefix(LINK_PREFIX))
            return Verdict.LINK if is_valid else Verdict.NO_TOKEN
        if path == LINKS_PATH:
            return Verdict.NO_TOKEN  # a browser's cookie isn't enough to let others in
        cookies = [read_cookie(header, self.cookie_name) for header in request.cookies]
        if any(cookie is not None and is_cookie(cookie, self.access.token, self._clock()) for cookie in cookies):
            return Verdict.ALLOWED
        return Verdict.NO_TOKEN

    def _has_token(self, path: str, query: str) -> bool:
        """Tell if a URL has a parameter that is meant as a token, or the token anywhere."""
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=None)
        if any(name.lower() in _TOKEN_PARAMETERS for name, _ in pairs):
            return True
        parts = [*path.split("/"), unquote(query), *(text for pair in pairs for text in pair)]
        return any(is_equal(unquote(part), self.access.token) for part in parts if part)

    def refuse(self, verdict: Verdict, source: str) -> AccessDenied:
        """Count a refusal and return its error; nothing of the URL is logged, since it may contain the token."""
        self.access.denials.record("HTTP", source, _REASONS_FOR_LOG.get(verdict, "it has no token"))
        return AccessDenied(verdict.value)

    def use_link(self, target: str) -> Response | None:
        """Use a one-time link: return the page that sets the browser's cookie; None if it isn't valid any more."""
        if not self.access.links.use(target.partition("?")[0].removeprefix(LINK_PREFIX)):
            return None
        page = HTMLResponse(_ENTRY_PAGE, headers={**_ENTRY_HEADERS})
        cookie = make_cookie(self.access.token, self._clock())
        page.set_cookie(self.cookie_name, cookie, max_age=COOKIE_LIFETIME_S, path="/", httponly=True, samesite="strict")
        return page

    def make_link(self) -> Response:
        """Return the answer with the path of a new one-time link."""
        content = msgspec.json.encode({"path": LINK_PREFIX + self.access.links.make()})
        return Response(content, 200, {"Cache-Control": "no-store"}, "application/json")


_REASONS_FOR_LOG = {
    Verdict.WRONG_TOKEN: "its token is wrong",
    Verdict.TOKEN_IN_URL: "its token is in the URL",
    Verdict.MALFORMED: "it sends no HTTP",
}

_ENTRY_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/">'
    '<title>timbred</title><p>This browser may use timbred now. <a href="/">Open the panel</a></p></html>'
)
"""The page of a one-time link, which opens the panel. A redirect wouldn't: a browser that follows a link on another
site's page doesn't send a strict cookie after it."""

_ENTRY_HEADERS = {**PAGE_HEADERS, "Cache-Control": "no-store"}


def refusal_response(error: AccessDenied, accepts_page: bool) -> Response:
    """Return the response to a refused request: JSON, or a page for a browser."""
    headers = {"Cache-Control": "no-store", "WWW-Authenticate": 'Bearer realm="timbred"', "Connection": "close"}
    if not accepts_page:
        content = msgspec.json.encode({"code": error.code, "message": error.message})
        return Response(content, 401, headers, "application/json")
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>timbred: {error.code}</title>'
        f"<h1>{error.code}</h1><p>{html.escape(error.message)}</p></html>"
    )
    return HTMLResponse(page, 401, headers)


class TokenRequired:
    """Middleware that serves requests with a token only, and one-time links."""

    def __init__(self, app: ASGIApp, check: TokenCheck) -> None:
        self._app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        target = scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode("latin-1")
        headers = connection.headers
        request = RequestHead(
            scope.get("method", "GET"), target, headers.getlist("authorization"), headers.getlist("cookie")
        )
        verdict = self._check.decide(request)
        page = self._check.use_link(target) if verdict is Verdict.LINK else None
        if page is not None:
            await page(scope, receive, send)
        elif verdict is not Verdict.ALLOWED:
            error = self._check.refuse(Verdict.NO_TOKEN if verdict is Verdict.LINK else verdict, source_of(scope))
            refusal = refusal_response(error, "text/html" in headers.get("accept", ""))
            await (_refuse_websocket(refusal, send) if scope["type"] == "websocket" else refusal(scope, receive, send))
        elif target == LINKS_PATH and request.method == "POST":
            await self._check.make_link()(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _refuse_websocket(refusal: Response, send: Send) -> None:
    """Answer the handshake of a WebSocket with an HTTP response."""
    await send({"type": "websocket.http.response.start", "status": 401, "headers": refusal.raw_headers})
    await send({"type": "websocket.http.response.body", "body": bytes(refusal.body)})


def source_of(scope: Scope) -> str:
    """Return the address that a request came from, without a port."""
    client = scope.get("client")
    return str(client[0]) if client else "an unknown address"


class SmallReadsProtocol(AutoHTTPProtocol):
    """Protocol of HTTP and WebSockets that reads its sockets in pieces of `MAX_READ_BYTES`."""

    def connection_made(self, transport: Any) -> None:
        """Limit the size of reads, then start the connection."""
        if hasattr(transport, "max_size"):  # asyncio's selector transports have it, the proactor's on Windows don't
            transport.max_size = MAX_READ_BYTES
        super().connection_made(transport)


class UncheckedConnections:
    """The connections whose first request hasn't been checked yet. Beyond a limit the oldest is closed."""

    def __init__(self, check: TokenCheck) -> None:
        self.check = check
        self._open: OrderedDict[asyncio.BaseProtocol, asyncio.Transport] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, protocol: asyncio.BaseProtocol, transport: asyncio.Transport) -> None:
        """Add a new connection; close the oldest one if there are too many."""
        self._open[protocol] = transport
        if len(self._open) > _MAX_UNCHECKED_CONNECTIONS:
            _, oldest = self._open.popitem(last=False)
            oldest.abort()

    def remove(self, protocol: asyncio.BaseProtocol) -> None:
        """Remove a connection that was checked, or has ended."""
        self._open.pop(protocol, None)

    def close(self) -> None:
        """Close all of them."""
        for transport in list(self._open.values()):
            transport.abort()


class CheckedProtocol(asyncio.Protocol):
    """The protocol of a new HTTP connection until its first request has been checked.

    A request with a token is passed on to the HTTP server with its connection; others are answered and closed.

    Args:
        unchecked: The connections in this state.
        options: Arguments of the HTTP server's own protocol.
    """

    def __init__(self, unchecked: UncheckedConnections, **options: Any) -> None:
        self._unchecked = unchecked
        self._options = options
        self._transport: Any = None
        self._head = b""
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        self._transport = transport
        self._unchecked.add(self, transport)
        self._deadline = asyncio.get_running_loop().call_later(_FIRST_REQUEST_TIMEOUT_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Check the first request once its head is complete."""
        if self._transport is None:
            return  # it was refused
        self._head += data
        end = _HEAD_END.search(self._head)
        if end is not None:
            self._decide(self._head[: end.start()])
        elif len(self._head) > _MAX_HEAD_BYTES:
            self._refuse(Verdict.MALFORMED, b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._settle()

    def _decide(self, head: bytes) -> None:
        request = read_head(head)
        verdict = Verdict.MALFORMED if request is None else self._unchecked.check.decide(request)
        if verdict.is_refusal:
            self._refuse(verdict, head)
            return
        transport, received = self._transport, self._head
        self._settle()
        server = SmallReadsProtocol(**self._options)
        transport.set_protocol(server)
        server.connection_made(transport)
        server.data_received(received)

    def _refuse(self, verdict: Verdict, head: bytes) -> None:
        peer = self._transport.get_extra_info("peername")
        error = self._unchecked.check.refuse(verdict, str(peer[0]) if peer else "an unknown address")
        response = refusal_response(error, _ACCEPTS_PAGE.search(head) is not None)
        fields = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
        self._transport.write(b"HTTP/1.1 401 Unauthorized\r\n" + fields + b"\r\n" + bytes(response.body))
        self._transport.close()
        self._settle()

    def _settle(self) -> None:
        """End this state."""
        self._unchecked.remove(self)
        if self._deadline is not None:
            self._deadline.cancel()
        self._transport, self._deadline, self._head = None, None, b""
