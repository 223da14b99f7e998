"""The asynchronous and the blocking client, and the matching of events to requests."""

import asyncio
import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine, Generator
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any, Self, TypeVar, cast

import zmq
import zmq.asyncio

from timbred.access.keys import CurveKeys, keys_for, own_keys
from timbred.client import connection
from timbred.client.connection import (
    DaemonAddress,
    DaemonConnection,
    DaemonNotFound,
    DaemonTimeout,
    RequestCancelled,
    Sound,
    error_of,
    first_of,
    read_sound,
)
from timbred.client.requests import AsyncRequests, PlainRequests
from timbred.errors import TimbredError
from timbred.protocol import json as frames
from timbred.protocol import messages as m
from timbred.protocol.coercion import build, entry_named
from timbred.protocol.schema import EVENTS, REQUESTS, RequestEntry, answers, is_terminal

_ENTRY_OF = {entry.kind: entry for entry in REQUESTS}
_MATCHING_FIELDS = ("voice", "model", "name", "n")
"""Fields that match the answer of a request without an id to the request."""


def entry_of(request: m.Request) -> RequestEntry:
    """Return the declaration of a request."""
    return _ENTRY_OF[type(request)]


def wire_name(request: m.Request) -> str:
    """Return a request's name on the wire.

    >>> wire_name(m.Setting(name="tempo"))
    'settings/tempo'
    """
    entry = entry_of(request)
    return f"{entry.name}/{getattr(request, entry.family)}" if entry.family else entry.name


def belongs(request: m.Request, event: m.Event) -> bool:
    """Tell if an event belongs to a request.

    >>> belongs(m.Play(voice=1, take="a"), m.Playing(voice=2, take="b", frame=0, beat=0.0))
    False
    """
    entry = entry_of(request)
    if entry.has_id:
        return getattr(event, "id", None) == getattr(request, "id", None)
    if isinstance(event, m.Fail | m.Done | m.Acknowledged | m.Take):
        return str(event.id) == wire_name(request)
    return answers(entry, event) and all(_matches(request, event, name) for name in _MATCHING_FIELDS)


def _matches(request: m.Request, event: m.Event, name: str) -> bool:
    requested, answered = getattr(request, name, None), getattr(event, name, None)
    return requested in (None, "*") or answered is None or str(requested) == str(answered)


def ends(request: m.Request, event: m.Event) -> bool:
    """Tell if an event is the last one of a request."""
    return is_terminal(event) and belongs(request, event)


log = logging.getLogger(__name__)

DISCOVERY_TIMEOUT_S = 1.5
"""Seconds of the search for a daemon, after which none counts as running."""

ANSWER_TIMEOUT_S = 30.0
"""Seconds without an event after which the daemon is pinged, and after which a ping counts as unanswered."""

PING = b'{"type": "ping"}'


class _PendingRequest:
    """A pending request, and the queue of its events and of the error that ends it."""

    def __init__(self, request: m.Request) -> None:
        self.request = request
        self.received: asyncio.Queue[m.Event | Sound | TimbredError] = asyncio.Queue()


