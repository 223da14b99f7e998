"""ZeroMQ servers: a ROUTER for requests of DEALER and REQ sockets, and a PUB with all events."""

import asyncio
import errno
import logging
import os
import socket
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import zmq
import zmq.asyncio

from timbred.access.policy import AccessRules, Denials
from timbred.audio import Clip
from timbred.errors import BadRequest
from timbred.protocol import json
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Incoming
from timbred.protocol.schema import REQUESTS, answers, find_request, is_terminal, name_of
from timbred.task_supervision import Supervisor
from timbred.transports.clients import LimitedLog, zmq_client
from timbred.transports.router import Router, deliver_each
from timbred.transports.sockets import refused, resolve

_log = logging.getLogger(__name__)

_MAX_MESSAGE_BYTES = 256 << 20
_MAX_UNREAD_MESSAGES = 100
_MAX_UNSENT_PER_CLIENT = 1000
_MAX_UNSENT_EVENTS = 10_000
_MESSAGES_PER_BATCH = 256
_MAX_PENDING_REPLIES = 10_000
_MAX_FRAMES = 16
_FRAMES_PER_STEP = 64
_MAX_ROUTING_ID_BYTES = 255
_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_ZAP_DOMAIN = b"timbred"
_HANDSHAKE_TIMEOUT_MS = 3000
_CHECKS_PER_TURN = 16
_MAX_MONITOR_EVENTS = 100_000
_MONITOR_EVENT = struct.Struct("=Hi")
_FAILED_HANDSHAKES = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL

# with NOBLOCK, zmq.asyncio sends immediately and returns a future that is done
_Sent = asyncio.Future[zmq.MessageTracker | None]


@dataclass
class _Reply:
    """The one reply that a REQ waits for. `envelope` are the frames before it, including the empty one."""

    envelope: list[bytes]
    type: str
    id: m.Id
    takes: dict[int, tuple[m.Take, Clip | None]] = field(default_factory=dict[int, tuple[m.Take, Clip | None]])

    def ends_with(self, event: m.Event) -> bool:
        """Tell if an event ends this request, and not an earlier one of the same client."""
        declared = find_request(self.type)
        entry = declared[0] if declared else None
        if isinstance(event, m.Acknowledged):
            return event.id == self.type
        if isinstance(event, m.Fail) or (entry is not None and entry.has_id):
            return is_terminal(event) and getattr(event, "id", None) == self.id
        if entry is None or isinstance(event, m.Done):
            return False
        return is_terminal(event) and answers(entry, event)


class ClientTurns:
    """The number of clients that send at present, by the order of their messages.

    libzmq returns one message of each client with unread messages in turn, so that a client comes again after all
    others.
    """

    def __init__(self) -> None:
        self._current: set[bytes] = set()
        self._last_count = 1

    def record(self, routing_id: bytes) -> None:
        """Record a message of a client."""
        if routing_id in self._current:
            self._last_count = len(self._current)
            self._current.clear()
        self._current.add(routing_id)

    def count_clients(self) -> int:
        """Return the number of clients with a message in the last complete turn or in the present one."""
        return max(self._last_count, len(self._current))


