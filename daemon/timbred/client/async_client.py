"""The asynchronous and the blocking client."""

import asyncio
import atexit
import contextlib
import json
import logging
import threading
import time
import uuid
import weakref
from collections.abc import AsyncGenerator, Coroutine, Generator
from concurrent.futures import Future
from contextlib import aclosing, contextmanager
from typing import Any, Self, TypeVar, cast

import zmq
import zmq.asyncio

from timbred.access.keys import CurveKeys, keys_for, own_keys
from timbred.client import connection
from timbred.client.connection import (
    ClientClosed,
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
from timbred.protocol.schema import EVENTS, belongs, ends, entry_of, wire_name

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
        self._sockets: set[zmq.asyncio.Socket] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Calls that wait for the daemon raise ClientClosed; it continues their requests."""
        await self.disconnect()
        await asyncio.to_thread(self.send_last)

    async def disconnect(self) -> None:
        """Close all sockets, as the first part of `close`."""
        self._closed = True
        for pending in self._pending:
            pending.received.put_nowait(ClientClosed("the client was closed during this request, which continues"))
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        await self._close_link()
        for socket in self._sockets:
            socket.close(linger=0)

    def send_last(self) -> None:
        """Block until the last requests are sent, as the second part of `close`: for `UNSENT_LINGER_MS` at most."""
        self._context.term()

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
            ClientClosed: This client was closed.
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

        The events end when this client is closed.

        Raises:
            DaemonNotFound: No daemon is running.
            BadRequest: There is no such event.
        """
        for name in names:
            _check_event(name)
        link = await self._up(DISCOVERY_TIMEOUT_S)
        with contextlib.suppress(ClientClosed), self._socket(zmq.SUB, link) as subscriber:
            for name in names or ("",):
                subscriber.subscribe(name)
            subscriber.connect(link.address.events_url)
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
        with self._socket(zmq.REQ, link) as socket:
            socket.connect(link.address.requests_url)
            await socket.send(frames.encode_request(request, wire_name(request)))
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    reply = json.loads(await socket.recv())
            except TimeoutError:
                raise _silent(link.address) from None
        if reply["type"] == "fail":
            raise error_of(cast("m.Fail", frames.read_event(reply)))
        return [frames.read_event(item) for item in reply[wire_name(request)]]

    @contextmanager
    def _socket(self, kind: int, link: DaemonConnection) -> Generator[zmq.asyncio.Socket]:
        """Open a socket for the daemon of a connection, until the end of the block or `close`.

        Raises:
            ClientClosed: This client was closed.
        """
        with self._context.socket(kind) as socket:
            connection.prepare(socket, link.address, link.keys)
            self._sockets.add(socket)
            try:
                yield socket
            except asyncio.CancelledError:
                if socket.closed and not _is_cancelled():
                    raise ClientClosed("the client was closed during this request") from None
                raise
            finally:
                self._sockets.discard(socket)

    def _lock_for(self, request: m.Request) -> asyncio.Lock:
        """Return the lock of a request: requests of one type without an id are sent one after the other."""
        entry = entry_of(request)
        return asyncio.Lock() if entry.has_id else self._locks.setdefault(entry.name, asyncio.Lock())

    async def _send(self, frame: bytes) -> None:
        (await self._up(DISCOVERY_TIMEOUT_S)).send(frame)

    async def _up(self, within: float) -> DaemonConnection:
        """Return the connection. Requests made while the daemon is searched for share one search.

        Raises:
            ClientClosed: This client was closed.
        """
        if self._closed:
            raise ClientClosed("this client is closed; make another one for further requests")
        if self._link is not None and self._link.up:
            return self._link
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._search(within))
            self._connecting.add_done_callback(_ignore_failure)
        return await asyncio.shield(self._connecting)

    async def _search(self, within: float) -> DaemonConnection:
        """Find the daemon, for all requests that wait for it; only `close` cancels that."""
        try:
            return await self._find(within)
        except asyncio.CancelledError:
            raise ClientClosed("the client was closed while it searched for timbred") from None

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


