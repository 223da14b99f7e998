"""What the mixer is told, and what it tells."""

from dataclasses import dataclass
from typing import Literal

from timbred.ipc.player_messages import Handover
from timbred.player.beat_grid import StartTime
from timbred.player.mixer.source import VoiceSource


@dataclass(frozen=True)
class StartVoice:
    """Sound a voice. `gain` in dB, `out` the first channel from 1, `fade` in seconds, None for the usual. A piece of
    an endless sound has a `handover`."""

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
    """End a voice, or every voice with 0."""

    stop: int
    voice: int
    fade: float | None = None


@dataclass
class WaitingVoice:
    """An order that waits for its beat; None: it is due."""

    order: StartVoice | EndVoice
    due: StartTime | None


@dataclass(frozen=True)
class VoiceBegan:
    """A play's first sample goes out with this frame; once more if it is `repeated`."""

    play: int
    frame: int
    beat: float
    repeated: bool = False


@dataclass(frozen=True)
class VoiceOver:
    """A play's last sample went out before this frame."""

    play: int
    frame: int
    reason: Literal["finished", "stopped", "replaced"]


@dataclass(frozen=True)
class VoiceStopped:
    """An `End` was carried out: on these plays."""

    stop: int
    plays: tuple[int, ...]


Happening = VoiceBegan | VoiceOver | VoiceStopped
