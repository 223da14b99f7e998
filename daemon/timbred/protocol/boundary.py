"""Interfaces between the transports and the rest of the daemon: requests as read, the inbox, the outbox."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType, Protocol

from timbred.errors import BadRequest
from timbred.protocol import messages as m
from timbred.protocol.messages import Event, Request

if TYPE_CHECKING:  # it imports numpy, and commands must start without numpy
    from timbred.audio import Clip

ClientId = NewType("ClientId", str)
"""A client's identity: its transport and reply address, such as `udp:127.0.0.1:9000` or `zmq:7f3a`."""


def host_of(client: ClientId) -> str | None:
    """Return the host of an OSC client; None if it isn't known.

    >>> host_of(ClientId("udp:127.0.0.1:9000")), host_of(ClientId("zmq:7f3a"))
    ('127.0.0.1', None)
    """
    scheme, _, address = client.partition(":")
    return address.rpartition(":")[0] if scheme in ("udp", "tcp") else None


class Outbox(Protocol):
    """Sends events to clients."""

    def send(self, client: ClientId, event: Event, clip: "Clip | None" = None) -> None:
        """Send an event to its client, to the clients that listen to all events, and to PUB. Never blocks.

        `clip` is a take's audio, sent by transports that support inline samples. The event is lost if the client has
        disconnected.
        """
        ...

    def send_list(self, client: ClientId, name: str, events: Sequence[Event], end: Event | None) -> None:
        """Answer a request of the type `name` that is answered by several events (`models`, `takes`).

        The events are sent one by one, then `end`; a ZeroMQ REQ gets one reply with the events in a list called `name`.
        """
        ...


class Inbox(Protocol):
    """Receives the requests that transports have read."""

    def receive(self, client: ClientId, request: Request) -> None:
        """Accept a request. Never blocks and never raises: errors are answered by an event."""
        ...


MAX_ID_CHARACTERS = 200
"""Maximum length of an id in an answer."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One request as read, or its refusal.

    Attributes:
        outcome: The request, or the error that refuses it.
        id: The id in its answers: the request's own id, else its type, else its address.
        port: The port on the sender's host that answers go to (`@port` over OSC); refusals have it too.
        due: UNIX time in seconds at which it is accepted; None means immediately.
    """

    outcome: m.Request | BadRequest
    id: m.Id
    port: int | None = None
    due: float | None = None


def answer_id(raw: object) -> m.Id:
    """Return the id of an answer to a request with the id `raw`: an int, or text of at most 200 characters.

    >>> answer_id(7.0), answer_id(0.5), answer_id("a1")
    (7, '0.5', 'a1')
    """
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, float):
        return int(raw) if raw.is_integer() else f"{raw:.7g}"
    return str(raw).replace("\x00", "")[:MAX_ID_CHARACTERS]
