"""What sounds or waits, with its samples, so that it goes on where it was when the device or the process comes back."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from timbred import errors
from timbred.clip import Clip, Samples
from timbred.delivery import wire
from timbred.delivery.player.listeners import Listener
from timbred.protocol.exchange import ClientId

log = logging.getLogger(__name__)

RESUME_FADE = 0.01


@dataclass
class Sounding:
    """A play that has not ended: what was ordered, where it is, and who listens. `parts` are its samples; those of a
    sound that is still being made come one by one. `source` is what they were made from, for `made_for` a speed.
    `ended_by` is who stopped it. One that is `broken_off` ends early: the player process was told so."""

    order: wire.Play
    parts: list[memoryview]
    listener: Listener
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

    def anew(self) -> tuple[wire.Play, bytes | memoryview]:
        """What a player that doesn't know it is told: it goes on where it was."""
        order = self.order
        if self.began:
            order = msgspec.structs.replace(order, at=wire.Moment(), fade=RESUME_FADE, follows=False)
        return order, b"".join(self.parts) if len(self.parts) > 1 else self.parts[0]


class Plays:
    """All plays that have not ended, by number, and what becomes of them."""

    def __init__(self) -> None:
        self._plays: dict[int, Sounding] = {}

    def __iter__(self) -> Iterator[Sounding]:
        return iter(tuple(self._plays.values()))

    def add(self, play: Sounding) -> None:
        """Remember one from now on."""
        self._plays[play.order.play] = play

    def get(self, number: int) -> Sounding | None:
        """A play that has not ended."""
        return self._plays.get(number)

    def on(self, voice: int) -> list[Sounding]:
        """What sounds or waits on a voice, or on all with 0."""
        return [play for play in self._plays.values() if voice in (0, play.order.voice)]

    @property
    def voices(self) -> int:
        """How many voices sound."""
        return len({play.order.voice for play in self._plays.values() if play.began})

    def moved(self, positions: Iterable[wire.Position]) -> None:
        """Where plays are now, and how they sound."""
        for at in positions:
            play = self._plays.get(at.play)
            if play is not None:
                play.change(position=at.position, gain=at.gain, pan=at.pan, speed=at.speed)

    def began(self, told: wire.Playing) -> None:
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
