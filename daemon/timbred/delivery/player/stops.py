"""Stops on their way to the player, and who is told what they end."""

from collections.abc import Iterable

from timbred import errors
from timbred.delivery import wire
from timbred.delivery.player.plays import Plays, Sounding
from timbred.protocol import messages as m
from timbred.protocol.exchange import ClientId, Outbox


class Stops:
    """Stops by number until the player carries them out: one may wait for a bar. Whoever asked hears what it ends, or
    that there was nothing to end."""

    def __init__(self, outbox: Outbox, plays: Plays) -> None:
        self._outbox = outbox
        self._plays = plays
        self._waiting: dict[int, tuple[ClientId, wire.Stop]] = {}

    def expect(self, client: ClientId, order: wire.Stop) -> None:
        """The player is told of this one."""
        self._waiting[order.stop] = client, order

    def begun(self, message: wire.Stopping) -> None:
        """The player carries one out: the ends of its plays follow."""
        client, _ = self._waiting.pop(message.stop, (None, None))
        if client is None:
            return
        for play in map(self._plays.get, message.plays):
            if play is not None:
                play.ended_by = client
        if not message.plays:
            self._nothing_to_end(client)

    def refused(self, number: int, error: errors.TimbredError) -> None:
        """The player can't carry one out."""
        client, _ = self._waiting.pop(number, (None, None))
        if client is not None:
            self._outbox.send(client, m.Fail(id="stop", code=error.code, message=str(error)))

    def at_once(self, client: ClientId, affected: Iterable[Sounding], frame: int) -> None:
        """End plays without a player."""
        ended = list(affected)
        for play in ended:
            play.ended_by = client
            self._plays.over(play.order.play, frame, "stopped")
        if not ended:
            self._nothing_to_end(client)

    def process_ended(self, frame: int) -> None:
        """The player is gone: what it was to stop ends now."""
        stops, self._waiting = self._waiting, {}
        for client, order in stops.values():
            self.at_once(client, self._plays.on(order.voice), frame)

    def _nothing_to_end(self, client: ClientId) -> None:
        self._outbox.send(client, m.Acknowledged(id="stop"))