def _is_cancelled() -> bool:
    """Tell if the current task is being cancelled, as opposed to a future that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


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

_open_clients: "weakref.WeakSet[Timbred]" = weakref.WeakSet()
"""The clients to be closed when the interpreter exits: a generator of events would wait for the ended thread."""


@atexit.register
def _close_clients() -> None:
    for client in list(_open_clients):
        client.close()


class Timbred(PlainRequests):
    """A client of the daemon whose calls block until they are answered. It may be used from several threads.

        with Timbred() as timbred:
            sound = timbred.generate("warm analog pad", seconds=4)

    It runs an `AsyncTimbred` in a separate thread, and has the same arguments. It is closed at the latest when the
    program exits, and requests whose events are not read to the end are then cancelled.
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
        self._calls: dict[asyncio.Task[Any], int] = {}
        """The calls in progress with the identifiers of the threads that made them; used by the loop's thread only."""
        self._closed = False
        self._closing = threading.Lock()
        """Held where a call is started and where `_closed` is set, so that no call is started after it."""
        self._thread = threading.Thread(target=self._loop.run_forever, name="timbred-client", daemon=True)
        self._thread.start()
        self._timbred = self._run(_make_client(host, requests, events, keys))
        _open_clients.add(self)

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

        Calls that wait in other threads raise ClientClosed; the daemon continues their requests.
        """
        for events in list(self._open):
            self._close_generator(events)
        with self._closing:
            if self._closed:
                return
            ended = asyncio.run_coroutine_threadsafe(self._end(threading.get_ident()), self._loop)
            self._closed = True
        _open_clients.discard(self)
        ended.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.timbred.send_last()

    def connect(self, within: float = DISCOVERY_TIMEOUT_S) -> DaemonAddress:
        """Find the daemon and return its address.

        Raises:
            DaemonNotFound: No daemon answers within `within` seconds.
        """
        return self._run(self.timbred.connect(within))

    def listen(self, *names: str) -> Generator[tuple[str, m.Event]]:
        """Yield the events of all clients as (client id, event), filtered by event names if any are given.

        The events end when this client is closed.

        Raises:
            DaemonNotFound: No daemon is running.
            BadRequest: There is no such event.
        """
        return self._each(self.timbred.listen(*names))

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the thread and wait for its result; Ctrl-C cancels it, at whatever moment it comes.

        Raises:
            ClientClosed: This client is closed.
        """
        future: Future[Result] | None = None
        try:
            future = self._start(work)
            return future.result()
        except BaseException:
            if (future is None or not future.done()) and not self._closed:
                self._start(self._cancel_calls(threading.get_ident())).result()
            raise

    def _start(self, work: Coroutine[Any, Any, Result]) -> "Future[Result]":
        with self._closing:
            if self._closed:
                work.close()
                raise ClientClosed("this client is closed; make another one for further requests")
            return asyncio.run_coroutine_threadsafe(self._call(work, threading.get_ident()), self._loop)

    async def _call(self, work: Coroutine[Any, Any, Result], thread: int) -> Result:
        """Run a coroutine as a call that a thread has made."""
        task = asyncio.current_task()
        assert task is not None
        self._calls[task] = thread
        try:
            return await work
        finally:
            del self._calls[task]

    async def _cancel_calls(self, thread: int) -> None:
        """Cancel the calls of a thread that doesn't wait for them any more, and wait for their end."""
        calls = [
            task for task, caller in self._calls.items() if caller == thread and task is not asyncio.current_task()
        ]
        for task in calls:
            task.cancel()
        if calls:
            await asyncio.wait(calls)

    async def _end(self, thread: int) -> None:
        """Close the client that a thread closes, and wait for the ends of the other threads' calls."""
        await self._cancel_calls(thread)
        await self.timbred.disconnect()
        if self._calls:
            await asyncio.wait(self._calls)

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
            self._close_generator(events)

    def _close_generator(self, events: AsyncGenerator[Any]) -> None:
        self._open.discard(events)
        with contextlib.suppress(ClientClosed, RuntimeError):  # `close` has closed it; another thread waits for an item
            self._run(_close(events))


async def _make_client(
    host: str | None, requests: int | None, events: int | None, keys: CurveKeys | None
) -> AsyncTimbred:
    return AsyncTimbred(host, requests, events, keys)


async def _next(events: AsyncGenerator[Result]) -> Result:
    return await anext(events)


async def _close(events: AsyncGenerator[Any]) -> None:
    await events.aclose()