class KeyChecks:
    """Authentication of ZeroMQ connections by their CURVE keys, as the handler of ZAP (ZeroMQ RFC 27).

    Connections with an unknown key are refused here. Those without keys are refused by libzmq, which reports them to
    the monitors of the sockets.
    """

    def __init__(self, context: zmq.asyncio.Context, access: AccessRules, supervisor: Supervisor) -> None:
        self._access = access
        self._supervisor = supervisor
        self._socket = context.socket(zmq.REP)
        self._socket.bind(_ZAP_ENDPOINT)
        self._receiving = zmq.Socket.shadow(self._socket.underlying)
        self._monitors: list[_Monitor] = []
        self._tasks: list[asyncio.Task[None]] = []

    def demand(self, unbound: zmq.asyncio.Socket) -> None:
        """Let a socket that isn't bound yet accept connections with a trusted key only."""
        unbound.set(zmq.CURVE_SERVER, 1)
        unbound.set(zmq.CURVE_PUBLICKEY, self._access.own.public)
        unbound.set(zmq.CURVE_SECRETKEY, self._access.own.secret)
        unbound.set(zmq.ZAP_DOMAIN, _ZAP_DOMAIN)
        unbound.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
        unbound.set(zmq.HANDSHAKE_IVL, _HANDSHAKE_TIMEOUT_MS)
        self._monitors.append(_Monitor(unbound, self._access.denials))

    def start(self) -> None:
        """Start to check keys; connections wait until then."""
        self._tasks = [self._supervisor.keep(self._check, "zeromq keys")]
        self._tasks += [self._supervisor.keep(monitor.watch, "zeromq monitor") for monitor in self._monitors]

    async def close(self) -> None:
        """Stop checking; no further connection is accepted."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for monitor in self._monitors:
            monitor.close()
        self._socket.close(linger=0)

    async def _check(self) -> None:
        while True:
            await self._socket.poll()
            for _ in range(_CHECKS_PER_TURN):
                try:
                    frames = self._receiving.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                self._receiving.send_multipart(self._answer(frames))
            await asyncio.sleep(0)  # a flood of connections leaves turns to requests

    def _answer(self, frames: list[bytes]) -> list[bytes]:
        """Answer a request: version, request id, domain, address, identity, mechanism, and the key of CURVE."""
        _, request_id, _, address, _, mechanism, *credentials = frames
        name = self._access.trusted.name_of(credentials[0]) if mechanism == b"CURVE" and credentials else None
        if name is None:
            self._access.denials.record("ZeroMQ", address.decode("ascii", "replace"), "its key isn't trusted")
            return [b"1.0", request_id, b"400", b"access-denied", b"", b""]
        return [b"1.0", request_id, b"200", b"OK", name.encode(), b""]


class _Monitor:
    """The connections of one socket whose handshake fails before their key is known, as libzmq reports them.

    libzmq reports a failed handshake without its source, directly before the end of its connection with its descriptor.
    """

    def __init__(self, watched: zmq.asyncio.Socket, denials: Denials) -> None:
        self._watched = watched
        self._denials = denials
        self._socket = watched.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | _FAILED_HANDSHAKES)
        self._receiving = zmq.Socket.shadow(self._socket.underlying)
        self._addresses: dict[int, str] = {}
        self._has_failed = False

    async def watch(self) -> None:
        """Count failed handshakes."""
        while True:
            await self._socket.poll()
            self._read(_MESSAGES_PER_BATCH)
            await asyncio.sleep(0)

    def close(self) -> None:
        """Stop watching. libzmq must not wait for this socket while the monitor is switched off."""
        self._read(_MAX_MONITOR_EVENTS)
        self._watched.disable_monitor()
        self._socket.close(linger=0)

    def _read(self, count: int) -> None:
        for _ in range(count):
            try:
                frames = self._receiving.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            event, value = _MONITOR_EVENT.unpack(frames[0])
            if event == zmq.EVENT_ACCEPTED:
                self._addresses[value] = _peer_of(value)
            elif event == zmq.EVENT_DISCONNECTED:
                address = self._addresses.pop(value, _UNKNOWN_ADDRESS)
                if self._has_failed:
                    self._denials.record("ZeroMQ", address, "it has no key, or a key for another daemon")
                self._has_failed = False
            else:
                self._has_failed = True


_UNKNOWN_ADDRESS = "an unknown address"


def _peer_of(descriptor: int) -> str:
    """Return the address at the other end of a connection; it may have ended already."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            return str(connection.getpeername()[0])
    except (OSError, ValueError, IndexError):
        return _UNKNOWN_ADDRESS


