"""A sound made ready for the speed it is played at: band-limited, so that nothing folds back, and cheap to mix."""

from dataclasses import dataclass

from timbred.clip import Clip, Samples
from timbred.render.resample import stretched

SLOWEST = 0.5
"""A slower sound isn't drawn out in memory: it is read between its frames."""


@dataclass(frozen=True)
class Ready:
    """What the player gets: `samples`, (frames, channels), and their rate in Hz as long as the sound has speed 1; the
    `source` they came from, and the speed they were made for."""

    samples: Samples
    rate: float
    source: Clip
    speed: float


def ready_for(clip: Clip, rate: int, loop: bool, speed: float) -> Ready:
    """A clip for a device of this rate, played at this speed: each frame of it then goes out as it is.

    A loop at another speed keeps its length to a fraction of a frame: its rate says what it came to.
    """
    whole = max(speed, SLOWEST)
    frames = max(1, round(clip.frames * rate / (clip.rate * whole)))
    source = Clip(clip.samples, clip.rate, loop=loop)
    exact = clip.rate * frames / clip.frames
    samples = stretched(source, frames, rate / whole)
    return Ready(samples, exact if loop and whole != 1.0 else rate / whole, source, speed)
