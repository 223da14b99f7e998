"""The plays and stops that have not ended, and the events that their clients get."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np

from timbred import errors
from timbred.audio import Clip, Samples
from timbred.ipc import player_messages
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox

FRAME_COUNTER_MODULUS = 2**31
"""Device frames are reported modulo this, to fit OSC's 32-bit integers."""


class PlayListener(Protocol):
    """Receives the events of one play."""

    def began(self, order: player_messages.PlayVoice, message: player_messages.VoicePlaying) -> None:
        """Handle the start of the play; called again for each repetition of a segment."""
        ...

    def over(self, order: player_messages.PlayVoice, frame: int, reason: str, also: ClientId | None) -> None:
        """Handle the end of the play. `also` is the client that stopped it."""
        ...

    def refused(self, order: player_messages.PlayVoice, error: errors.TimbredError) -> None:
        """Handle a play that can't start."""
        ...


@dataclass(frozen=True)
class RequestListener:
    """The listener of a `play` request: sends the events to its client."""

    outbox: Outbox
    client: ClientId
    take: str

    def began(self, order: player_messages.PlayVoice, message: player_messages.VoicePlaying) -> None:
        """Send `playing`."""
        event = m.Playing(voice=order.voice, take=self.take, frame=reported_frame(message.frame), beat=message.beat)
        self.outbox.send(self.client, event)

    def over(self, order: player_messages.PlayVoice, frame: int, reason: str, also: ClientId | None) -> None:
        """Send `ended` to the client, and to the one that stopped the play."""
        event = m.Ended(voice=order.voice, take=self.take, frame=reported_frame(frame), reason=reason)
        for client in dict.fromkeys((self.client, also or self.client)):
            self.outbox.send(client, event)

    def refused(self, order: player_messages.PlayVoice, error: errors.TimbredError) -> None:
        """Send `fail`."""
        self.outbox.send(self.client, m.Fail(id="play", code=error.code, message=str(error)))


def reported_frame(frame: int) -> int:
    """Return a device frame as it is reported to clients."""
    return frame % FRAME_COUNTER_MODULUS


log = logging.getLogger(__name__)

RESUME_FADE_S = 0.01
"""Seconds of the fade in when a play continues in a new process."""


@dataclass
class ActivePlay:
    """A play that has not ended.

    Attributes:
        order: the command to the player, with the present position and values.
        parts: the samples; those of a sound that is being rendered arrive in several parts.
        listener: gets the events.
        source: the clip that the samples were resampled from.
        source_speed: the speed for which they were resampled.
        was_heard: True once it was heard.
        ended_by: the client that stopped it.
        broken_off: True if the player process was ordered to end it early.
    """

    order: player_messages.PlayVoice
    parts: list[memoryview]
    listener: PlayListener
    source: Clip | None = None
    source_speed: float = 1.0
    was_heard: bool = False
    ended_by: ClientId | None = None
    broken_off: bool = False

    def change(self, **named: float) -> None:
        """Change values or position of the order."""
        self.order = msgspec.structs.replace(self.order, **named)

    def advance(self, seconds: float) -> None:
        """Advance the position by `seconds` of playback since it was reported."""
        position = float(round(max(0.0, self.order.position + seconds * self.order.rate * self.order.speed)))
        frames = sum(len(part) for part in self.parts) // (4 * self.order.channels)
        self.change(position=position % frames if self.order.loop else position)

    def exchange(self, part: memoryview, rate: float, speed: float) -> None:
        """Replace the samples by those of the same sound resampled for another speed."""
        self.change(rate=rate, position=self.order.position * rate / self.order.rate)
        self.parts, self.source_speed = [part], speed

    def restart_message(self) -> tuple[player_messages.PlayVoice, bytes | memoryview]:
        """Return the order and the samples for a new player process, which continues at the present position."""
        order = self.order
        if self.was_heard:
            order = msgspec.structs.replace(order, at=player_messages.Moment(), fade=RESUME_FADE_S, follows=False)
        return order, b"".join(self.parts) if len(self.parts) > 1 else self.parts[0]


