"""Which event answers which request. Does no I/O."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Self, cast

import zmq
import zmq.asyncio

from timbred.client import connection
from timbred.client.connection import (
    DaemonAddress,
    DaemonConnection,
    DaemonNotFound,
    DaemonTimeout,
    RequestCancelled,
    error_of,
)
from timbred.client.requests import AsyncRequests
from timbred.client.sound import Sound, first_of, read_sound
from timbred.errors import TimbredError
from timbred.protocol import json as frames
from timbred.protocol import messages as m
from timbred.protocol.coercion import build, entry_named
from timbred.protocol.schema import EVENTS, REQUESTS, RequestEntry, answers, is_terminal

_ENTRY_OF = {entry.kind: entry for entry in REQUESTS}
_SHARED = ("voice", "model", "name", "n")
"""Fields by which a question without an id and its answer belong together."""


def entry_of(request: m.Request) -> RequestEntry:
    """The request's declaration."""
    return _ENTRY_OF[type(request)]


def wire_name(request: m.Request) -> str:
    """The request's name on the wire.

    >>> wire_name(m.Setting(name="tempo"))
    'settings/tempo'
    """
    entry = entry_of(request)
    return f"{entry.name}/{getattr(request, entry.family)}" if entry.family else entry.name


def belongs(request: m.Request, event: m.Event) -> bool:
    """Whether an event speaks of this request.

    >>> belongs(m.Play(voice=1, take="a"), m.Playing(voice=2, take="b", frame=0, beat=0.0))
    False
    """
    entry = entry_of(request)
    if entry.has_id:
        return getattr(event, "id", None) == getattr(request, "id", None)
    if isinstance(event, m.Fail | m.Done | m.Acknowledged | m.Take):
        return str(event.id) == wire_name(request)
    return answers(entry, event) and all(_agree(request, event, name) for name in _SHARED)


def _agree(request: m.Request, event: m.Event, name: str) -> bool:
    asked, told = getattr(request, name, None), getattr(event, name, None)
    return asked in (None, "*") or told is None or str(asked) == str(told)


def ends(request: m.Request, event: m.Event) -> bool:
    """Whether an event that belongs to a request is its last."""
    return is_terminal(event) and belongs(request, event)


log = logging.getLogger(__name__)

FOUND_WITHIN = 1.5
"""Seconds in which a daemon that is there is found."""

SILENT_AFTER = 30.0
"""Seconds without an event of a request after which the daemon is asked for a sign of life, and that it gets for it."""

PING = b'{"type": "ping"}'


class _PendingRequest:
    """A request under way, and what was heard of it: events, or the error that ends it."""

    def __init__(self, request: m.Request) -> None:
        self.request = request
        self.heard: asyncio.Queue[m.Event | Sound | TimbredError] = asyncio.Queue()


