"""State of the playback session: settings, the audio device, and the plays and stops that have not ended.

Plays are validated here, and the player's reports become the events that their clients get.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np

from timbred import errors
from timbred.audio import Clip, Samples
from timbred.config import Config
from timbred.ipc import player_messages
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox

MAX_SAMPLE = 1000.0
"""Largest sample that is accepted, relative to full scale (60 dB over): beyond it a file is faulty."""


def check_gain(gain: float | None, max_gain: float) -> None:
    """Check that a gain, in dB, is allowed.

    Raises:
        BadRequest: it is louder than `player.max_gain`.
    """
    if gain is not None and gain > max_gain:
        raise errors.BadRequest(
            f"gain: got {gain:g} dB, allowed is -120 to {max_gain:g}; player.max_gain sets this limit"
        )


def check_sound(clip: Clip) -> None:
    """Check that a clip can be played.

    Raises:
        BadAudio: it is empty, too loud, or has NaN or infinite samples.
    """
    if clip.frames == 0:
        raise errors.BadAudio("take: the sound is empty")
    if not float(np.abs(clip.samples).max()) <= MAX_SAMPLE:
        raise errors.BadAudio("take: its samples are NaN, infinite or more than 60 dB over full scale; export it again")


class PlaybackSettings:
    """Tempo, meter and level as set, and the messages that set them in a player process."""

    def __init__(self, config: Config) -> None:
        self.link = bool(config["link"])
        self._tempo = player_messages.SetTempo(bpm=config["tempo"], beats_per_bar=config["beats_per_bar"])
        self._level = player_messages.SetLevel(gain=config["player.gain"])

    def set_tempo(self, bpm: float | None, beats_per_bar: float | None) -> player_messages.SetTempo:
        """Set tempo or meter.

        Raises:
            BadRequest: Link is on, so the session determines the tempo.
        """
        if bpm is not None and self.link:
            raise errors.BadRequest(
                "tempo: Link is on, so its session sets the tempo; change it there, or restart timbred with link 0"
            )
        self._tempo = player_messages.SetTempo(
            bpm=self._tempo.bpm if bpm is None else bpm,
            beats_per_bar=self._tempo.beats_per_bar if beats_per_bar is None else beats_per_bar,
        )
        return self._tempo

    def set_level(self, gain: float) -> player_messages.SetLevel:
        """Set the gain of the sum, in dB."""
        self._level = player_messages.SetLevel(gain=gain)
        return self._level

    def for_new_process(self, beat: float) -> tuple[player_messages.SetTempo, player_messages.SetLevel]:
        """Return the messages for a new process whose clock starts at this beat."""
        return msgspec.structs.replace(self._tempo, beat=beat), self._level


OPEN_TIMEOUT_S = 20.0
"""Seconds that a first `play` waits for the device to be opened."""


class DeviceState:
    """The audio device that is open, or the reason why there is none.

    Attributes:
        now: the open device; None without one.
        known: set once the process has reported either.
        closed: True once the daemon is stopping.
    """

    def __init__(self) -> None:
        self.now: player_messages.DeviceOpened | None = None
        self.known = asyncio.Event()
        self.closed = False
        self._reason = ""
        self._cannot_start = False

    def opened(self, device: player_messages.DeviceOpened) -> None:
        """Store the device that was opened."""
        self.now, self._reason = device, ""
        self.known.set()

    def missing(self, reason: str) -> None:
        """Store the reason why there is no device."""
        self.now, self._reason = None, reason
        self.known.set()

    def process_ended(self, reason: str) -> None:
        """Handle the end of the process; an earlier reason for a missing device is kept."""
        self.now = None
        if not self._reason:
            self._reason = f"the player process ended ({reason}) and is started again; play again in a second"

    def process_started(self) -> None:
        """Handle the start of a process, which will report its device."""
        if self._cannot_start:
            self._cannot_start, self._reason = False, ""
            self.known.clear()

    def cannot_start(self, reason: str) -> None:
        """Store the reason why no player process can be started."""
        self.now, self._cannot_start = None, True
        self._reason = f"the player can't be started: {reason}; rendering to files still works, and timbred retries"
        self.known.set()

    def close(self) -> None:
        """Mark the daemon as stopping: plays are refused from now on."""
        self.closed, self.now = True, None
        self.known.set()

    @property
    def error(self) -> errors.NoAudioDevice:
        """The error for a request that needs a device."""
        return errors.NoAudioDevice(self._reason or "the player isn't ready yet; play again in a second")

    def require(self) -> player_messages.DeviceOpened:
        """Return the device.

        Raises:
            NoAudioDevice: there is none; the message says why and what to do.
            ShuttingDown: the daemon is stopping.
        """
        if self.now is not None:
            return self.now
        if self.closed:
            raise errors.ShuttingDown("timbred is stopping; play again after its restart")
        raise self.error

    async def wait_opened(self) -> player_messages.DeviceOpened:
        """Wait until it is known whether there is a device, and return it.

        Raises:
            NoAudioDevice: there is none; the message says why and what to do.
            ShuttingDown: the daemon is stopping.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.known.wait(), OPEN_TIMEOUT_S)
        return self.require()