class AsyncTimbred(AsyncRequests):
    """A client of the daemon. Several requests may be pending at the same time.

        async with AsyncTimbred() as timbred:
            sound = await timbred.generate("warm analog pad", seconds=4)

    The daemon's address comes from the user's settings (`host`, `zmq.requests`), else from mDNS. The client connects at
    the first request, and reconnects at the first request after a restart of the daemon.

    Args:
        host: The daemon's host with `requests`, 127.0.0.1 by default.
        requests: The daemon's port for requests. If it is given, no other daemon is searched for.
        events: The daemon's port for events, used by `listen`; `requests` + 1 by default.
        keys: The keys for a daemon that demands them; by default those that `timbred keys` has stored for its host.
    """

    def __init__(
        self,
        host: str | None = None,
        requests: int | None = None,
        events: int | None = None,
        keys: CurveKeys | None = None,
    ) -> None:
        self._keys = keys
        self._named = (
            None if requests is None else DaemonAddress(host or connection.LOOPBACK, requests, events or requests + 1)
        )
        self._context = zmq.asyncio.Context()
        self._link: DaemonConnection | None = None
        self._connecting: asyncio.Task[DaemonConnection] | None = None
        self._pending: list[_PendingRequest] = []
        self._locks: dict[str, asyncio.Lock] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. The daemon continues pending requests, but their events are lost."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        await self._close_link()
        self._context.destroy(linger=0)

    async def connect(self, within: float = DISCOVERY_TIMEOUT_S) -> DaemonAddress:
        """Find the daemon and return its address.

        Raises:
            DaemonNotFound: No daemon answers within `within` seconds.
            AccessDenied: It refuses this client's keys, or demands some.
        """
        return (await self._up(within)).address

    async def ask(self, request: m.Request) -> AsyncGenerator[m.Event | Sound]:
        """Send a request and yield its events, up to the terminal one. A take with samples is a Sound.

        Closing the generator before the end cancels a `generate` or `vary`.

        Raises:
            DaemonNotFound: No daemon is running, or it exited during the request.
            DaemonTimeout: The daemon no longer answers.
            AccessDenied: It refuses this client's keys, or demands some.
            RequestCancelled: Another client cancelled the request.
            TimbredError: The request failed; the class corresponds to the error code, and the message is the daemon's.
        """
        async with self._lock_for(request):
            pending = _PendingRequest(request)
            ended = False
            self._pending.append(pending)
            try:
                await self._send(frames.encode_request(request, wire_name(request)))
                while not ended:
                    event = await self._next(pending)
                    ended = not isinstance(event, Sound) and ends(request, event)
                    yield _raise_failure(event)
            except TimbredError:
                ended = True
                raise
            finally:
                self._pending.remove(pending)
                if not ended:
                    self._cancel(request)

    async def listen(self, *names: str) -> AsyncGenerator[tuple[str, m.Event]]:
        """Yield the events of all clients as (client id, event), filtered by event names if any are given.

        Raises:
            DaemonNotFound: No daemon is running.
            BadRequest: There is no such event.
        """
        for name in names:
            _check_event(name)
        link = await self._up(DISCOVERY_TIMEOUT_S)
        address = link.address
        with self._context.socket(zmq.SUB) as subscriber:
            connection.prepare(subscriber, address, link.keys)
            for name in names or ("",):
                subscriber.subscribe(name)
            subscriber.connect(address.events_url)
            while True:
                fields = json.loads((await subscriber.recv_multipart())[1])
                event = frames.read_event(fields)
                if event is not None:
                    yield fields["client"], event

    def request(self, name: str, /, **values: Any) -> m.Request:
        """Build a request from its name on the wire and its keys.

        Raises:
            BadRequest: A value is of the wrong type or out of range.
        """
        entry, family_key = entry_named(name)
        if isinstance(values.get("value"), bool):
            values["value"] = int(values["value"])
        if entry.has_id:
            values |= {"id": uuid.uuid4().hex, "inline": True}
        return build(entry, {**values, **family_key})

    async def _one(self, request: m.Request) -> Any:
        """Send a request and return the event that answers it; None for a `done` without a take."""
        async with aclosing(self.ask(request)) as events:
            async for event in events:
                return None if isinstance(event, m.Acknowledged) else event
        raise AssertionError("a request ends with an event or an error")

    async def _sound(self, request: m.Request) -> Sound:
        async with aclosing(self.ask(request)) as events:
            return first_of([event async for event in events if isinstance(event, Sound)])

    async def _list(self, request: m.Request) -> list[Any]:
        """Send a request that is answered by several events and return them. A REQ socket gets them in one reply."""
        link = await self._up(DISCOVERY_TIMEOUT_S)
        address = link.address
        with self._context.socket(zmq.REQ) as socket:
            connection.prepare(socket, address, link.keys)
            socket.connect(address.requests_url)
            await socket.send(frames.encode_request(request, wire_name(request)))
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    reply = json.loads(await socket.recv())
            except TimeoutError:
                raise _silent(address) from None
        if reply["type"] == "fail":
            raise error_of(cast("m.Fail", frames.read_event(reply)))
        return [frames.read_event(item) for item in reply[wire_name(request)]]

    def _lock_for(self, request: m.Request) -> asyncio.Lock:
        """Return the lock of a request: requests of one type without an id are sent one after the other."""
        entry = entry_of(request)
        return asyncio.Lock() if entry.has_id else self._locks.setdefault(entry.name, asyncio.Lock())

    async def _send(self, frame: bytes) -> None:
        (await self._up(DISCOVERY_TIMEOUT_S)).send(frame)

    async def _up(self, within: float) -> DaemonConnection:
        """Return the connection. Requests made while the daemon is searched for share one search."""
        if self._link is not None and self._link.up:
            return self._link
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._find(within))
            self._connecting.add_done_callback(_ignore_failure)
        return await asyncio.shield(self._connecting)

    async def _find(self, within: float) -> DaemonConnection:
        deadline = time.monotonic() + within
        address = self._named or connection.configured_address()
        share = 1.0 if self._named else 0.4  # mDNS gets the rest
        if address.requests and (link := await self._try_connect(address, within * share)) is not None:
            return link
        for other in await connection.browse(deadline - time.monotonic()) if self._named is None else ():
            if (link := await self._try_connect(other, max(0.2, deadline - time.monotonic()))) is not None:
                return link
        raise DaemonNotFound(f"no timbred answers at {address}; start it with: timbred serve")

    async def _try_connect(self, address: DaemonAddress, within: float) -> DaemonConnection | None:
        """Connect to a daemon; return None if there is none.

        Raises:
            AccessDenied: It refuses this client's keys, or demands some.
        """
        link = self._link
        if link is None or link.address != address or link.refusal is not None:
            link = await self._replace_link(address, self._keys or keys_for(address.host))
        if await link.wait_up(within):
            return link
        if link.refusal == "keyless" and (own := own_keys()) is not None:  # this user's daemon has the user's own key
            link = await self._replace_link(address, own)
            if await link.wait_up(within):
                return link
            if link.refusal == "other key":
                link.refusal = "keyless"
        if link.refusal is None:
            return None
        refusal, keys = link.refusal, link.keys
        await self._close_link()  # the keys are read again for the next request
        raise connection.access_denied(address, refusal, keys)

    async def _replace_link(self, address: DaemonAddress, keys: CurveKeys | None) -> DaemonConnection:
        await self._close_link()
        self._link = DaemonConnection(self._context, address, self._on_event, self._on_lost, keys)
        return self._link

    async def _close_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def _on_event(self, event: m.Event, samples: list[bytes]) -> None:
        received = read_sound(event, samples[0]) if isinstance(event, m.Take) and samples else event
        for pending in self._pending:
            if belongs(pending.request, event):
                pending.received.put_nowait(received)
                return
            if isinstance(event, m.Pong):
                pending.received.put_nowait(event)

    def _on_lost(self) -> None:
        for pending in self._pending:
            pending.received.put_nowait(
                DaemonNotFound("timbred exited during this request; retry when it is running again")
            )

    async def _next(self, pending: _PendingRequest) -> m.Event | Sound:
        """Wait for a request's next event; ping the daemon if it sends nothing for `ANSWER_TIMEOUT_S` seconds."""
        for timeout_s in (ANSWER_TIMEOUT_S, ANSWER_TIMEOUT_S):
            try:
                async with asyncio.timeout(timeout_s):
                    event = await pending.received.get()
            except TimeoutError:
                await self._send(PING)
                continue
            if isinstance(event, TimbredError):
                raise event
            if isinstance(event, m.Pong) and not isinstance(pending.request, m.Ping):
                return await self._next(pending)
            return event
        raise _silent(self._link.address if self._link else "its port")

    def _cancel(self, request: m.Request) -> None:
        """Cancel a `generate` or `vary` whose events are no longer read."""
        if entry_of(request).has_id and self._link is not None and self._link.up:
            cancel = m.Cancel(id=getattr(request, "id", "*"))
            try:
                self._link.send(frames.encode_request(cancel, "cancel"))
            except DaemonNotFound as error:
                log.debug("%s: nothing is left to cancel", error)


