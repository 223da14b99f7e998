"""OSC over UDP, and over TCP (OSC 1.1's SLIP, or OSC 1.0's sizes), on the same port number."""

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from timbred.audio import Clip
from timbred.errors import BadRequest
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Incoming
from timbred.protocol.framing import StreamDecoder
from timbred.protocol.osc import encode_event, iterate_datagram
from timbred.protocol.schema import is_terminal
from timbred.task_supervision import Supervisor, hold_until_done
from timbred.transports.router import Address, LimitedLog, Router, deliver_each, tcp_client, udp_address
from timbred.transports.sockets import enlarge_receive_buffer

_log = logging.getLogger(__name__)

_MAX_DRAIN_S = 0.008
"""Longest reading of the UDP socket before other work of the loop. Longer than a turn, so that a flood's
datagrams are read, and dropped by their source's share, faster than they come: what the system drops hits anyone."""
_DATAGRAMS_PER_CLOCK_READ = 32
_MAX_DRAIN_BYTES = 4 << 20
_MOST_HELD = 32 << 20
_MOST_SOURCES = 10_000
_OVERHEAD = 200
_LARGEST_DATAGRAM = 65536
_MOST_UNSENT = 10_000
_MOST_UNREAD = 4 << 20
_UNREAD_PATIENCE_S = 60.0
_MOST_CONNECTIONS = 400
_CHUNK = 4096
_FAREWELL = 5.0
_LAST_READING = 0.5
_END = object()


@dataclass(slots=True)
class _Held:
    """Datagrams of one source that wait for their turn, and the bytes that they take."""

    packets: deque[bytes] = field(default_factory=deque[bytes])
    size: int = 0


