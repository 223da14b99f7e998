"""Routing between transports and the daemon: requests to the inbox, events to their clients."""

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import timbred
from timbred import errors
from timbred.audio import Clip
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Inbox, Incoming
from timbred.protocol.keys import Recipe
from timbred.protocol.schema import EVENT_OF
from timbred.transports.clients import Clients, LimitedLog, Turns, scheme

_log = logging.getLogger(__name__)

MAX_SCHEDULED_REQUESTS = 1000
"""Requests with a time tag that one client may have waiting."""


class Carrier(Protocol):
    """Interface of a transport to the router."""

    inline: bool
    """True if it can send samples."""

    def streams(self, client: ClientId) -> bool:
        """Tell if this client gets events as they happen; False if each request gets one whole reply."""
        ...

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Send an event. Never blocks; the event is lost if the client has disconnected."""
        ...

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Send the answer to a request that is answered by several events."""
        ...


class Publisher(Protocol):
    """Receiver of the events of all clients."""

    def publish(self, client: ClientId, event: m.Event) -> None:
        """Publish an event with the client that it is for. Never blocks."""
        ...


class Router:
    """Passes requests from transports to the inbox, and events to their clients. Implements `Outbox`.

    Answers `hello`, `notify`, `sync` and `ping` itself. Requests with a time tag wait here until they are due; `sync`
    waits for those that its client sent before it.
    """

    def __init__(self) -> None:
        self.turns = Turns()
        self.clients = Clients()
        self._refusals = LimitedLog(_log)
        self.http_port = 0
        self._inbox: Inbox | None = None
        self._carriers: dict[str, Carrier] = {}
        self._publishers: list[Publisher] = []
        self._waiting: dict[ClientId, _ScheduledRequests] = {}

    def open(self, inbox: Inbox) -> None:
        """Start to accept requests."""
        self._inbox = inbox

    def attach(self, name: str, carrier: Carrier) -> None:
        """Use this carrier for clients whose id begins with `name`."""
        self._carriers[name] = carrier

    def publish_to(self, publisher: Publisher) -> None:
        """Send all events to this publisher too."""
        self._publishers.append(publisher)

    def receive(self, client: ClientId, incoming: Incoming) -> None:
        """Accept what a transport has read, now or when it is due. Never raises."""
        outcome = incoming.outcome
        if isinstance(outcome, errors.BadRequest):
            self.refuse(client, incoming.id, outcome)
        elif incoming.due is not None:
            if len(self._waiting.get(client, ())) >= MAX_SCHEDULED_REQUESTS:
                self.refuse(client, incoming.id, _too_many_scheduled())
            else:
                self._schedule(client, incoming, incoming.due - time.time())
        elif isinstance(outcome, m.Sync) and (wait := self._seconds_until_accepted(client)) > 0:
            self._schedule(client, incoming, wait)
        else:
            self._accept(client, outcome, incoming.id)

    def refuse(self, client: ClientId, identity: m.Id, error: errors.TimbredError) -> None:
        """Answer a request with `fail`."""
        self._refusals.write(logging.INFO, "%s: %s: %s", self.clients.named(client), identity, error.message)
        retry_after = error.retry_after if isinstance(error, errors.Busy) else None
        self.send(client, m.Fail(id=identity, code=error.code, message=error.message, retry_after_s=retry_after))

    def close(self) -> None:
        """Stop accepting requests; those with a time tag that still wait fail."""
        waiting, self._waiting = self._waiting, {}
        for client, requests in waiting.items():
            for incoming in requests.cancel():
                self.refuse(client, incoming.id, _STOPPING)
        self._inbox = None

    def _schedule(self, client: ClientId, incoming: Incoming, wait: float) -> None:
        waiting = self._waiting.setdefault(client, _ScheduledRequests(lambda: self._on_due_requests(client)))
        waiting.add(incoming, wait)

    def _on_due_requests(self, client: ClientId) -> None:
        self.turns.add(self._accept_due(client))

    def _accept_due(self, client: ClientId) -> Iterator[None]:
        waiting = self._waiting.get(client)
        while waiting is not None and (incoming := waiting.next_due()) is not None:
            if not waiting:
                del self._waiting[client]
            if not isinstance(incoming.outcome, errors.BadRequest):
                self._accept(client, incoming.outcome, incoming.id)
            yield
            waiting = self._waiting.get(client)

    def _seconds_until_accepted(self, client: ClientId) -> float:
        """Return the seconds until the last waiting request of this client is accepted."""
        waiting = self._waiting.get(client)
        # more than the clock's resolution after the last one, so that it comes after it
        return 0.0 if waiting is None else waiting.until_last() + 0.001

    def _accept(self, client: ClientId, request: m.Request, identity: m.Id) -> None:
        try:
            answer = self._answer(client, request)
            if answer is not None:
                self.send(client, answer)
        except errors.TimbredError as error:
            self.refuse(client, identity, error)
        except Exception as error:  # noqa: BLE001  a fault in one request must not end a transport that serves all
            _log.exception("%s: %s", client, identity)
            self.refuse(client, identity, errors.from_foreign(error))

    def _answer(self, client: ClientId, request: m.Request) -> m.Event | None:
        """Return the router's own answer; None if the request was passed to the inbox."""
        match request:
            case m.Hello(name=name):
                self.clients.call(client, name)
                return m.Welcome(client_id=client, version=timbred.__version__, http_port=self.http_port)
            case m.Notify(on=on):
                if not self._carriers[scheme(client)].streams(client):
                    raise errors.BadRequest(
                        "notify: this socket gets one reply for each request; use a DEALER, or a SUB on the events port"
                    )
                self.clients.listen(client, on)
                return m.Acknowledged(id="notify")
            case m.Sync(n=n):
                return m.Synced(n=n)
            case m.Ping():
                return m.Pong()
            case _:
                self._pass_to_inbox(client, request)
                return None

    def _pass_to_inbox(self, client: ClientId, request: m.Request) -> None:
        """Pass a request on, unless its samples would be lost: they are sent only over a transport that supports it."""
        if self._inbox is None:
            raise _STOPPING
        if isinstance(request, Recipe):
            if request.inline and not self._carriers[scheme(client)].inline:
                raise errors.BadRequest(
                    "inline: samples travel over ZeroMQ only; leave it out and read the file that `take` names"
                )
            if request.to == "none" and not request.inline:
                raise errors.BadRequest(
                    "to: got 'none', allowed is file, play or both; none is for ZeroMQ with inline 1"
                )
        self._inbox.receive(client, request)

    def send(self, client: ClientId, event: m.Event, clip: Clip | None = None) -> None:
        """Send an event to its client and, unless it is for that one only, to listeners and publishers.

        Raises:
            Exception: Sending to the client itself failed; failures to send to others are logged.
        """
        try:
            self._deliver(client, event, clip)
        finally:
            self._send_to_others(client, event)

    def _send_to_others(self, client: ClientId, event: m.Event) -> None:
        entry = EVENT_OF[type(event)]
        if entry.asker:
            return
        try:
            if not entry.private:
                for listener in self.clients.listeners:
                    if listener != client:
                        self._deliver(listener, event, None)
            for publisher in self._publishers:
                publisher.publish(client, event)
        except Exception:  # noqa: BLE001  the event's own client has it already
            _log.exception("an event for %s can't be sent to the clients that listen to all events", client)

    def send_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Answer a request that is answered by several events; they are sent to its client only."""
        carrier = self._carriers.get(scheme(client))
        if carrier is not None:
            carrier.deliver_list(client, name, events, end)

    def _deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        carrier = self._carriers.get(scheme(client))
        if carrier is None:
            _log.debug("%s has no transport: %s is lost", client, event)
        else:
            carrier.deliver(client, event, clip)


class _ScheduledRequests:
    """Requests of one client that wait until they are due: a heap by time, with one timer for the first.

    `on_due` is called when requests are due.
    """

    def __init__(self, on_due: Callable[[], None]) -> None:
        self._on_due = on_due
        self._heap: list[tuple[float, int, Incoming]] = []
        self._last = 0.0
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, incoming: Incoming, wait: float) -> None:
        """Let a request wait for so many seconds."""
        when = asyncio.get_running_loop().time() + max(0.0, wait)
        self._last = max(self._last, when)
        heapq.heappush(self._heap, (when, next(self._numbers), incoming))
        self._set_timer()

    def until_last(self) -> float:
        """Seconds until the last of them is due."""
        return max(0.0, self._last - asyncio.get_running_loop().time())

    def next_due(self) -> Incoming | None:
        """Remove and return the first request if it is due, else None."""
        if not self._heap:
            return None
        if self._heap[0][0] > asyncio.get_running_loop().time():
            self._set_timer()
            return None
        return heapq.heappop(self._heap)[2]

    def cancel(self) -> list[Incoming]:
        """Remove and return all requests, in order."""
        if self._timer is not None:
            self._timer.cancel()
        return [incoming for _, _, incoming in sorted(self._heap, key=lambda entry: entry[:2])]

    def _set_timer(self) -> None:
        when = self._heap[0][0]
        if self._timer is not None and not self._timer.cancelled() and self._timer.when() <= when:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._on_due()


def _too_many_scheduled() -> errors.Busy:
    return errors.Busy(
        f"{MAX_SCHEDULED_REQUESTS} requests of yours already wait for their time tag; send this one later", 1.0
    )


def deliver_each(
    deliver: Callable[[ClientId, m.Event, Clip | None], None],
    client: ClientId,
    events: Sequence[m.Event],
    end: m.Event | None,
) -> None:
    """Send a list's events one by one, then the end."""
    for event in events:
        deliver(client, event, None)
    if end is not None:
        deliver(client, end, None)


_STOPPING = errors.ShuttingDown("timbred is stopping; start it again with: timbred serve")
