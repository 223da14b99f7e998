"""Interfaces between the transports and the rest of the daemon: requests as read, the inbox, the outbox."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType, Protocol

from timbred.errors import BadRequest
from timbred.protocol import messages as m
from timbred.protocol.messages import Event, Request

if TYPE_CHECKING:  # numpy comes with it, and the commands start without numpy
    from timbred.audio import Clip

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

    def send(self, client: ClientId, event: Event, clip: "Clip | None" = None) -> None:
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


LONGEST_ID = 200
"""Characters that a refusal's id place holds at most."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One request as read, or its refusal.

    `id` is what an answer puts in the id's place: the request's own id, else its type, else its address.
    `port` is where its answers go on the sender's own host (OSC's `@port`), known for refusals too.
    `due` is the UNIX time in seconds at which it is to be taken in; None is at once.
    """

    outcome: m.Request | BadRequest
    id: m.Id
    port: int | None = None
    due: float | None = None


def id_place(raw: object) -> m.Id:
    """What stands for `raw` in an answer: whole numbers as int, all else as text of at most 200 characters.

    >>> id_place(7.0), id_place(0.5), id_place("a1")
    (7, '0.5', 'a1')
    """
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, float):
        return int(raw) if raw.is_integer() else f"{raw:.7g}"
    return str(raw).replace("\x00", "")[:LONGEST_ID]