class ActivePlays:
    """All plays that have not ended, by number."""

    def __init__(self) -> None:
        self._plays: dict[int, ActivePlay] = {}

    def __iter__(self) -> Iterator[ActivePlay]:
        return iter(tuple(self._plays.values()))

    def add(self, play: ActivePlay) -> None:
        """Add a play."""
        self._plays[play.order.play] = play

    def get(self, number: int) -> ActivePlay | None:
        """Return a play that has not ended."""
        return self._plays.get(number)

    def plays_on_voice(self, voice: int) -> list[ActivePlay]:
        """Return the plays that sound or wait on a voice, or on all with 0."""
        return [play for play in self._plays.values() if voice in (0, play.order.voice)]

    @property
    def voices(self) -> int:
        """The number of voices that are heard."""
        return len({play.order.voice for play in self._plays.values() if play.was_heard})

    def update_positions(self, positions: Iterable[player_messages.Position]) -> None:
        """Store the positions and values that the player reported."""
        for position in positions:
            play = self._plays.get(position.play)
            if play is not None:
                play.change(position=position.position, gain=position.gain, pan=position.pan, speed=position.speed)

    def began(self, message: player_messages.VoicePlaying) -> None:
        """Handle the start of a play. A play that continues after an interruption isn't reported again."""
        play = self._plays.get(message.play)
        if play is None or (play.was_heard and not message.repeated):
            return
        play.was_heard = True
        play.listener.began(play.order, message)

    def over(self, number: int, frame: int, reason: str) -> None:
        """Remove a play that ended before this frame of the device."""
        play = self._plays.pop(number, None)
        if play is not None:
            play.listener.over(play.order, frame, reason, play.ended_by)

    def process_ended(self, frame: int, played_s: float = 0.0) -> None:
        """Handle the end of the player process: plays that were broken off end; others continue in the next process.

        Args:
            frame: the last known frame of the device.
            played_s: seconds played since the last positions were reported; below 0 where less was heard than mixed.
        """
        for play in tuple(self._plays.values()):
            if play.broken_off:
                self.over(play.order.play, frame, "stopped")
            elif play.was_heard:
                play.advance(played_s)

    def refused(self, number: int, frame: int, error: errors.TimbredError) -> None:
        """Handle a play that can't start; one that was heard on an earlier device has ended."""
        play = self._plays.get(number)
        if play is None:
            return
        if play.was_heard:
            log.warning("voice %d ended: %s", play.order.voice, error)
            self.over(number, frame, "stopped")
        else:
            del self._plays[number]
            play.listener.refused(play.order, error)


def encode_samples(samples: Samples) -> memoryview:
    """Return samples, (frames, channels), as the player expects them: float32 little-endian, interleaved."""
    return np.ascontiguousarray(samples, dtype="<f4").data.cast("B")


class PendingStops:
    """Stops by number until the player carries them out: one may wait for a bar.

    The client that requested one gets the ends of its plays, or an acknowledgement that nothing was playing.
    """

    def __init__(self, outbox: Outbox, plays: ActivePlays) -> None:
        self._outbox = outbox
        self._plays = plays
        self._waiting: dict[int, tuple[ClientId, player_messages.StopVoice]] = {}

    def expect(self, client: ClientId, order: player_messages.StopVoice) -> None:
        """Add a stop that was sent to the player."""
        self._waiting[order.stop] = client, order

    def begun(self, message: player_messages.VoiceStopping) -> None:
        """Handle a stop that is carried out: the ends of its plays follow."""
        client, _ = self._waiting.pop(message.stop, (None, None))
        if client is None:
            return
        for play in map(self._plays.get, message.plays):
            if play is not None:
                play.ended_by = client
        if not message.plays:
            self._nothing_to_end(client)

    def refused(self, number: int, error: errors.TimbredError) -> None:
        """Handle a stop that can't be carried out."""
        client, _ = self._waiting.pop(number, (None, None))
        if client is not None:
            self._outbox.send(client, m.Fail(id="stop", code=error.code, message=str(error)))

    def end_plays(self, client: ClientId, affected: Iterable[ActivePlay], frame: int) -> None:
        """End plays without a player process."""
        plays = list(affected)
        for play in plays:
            play.ended_by = client
            self._plays.over(play.order.play, frame, "stopped")
        if not plays:
            self._nothing_to_end(client)

    def process_ended(self, frame: int) -> None:
        """End all plays that pending stops were waiting to end."""
        stops, self._waiting = self._waiting, {}
        for client, order in stops.values():
            self.end_plays(client, self._plays.plays_on_voice(order.voice), frame)

    def _nothing_to_end(self, client: ClientId) -> None:
        self._outbox.send(client, m.Acknowledged(id="stop"))
