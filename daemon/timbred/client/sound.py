"""A take with its samples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from timbred.audio import Samples
from timbred.protocol import messages as m


@dataclass(frozen=True, eq=False)
class Sound:
    """One take with its samples.

    `samples` has shape (frames, channels), float32, full scale -1..1, and is writable. `take` is the daemon's event;
    `others` are the other takes of the same request, in order of rank if they were ranked.
    """

    take: m.Take
    samples: Samples
    others: "tuple[Sound, ...]" = ()

    @property
    def rate(self) -> int:
        """Sample rate in Hz."""
        return self.take.rate

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.take.rate

    @property
    def path(self) -> str:
        """Path of the file; empty with `to="none"`."""
        return self.take.path

    @property
    def seed(self) -> int:
        """Seed with which the same sound can be rendered again."""
        return self.take.seed

    @property
    def take_id(self) -> str:
        """Id of the take, for `vary`, `play`, `noise=` and `init=`."""
        return self.take.take_id

    def __repr__(self) -> str:
        where = self.path or "no file"
        return f"<Sound {self.seconds:.3f} s, {self.samples.shape[1]} ch, {self.rate} Hz, seed {self.seed}, {where}>"


def read_sound(take: m.Take, frame: bytes) -> Sound:
    """Read a sound from its event and the frame after it: float32, little-endian, interleaved."""
    samples = np.frombuffer(frame, "<f4").reshape(-1, take.channels).astype(np.float32)
    return Sound(take, samples)


def first_of(sounds: Sequence[Sound]) -> Sound:
    """Return the first of a request's takes, with the others in `others`."""
    first, *others = sorted(sounds, key=lambda sound: sound.take.index)
    return replace(first, others=tuple(others))
