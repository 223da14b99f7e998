"""ZeroMQ: a ROUTER that takes requests from DEALER and REQ sockets, and a PUB with every event."""

import asyncio
import errno
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import zmq
import zmq.asyncio

from timbred.audio import Clip
from timbred.errors import BadRequest
from timbred.protocol import json
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Incoming
from timbred.protocol.schema import REQUESTS, answers, find_request, is_terminal, name_of
from timbred.task_supervision import Supervisor
from timbred.transports.router import LimitedLog, Router, deliver_each, zmq_client
from timbred.transports.sockets import refused, resolve

_log = logging.getLogger(__name__)

_LARGEST_TAKEN = 256 << 20
_MOST_UNREAD = 100
_MOST_UNSENT_TO_ONE = 1000
_MOST_UNSENT = 10_000
_MESSAGES_A_WORK = 256
_MOST_REPLIES = 10_000
_MOST_FRAMES = 16
_FRAMES_A_STEP = 64
_LONGEST_ROUTING_ID = 255

# with NOBLOCK, zmq.asyncio does at once what it can and gives back a future that is done
_Sent = asyncio.Future[zmq.MessageTracker | None]


@dataclass
class _Reply:
    """The one reply that a REQ waits for. `envelope` is what comes before it, down to the empty frame."""

    envelope: list[bytes]
    type: str
    id: m.Id
    takes: dict[int, tuple[m.Take, Clip | None]] = field(default_factory=dict[int, tuple[m.Take, Clip | None]])

    def ends_with(self, event: m.Event) -> bool:
        """Whether this event is the end of the request, not of another that this client once made."""
        found = find_request(self.type)
        entry = found[0] if found else None
        if isinstance(event, m.Acknowledged):
            return event.id == self.type
        if isinstance(event, m.Fail) or (entry is not None and entry.has_id):
            return is_terminal(event) and getattr(event, "id", None) == self.id
        if entry is None or isinstance(event, m.Done):
            return False
        return is_terminal(event) and answers(entry, event)


class Requests:
    """The ROUTER.

    A DEALER sends one frame and hears events as they happen. A REQ (known by the empty frame before its
    request) gets exactly one reply: the terminal event with the takes in it.
    """

    inline = True

    def __init__(
        self, front: Router, context: zmq.asyncio.Context, host: str, port: int, supervisor: Supervisor
    ) -> None:
        self._front = front
        self._supervisor = supervisor
        self._router = context.socket(zmq.ROUTER)
        self._router.set(zmq.ROUTER_MANDATORY, 1)
        self._router.set(zmq.MAXMSGSIZE, _LARGEST_TAKEN)
        # libzmq reads no more from a client of whom so many messages wait here: its own sending stops
        self._router.set(zmq.RCVHWM, _MOST_UNREAD)
        self._router.set(zmq.SNDHWM, _MOST_UNSENT_TO_ONE)
        # the same routing id again is a client that lost its connection: its answers go to the new one
        self._router.set(zmq.ROUTER_HANDOVER, 1)
        self.port = _bind(self._router, "zmq.requests", host, port)
        self._receiving = zmq.Socket.shadow(self._router.underlying)
        self._replies: OrderedDict[ClientId, _Reply] = OrderedDict()
        self._warnings = LimitedLog(_log)
        self._reading: asyncio.Task[None] | None = None

    def streams(self, client: ClientId) -> bool:
        """Whether this client hears events as they happen: a DEALER does, a REQ doesn't."""
        return client not in self._replies

    def start(self) -> None:
        """Begin to read."""
        self._front.attach("zmq", self)
        self._reading = self._supervisor.keep(self._read, "zeromq")

    async def stop_reading(self) -> None:
        """Read no more; answers still go out."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def close(self, linger: float) -> None:
        """Close; what waits is sent for at most `linger` seconds."""
        self._router.close(linger=round(linger * 1000))

    async def _read(self) -> None:
        while True:
            await self._router.poll(zmq.POLLIN)
            await self._front.turns.work(self._steps())

    def _steps(self) -> Iterator[None]:
        """Take in what has come, one message at each step; libzmq gives one message of each client in turn."""
        for _ in range(_MESSAGES_A_WORK):
            frames_of_message: list[bytes] = []
            count = 0
            try:
                frames_of_message.append(self._receiving.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            while self._receiving.getsockopt(zmq.RCVMORE):
                count += 1
                frame = self._receiving.recv(zmq.NOBLOCK)
                if count <= _MOST_FRAMES:
                    frames_of_message.append(frame)
                if count % _FRAMES_A_STEP == 0:
                    yield
            self._take(frames_of_message, count)
            yield

    def _take(self, message: list[bytes], count: int) -> None:
        """Take in a message: the routing id, then its frames, of which there were `count`."""
        routing_id, *parts = message
        client = zmq_client(routing_id)
        incoming = _read_parts(parts, count)
        envelope = _envelope(parts)
        if envelope is None:
            self._replies.pop(client, None)
            self._front.receive(client, incoming)
        else:
            self._take_from_req(client, envelope, incoming)

    def _take_from_req(self, client: ClientId, envelope: list[bytes], incoming: Incoming) -> None:
        name = _type_of(incoming)
        before = self._replies.pop(client, None)
        again = before is not None and (before.type, before.id) == (name, incoming.id)
        reply = before if before is not None and again else _Reply(envelope, name, incoming.id)
        reply.envelope = envelope
        self._replies[client] = reply
        if len(self._replies) > _MOST_REPLIES:
            self._replies.popitem(last=False)
        self._front.receive(client, incoming)

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Send an event with its samples, or keep it for the whole reply."""
        reply = self._replies.get(client)
        if reply is None:
            self._send(client, [json.encode_event(event), *_samples(clip)])
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
        samples = [frame for _, clip in takes for frame in _samples(clip)]
        self._send(client, [*reply.envelope, whole, *samples])

    def _forget(self, client: ClientId) -> None:
        self._replies.pop(client, None)

    def _send(self, client: ClientId, parts: list[bytes]) -> None:
        routing_id = bytes.fromhex(client.removeprefix("zmq:"))
        sent = cast(_Sent, self._router.send_multipart([routing_id, *parts], zmq.NOBLOCK, copy=False))
        error = sent.exception() if sent.done() else None
        if isinstance(error, zmq.ZMQError):
            if error.errno == zmq.EHOSTUNREACH:
                _log.debug("%s has gone: an event is lost", client)
                self._front.clients.forget(client)
            else:
                message = "%s doesn't read: %d events wait for it and one more is lost"
                self._warnings.write(logging.WARNING, message, self._front.clients.named(client), _MOST_UNSENT_TO_ONE)