MAX_HEARTBEAT_AGE_S = 0.3
"""Longest interval between two heartbeats of a living player: a little more than the usual one."""


class PlayerStatus:
    """The player's last heartbeat; its counters continue across restarts of the process."""

    def __init__(self, bpm: float) -> None:
        self.last = player_messages.PlayerHeartbeat(frame=0, beat=0.0, bpm=bpm, peers=0, underruns=0)
        self._received_at = time.monotonic()
        self._underruns_before = 0
        self._late_before = 0

    def update(self, beat: player_messages.PlayerHeartbeat) -> None:
        """Store a heartbeat."""
        self.last = beat
        self._received_at = time.monotonic()

    def process_ended(self) -> None:
        """Keep the counters of the process that ended; the next one counts from 0."""
        self._underruns_before += self.last.underruns
        self._late_before += self.last.late
        self.last = msgspec.structs.replace(self.last, underruns=0, late=0)

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since the last heartbeat, at most `MAX_HEARTBEAT_AGE_S`, as a working process sends another."""
        return min(MAX_HEARTBEAT_AGE_S, time.monotonic() - self._received_at)

    @property
    def now(self) -> float:
        """The beat that is mixed now."""
        return self.last.beat + (time.monotonic() - self._received_at) * self.last.bpm / 60.0

    @property
    def underruns(self) -> int:
        """Times that the device ran out of samples since the daemon's start."""
        return self._underruns_before + self.last.underruns

    @property
    def late(self) -> int:
        """Blocks that the device's driver requested late since the daemon's start, for any reason."""
        return self._late_before + self.last.late


FRAME_COUNTER_MODULUS = 2**31
"""Device frames are reported modulo this, to fit OSC's 32-bit integers."""


class PlayListener(Protocol):
    """Receives the events of one play."""

    def play_started(self, order: player_messages.PlayVoice, message: player_messages.VoicePlaying) -> None:
        """Handle the start of the play; also called for each repetition of a segment."""
        ...

    def play_ended(self, order: player_messages.PlayVoice, frame: int, reason: str, also: ClientId | None) -> None:
        """Handle the end of the play. `also` is the client that stopped it."""
        ...

    def play_refused(self, order: player_messages.PlayVoice, error: errors.TimbredError) -> None:
        """Handle a play that can't start."""
        ...


