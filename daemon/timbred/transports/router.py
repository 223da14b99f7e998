"""Who is who: which client a request comes from, and who wants to hear everybody's events. Does no I/O.

A client is the place that its answers go to. A sender that resends from another source port but asks for
answers at the same place is therefore the same client.
"""

import asyncio
import heapq
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import timbred
from timbred import errors
from timbred.audio import Clip
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Inbox, Incoming
from timbred.protocol.keys import Recipe
from timbred.protocol.schema import EVENT_OF
from timbred.transports.fair_turns import Turns

REMEMBERED = 4096
"""Senders that said `hello` and are remembered; those silent for longest are forgotten first."""

LISTENERS = 256
"""Clients that hear everybody's events at one time; the one that asked first gives way."""

Address = tuple[str, int]
"""Host and port."""


def udp_client(host: str, port: int) -> ClientId:
    """The client whose answers go to `host` and `port` as OSC over UDP.

    >>> udp_client("127.0.0.1", 9000)
    'udp:127.0.0.1:9000'
    """
    return ClientId(f"udp:{host}:{port}")


def udp_address(client: ClientId) -> Address:
    """Where the answers of a UDP client go.

    >>> udp_address(udp_client("::1", 9000))
    ('::1', 9000)
    """
    host, _, port = client.removeprefix("udp:").rpartition(":")
    return host, int(port)


def tcp_client(host: str, port: int) -> ClientId:
    """The client at the other end of a TCP connection."""
    return ClientId(f"tcp:{host}:{port}")


def zmq_client(routing_id: bytes) -> ClientId:
    """The client that ZeroMQ knows by `routing_id`.

    >>> zmq_client(bytes([0, 0x6b]))
    'zmq:006b'
    """
    return ClientId(f"zmq:{routing_id.hex()}")


def scheme(client: ClientId) -> str:
    """The transport that a client is reached by: `udp`, `tcp`, `zmq`, `ws`, `http`, `memory`."""
    return client.partition(":")[0]


class Clients:
    """Where UDP senders want their answers, what clients call themselves, and who listens."""

    def __init__(self, remembered: int = REMEMBERED, listeners: int = LISTENERS) -> None:
        self._answers_at: OrderedDict[Address, int] = OrderedDict()
        self._names: OrderedDict[ClientId, str] = OrderedDict()
        self._listeners: OrderedDict[ClientId, None] = OrderedDict()
        self._remembered = remembered
        self._most_listeners = listeners

    def udp_sender(self, source: Address, port: int | None) -> ClientId:
        """Who a UDP request is from: `port` is the one that the request itself names."""
        if port is None and source in self._answers_at:
            self._answers_at.move_to_end(source)
            port = self._answers_at[source]
        return udp_client(source[0], source[1] if port is None else port)

    def say_hello(self, source: Address, port: int | None) -> None:
        """From now on this UDP sender's answers go to `port` on its host; None: back to the source port."""
        self._answers_at.pop(source, None)
        if port is not None and port != source[1]:
            self._answers_at[source] = port
            _forget_oldest(self._answers_at, self._remembered)

    def call(self, client: ClientId, name: str) -> None:
        """Remember what a client calls itself."""
        self._names.pop(client, None)
        if name:
            self._names[client] = name
            _forget_oldest(self._names, self._remembered)

    def named(self, client: ClientId) -> str:
        """A client as the log shows it: its id, and its own name where it said one."""
        name = self._names.get(client)
        return client if name is None else f"{client} ({name})"

    def listen(self, client: ClientId, on: bool) -> None:
        """Begin or end sending everybody's events to this client."""
        self._listeners.pop(client, None)
        if on:
            self._listeners[client] = None
            _forget_oldest(self._listeners, self._most_listeners)

    @property
    def listeners(self) -> tuple[ClientId, ...]:
        """Clients that hear everybody's events, in the order in which they asked."""
        return tuple(self._listeners)

    def forget(self, client: ClientId) -> None:
        """The client has gone: its connection is closed."""
        self._names.pop(client, None)
        self._listeners.pop(client, None)


def _forget_oldest(
    entries: OrderedDict[Address, int] | OrderedDict[ClientId, str] | OrderedDict[ClientId, None], most: int
) -> None:
    while len(entries) > most:
        entries.popitem(last=False)