class Events:
    """The PUB: each event with its name as topic, then JSON with one more field, `client`."""

    def __init__(self, context: zmq.asyncio.Context, host: str, port: int) -> None:
        self._pub = context.socket(zmq.PUB)
        self._pub.set(zmq.SNDHWM, _MOST_UNSENT)
        self.port = _bind(self._pub, "zmq.events", host, port)

    def publish(self, client: ClientId, event: m.Event) -> None:
        """Send an event to all who subscribed to its topic."""
        topic = name_of(event).encode()
        self._pub.send_multipart([topic, json.encode_event(event, client)], zmq.NOBLOCK)

    def close(self, linger: float) -> None:
        """Close; what waits is sent for at most `linger` seconds."""
        self._pub.close(linger=round(linger * 1000))


def _bind(made: zmq.asyncio.Socket, setting: str, host: str, port: int) -> int:
    """Bind to a port, 0 being any; returns the number."""
    _, address = resolve(host)
    made.set(zmq.IPV6, int(":" in address))
    numeric = f"[{address}]" if ":" in address else address
    try:
        made.bind(f"tcp://{numeric}:{port or '*'}")
    except zmq.ZMQError as error:
        made.close(linger=0)
        raise refused(setting, host, port, _as_os_error(error)) from error
    return int(made.get_string(zmq.LAST_ENDPOINT).rpartition(":")[2])


def _as_os_error(error: zmq.ZMQError) -> OSError:
    # libzmq has numbers of its own for these where the system's C library has none (Windows)
    known = {
        int(zmq.EADDRINUSE): errno.EADDRINUSE,
        int(zmq.EADDRNOTAVAIL): errno.EADDRNOTAVAIL,
    }
    number = error.errno or 0
    return OSError(known.get(number, number), zmq.strerror(number))


def _envelope(parts: Sequence[bytes]) -> list[bytes] | None:
    """The frames of a REQ down to the empty one, to be sent back before its reply; None for a DEALER.

    Frames before the empty one are routing ids of the devices between, so each has at most 255 bytes.
    """
    for index, part in enumerate(parts[:-1]):
        if len(part) == 0:
            return list(parts[: index + 1])
        if len(part) > _LONGEST_ROUTING_ID:
            return None
    return None


def _read_parts(parts: Sequence[bytes], count: int) -> Incoming:
    """The request in a message of `count` frames, of which `parts` are the first."""
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


def _samples(clip: Clip | None) -> list[bytes]:
    """A take's samples: float32, little-endian, interleaved."""
    if clip is None:
        return []
    return [np.ascontiguousarray(clip.samples, dtype="<f4").tobytes()]
