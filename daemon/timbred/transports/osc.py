"""Servers for OSC over UDP, and over TCP (SLIP as in OSC 1.1, or size prefixes as in OSC 1.0), on one port number."""

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from timbred.access.policy import AccessRules
from timbred.audio import Clip
from timbred.errors import AccessDenied, BadRequest
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Incoming
from timbred.protocol.osc import encode_event, iterate_datagram
from timbred.protocol.osc_packets import StreamDecoder, encode_slip
from timbred.protocol.schema import is_terminal
from timbred.task_supervision import Supervisor, keep_until_done
from timbred.transports.clients import Address, LimitedLog, tcp_client, udp_address
from timbred.transports.router import Router, deliver_each
from timbred.transports.sockets import enlarge_receive_buffer

_log = logging.getLogger(__name__)

_MAX_DRAIN_S = 0.008
"""Seconds of reading the UDP socket before other work of the event loop. Longer than a turn, so that the datagrams of a
flood are read and dropped by their source's share: those that the system drops may be of any source."""
_DATAGRAMS_PER_CLOCK_READ = 32
_MAX_DRAIN_BYTES = 4 << 20
_MAX_PENDING_BYTES = 32 << 20
_MAX_SOURCES = 10_000
_DATAGRAM_OVERHEAD_BYTES = 200
_MAX_DATAGRAM_BYTES = 65536
_MAX_UNSENT_DATAGRAMS = 10_000
_MAX_UNREAD_BYTES = 4 << 20
_UNREAD_TIMEOUT_S = 60.0
_MAX_CONNECTIONS = 400
_READ_BYTES = 4096
_CLOSE_TIMEOUT_S = 5.0
LAST_REQUESTS_TIMEOUT_S = 0.5
_DENIED_LINGER_S = 1.0
_NOT_ALLOWED = "its address isn't in access.allow"
_END = object()


def _denied(identity: m.Id, address: str) -> m.Fail:
    """Return the answer to a client whose address isn't allowed."""
    message = (
        f"OSC from {address} isn't allowed: add it to access.allow on timbred's machine, as in "
        f"`timbred serve --set access.allow={address}`"
    )
    return m.Fail(id=identity, code=AccessDenied.code, message=message)


@dataclass(slots=True)
class _PendingDatagrams:
    """Datagrams of one source that wait for their turn; `size` is in bytes, with overhead."""

    packets: deque[bytes] = field(default_factory=deque[bytes])
    size: int = 0


