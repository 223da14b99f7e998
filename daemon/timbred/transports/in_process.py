"""Clients in the same process: what the other transports do, without sockets. For tests of the daemon's parts."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from timbred.audio import Clip
from timbred.protocol import json
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId
from timbred.protocol.schema import answers, find_request, is_terminal
from timbred.transports.router import Router


@dataclass
class _PendingAnswer:
    """A request under way: what came for it so far, and the promise of all of it."""

    type: str
    place: m.Id
    heard: list[m.Event] = field(default_factory=list[m.Event])
    done: "asyncio.Future[list[m.Event]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def hear(self, event: m.Event) -> None:
        if not self._is_mine(event):
            return
        self.heard.append(event)
        if is_terminal(event):
            self.end()

    def _is_mine(self, event: m.Event) -> bool:
        found = find_request(self.type)
        entry = found[0] if found else None
        if isinstance(event, m.Fail) or entry is None or entry.has_id:
            return getattr(event, "id", None) == self.place
        return answers(entry, event)

    def end(self) -> None:
        if not self.done.done():
            self.done.set_result(self.heard)


class InProcessClient:
    """One client: sends requests as the keys of their JSON objects and hears its events.

    `clips` holds the samples that came inline, by take id.
    """

    def __init__(self, front: Router, client: ClientId) -> None:
        self.id = client
        self.clips: dict[str, Clip] = {}
        self._front = front
        self._heard: asyncio.Queue[m.Event] = asyncio.Queue()
        self._asked: list[_PendingAnswer] = []

    def send(self, **request: Any) -> None:
        """Send a request, as in `send(type="generate", id="a1", prompt="warm analog pad")`."""
        self._front.receive(self.id, json.read_object(request))

    async def request(self, **request: Any) -> list[m.Event]:
        """Send a request and wait for its end: all events that speak of it, the last being the end."""
        incoming = json.read_object(request)
        asked = _PendingAnswer(str(request.get("type")), incoming.id)
        self._asked.append(asked)
        try:
            self._front.receive(self.id, incoming)
            return await asked.done
        finally:
            self._asked.remove(asked)

    async def next_event(self) -> m.Event:
        """The next event of any request, as soon as there is one."""
        return await self._heard.get()

    def empty(self) -> bool:
        """Whether every event so far was taken by `next_event`."""
        return self._heard.empty()

    async def __aiter__(self) -> AsyncIterator[m.Event]:
        while True:
            yield await self._heard.get()

    def hear(self, event: m.Event, clip: Clip | None = None) -> None:
        """Called with each event for this client."""
        if clip is not None and isinstance(event, m.Take):
            self.clips[event.take_id] = clip
        self._heard.put_nowait(event)
        for asked in list(self._asked):
            asked.hear(event)

    def hear_list(self, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Called with the answer to a question that is answered by several events."""
        for event in (*events, *([] if end is None else [end])):
            self._heard.put_nowait(event)
        for asked in list(self._asked):
            if asked.type == name:
                asked.heard.extend(events)
                asked.heard.extend([] if end is None else [end])
                asked.end()


class InProcessTransport:
    """The transport: its clients are known as `memory:N`."""

    inline = True

    def __init__(self, front: Router) -> None:
        self._front = front
        self._clients: dict[ClientId, InProcessClient] = {}
        self._numbers = itertools.count(1)
        front.attach("memory", self)

    def client(self) -> InProcessClient:
        """A new client."""
        client = InProcessClient(self._front, ClientId(f"memory:{next(self._numbers)}"))
        self._clients[client.id] = client
        return client

    def leave(self, client: InProcessClient) -> None:
        """The client goes away: events to come are lost to it."""
        self._clients.pop(client.id, None)
        self._front.clients.forget(client.id)

    def streams(self, client: ClientId) -> bool:
        """A client in memory hears events as they happen."""
        _ = client
        return True

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Hand over an event."""
        found = self._clients.get(client)
        if found is not None:
            found.hear(event, clip)

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Hand over a list and its end."""
        found = self._clients.get(client)
        if found is not None:
            found.hear_list(name, events, end)
