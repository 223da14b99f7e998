"""What may be played: not too loud, and sound at all. Pure."""

import asyncio
import contextlib
import time

import msgspec
import numpy as np

from timbred import errors
from timbred.audio import Clip
from timbred.config import Config
from timbred.ipc import player_messages

LOUDEST_SAMPLE = 1000.0
"""Full scales (60 dB over): beyond it a file holds a fault, not sound."""


def check_gain(gain: float | None, most: float) -> None:
    """Whether a gain, in dB, is allowed.

    Raises:
        BadRequest: it is louder than `player.max_gain`.
    """
    if gain is not None and gain > most:
        raise errors.BadRequest(
            f"gain: got {gain:g} dB, allowed is -120 to {most:g}; player.max_gain says so, to spare ears"
        )


def check_sound(clip: Clip) -> None:
    """Whether a clip can be sounded.

    Raises:
        BadAudio: it is empty, or far too loud to be sound.
    """
    if clip.frames == 0:
        raise errors.BadAudio("take: the sound is empty")
    if not float(np.abs(clip.samples).max()) <= LOUDEST_SAMPLE:
        raise errors.BadAudio("take: its samples are more than 60 dB over full scale or not numbers; export it again")


class PlaybackSettings:
    """Tempo, meter and level as set. Says what the player is to be told; a new process is told all of it."""

    def __init__(self, config: Config) -> None:
        self.link = bool(config["link"])
        self._tempo = player_messages.SetTempo(bpm=config["tempo"], beats_per_bar=config["beats_per_bar"])
        self._level = player_messages.SetLevel(gain=config["player.gain"])

    def set_tempo(self, bpm: float | None, beats_per_bar: float | None) -> player_messages.SetTempo:
        """Another tempo or meter.

        Raises:
            BadRequest: Link is on, and its session has the tempo.
        """
        if bpm is not None and self.link:
            raise errors.BadRequest(
                "tempo: Link is on, so its session has the tempo; set it there, or start without link"
            )
        self._tempo = player_messages.SetTempo(
            bpm=self._tempo.bpm if bpm is None else bpm,
            beats_per_bar=self._tempo.beats_per_bar if beats_per_bar is None else beats_per_bar,
        )
        return self._tempo

    def set_level(self, gain: float) -> player_messages.SetLevel:
        """Another gain of everything, in dB."""
        self._level = player_messages.SetLevel(gain=gain)
        return self._level

    def for_new_process(self, beat: float) -> tuple[player_messages.SetTempo, player_messages.SetLevel]:
        """What a process that begins on this beat is told first."""
        return msgspec.structs.replace(self._tempo, beat=beat), self._level


OPENED_WITHIN = 20.0
"""Seconds for which a first `play` waits until it is known whether there is a device."""


class DeviceState:
    """The device that is open `now`, or why there is none; `known` once the process has said either."""

    def __init__(self) -> None:
        self.now: player_messages.DeviceOpened | None = None
        self.known = asyncio.Event()
        self.closed = False
        self._why_not = ""
        self._cannot_start = False

    def opened(self, device: player_messages.DeviceOpened) -> None:
        """There is one."""
        self.now, self._why_not = device, ""
        self.known.set()

    def missing(self, reason: str) -> None:
        """There is none."""
        self.now, self._why_not = None, reason
        self.known.set()

    def process_ended(self, reason: str) -> None:
        """Its process is gone; if the device went before, that is still what is wrong."""
        self.now = None
        if not self._why_not:
            self._why_not = f"the player process ended ({reason}) and is started again; play again in a second"

    def process_started(self) -> None:
        """There is a process, which is about to say whether there is a device."""
        if self._cannot_start:
            self._cannot_start, self._why_not = False, ""
            self.known.clear()

    def cannot_start(self, reason: str) -> None:
        """No player process can be started."""
        self.now, self._cannot_start = None, True
        self._why_not = f"the player can't be started: {reason}; files are made without it, and timbred tries again"
        self.known.set()

    def close(self) -> None:
        """The daemon stops: no device is wanted any more."""
        self.closed, self.now = True, None
        self.known.set()

    @property
    def error(self) -> errors.NoAudioDevice:
        """Why nothing can be played."""
        return errors.NoAudioDevice(self._why_not or "the player isn't ready yet; play again in a second")

    def needed(self) -> player_messages.DeviceOpened:
        """The device.

        Raises:
            NoAudioDevice: there is none; says why and what to do.
            ShuttingDown: the daemon stops.
        """
        if self.now is not None:
            return self.now
        if self.closed:
            raise errors.ShuttingDown("timbred is stopping; play again once it is back")
        raise self.error

    async def awaited(self) -> player_messages.DeviceOpened:
        """The device, once it is known whether there is one.

        Raises: as `needed`.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.known.wait(), OPENED_WITHIN)
        return self.needed()


HEARTBEAT_MAX_S = 0.3
"""Seconds between two beats of a player at most: a little more than its heartbeat."""


class PlayerStatus:
    """What the player `last` said of its clock and its counters; the counters go on over its restarts."""

    def __init__(self, bpm: float) -> None:
        self.last = player_messages.PlayerHeartbeat(frame=0, beat=0.0, bpm=bpm, peers=0, underruns=0)
        self._came = time.monotonic()
        self._underruns_before = 0
        self._late_before = 0

    def take(self, beat: player_messages.PlayerHeartbeat) -> None:
        """A new one came."""
        self.last = beat
        self._came = time.monotonic()

    def process_ended(self) -> None:
        """The next process counts from 0."""
        self._underruns_before += self.last.underruns
        self._late_before += self.last.late
        self.last = msgspec.structs.replace(self.last, underruns=0, late=0)

    @property
    def since(self) -> float:
        """Seconds since the last one came, at most `HEARTBEAT_MAX_S`: a living process would have sent another."""
        return min(HEARTBEAT_MAX_S, time.monotonic() - self._came)

    @property
    def now(self) -> float:
        """The beat that is mixed now."""
        return self.last.beat + (time.monotonic() - self._came) * self.last.bpm / 60.0

    @property
    def underruns(self) -> int:
        """Times that the device ran out of sound since the daemon's start."""
        return self._underruns_before + self.last.underruns

    @property
    def late(self) -> int:
        """Blocks that the device's driver called late, whoever's fault it was, since the daemon's start."""
        return self._late_before + self.last.late