class OscUdp:
    """The UDP server. It reads many datagrams at each wake-up of the event loop, and no error stops it.

    With `access`, datagrams from addresses that aren't allowed are dropped; the first one of each address is answered.
    """

    inline = False

    def __init__(self, router: Router, endpoint: socket.socket, access: AccessRules | None = None) -> None:
        self._router = router
        self._access = access
        self._socket = endpoint
        self._own_address = endpoint.getsockname()[:2]
        self._buffer = bytearray(_MAX_DATAGRAM_BYTES)
        self._view = memoryview(self._buffer)
        self._unsent: deque[tuple[bytes, Address]] = deque()
        self._pending: dict[Address, _PendingDatagrams] = {}
        self._warnings = LimitedLog(_log)

    def start(self) -> None:
        """Start to read. Needs a running event loop that can watch sockets (on Windows the selector loop)."""
        buffer_bytes = enlarge_receive_buffer(self._socket)
        _log.debug("UDP receive buffer: %d bytes", buffer_bytes)
        self._router.attach("udp", self)
        asyncio.get_running_loop().add_reader(self._socket, self._drain)

    def stop_reading(self) -> None:
        """Stop reading; requests that have been read are still answered."""
        asyncio.get_running_loop().remove_reader(self._socket)
        end = time.monotonic() + LAST_REQUESTS_TIMEOUT_S
        sources = deque(self._steps(source) for source in list(self._pending))
        while sources and time.monotonic() < end:
            steps = sources.popleft()
            if next(steps, _END) is not _END:
                sources.append(steps)
        if self._pending:
            late = sum(len(pending.packets) for pending in self._pending.values())
            _log.warning("%d datagrams came too late to be answered", late)

    def close(self) -> None:
        """Send what the system accepts without waiting, then close."""
        for pending in self._pending.values():
            pending.packets.clear()
        self._send_unsent()
        asyncio.get_running_loop().remove_writer(self._socket)
        self._socket.close()

    def _drain(self) -> None:
        """Read the socket's datagrams; their requests are accepted in turns of their sources."""
        size = 0
        end = time.perf_counter() + _MAX_DRAIN_S
        while size <= _MAX_DRAIN_BYTES and time.perf_counter() < end:
            for _ in range(_DATAGRAMS_PER_CLOCK_READ):
                try:
                    length, source = self._socket.recvfrom_into(self._buffer)
                except (BlockingIOError, InterruptedError):
                    return
                except OSError as error:
                    # Windows reports here that an earlier answer had no receiver
                    _log.debug("UDP: %s", error)
                    continue
                size += length
                self._append_datagram(bytes(self._view[:length]), source[:2])

    def _append_datagram(self, packet: bytes, source: Address) -> None:
        if source == self._own_address:
            # an answer that `@port` sent to this daemon; answering it could loop without end
            _log.debug("UDP: this daemon's own packet is not answered")
            return
        if self._access is not None and not self._access.allow.allows(source[0]):
            self._deny(packet, source, self._access)
            return
        pending = self._pending.get(source)
        size = len(packet) + _DATAGRAM_OVERHEAD_BYTES
        if pending is None and len(self._pending) < _MAX_SOURCES:
            pending = self._pending[source] = _PendingDatagrams()
            self._router.turns.add(self._steps(source))
        if pending is None or pending.size + size > _MAX_PENDING_BYTES / max(2, len(self._pending)):
            message = "UDP: %s:%d sends faster than it can be answered: a datagram is lost"
            self._warnings.write(logging.WARNING, message, *source)
            return
        pending.packets.append(packet)
        pending.size += size

    def _deny(self, packet: bytes, source: Address, access: AccessRules) -> None:
        """Count a datagram of an address that isn't allowed; answer the first one."""
        if not access.denials.record("OSC", source[0], _NOT_ALLOWED):
            return
        incoming = next(iterate_datagram(packet), None)
        if incoming is not None:
            client = self._router.clients.udp_sender(source, incoming.port)
            self.deliver(client, _denied(incoming.id, source[0]), None)

    def _steps(self, source: Address) -> Iterator[None]:
        """Accept what one source has sent, one request per step."""
        pending = self._pending.get(source)
        while pending is not None and pending.packets:
            packet = pending.packets.popleft()
            pending.size -= len(packet) + _DATAGRAM_OVERHEAD_BYTES
            for incoming in iterate_datagram(packet):
                if isinstance(incoming.outcome, m.Hello):
                    self._router.clients.say_hello(source, incoming.port)
                self._router.receive(self._router.clients.udp_sender(source, incoming.port), incoming)
                yield
            yield
        self._pending.pop(source, None)

    def streams(self, client: ClientId) -> bool:
        """Return True: an OSC client gets events as they happen."""
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
        """Send a datagram now, or as soon as the system accepts it."""
        if self._unsent or not self._try_send(packet, to):
            if len(self._unsent) == _MAX_UNSENT_DATAGRAMS:
                message = "UDP: %d answers wait to be sent; one to %s:%d is lost"
                self._warnings.write(logging.WARNING, message, _MAX_UNSENT_DATAGRAMS, *to)
                return
            self._unsent.append((packet, to))
            asyncio.get_running_loop().add_writer(self._socket, self._send_unsent)

    def _try_send(self, packet: bytes, to: Address) -> bool:
        """Try to send a datagram; return False if it has to be tried again."""
        try:
            self._socket.sendto(packet, to)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            _log.debug("UDP: %s:%d doesn't receive: %s", *to, error)
        return True

    def _send_unsent(self) -> None:
        while self._unsent and self._try_send(*self._unsent[0]):
            self._unsent.popleft()
        if not self._unsent:
            asyncio.get_running_loop().remove_writer(self._socket)