def _raise_failure(event: m.Event | Sound) -> m.Event | Sound:
    if isinstance(event, m.Fail):
        raise error_of(event)
    if isinstance(event, m.Cancelled):
        raise RequestCancelled("the request was cancelled by another client; send it again if needed")
    return event


def _silent(address: DaemonAddress | str) -> DaemonTimeout:
    return DaemonTimeout(f"timbred at {address} no longer answers; check its log, or restart it: timbred serve")


def _check_event(name: str) -> None:
    known = [entry.name for entry in EVENTS]
    if name not in known:
        raise error_of(
            m.Fail(
                id="listen", code="bad-request", message=f"there is no event {name!r}; allowed are {', '.join(known)}"
            )
        )


def _ignore_failure(connecting: "asyncio.Task[DaemonConnection]") -> None:
    """Retrieve the exception of a search whose requests were all cancelled, so that asyncio doesn't log it."""
    if not connecting.cancelled():
        connecting.exception()


Result = TypeVar("Result")


class Timbred(PlainRequests):
    """A client of the daemon whose calls block until they are answered. It may be used from several threads.

        with Timbred() as timbred:
            sound = timbred.generate("warm analog pad", seconds=4)

    It runs an `AsyncTimbred` in a separate thread, and has the same arguments.
    """

    def __init__(
        self,
        host: str | None = None,
        requests: int | None = None,
        events: int | None = None,
        keys: CurveKeys | None = None,
    ) -> None:
        # ZeroMQ needs an event loop that can watch sockets; the default one on Windows can't
        self._loop = asyncio.SelectorEventLoop()
        self._open: set[AsyncGenerator[Any]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="timbred-client", daemon=True)
        self._thread.start()
        self._timbred = self._run(_make_client(host, requests, events, keys))

    @property
    def timbred(self) -> AsyncTimbred:
        """The asynchronous client, which runs in a separate thread."""
        return self._timbred

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and all generators of events that aren't at their end.

        The daemon continues requests that are pending in other threads, but their events are lost.
        """
        if self._thread.is_alive():
            for events in list(self._open):
                self._close_generator(events)
            self._run(self.timbred.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def connect(self, within: float = DISCOVERY_TIMEOUT_S) -> DaemonAddress:
        """Find the daemon and return its address.

        Raises:
            DaemonNotFound: No daemon answers within `within` seconds.
        """
        return self._run(self.timbred.connect(within))

    def listen(self, *names: str) -> Generator[tuple[str, m.Event]]:
        """Yield the events of all clients as (client id, event), filtered by event names if any are given.

        Raises:
            DaemonNotFound: No daemon is running.
            BadRequest: There is no such event.
        """
        return self._each(self.timbred.listen(*names))

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the thread and wait for its result; Ctrl-C cancels it."""
        future: Future[Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _each(self, events: AsyncGenerator[Result]) -> Generator[Result]:
        """Yield the items of an asynchronous generator; closing this generator, or the client, closes it."""
        self._open.add(events)
        try:
            while True:
                try:
                    yield self._run(_next(events))
                except StopAsyncIteration:
                    return
        finally:
            if self._thread.is_alive():
                self._close_generator(events)

    def _close_generator(self, events: AsyncGenerator[Any]) -> None:
        self._open.discard(events)
        with contextlib.suppress(RuntimeError):  # the interpreter is ending, or another thread waits for an item
            self._run(events.aclose())


async def _make_client(
    host: str | None, requests: int | None, events: int | None, keys: CurveKeys | None
) -> AsyncTimbred:
    return AsyncTimbred(host, requests, events, keys)


async def _next(events: AsyncGenerator[Result]) -> Result:
    return await anext(events)
