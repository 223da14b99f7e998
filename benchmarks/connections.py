"""Clients of a running daemon over each of its transports, with one interface: requests and events as dictionaries."""

import json
import socket
from typing import Any, Protocol

import msgspec
import zmq
from pythonosc import slip
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder
from websockets.sync.client import connect

from benchmarks.daemon import Ports
from timbred.protocol.schema import EVENTS, REQUEST_NAMED

Event = dict[str, Any]

LOOPBACK_ADDRESS = "127.0.0.1"


class Connection(Protocol):
    """One client; not thread-safe."""

    name: str

    def send(self, kind: str, **keys: Any) -> None:
        """Send a request without waiting for events."""

    def receive(self, seconds: float) -> Event | None:
        """Return the next event; None if none arrives within `seconds`."""

    def close(self) -> None:
        """Close the connection."""


class ZmqConnection:
    """A ZeroMQ DEALER socket."""

    name = "ZeroMQ"

    def __init__(self, ports: Ports) -> None:
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.connect(f"tcp://{LOOPBACK_ADDRESS}:{ports.requests}")

    def send(self, kind: str, **keys: Any) -> None:
        """Send a request."""
        self._socket.send_json({"type": kind, **keys})

    def receive(self, seconds: float) -> Event | None:
        """Return the next event; None if none arrives within `seconds`."""
        if not self._socket.poll(1000 * seconds):
            return None
        return json.loads(self._socket.recv_multipart()[0])

    def close(self) -> None:
        """Close the connection."""
        self._socket.close(linger=0)


class WebSocketConnection:
    """A WebSocket connection."""

    name = "WebSocket"

    def __init__(self, ports: Ports) -> None:
        self._socket = connect(f"ws://{LOOPBACK_ADDRESS}:{ports.http}/ws", max_size=None)

    def send(self, kind: str, **keys: Any) -> None:
        """Send a request."""
        self._socket.send(json.dumps({"type": kind, **keys}))

    def receive(self, seconds: float) -> Event | None:
        """Return the next event; None if none arrives within `seconds`."""
        try:
            return json.loads(self._socket.recv(seconds))
        except TimeoutError:
            return None

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class UdpConnection:
    """OSC over UDP."""

    name = "OSC over UDP"

    def __init__(self, ports: Ports) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.connect((LOOPBACK_ADDRESS, ports.osc))

    def send(self, kind: str, **keys: Any) -> None:
        """Send a request."""
        self._socket.send(encode_osc(kind, keys))

    def receive(self, seconds: float) -> Event | None:
        """Return the next event; None if none arrives within `seconds`."""
        self._socket.settimeout(seconds)
        try:
            return decode_osc(self._socket.recv(65536))
        except TimeoutError:
            return None

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class TcpConnection:
    """OSC over TCP in SLIP frames."""

    name = "OSC over TCP"

    def __init__(self, ports: Ports) -> None:
        self._socket = socket.create_connection((LOOPBACK_ADDRESS, ports.osc))
        self._received = bytearray()

    def send(self, kind: str, **keys: Any) -> None:
        """Send a request."""
        self._socket.settimeout(None)
        self._socket.sendall(slip.encode(encode_osc(kind, keys)))

    def receive(self, seconds: float) -> Event | None:
        """Return the next event; None if none arrives within `seconds`."""
        self._socket.settimeout(seconds)
        while True:
            frame, end, rest = self._received.partition(slip.END)
            if end:
                self._received = rest
                if frame:
                    return decode_osc(slip.decode(bytes(frame) + slip.END))
                continue
            try:
                received = self._socket.recv(65536)
            except TimeoutError:
                return None
            if not received:
                raise ConnectionResetError("the daemon closed the connection")
            self._received += received

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


TRANSPORT_CLASSES: tuple[type[Connection], ...] = (ZmqConnection, WebSocketConnection, UdpConnection, TcpConnection)


def encode_osc(kind: str, keys: dict[str, Any]) -> bytes:
    """Return a request as an OSC message: positional arguments first, the others as `@key value`.

    >>> OscMessage(encode_osc("play", {"voice": 3, "take": "k1", "gain": -6})).params
    [3, 'k1', '@gain', -6]
    """
    builder = OscMessageBuilder(f"/timbred/{kind}")
    entry = REQUEST_NAMED[kind]
    placed = [name for name in (*entry.positional, entry.rest) if name in keys]
    for name in placed:
        builder.add_arg(keys[name])
    for name, value in keys.items():
        if name not in placed:
            builder.add_arg(f"@{name}")
            builder.add_arg(int(value) if isinstance(value, bool) else value)
    return builder.build().dgram


def decode_osc(packet: bytes) -> Event:
    """Return an event as a dictionary with the keys of its JSON form, as far as OSC transmits them."""
    message = OscMessage(packet)
    name = message.address.removeprefix("/timbred/")
    kinds = [entry.kind for entry in EVENTS if entry.name == name]
    names = [one.encode_name for one in msgspec.structs.fields(kinds[0])] if kinds else []
    return {"type": name, **dict(zip(names, message.params, strict=False))}
