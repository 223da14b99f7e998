"""Who hears what becomes of a play."""

from dataclasses import dataclass
from typing import Protocol

from timbred import errors
from timbred.delivery import wire
from timbred.protocol import messages as m
from timbred.protocol.exchange import ClientId, Outbox

FRAMES_WRAP = 2**31
"""Device frames are told modulo this, for OSC's integers."""


class Listener(Protocol):
    """Who hears what becomes of a play."""

    def began(self, order: wire.Play, told: wire.Playing) -> None:
        """It sounds; more than once when it is a piece that is repeated."""
        ...

    def over(self, order: wire.Play, frame: int, reason: str, also: ClientId | None) -> None:
        """It sounds no more. `also` is whoever ended it."""
        ...

    def refused(self, order: wire.Play, error: errors.TimbredError) -> None:
        """It never sounded."""
        ...


@dataclass(frozen=True)
class Asker:
    """The listener of a `play`: tells the client that asked for it."""

    outbox: Outbox
    client: ClientId
    take: str

    def began(self, order: wire.Play, told: wire.Playing) -> None:
        event = m.Playing(voice=order.voice, take=self.take, frame=told_frame(told.frame), beat=told.beat)
        self.outbox.send(self.client, event)

    def over(self, order: wire.Play, frame: int, reason: str, also: ClientId | None) -> None:
        event = m.Ended(voice=order.voice, take=self.take, frame=told_frame(frame), reason=reason)
        for client in dict.fromkeys((self.client, also or self.client)):
            self.outbox.send(client, event)

    def refused(self, order: wire.Play, error: errors.TimbredError) -> None:
        self.outbox.send(self.client, m.Fail(id="play", code=error.code, message=str(error)))


def told_frame(frame: int) -> int:
    """A frame of the device as clients are told."""
    return frame % FRAMES_WRAP