class OscUdp:
    """The UDP endpoint. Reads the socket itself: many datagrams at each wake-up, and no error ends it."""

    inline = False

    def __init__(self, front: Router, endpoint: socket.socket) -> None:
        self._front = front
        self._socket = endpoint
        self._buffer = bytearray(_LARGEST_DATAGRAM)
        self._view = memoryview(self._buffer)
        self._unsent: deque[tuple[bytes, Address]] = deque()
        self._held: dict[Address, _Held] = {}
        self._warnings = LimitedLog(_log)

    def start(self) -> None:
        """Begin to read. Needs a running loop that can watch sockets (on Windows: the selector loop)."""
        given = enlarge_receive_buffer(self._socket)
        _log.debug("UDP receive buffer: %d bytes", given)
        self._front.attach("udp", self)
        asyncio.get_running_loop().add_reader(self._socket, self._drain)

    def stop_reading(self) -> None:
        """Read no more; answers still go out, also to what has been read already."""
        asyncio.get_running_loop().remove_reader(self._socket)
        end = time.monotonic() + _LAST_READING
        waiting = deque(self._steps(source) for source in list(self._held))
        while waiting and time.monotonic() < end:
            steps = waiting.popleft()
            if next(steps, _END) is not _END:
                waiting.append(steps)
        if self._held:
            late = sum(len(held.packets) for held in self._held.values())
            _log.warning("%d datagrams came too late to be answered", late)

    def close(self) -> None:
        """Send what can be sent at once, then close."""
        for held in self._held.values():
            held.packets.clear()
        self._send_on()
        asyncio.get_running_loop().remove_writer(self._socket)
        self._socket.close()

    def _drain(self) -> None:
        """Read the socket's datagrams; they are taken in in turn, source by source."""
        size = 0
        end = time.perf_counter() + _MAX_DRAIN_S
        while size <= _MAX_DRAIN_BYTES and time.perf_counter() < end:
            for _ in range(_DATAGRAMS_PER_CLOCK_READ):
                try:
                    length, source = self._socket.recvfrom_into(self._buffer)
                except (BlockingIOError, InterruptedError):
                    return
                except OSError as error:
                    # Windows reports here that an earlier answer found nobody; the next datagram is fine
                    _log.debug("UDP: %s", error)
                    continue
                size += length
                self._hold(bytes(self._view[:length]), source[:2])

    def _hold(self, packet: bytes, source: Address) -> None:
        held = self._held.get(source)
        size = len(packet) + _OVERHEAD
        if held is None and len(self._held) < _MOST_SOURCES:
            held = self._held[source] = _Held()
            self._front.turns.add(self._steps(source))
        if held is None or held.size + size > _MOST_HELD / max(2, len(self._held)):
            message = "UDP: %s:%d sends faster than it can be answered: a datagram is lost"
            self._warnings.write(logging.WARNING, message, *source)
            return
        held.packets.append(packet)
        held.size += size

    def _steps(self, source: Address) -> Iterator[None]:
        """Take in what one source has sent, one request at each step."""
        held = self._held.get(source)
        while held is not None and held.packets:
            packet = held.packets.popleft()
            held.size -= len(packet) + _OVERHEAD
            yield from self._take(packet, source)
            yield
        self._held.pop(source, None)

    def _take(self, packet: bytes, source: Address) -> Iterator[None]:
        if source[:2] == self._socket.getsockname()[:2]:
            # an answer that `@port` sent to ourselves: answering it could go on for ever
            _log.debug("UDP: a packet of our own is not answered")
            return
        for incoming in iterate_datagram(packet):
            if isinstance(incoming.outcome, m.Hello):
                self._front.clients.say_hello(source, incoming.port)
            self._front.receive(self._front.clients.udp_sender(source, incoming.port), incoming)
            yield

    def streams(self, client: ClientId) -> bool:
        """An OSC client hears events as they happen."""
        _ = client
        return True

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Send an event as one datagram."""
        _ = clip
        self.send(encode_event(event), udp_address(client))

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Send each event as one datagram, then the end."""
        _ = name
        deliver_each(self.deliver, client, events, end)

    def send(self, packet: bytes, to: Address) -> None:
        """Send a datagram now, or as soon as the system takes it."""
        if self._unsent or not self._sent(packet, to):
            if len(self._unsent) == _MOST_UNSENT:
                message = "UDP: %d answers wait to be sent; one to %s:%d is lost"
                self._warnings.write(logging.WARNING, message, _MOST_UNSENT, *to)
                return
            self._unsent.append((packet, to))
            asyncio.get_running_loop().add_writer(self._socket, self._send_on)

    def _sent(self, packet: bytes, to: Address) -> bool:
        """Whether the datagram has left, or never will."""
        try:
            self._socket.sendto(packet, to)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            _log.debug("UDP: %s:%d has gone: %s", *to, error)
        return True

    def _send_on(self) -> None:
        while self._unsent and self._sent(*self._unsent[0]):
            self._unsent.popleft()
        if not self._unsent:
            asyncio.get_running_loop().remove_writer(self._socket)


