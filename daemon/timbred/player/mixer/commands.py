"""Commands to the mixer, and the events that it reports."""

from dataclasses import dataclass
from typing import Literal

from timbred.ipc.player_messages import Handover
from timbred.player.beat_grid import StartTime
from timbred.player.mixer.source import VoiceSource


@dataclass(frozen=True)
class StartVoice:
    """Start a sound on a voice.

    Attributes:
        play: the number of the play.
        voice: 1 to 64.
        sound: the samples.
        gain: in dB.
        pan: -1 (left) to 1 (right).
        speed: relative to the sound's rate.
        out: the first output channel, from 1.
        fade: length of the fade in and of the crossfade in seconds; None for the default.
        position: the frame of the sound to start from.
        handover: for a segment of continuous playback: when the next one begins.
    """

    play: int
    voice: int
    sound: VoiceSource
    gain: float = 0.0
    pan: float = 0.0
    speed: float = 1.0
    out: int = 1
    fade: float | None = None
    position: float = 0.0
    handover: Handover | None = None


@dataclass(frozen=True)
class EndVoice:
    """End a voice, or every voice with 0; `fade` in seconds."""

    stop: int
    voice: int
    fade: float | None = None


@dataclass
class WaitingVoice:
    """A command with its start time; `start_time` is None if it is due now."""

    order: StartVoice | EndVoice
    start_time: StartTime | None


@dataclass(frozen=True)
class VoiceBegan:
    """The first sample of a play is output at this frame; `repeated` if it was played before."""

    play: int
    frame: int
    beat: float
    repeated: bool = False


@dataclass(frozen=True)
class VoiceOver:
    """The last sample of a play was output before this frame."""

    play: int
    frame: int
    reason: Literal["finished", "stopped", "replaced"]


@dataclass(frozen=True)
class VoiceStopped:
    """An `EndVoice` was carried out on these plays."""

    stop: int
    plays: tuple[int, ...]


MixerEvent = VoiceBegan | VoiceOver | VoiceStopped
