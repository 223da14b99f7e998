"""What the transports and the rest of the daemon ask of each other, and nothing more."""

from collections.abc import Sequence
from typing import NewType, Protocol

from timbred.clip import Clip
from timbred.protocol.messages import Event, Request

ClientId = NewType("ClientId", str)
"""Who asked: the place that answers go to, such as `udp:127.0.0.1:9000` or `zmq:7f3a`."""


def host_of(client: ClientId) -> str | None:
    """The host of a client that speaks OSC; None where that isn't known.

    >>> host_of(ClientId("udp:127.0.0.1:9000")), host_of(ClientId("zmq:7f3a"))
    ('127.0.0.1', None)
    """
    scheme, _, address = client.partition(":")
    return address.rpartition(":")[0] if scheme in ("udp", "tcp") else None


class Outbox(Protocol):
    """Where events go."""

    def send(self, client: ClientId, event: Event, clip: Clip | None = None) -> None:
        """Send an event to the client that it is for, to those who asked for everybody's, and to PUB.

        `clip` is a take's sound, carried by transports that send samples inline. Never blocks; a client
        that has gone loses the event.
        """
        ...

    def send_list(self, client: ClientId, name: str, events: Sequence[Event], end: Event | None) -> None:
        """Answer a request of the type `name` that is answered by several events (`models`, `takes`).

        They go out one by one, then `end`; a client that gets one whole reply (ZeroMQ REQ) finds them in a
        list called `name`.
        """
        ...


class Inbox(Protocol):
    """Where requests go once a transport has read them."""

    def receive(self, client: ClientId, request: Request) -> None:
        """Take in a request. Never blocks and never raises: what is wrong is answered by an event."""
        ...