class AsyncTimbred(AsyncRequests):
    """A client of the daemon. Many requests may be under way at the same time.

        async with AsyncTimbred() as timbred:
            sound = await timbred.generate("warm analog pad", seconds=4)

    Finds the daemon by itself: where the user's settings say (`host`, `zmq.requests`), else by zeroconf. Nothing is
    connected before the first request; when the daemon ends and comes back, the next request finds it again.
    """

    def __init__(self, host: str | None = None, requests: int | None = None, events: int | None = None) -> None:
        """With `requests`, the daemon at that port (and `host`, 127.0.0.1) and no other; `events` is the port that
        `listen` needs."""
        self._named = (
            None if requests is None else DaemonAddress(host or connection.LOOPBACK, requests, events or requests + 1)
        )
        self._context = zmq.asyncio.Context()
        self._link: DaemonConnection | None = None
        self._connecting: asyncio.Task[DaemonConnection] | None = None
        self._asked: list[_PendingRequest] = []
        self._turns: dict[str, asyncio.Lock] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection. Requests under way go on in the daemon, unheard."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        self._context.destroy(linger=0)

    async def connect(self, within: float = FOUND_WITHIN) -> DaemonAddress:
        """Find the daemon now; where it is.

        Raises:
            NoDaemon: there is none, after at most `within` seconds.
        """
        return (await self._up(within)).place

    async def ask(self, request: m.Request) -> AsyncGenerator[m.Event | Sound]:
        """A request's events as they come, the last one ends it. A take that came with its samples is a Sound.

        Leaving before the end cancels a sound.

        Raises:
            NoDaemon: no daemon is there, or it ended meanwhile.
            Silent: the daemon doesn't answer any more.
            CancelledElsewhere: somebody else cancelled it.
            TimbredError: the request failed; the class is that of its code, the message the daemon's.
        """
        async with self._turn(request):
            asked = _PendingRequest(request)
            ended = False
            self._asked.append(asked)
            try:
                await self._send(frames.encode_request(request, wire_name(request)))
                while not ended:
                    event = await self._next(asked)
                    ended = not isinstance(event, Sound) and ends(request, event)
                    yield _checked(event)
            except TimbredError:
                ended = True
                raise
            finally:
                self._asked.remove(asked)
                if not ended:
                    self._take_back(request)

    async def listen(self, *names: str) -> AsyncGenerator[tuple[str, m.Event]]:
        """Everybody's events, with who asked for each, as they happen: those of these names, or all.

        Raises:
            NoDaemon: no daemon is there.
            BadRequest: there is no such event.
        """
        for name in names:
            _check_event(name)
        place = await self.connect()
        with self._context.socket(zmq.SUB) as subscriber:
            subscriber.set(zmq.IPV6, int(":" in place.host))
            subscriber.set(zmq.LINGER, 0)
            for name in names or ("",):
                subscriber.subscribe(name)
            subscriber.connect(place.events_url)
            while True:
                found = json.loads((await subscriber.recv_multipart())[1])
                event = frames.read_event(found)
                if event is not None:
                    yield found["client"], event

    # what the generated methods are made of

    def request(self, name: str, /, **values: Any) -> m.Request:
        """A request as the daemon will read it.

        Raises:
            BadRequest: a value is of the wrong kind or out of range; nothing was sent.
        """
        entry, said = entry_named(name)
        if isinstance(values.get("value"), bool):
            values["value"] = int(values["value"])
        if entry.has_id:
            values |= {"id": uuid.uuid4().hex, "inline": True}
        return build(entry, {**values, **said})

    async def _one(self, request: m.Request) -> Any:
        """The event that answers a question; None for a mere `done`."""
        async with aclosing(self.ask(request)) as events:
            async for event in events:
                return None if isinstance(event, m.Acknowledged) else event
        raise AssertionError("a request ends with an event or an error")

    async def _sound(self, request: m.Request) -> Sound:
        async with aclosing(self.ask(request)) as events:
            return first_of([event async for event in events if isinstance(event, Sound)])

    async def _list(self, request: m.Request) -> list[Any]:
        """The answer to a question that is answered by several events, in one reply on a line of its own."""
        place = await self.connect()
        with self._context.socket(zmq.REQ) as line:
            line.set(zmq.IPV6, int(":" in place.host))
            line.set(zmq.LINGER, 0)
            line.connect(place.requests_url)
            await line.send(frames.encode_request(request, wire_name(request)))
            try:
                async with asyncio.timeout(SILENT_AFTER):
                    found = json.loads(await line.recv())
            except TimeoutError:
                raise _silent(place) from None
        if found["type"] == "fail":
            raise error_of(cast("m.Fail", frames.read_event(found)))
        return [frames.read_event(one) for one in found[wire_name(request)]]

    # the line

    def _turn(self, request: m.Request) -> asyncio.Lock:
        """Questions without an id wait for each other, so that each gets its own answer."""
        entry = entry_of(request)
        return asyncio.Lock() if entry.has_id else self._turns.setdefault(entry.name, asyncio.Lock())

    async def _send(self, frame: bytes) -> None:
        (await self._up(FOUND_WITHIN)).send(frame)

    async def _up(self, within: float) -> DaemonConnection:
        """The connection. Requests that come while it is sought wait for the same answer, not one after the other."""
        if self._link is not None and self._link.up:
            return self._link
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connected(within))
            self._connecting.add_done_callback(_looked_at)
        return await asyncio.shield(self._connecting)

    async def _connected(self, within: float) -> DaemonConnection:
        deadline = time.monotonic() + within
        place = self._named or connection.usual_place()
        share = 1.0 if self._named else 0.4  # zeroconf gets the rest
        if place.requests and (link := await self._reached(place, within * share)) is not None:
            return link
        for other in await connection.announced(deadline - time.monotonic()) if self._named is None else ():
            if (link := await self._reached(other, max(0.2, deadline - time.monotonic()))) is not None:
                return link
        raise DaemonNotFound(f"no timbred answers at {place}; start it with: timbred serve")

    async def _reached(self, place: DaemonAddress, within: float) -> DaemonConnection | None:
        if self._link is None or self._link.place != place:
            if self._link is not None:
                await self._link.close()
            self._link = DaemonConnection(self._context, place, self._hear, self._lost)
        return self._link if await self._link.wait_up(within) else None

    def _hear(self, event: m.Event, samples: list[bytes]) -> None:
        heard = read_sound(event, samples[0]) if isinstance(event, m.Take) and samples else event
        for asked in self._asked:
            if belongs(asked.request, event):
                asked.heard.put_nowait(heard)
                return
            if isinstance(event, m.Pong):
                asked.heard.put_nowait(event)

    def _lost(self) -> None:
        for asked in self._asked:
            asked.heard.put_nowait(
                DaemonNotFound("timbred has ended while it worked on this; ask again once it is back")
            )

    async def _next(self, asked: _PendingRequest) -> m.Event | Sound:
        """The next thing heard of a request. A daemon that is silent for long is asked whether it is still there."""
        for patience in (SILENT_AFTER, SILENT_AFTER):
            try:
                async with asyncio.timeout(patience):
                    heard = await asked.heard.get()
            except TimeoutError:
                await self._send(PING)
                continue
            if isinstance(heard, TimbredError):
                raise heard
            if isinstance(heard, m.Pong) and not isinstance(asked.request, m.Ping):
                return await self._next(asked)
            return heard
        raise _silent(self._link.place if self._link else "its port")

    def _take_back(self, request: m.Request) -> None:
        """Cancel a sound that nobody waits for any more."""
        if entry_of(request).has_id and self._link is not None and self._link.up:
            cancel = m.Cancel(id=getattr(request, "id", "*"))
            try:
                self._link.send(frames.encode_request(cancel, "cancel"))
            except DaemonNotFound as error:
                log.debug("%s: nothing is left to cancel", error)


def _checked(event: m.Event | Sound) -> m.Event | Sound:
    if isinstance(event, m.Fail):
        raise error_of(event)
    if isinstance(event, m.Cancelled):
        raise RequestCancelled("this request was cancelled by somebody else; ask again if you want it")
    return event


def _silent(place: DaemonAddress | str) -> DaemonTimeout:
    return DaemonTimeout(
        f"timbred at {place} doesn't answer any more; look at its log, or start it again: timbred serve"
    )


def _check_event(name: str) -> None:
    known = [entry.name for entry in EVENTS]
    if name not in known:
        raise error_of(m.Fail(id="listen", code="bad-request", message=f"no event is called {name!r}; {known}"))


def _looked_at(connecting: "asyncio.Task[DaemonConnection]") -> None:
    """Whoever asked for it may have gone meanwhile: then nobody hears of the failure, which is no fault."""
    if not connecting.cancelled():
        connecting.exception()