class Requests:
    """The ROUTER socket for requests.

    A DEALER sends one frame and gets events as they happen. A REQ, recognised by the empty frame before its request,
    gets exactly one reply: the terminal event, with the takes in it.
    """

    inline = True

    def __init__(
        self,
        router: Router,
        context: zmq.asyncio.Context,
        host: str,
        port: int,
        supervisor: Supervisor,
        keys: KeyChecks | None = None,
    ) -> None:
        self._router = router
        self._supervisor = supervisor
        self._socket = context.socket(zmq.ROUTER)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        self._socket.set(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)
        # libzmq stops reading from a client with so many unread messages, so that the client's own queue fills
        self._socket.set(zmq.RCVHWM, _MAX_UNREAD_MESSAGES)
        self._socket.set(zmq.SNDHWM, _MAX_UNSENT_PER_CLIENT)
        # a routing id that connects again is a client that lost its connection: the new one gets its answers
        self._socket.set(zmq.ROUTER_HANDOVER, 1)
        if keys is not None:
            keys.demand(self._socket)
        self.port = _bind(self._socket, "zmq.requests", host, port)
        self._receiving = zmq.Socket.shadow(self._socket.underlying)
        self._replies: OrderedDict[ClientId, _Reply] = OrderedDict()
        self._turns = ClientTurns()
        self._warnings = LimitedLog(_log)
        self._reading: asyncio.Task[None] | None = None

    def streams(self, client: ClientId) -> bool:
        """Tell if this client gets events as they happen: a DEALER does, a REQ doesn't."""
        return client not in self._replies

    def start(self) -> None:
        """Start to read."""
        self._router.attach("zmq", self)
        self._reading = self._supervisor.keep(self._read, "zeromq")

    async def stop_reading(self) -> None:
        """Stop reading; pending answers are still sent."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def close(self, linger: float) -> None:
        """Close; pending messages are sent for at most `linger` seconds."""
        self._socket.close(linger=round(linger * 1000))

    async def _read(self) -> None:
        while True:
            await self._socket.poll()  # for input, without a timeout
            await self._router.turns.work(self._steps(), self._turns.count_clients)

    def _steps(self) -> Iterator[None]:
        """Accept received messages, one per step; libzmq returns one message of each client in turn."""
        for _ in range(_MESSAGES_PER_BATCH):
            frames_of_message: list[bytes] = []
            count = 0
            try:
                frames_of_message.append(self._receiving.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            while self._receiving.getsockopt(zmq.RCVMORE):
                count += 1
                frame = self._receiving.recv(zmq.NOBLOCK)
                if count <= _MAX_FRAMES:
                    frames_of_message.append(frame)
                if count % _FRAMES_PER_STEP == 0:
                    yield
            self._turns.record(frames_of_message[0])
            self._accept(frames_of_message, count)
            yield

    def _accept(self, message: list[bytes], count: int) -> None:
        """Accept a message: the routing id, then the first of its `count` frames."""
        routing_id, *parts = message
        client = zmq_client(routing_id)
        incoming = _read_parts(parts, count)
        envelope = _envelope(parts)
        if envelope is None:
            self._replies.pop(client, None)
            self._router.receive(client, incoming)
        else:
            self._accept_from_req(client, envelope, incoming)

    def _accept_from_req(self, client: ClientId, envelope: list[bytes], incoming: Incoming) -> None:
        name = _type_of(incoming)
        previous = self._replies.pop(client, None)
        is_repeated = previous is not None and (previous.type, previous.id) == (name, incoming.id)
        reply = previous if previous is not None and is_repeated else _Reply(envelope, name, incoming.id)
        reply.envelope = envelope
        self._replies[client] = reply
        if len(self._replies) > _MAX_PENDING_REPLIES:
            self._replies.popitem(last=False)
        self._router.receive(client, incoming)

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Send an event with its samples, or store it for the whole reply."""
        reply = self._replies.get(client)
        if reply is None:
            self._send(client, [json.encode_event(event), *_encode_samples(clip)])
        elif isinstance(event, m.Take) and event.id == reply.id:
            reply.takes[event.index] = (event, clip)
        elif reply.ends_with(event):
            self._reply(client, reply, event)

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Send each event and then the end, or one object with the list."""
        reply = self._replies.get(client)
        if reply is None:
            deliver_each(self.deliver, client, events, end)
        elif reply.type == name:
            self._forget(client)
            self._send(client, [*reply.envelope, json.encode_list(name, events)])

    def _reply(self, client: ClientId, reply: _Reply, event: m.Event) -> None:
        self._forget(client)
        if not isinstance(event, m.Done):
            self._send(client, [*reply.envelope, json.encode_event(event)])
            return
        takes = [reply.takes[index] for index in sorted(reply.takes)]
        whole = json.encode_done(event, [take for take, _ in takes])
        samples = [frame for _, clip in takes for frame in _encode_samples(clip)]
        self._send(client, [*reply.envelope, whole, *samples])

    def _forget(self, client: ClientId) -> None:
        self._replies.pop(client, None)

    def _send(self, client: ClientId, parts: list[bytes]) -> None:
        if self._socket.closed:
            return  # the daemon has stopped: what it still answers has no receiver
        routing_id = bytes.fromhex(client.removeprefix("zmq:"))
        sent = cast(_Sent, self._socket.send_multipart([routing_id, *parts], zmq.NOBLOCK, copy=False))
        error = sent.exception() if sent.done() else None
        if isinstance(error, zmq.ZMQError):
            if error.errno == zmq.EHOSTUNREACH:
                _log.debug("%s has disconnected: an event is lost", client)
                self._router.clients.forget(client)
            else:
                message = "%s doesn't read: %d events wait for it, and one more is lost"
                self._warnings.write(
                    logging.WARNING, message, self._router.clients.named(client), _MAX_UNSENT_PER_CLIENT
                )


class Events:
    """The PUB socket. Each event is its name as topic, then JSON with the additional field `client`."""

    def __init__(self, context: zmq.asyncio.Context, host: str, port: int, keys: KeyChecks | None = None) -> None:
        self._pub = context.socket(zmq.PUB)
        self._pub.set(zmq.SNDHWM, _MAX_UNSENT_EVENTS)
        if keys is not None:
            keys.demand(self._pub)
        self.port = _bind(self._pub, "zmq.events", host, port)

    def publish(self, client: ClientId, event: m.Event) -> None:
        """Send an event to all subscribers of its topic; after `close` there are none."""
        if self._pub.closed:
            return
        topic = name_of(event).encode()
        self._pub.send_multipart([topic, json.encode_event(event, client)], zmq.NOBLOCK)

    def close(self, linger: float) -> None:
        """Close; pending messages are sent for at most `linger` seconds."""
        self._pub.close(linger=round(linger * 1000))


def _bind(unbound: zmq.asyncio.Socket, setting: str, host: str, port: int) -> int:
    """Bind to a port and return its number; 0 chooses a free one."""
    _, address = resolve(host)
    unbound.set(zmq.IPV6, int(":" in address))
    numeric = f"[{address}]" if ":" in address else address
    try:
        unbound.bind(f"tcp://{numeric}:{port or '*'}")
    except zmq.ZMQError as error:
        unbound.close(linger=0)
        raise refused(setting, host, port, _as_os_error(error)) from error
    return int(unbound.get_string(zmq.LAST_ENDPOINT).rpartition(":")[2])


def _as_os_error(error: zmq.ZMQError) -> OSError:
    # libzmq has its own numbers for these if the C library has none (Windows)
    known = {
        int(zmq.EADDRINUSE): errno.EADDRINUSE,
        int(zmq.EADDRNOTAVAIL): errno.EADDRNOTAVAIL,
    }
    number = error.errno or 0
    return OSError(known.get(number, number), zmq.strerror(number))


def _envelope(parts: Sequence[bytes]) -> list[bytes] | None:
    """Return a REQ's frames up to the empty one, which precede its reply too; None for a DEALER.

    Frames before the empty one are routing ids of devices on the way, so each has at most 255 bytes.
    """
    for index, part in enumerate(parts[:-1]):
        if len(part) == 0:
            return list(parts[: index + 1])
        if len(part) > _MAX_ROUTING_ID_BYTES:
            return None
    return None


def _read_parts(parts: Sequence[bytes], count: int) -> Incoming:
    """Read the request in a message of `count` frames, of which `parts` are the first."""
    envelope = _envelope(parts) or []
    size = count - len(envelope)
    if size != 1:
        return Incoming(BadRequest(f"this message has {size} frames; a request is one frame of JSON"), "json")
    return json.read(parts[-1])


def _type_of(incoming: Incoming) -> str:
    if isinstance(incoming.outcome, m.Setting):
        return str(incoming.id)
    for entry in REQUESTS:
        if type(incoming.outcome) is entry.kind:
            return entry.name
    return str(incoming.id)


def _encode_samples(clip: Clip | None) -> list[bytes]:
    """Encode a take's samples: float32, little-endian, interleaved."""
    if clip is None:
        return []
    return [np.ascontiguousarray(clip.samples, dtype="<f4").tobytes()]