class TcpConnection:
    """One TCP client. One that has closed its sending side still hears how its requests end."""

    def __init__(self, front: Router, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        self.host = str(peer[0])
        self.client = tcp_client(self.host, int(peer[1]))
        self._front = front
        self._reader = reader
        self._writer = writer
        self._decoder = StreamDecoder()
        self._open: set[m.Id] = set()
        self._answered = asyncio.Event()
        self._answered.set()

    async def serve(self) -> None:
        """Read requests until the client has ended, or is gone."""
        try:
            while data := await self._reader.read(_CHUNK):
                await self._front.turns.work(self._steps(data))
                await self._answers_read()
            await self._answered.wait()
        except OSError as error:
            _log.debug("%s: %s", self.client, error)

    async def _answers_read(self) -> None:
        """Wait until the client has read most of its answers: until then nothing more is read from it.

        Raises:
            OSError: it has gone, or has read nothing for too long.
        """
        if not self._writer.transport.get_write_buffer_size():
            return
        try:
            async with asyncio.timeout(_UNREAD_PATIENCE_S):
                await self._writer.drain()
        except TimeoutError:
            name = self._front.clients.named(self.client)
            _log.warning("%s hasn't read its answers for %g s: disconnected", name, _UNREAD_PATIENCE_S)
            self.abort()
            raise

    def _steps(self, data: bytes) -> Iterator[None]:
        """Take in what these bytes complete, one request at each step."""
        for frame in self._decoder.feed(data):
            if isinstance(frame, BadRequest):
                self._front.receive(self.client, Incoming(frame, "osc"))
            else:
                yield from self._take(frame)
            yield

    def _take(self, frame: bytes) -> Iterator[None]:
        for incoming in iterate_datagram(frame):
            self._front.receive(self._client_of(incoming), incoming)
            yield

    def _client_of(self, incoming: Incoming) -> ClientId:
        outcome = incoming.outcome
        if incoming.port is not None and not isinstance(outcome, m.Hello):
            return self._front.clients.udp_sender((self.host, incoming.port), None)
        if isinstance(outcome, m.Generate | m.Vary):
            self._open.add(outcome.id)
            self._answered.clear()
        return self.client

    def send(self, event: m.Event) -> None:
        """Send an event; a client that doesn't read its answers is disconnected."""
        self._writer.write(self._decoder.encode(encode_event(event)))
        if self._writer.transport.get_write_buffer_size() > _MOST_UNREAD:
            _log.warning("%s doesn't read its answers: disconnected", self._front.clients.named(self.client))
            self.abort()
        if is_terminal(event):
            self._open.discard(getattr(event, "id", ""))
            if not self._open:
                self._answered.set()

    def abort(self) -> None:
        """End the connection; what hasn't been sent is lost."""
        self._open.clear()
        self._answered.set()
        self._writer.transport.abort()

    async def close(self) -> None:
        """End the connection once everything has been sent."""
        self._writer.close()
        try:
            async with asyncio.timeout(_FAREWELL):
                await self._writer.wait_closed()
        except OSError as error:  # TimeoutError is one: the client doesn't read
            _log.debug("%s: %s", self.client, error)
            self._writer.transport.abort()


class OscTcp:
    """The TCP server."""

    inline = False

    def __init__(self, front: Router, listener: socket.socket, supervisor: Supervisor) -> None:
        self._front = front
        self._supervisor = supervisor
        self._listener = listener
        self._connections: dict[ClientId, TcpConnection] = {}
        self._serving: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to take connections."""
        self._front.attach("tcp", self)
        self._server = await asyncio.start_server(self._serve, sock=self._listener, backlog=512)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _MOST_CONNECTIONS:
            _log.warning("%d OSC connections are open: one more is refused", _MOST_CONNECTIONS)
            writer.transport.abort()
            return
        _keep_alive(writer)
        connection = TcpConnection(self._front, reader, writer)
        self._connections[connection.client] = connection
        hold_until_done(self._supervisor.run(self._until_gone(connection), "osc-tcp"), self._serving)

    async def _until_gone(self, connection: TcpConnection) -> None:
        try:
            await connection.serve()
        finally:
            self._connections.pop(connection.client, None)
            self._front.clients.forget(connection.client)
            await connection.close()

    def stop_reading(self) -> None:
        """Take no more connections; answers still go out."""
        if self._server is not None:
            self._server.close()

    async def close(self, patience: float) -> None:
        """Send what waits, for at most `patience` seconds, then close every connection."""
        connections = list(self._connections.values())
        closing = [asyncio.create_task(connection.close()) for connection in connections]
        if closing:
            await asyncio.wait(closing, timeout=patience)
        for connection in connections:
            connection.abort()
        for task in (*closing, *self._serving):
            task.cancel()
        await asyncio.gather(*closing, *self._serving, return_exceptions=True)

    def streams(self, client: ClientId) -> bool:
        """An OSC client hears events as they happen."""
        _ = client
        return True

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Send an event as one frame."""
        _ = clip
        connection = self._connections.get(client)
        if connection is None:
            _log.debug("%s has gone: %s is lost", client, event)
        else:
            connection.send(event)

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Send each event as one frame, then the end."""
        _ = name
        deliver_each(self.deliver, client, events, end)


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Let the system find out about a peer that vanished without a word."""
    made = writer.get_extra_info("socket")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