class TcpConnection:
    """The connection of one TCP client. A client that has closed its sending side still gets its pending answers."""

    def __init__(self, router: Router, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        self.host = str(peer[0])
        self.client = tcp_client(self.host, int(peer[1]))
        self._router = router
        self._reader = reader
        self._writer = writer
        self._decoder = StreamDecoder()
        self._open: set[m.Id] = set()
        self._answered = asyncio.Event()
        self._answered.set()

    async def serve(self) -> None:
        """Read requests until the client closes its sending side or disconnects."""
        try:
            while data := await self._reader.read(_READ_BYTES):
                await self._router.turns.work(self._steps(data))
                await self._wait_until_read()
            await self._answered.wait()
        except OSError as error:
            _log.debug("%s: %s", self.client, error)

    async def _wait_until_read(self) -> None:
        """Wait until the client has read most of its answers; no more requests are read from it before.

        Raises:
            OSError: It has disconnected, or hasn't read for too long.
        """
        if not self._writer.transport.get_write_buffer_size():
            return
        try:
            async with asyncio.timeout(_UNREAD_TIMEOUT_S):
                await self._writer.drain()
        except TimeoutError:
            name = self._router.clients.named(self.client)
            _log.warning("%s hasn't read its answers for %g s: disconnected", name, _UNREAD_TIMEOUT_S)
            self.abort()
            raise

    def _steps(self, data: bytes) -> Iterator[None]:
        """Accept the requests that these bytes complete, one per step."""
        for frame in self._decoder.feed(data):
            if isinstance(frame, BadRequest):
                self._router.receive(self.client, Incoming(frame, "osc"))
            else:
                yield from self._accept(frame)
            yield

    def _accept(self, frame: bytes) -> Iterator[None]:
        for incoming in iterate_datagram(frame):
            self._router.receive(self._client_of(incoming), incoming)
            yield

    def _client_of(self, incoming: Incoming) -> ClientId:
        outcome = incoming.outcome
        if incoming.port is not None and not isinstance(outcome, m.Hello):
            return self._router.clients.udp_sender((self.host, incoming.port), None)
        if isinstance(outcome, m.Generate | m.Vary):
            self._open.add(outcome.id)
            self._answered.clear()
        return self.client

    def send(self, event: m.Event) -> None:
        """Send an event. A client that doesn't read its answers is disconnected."""
        self._writer.write(self._decoder.encode(encode_event(event)))
        if self._writer.transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            _log.warning("%s doesn't read its answers: disconnected", self._router.clients.named(self.client))
            self.abort()
        if is_terminal(event):
            self._open.discard(getattr(event, "id", ""))
            if not self._open:
                self._answered.set()

    def abort(self) -> None:
        """Close the connection immediately; unsent answers are lost."""
        self._open.clear()
        self._answered.set()
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close the connection once everything has been sent."""
        self._writer.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()
        except OSError as error:  # TimeoutError is one: the client doesn't read
            _log.debug("%s: %s", self.client, error)
            self._writer.transport.abort()


class OscTcp:
    """The TCP server.

    With `access`, connections from addresses that aren't allowed are closed; the first one of each address is told why.
    """

    inline = False

    def __init__(
        self, router: Router, listener: socket.socket, supervisor: Supervisor, access: AccessRules | None = None
    ) -> None:
        self._access = access
        self._router = router
        self._supervisor = supervisor
        self._listener = listener
        self._connections: dict[ClientId, TcpConnection] = {}
        self._serving: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Start to accept connections."""
        self._router.attach("tcp", self)
        self._server = await asyncio.start_server(self._accept_connection, sock=self._listener, backlog=512)

    def _accept_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._access is not None and not self._is_allowed(writer, self._access):
            return
        if len(self._connections) >= _MAX_CONNECTIONS:
            _log.warning("%d OSC connections are open: one more is refused", _MAX_CONNECTIONS)
            writer.transport.abort()
            return
        _keep_alive(writer)
        connection = TcpConnection(self._router, reader, writer)
        self._connections[connection.client] = connection
        keep_until_done(self._supervisor.run(self._serve_connection(connection), "osc-tcp"), self._serving)

    @staticmethod
    def _is_allowed(writer: asyncio.StreamWriter, access: AccessRules) -> bool:
        """Tell if a connection comes from an allowed address; close it otherwise."""
        peer = writer.get_extra_info("peername")
        host = str(peer[0]) if peer else ""
        if access.allow.allows(host):
            return True
        if not access.denials.record("OSC", host or "an unknown address", _NOT_ALLOWED):
            writer.transport.abort()
            return False
        writer.write(encode_slip(encode_event(_denied("osc", host))))
        writer.write_eof()
        # closing it now could discard the answer, if the client has sent something
        asyncio.get_running_loop().call_later(_DENIED_LINGER_S, writer.transport.abort)
        return False

    async def _serve_connection(self, connection: TcpConnection) -> None:
        try:
            await connection.serve()
        finally:
            self._connections.pop(connection.client, None)
            self._router.clients.forget(connection.client)
            await connection.close()

    def stop_reading(self) -> None:
        """Stop accepting connections; pending answers are still sent."""
        if self._server is not None:
            self._server.close()

    async def close(self, timeout_s: float) -> None:
        """Send pending answers for at most `timeout_s` seconds, then close every connection."""
        connections = list(self._connections.values())
        closing = [asyncio.create_task(connection.close()) for connection in connections]
        if closing:
            await asyncio.wait(closing, timeout=timeout_s)
        for connection in connections:
            connection.abort()
        for task in (*closing, *self._serving):
            task.cancel()
        await asyncio.gather(*closing, *self._serving, return_exceptions=True)

    def streams(self, client: ClientId) -> bool:
        """Return True: an OSC client gets events as they happen."""
        _ = client
        return True

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Send an event as one frame."""
        _ = clip
        connection = self._connections.get(client)
        if connection is None:
            _log.debug("%s has disconnected: %s is lost", client, event)
        else:
            connection.send(event)

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Send each event as one frame, then the end."""
        _ = name
        deliver_each(self.deliver, client, events, end)


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Enable keep-alive, so that the system detects a peer that disappeared without closing."""
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