LINES_A_SECOND = 10.0
BURST_LINES = 100.0


class LimitedLog:
    """Writes up to 100 lines at once and 10 a second in the long run; the next line says how many were left out."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._lines = BURST_LINES
        self._counted = clock()
        self._left_out = 0

    def write(self, level: int, message: str, *arguments: object) -> None:
        """Log a message, unless there were too many."""
        now = self._clock()
        self._lines = min(BURST_LINES, self._lines + (now - self._counted) * LINES_A_SECOND)
        self._counted = now
        if self._lines < 1.0:
            self._left_out += 1
            return
        self._lines -= 1.0
        if self._left_out:
            self._log.log(level, "%d more lines like the next one were left out", self._left_out)
            self._left_out = 0
        self._log.log(level, message, *arguments)


_log = logging.getLogger(__name__)

MOST_DUE_LATER = 1000
"""Requests with a time tag of one client that may wait until they are due."""


class Carrier(Protocol):
    """What one transport does for the front."""

    inline: bool
    """Whether it can carry samples."""

    def streams(self, client: ClientId) -> bool:
        """Whether this client hears events as they happen; False where each request gets one whole reply."""
        ...

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Send an event. Never blocks; a client that has gone loses it."""
        ...

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Send the answer to a question that is answered by several events."""
        ...


class Publisher(Protocol):
    """Where everybody's events go, whoever listens."""

    def publish(self, client: ClientId, event: m.Event) -> None:
        """Send an event with the client that it is for. Never blocks."""
        ...


