"""What the mixer is told, and what it tells."""

from dataclasses import dataclass
from typing import Literal

from timbred.delivery.clock import Due
from timbred.delivery.mixer.sound import Sound
from timbred.delivery.wire import Handover


@dataclass(frozen=True)
class Start:
    """Sound a voice. `gain` in dB, `out` the first channel from 1, `fade` in seconds, None for the usual. A piece of
    an endless sound has a `handover`."""

    play: int
    voice: int
    sound: Sound
    gain: float = 0.0
    pan: float = 0.0
    speed: float = 1.0
    out: int = 1
    fade: float | None = None
    position: float = 0.0
    handover: Handover | None = None


@dataclass(frozen=True)
class End:
    """End a voice, or every voice with 0."""

    stop: int
    voice: int
    fade: float | None = None


@dataclass
class Waiting:
    """An order that waits for its beat; None: it is due."""

    order: Start | End
    due: Due | None


@dataclass(frozen=True)
class Began:
    """A play's first sample goes out with this frame; once more if it is `repeated`."""

    play: int
    frame: int
    beat: float
    repeated: bool = False


@dataclass(frozen=True)
class Over:
    """A play's last sample went out before this frame."""

    play: int
    frame: int
    reason: Literal["finished", "stopped", "replaced"]


@dataclass(frozen=True)
class Stopped:
    """An `End` was carried out: on these plays."""

    stop: int
    plays: tuple[int, ...]


Happening = Began | Over | Stopped
