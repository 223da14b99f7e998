"""Sounds that the daemon itself asks for: their events stay inside."""

from collections.abc import Callable, Sequence

from timbred.clip import Clip
from timbred.protocol.exchange import ClientId, Outbox
from timbred.protocol.messages import Event

Hear = Callable[[Event, Clip | None], None]


class Inside:
    """An `Outbox` before another: what is for one of the daemon's own parts is heard there, all else goes on."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._parts: dict[ClientId, Hear] = {}

    def attach(self, part: ClientId, hear: Hear) -> None:
        """From now on `hear` gets the events of requests that `part` made."""
        self._parts[part] = hear

    def send(self, client: ClientId, event: Event, clip: Clip | None = None) -> None:
        """See `Outbox`."""
        hear = self._parts.get(client)
        if hear is None:
            self._outbox.send(client, event, clip)
        else:
            hear(event, clip)

    def send_list(self, client: ClientId, name: str, events: Sequence[Event], end: Event | None) -> None:
        """See `Outbox`."""
        self._outbox.send_list(client, name, events, end)