class Router:
    """Takes requests from carriers and hands them to the inbox; is the daemon's Outbox.

    What needs no more than the connection is answered here: `hello`, `notify`, `sync`, `ping`. Requests with a
    time tag wait here until they are due; `sync` waits for those that its client sent before it.
    """

    def __init__(self) -> None:
        self.turns = Turns()
        self.clients = Clients()
        self._refusals = LimitedLog(_log)
        self.http_port = 0
        self._inbox: Inbox | None = None
        self._carriers: dict[str, Carrier] = {}
        self._publishers: list[Publisher] = []
        self._waiting: dict[ClientId, _Waiting] = {}

    def open(self, inbox: Inbox) -> None:
        """Begin to take requests."""
        self._inbox = inbox

    def attach(self, name: str, carrier: Carrier) -> None:
        """From now on clients whose id begins with `name` are reached by this carrier."""
        self._carriers[name] = carrier

    def publish_to(self, publisher: Publisher) -> None:
        """From now on everybody's events go there too."""
        self._publishers.append(publisher)

    # ---- in

    def receive(self, client: ClientId, incoming: Incoming) -> None:
        """Take in what a transport has read, now or when it is due. Never raises."""
        outcome = incoming.outcome
        if isinstance(outcome, errors.BadRequest):
            self.refuse(client, incoming.id, outcome)
        elif incoming.due is not None:
            if len(self._waiting.get(client, ())) >= MOST_DUE_LATER:
                self.refuse(client, incoming.id, _too_many_wait())
            else:
                self._later(client, incoming, incoming.due - time.time())
        elif isinstance(outcome, m.Sync) and (wait := self._until_taken_in(client)) > 0:
            self._later(client, incoming, wait)
        else:
            self._take_in(client, outcome, incoming.id)

    def refuse(self, client: ClientId, place: m.Id, error: errors.TimbredError) -> None:
        """Answer a request with `fail`."""
        self._refusals.write(logging.INFO, "%s: %s: %s", self.clients.named(client), place, error.message)
        retry_after = error.retry_after if isinstance(error, errors.Busy) else None
        self.send(client, m.Fail(id=place, code=error.code, message=error.message, retry_after_s=retry_after))

    def close(self) -> None:
        """Take no more requests; those that wait for their time fail."""
        waiting, self._waiting = self._waiting, {}
        for client, requests in waiting.items():
            for incoming in requests.cancel():
                self.refuse(client, incoming.id, _STOPPING)
        self._inbox = None

    def _later(self, client: ClientId, incoming: Incoming, wait: float) -> None:
        waiting = self._waiting.setdefault(client, _Waiting(lambda: self._now_due(client)))
        waiting.add(incoming, wait)

    def _now_due(self, client: ClientId) -> None:
        self.turns.add(self._take_in_due(client))

    def _take_in_due(self, client: ClientId) -> Iterator[None]:
        waiting = self._waiting.get(client)
        while waiting is not None and (incoming := waiting.next_due()) is not None:
            if not waiting:
                del self._waiting[client]
            if not isinstance(incoming.outcome, errors.BadRequest):
                self._take_in(client, incoming.outcome, incoming.id)
            yield
            waiting = self._waiting.get(client)

    def _until_taken_in(self, client: ClientId) -> float:
        """Seconds until the last request of this client that still waits for its time has been taken in."""
        waiting = self._waiting.get(client)
        # later than the last by more than the clock's grain, so that it comes after it
        return 0.0 if waiting is None else waiting.until_last() + 0.001

    def _take_in(self, client: ClientId, request: m.Request, place: m.Id) -> None:
        try:
            answer = self._answer(client, request)
            if answer is not None:
                self.send(client, answer)
        except errors.TimbredError as error:
            self.refuse(client, place, error)
        except Exception as error:  # noqa: BLE001  one request's fault must not end a transport that serves all
            _log.exception("%s: %s", client, place)
            self.refuse(client, place, errors.from_foreign(error))

    def _answer(self, client: ClientId, request: m.Request) -> m.Event | None:
        """What the front itself answers; None when the request has gone on to the inbox."""
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
                self._hand_on(client, request)
                return None

    def _hand_on(self, client: ClientId, request: m.Request) -> None:
        if self._inbox is None:
            raise _STOPPING
        if isinstance(request, Recipe):
            self._check_destination(client, request)
        self._inbox.receive(client, request)

    def _check_destination(self, client: ClientId, request: Recipe) -> None:
        if request.inline and not self._carriers[scheme(client)].inline:
            raise errors.BadRequest(
                "inline: samples travel over ZeroMQ only; leave it out and read the file that `take` names"
            )
        if request.to == "none" and not request.inline:
            raise errors.BadRequest("to: got 'none', allowed is file, play or both; none is for ZeroMQ with inline 1")

    # ---- out

    def send(self, client: ClientId, event: m.Event, clip: Clip | None = None) -> None:
        """Send an event to its client and, unless it is for that one alone, to those who asked for everybody's and to
        the publishers. Only a fault on the way to its client is raised."""
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
        except Exception:  # noqa: BLE001  the client that it is for must not suffer from it
            _log.exception("an event for %s can't be sent to those who listen to all events", client)

    def send_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Answer a question that is answered by several events; only who asked hears them."""
        carrier = self._carriers.get(scheme(client))
        if carrier is not None:
            carrier.deliver_list(client, name, events, end)

    def _deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        carrier = self._carriers.get(scheme(client))
        if carrier is None:
            _log.debug("%s can't be reached: %s is lost", client, event)
        else:
            carrier.deliver(client, event, clip)


class _Waiting:
    """Requests of one client that wait until they are due: a heap by time, with one timer for the first."""

    def __init__(self, on_due: Callable[[], None]) -> None:
        """`on_due` is called when requests are due."""
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
        """Take out the first request, if it is due."""
        if not self._heap:
            return None
        if self._heap[0][0] > asyncio.get_running_loop().time():
            self._set_timer()
            return None
        return heapq.heappop(self._heap)[2]

    def cancel(self) -> list[Incoming]:
        """Take out all of them."""
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


def _too_many_wait() -> errors.Busy:
    return errors.Busy(f"{MOST_DUE_LATER} requests of yours wait for their time already; send this one later", 1.0)


def deliver_each(deliver: "Deliver", client: ClientId, events: Sequence[m.Event], end: m.Event | None) -> None:
    """A list for a client that hears many events: one by one, then the end."""
    for event in events:
        deliver(client, event, None)
    if end is not None:
        deliver(client, end, None)


class Deliver(Protocol):
    """`Carrier.deliver`."""

    def __call__(self, client: ClientId, event: m.Event, clip: Clip | None) -> None: ...


_STOPPING = errors.ShuttingDown("timbred is stopping; start it again with: timbred serve")
