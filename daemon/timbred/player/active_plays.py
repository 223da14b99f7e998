"""Who hears what becomes of a play."""

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

FRAMES_WRAP = 2**31
"""Device frames are told modulo this, for OSC's integers."""


class PlayListener(Protocol):
    """Who hears what becomes of a play."""

    def began(self, order: player_messages.PlayVoice, told: player_messages.VoicePlaying) -> None:
        """It sounds; more than once when it is a piece that is repeated."""
        ...

    def over(self, order: player_messages.PlayVoice, frame: int, reason: str, also: ClientId | None) -> None:
        """It sounds no more. `also` is whoever ended it."""
        ...

    def refused(self, order: player_messages.PlayVoice, error: errors.TimbredError) -> None:
        """It never sounded."""
        ...


@dataclass(frozen=True)
class RequestListener:
    """The listener of a `play`: tells the client that asked for it."""

    outbox: Outbox
    client: ClientId
    take: str

    def began(self, order: player_messages.PlayVoice, told: player_messages.VoicePlaying) -> None:
        event = m.Playing(voice=order.voice, take=self.take, frame=told_frame(told.frame), beat=told.beat)
        self.outbox.send(self.client, event)

    def over(self, order: player_messages.PlayVoice, frame: int, reason: str, also: ClientId | None) -> None:
        event = m.Ended(voice=order.voice, take=self.take, frame=told_frame(frame), reason=reason)
        for client in dict.fromkeys((self.client, also or self.client)):
            self.outbox.send(client, event)

    def refused(self, order: player_messages.PlayVoice, error: errors.TimbredError) -> None:
        self.outbox.send(self.client, m.Fail(id="play", code=error.code, message=str(error)))


def told_frame(frame: int) -> int:
    """A frame of the device as clients are told."""
    return frame % FRAMES_WRAP


log = logging.getLogger(__name__)

RESUME_FADE = 0.01


@dataclass
class ActivePlay:
    """A play that has not ended: what was ordered, where it is, and who listens. `parts` are its samples; those of a
    sound that is still being made come one by one. `source` is what they were made from, for `made_for` a speed.
    `ended_by` is who stopped it. One that is `broken_off` ends early: the player process was told so."""

    order: player_messages.PlayVoice
    parts: list[memoryview]
    listener: PlayListener
    source: Clip | None = None
    made_for: float = 1.0
    began: bool = False
    ended_by: ClientId | None = None
    broken_off: bool = False

    def change(self, **named: float) -> None:
        """It sounds otherwise from now on, or is elsewhere."""
        self.order = msgspec.structs.replace(self.order, **named)

    def advance(self, seconds: float) -> None:
        """It was heard for so long since its position came."""
        position = float(round(max(0.0, self.order.position + seconds * self.order.rate * self.order.speed)))
        frames = sum(len(part) for part in self.parts) // (4 * self.order.channels)
        self.change(position=position % frames if self.order.loop else position)

    def exchange(self, part: memoryview, rate: float, speed: float) -> None:
        """The same sound, made ready for another speed."""
        self.change(rate=rate, position=self.order.position * rate / self.order.rate)
        self.parts, self.made_for = [part], speed

    def anew(self) -> tuple[player_messages.PlayVoice, bytes | memoryview]:
        """What a player that doesn't know it is told: it goes on where it was."""
        order = self.order
        if self.began:
            order = msgspec.structs.replace(order, at=player_messages.Moment(), fade=RESUME_FADE, follows=False)
        return order, b"".join(self.parts) if len(self.parts) > 1 else self.parts[0]


class ActivePlays:
    """All plays that have not ended, by number, and what becomes of them."""

    def __init__(self) -> None:
        self._plays: dict[int, ActivePlay] = {}

    def __iter__(self) -> Iterator[ActivePlay]:
        return iter(tuple(self._plays.values()))

    def add(self, play: ActivePlay) -> None:
        """Remember one from now on."""
        self._plays[play.order.play] = play

    def get(self, number: int) -> ActivePlay | None:
        """A play that has not ended."""
        return self._plays.get(number)

    def on(self, voice: int) -> list[ActivePlay]:
        """What sounds or waits on a voice, or on all with 0."""
        return [play for play in self._plays.values() if voice in (0, play.order.voice)]

    @property
    def voices(self) -> int:
        """How many voices sound."""
        return len({play.order.voice for play in self._plays.values() if play.began})

    def moved(self, positions: Iterable[player_messages.Position]) -> None:
        """Where plays are now, and how they sound."""
        for at in positions:
            play = self._plays.get(at.play)
            if play is not None:
                play.change(position=at.position, gain=at.gain, pan=at.pan, speed=at.speed)

    def began(self, told: player_messages.VoicePlaying) -> None:
        """It sounds. One that goes on after an interruption is not told again."""
        play = self._plays.get(told.play)
        if play is None or (play.began and not told.repeated):
            return
        play.began = True
        play.listener.began(play.order, told)

    def over(self, number: int, frame: int, reason: str) -> None:
        """It sounds no more, from this frame of the device on."""
        play = self._plays.pop(number, None)
        if play is not None:
            play.listener.over(play.order, frame, reason, play.ended_by)

    def process_ended(self, frame: int, heard: float = 0.0) -> None:
        """The player process is gone: what it was to break off ends now. All else continues in the next process.

        Args:
            frame: The last frame of the device that is known.
            heard: Seconds that were heard since the last positions came; below 0 where less was heard than mixed.
        """
        for play in tuple(self._plays.values()):
            if play.broken_off:
                self.over(play.order.play, frame, "stopped")
            elif play.began:
                play.advance(heard)

    def refused(self, number: int, frame: int, error: errors.TimbredError) -> None:
        """It can't be sounded. One that sounded on the device before, and can't on this one, is over."""
        play = self._plays.get(number)
        if play is None:
            return
        if play.began:
            log.warning("voice %d is over: %s", play.order.voice, error)
            self.over(number, frame, "stopped")
        else:
            del self._plays[number]
            play.listener.refused(play.order, error)


def as_sent(samples: Samples) -> memoryview:
    """Samples, (frames, channels), as the player takes them: float32 little-endian, interleaved."""
    return np.ascontiguousarray(samples, dtype="<f4").data.cast("B")


class PendingStops:
    """Stops by number until the player carries them out: one may wait for a bar. Whoever asked hears what it ends, or
    that there was nothing to end."""

    def __init__(self, outbox: Outbox, plays: ActivePlays) -> None:
        self._outbox = outbox
        self._plays = plays
        self._waiting: dict[int, tuple[ClientId, player_messages.StopVoice]] = {}

    def expect(self, client: ClientId, order: player_messages.StopVoice) -> None:
        """The player is told of this one."""
        self._waiting[order.stop] = client, order

    def begun(self, message: player_messages.VoiceStopping) -> None:
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

    def at_once(self, client: ClientId, affected: Iterable[ActivePlay], frame: int) -> None:
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