@dataclass(frozen=True)
class RequestListener:
    """The listener of a `play` request: sends the events to its client."""

    outbox: Outbox
    client: ClientId
    take: str

    def play_started(self, order: player_messages.PlayVoice, message: player_messages.VoicePlaying) -> None:
        """Send `playing`."""
        event = m.Playing(voice=order.voice, take=self.take, frame=reported_frame(message.frame), beat=message.beat)
        self.outbox.send(self.client, event)

    def play_ended(self, order: player_messages.PlayVoice, frame: int, reason: str, also: ClientId | None) -> None:
        """Send `ended` to the client, and to the one that stopped the play."""
        event = m.Ended(voice=order.voice, take=self.take, frame=reported_frame(frame), reason=reason)
        for client in dict.fromkeys((self.client, also or self.client)):
            self.outbox.send(client, event)

    def play_refused(self, order: player_messages.PlayVoice, error: errors.TimbredError) -> None:
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
        listener: receives the events.
        source: the clip that the samples were resampled from.
        source_speed: the speed for which they were resampled.
        has_started: True once it has started.
        ended_by: the client that stopped it.
        end_requested: True if the player process was ordered to end it early.
    """

    order: player_messages.PlayVoice
    parts: list[memoryview]
    listener: PlayListener
    source: Clip | None = None
    source_speed: float = 1.0
    has_started: bool = False
    ended_by: ClientId | None = None
    end_requested: bool = False

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
        if self.has_started:
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
        return len({play.order.voice for play in self._plays.values() if play.has_started})

    def update_positions(self, positions: Iterable[player_messages.Position]) -> None:
        """Store the positions and values that the player reported."""
        for position in positions:
            play = self._plays.get(position.play)
            if play is not None:
                play.change(position=position.position, gain=position.gain, pan=position.pan, speed=position.speed)

    def play_started(self, message: player_messages.VoicePlaying) -> None:
        """Handle the start of a play. A play that continues after an interruption isn't reported again."""
        play = self._plays.get(message.play)
        if play is None or (play.has_started and not message.repeated):
            return
        play.has_started = True
        play.listener.play_started(play.order, message)

    def play_ended(self, number: int, frame: int, reason: str) -> None:
        """Remove a play that ended before this frame of the device."""
        play = self._plays.pop(number, None)
        if play is not None:
            play.listener.play_ended(play.order, frame, reason, play.ended_by)

    def process_ended(self, frame: int, played_s: float = 0.0) -> None:
        """Handle the end of the player process: plays with `end_requested` end; others continue in the next process.

        Args:
            frame: the last known frame of the device.
            played_s: seconds played since the last positions were reported; below 0 where less was heard than mixed.
        """
        for play in tuple(self._plays.values()):
            if play.end_requested:
                self.play_ended(play.order.play, frame, "stopped")
            elif play.has_started:
                play.advance(played_s)

    def play_refused(self, number: int, frame: int, error: errors.TimbredError) -> None:
        """Handle a play that can't start; one that had started on an earlier device has ended."""
        play = self._plays.get(number)
        if play is None:
            return
        if play.has_started:
            log.warning("voice %d ended: %s", play.order.voice, error)
            self.play_ended(number, frame, "stopped")
        else:
            del self._plays[number]
            play.listener.play_refused(play.order, error)


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

    def stop_started(self, message: player_messages.VoiceStopping) -> None:
        """Handle a stop that is carried out: the ends of its plays follow."""
        client, _ = self._waiting.pop(message.stop, (None, None))
        if client is None:
            return
        for play in map(self._plays.get, message.plays):
            if play is not None:
                play.ended_by = client
        if not message.plays:
            self._nothing_to_end(client)

    def stop_refused(self, number: int, error: errors.TimbredError) -> None:
        """Handle a stop that can't be carried out."""
        client, _ = self._waiting.pop(number, (None, None))
        if client is not None:
            self._outbox.send(client, m.Fail(id="stop", code=error.code, message=str(error)))

    def end_plays(self, client: ClientId, affected: Iterable[ActivePlay], frame: int) -> None:
        """End plays without a player process."""
        plays = list(affected)
        for play in plays:
            play.ended_by = client
            self._plays.play_ended(play.order.play, frame, "stopped")
        if not plays:
            self._nothing_to_end(client)

    def process_ended(self, frame: int) -> None:
        """End all plays that pending stops were waiting to end."""
        stops, self._waiting = self._waiting, {}
        for client, order in stops.values():
            self.end_plays(client, self._plays.plays_on_voice(order.voice), frame)

    def _nothing_to_end(self, client: ClientId) -> None:
        self._outbox.send(client, m.Acknowledged(id="stop"))
