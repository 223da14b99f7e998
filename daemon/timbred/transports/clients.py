"""Identities of clients, and limits on what a flood of their requests can use.

A client is identified by the address that its answers are sent to. A sender that uses another source port but the same
address for answers is therefore the same client. Its answer port, its name, and whether it listens to all events are
stored.

Each connection's requests are an iterator whose steps accept one request each. One step of each connection is run in
turn, and after `TURN_S` the event loop polls its sockets again. However much one connection sends, a request of another
one waits for at most one step of each connection with pending requests. A socket with several clients gets one step for
each of them. Lines of the log are limited too.
"""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from timbred.protocol.boundary import ClientId

MAX_REMEMBERED_SENDERS = 4096
"""UDP senders whose `hello` is remembered; the least recently used is forgotten first."""

MAX_LISTENERS = 256
"""Clients that listen to all events at the same time; the earliest one is removed first."""

Address = tuple[str, int]
"""Host and port."""


def udp_client(host: str, port: int) -> ClientId:
    """Return the client whose answers go to `host` and `port` as OSC over UDP.

    >>> udp_client("127.0.0.1", 9000)
    'udp:127.0.0.1:9000'
    """
    return ClientId(f"udp:{host}:{port}")


def udp_address(client: ClientId) -> Address:
    """Return the address that the answers of a UDP client go to.

    >>> udp_address(udp_client("::1", 9000))
    ('::1', 9000)
    """
    host, _, port = client.removeprefix("udp:").rpartition(":")
    return host, int(port)


def tcp_client(host: str, port: int) -> ClientId:
    """Return the client at the other end of a TCP connection."""
    return ClientId(f"tcp:{host}:{port}")


def zmq_client(routing_id: bytes) -> ClientId:
    """Return the client with a ZeroMQ routing id.

    >>> zmq_client(bytes([0, 0x6b]))
    'zmq:006b'
    """
    return ClientId(f"zmq:{routing_id.hex()}")


def scheme(client: ClientId) -> str:
    """Return the transport of a client: `udp`, `tcp`, `zmq`, `ws`, `oscquery`, `http` or `memory`."""
    return client.partition(":")[0]


class Clients:
    """Answer ports of UDP senders, names of clients, and the clients that listen to all events. Does no I/O."""

    def __init__(self, max_senders: int = MAX_REMEMBERED_SENDERS, max_listeners: int = MAX_LISTENERS) -> None:
        self._answers_at: OrderedDict[Address, int] = OrderedDict()
        self._names: OrderedDict[ClientId, str] = OrderedDict()
        self._listeners: OrderedDict[ClientId, None] = OrderedDict()
        self._max_senders = max_senders
        self._max_listeners = max_listeners

    def udp_sender(self, source: Address, port: int | None) -> ClientId:
        """Return the client that sent a UDP request; `port` is the request's own `@port`."""
        if port is None and source in self._answers_at:
            self._answers_at.move_to_end(source)
            port = self._answers_at[source]
        return udp_client(source[0], source[1] if port is None else port)

    def say_hello(self, source: Address, port: int | None) -> None:
        """Send the answers of a UDP sender to `port` on its host from now on; None means its source port."""
        self._answers_at.pop(source, None)
        if port is not None and port != source[1]:
            self._answers_at[source] = port
            _forget_oldest(self._answers_at, self._max_senders)

    def call(self, client: ClientId, name: str) -> None:
        """Store the name that a client gives itself; an empty one removes it."""
        self._names.pop(client, None)
        if name:
            self._names[client] = name
            _forget_oldest(self._names, self._max_senders)

    def named(self, client: ClientId) -> str:
        """Return a client as the log shows it: its id, and its name if it has one."""
        name = self._names.get(client)
        return client if name is None else f"{client} ({name})"

    def listen(self, client: ClientId, on: bool) -> None:
        """Start or stop sending all events to this client."""
        self._listeners.pop(client, None)
        if on:
            self._listeners[client] = None
            _forget_oldest(self._listeners, self._max_listeners)

    @property
    def listeners(self) -> tuple[ClientId, ...]:
        """Clients that listen to all events, in the order of their requests."""
        return tuple(self._listeners)

    def forget(self, client: ClientId) -> None:
        """Remove what is stored of a client whose connection is closed."""
        self._names.pop(client, None)
        self._listeners.pop(client, None)


