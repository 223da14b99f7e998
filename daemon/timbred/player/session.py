"""State of the playback session: validation of plays, settings, the audio device and the player's reports."""

import asyncio
import contextlib
import time

import msgspec
import numpy as np

from timbred import errors
from timbred.audio import Clip
from timbred.config import Config
from timbred.ipc import player_messages

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
        self._reason = f"the player can't be started: {reason}; files are made without it, and timbred tries again"
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
            raise errors.ShuttingDown("timbred is stopping; play again once it is back")
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