def _forget_oldest(
    entries: OrderedDict[Address, int] | OrderedDict[ClientId, str] | OrderedDict[ClientId, None], limit: int
) -> None:
    while len(entries) > limit:
        entries.popitem(last=False)


_log = logging.getLogger(__name__)

TURN_S = 0.003
"""Seconds after which the remaining steps wait for the next iteration of the event loop."""

HEAVY_STEP_S = 0.001
"""Seconds that a step counts for if it only starts a coroutine, whose work is done after the turn."""


def _one_client() -> int:
    return 1


@dataclass(eq=False, slots=True)
class _Work:
    """The steps of one connection.

    Attributes:
        steps: The steps.
        ended: The future that is completed at their end.
        count_clients: Returns the number of clients that share the connection, at least 1: its steps per turn.
        steps_left: Steps that are left of its present turn.
    """

    steps: Iterator[object]
    ended: asyncio.Future[None] | None
    count_clients: Callable[[], int]
    steps_left: int = 0


class Turns:
    """The connections with pending steps, in the order of their turns."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._waiting: deque[_Work] = deque()
        self._clock = clock
        self._scheduled = False
        self._extra_s = 0.0

    def add(
        self,
        steps: Iterator[object],
        ended: asyncio.Future[None] | None = None,
        count_clients: Callable[[], int] = _one_client,
    ) -> None:
        """Run these steps in turn with those of others. An exception ends them.

        `ended` is completed after the last step, or with the exception; without it, an exception is logged. A turn has
        one step for each of the `count_clients` clients.
        """
        self._waiting.append(_Work(steps, ended, count_clients))
        self._schedule()

    async def work(self, steps: Iterator[object], count_clients: Callable[[], int] = _one_client) -> None:
        """Run these steps in turn with those of others, as in `add`; return after the last one.

        Raises:
            Exception: A step raised it; the remaining steps aren't run.
        """
        ended = asyncio.get_running_loop().create_future()
        self.add(steps, ended, count_clients)
        await ended

    async def begin(self) -> None:
        """Wait for a turn before starting work that isn't divided into steps."""
        await self.work(self._heavy_step())

    def _heavy_step(self) -> Iterator[None]:
        self._extra_s += HEAVY_STEP_S
        return
        yield

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run_turn)

    def _run_turn(self) -> None:
        self._scheduled = False
        self._extra_s = 0.0
        end = self._clock() + TURN_S
        while self._waiting:
            work = self._waiting[0]
            work.steps_left = (work.steps_left or work.count_clients()) - 1
            if not self._run_step(work):
                self._waiting.popleft()
            elif not work.steps_left:
                self._waiting.rotate(-1)
            if self._clock() + self._extra_s >= end:
                break
        if self._waiting:
            self._schedule()

    @staticmethod
    def _run_step(work: _Work) -> bool:
        """Run one step; return True if there may be more."""
        ended = work.ended
        if ended is not None and ended.done():
            return False  # the task that waited was cancelled
        try:
            next(work.steps)
        except StopIteration:
            if ended is not None:
                ended.set_result(None)
            return False
        except Exception as error:  # noqa: BLE001  other connections continue
            if ended is None:
                _log.exception("a connection's requests can't be accepted")
            else:
                ended.set_exception(error)
            return False
        return True


LOG_LINES_PER_SECOND = 10.0
"""Lines that are written per second on average."""

MAX_BURST_LOG_LINES = 100.0
"""Lines that may be written together after a pause."""


class LimitedLog:
    """Writer of log lines, at most 100 in a burst and 10 per second on average.

    The next line that is written says how many were left out.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._lines = MAX_BURST_LOG_LINES
        self._counted = clock()
        self._left_out = 0

    def write(self, level: int, message: str, *arguments: object) -> None:
        """Log a message unless the limit is reached."""
        now = self._clock()
        self._lines = min(MAX_BURST_LOG_LINES, self._lines + (now - self._counted) * LOG_LINES_PER_SECOND)
        self._counted = now
        if self._lines < 1.0:
            self._left_out += 1
            return
        self._lines -= 1.0
        if self._left_out:
            self._log.log(level, "%d more lines like the next one were left out", self._left_out)
            self._left_out = 0
        self._log.log(level, message, *arguments)
