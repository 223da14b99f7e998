"""A loop in which every frame encodes its number, and the breaks in a recording of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timbred.audio import Samples

LOOP_FRAMES = 48_000
MIN_LEVEL, MAX_LEVEL = 0.02, 0.2

TENTH_FRAMES = 4_800
"""Frames of a tenth of a second: breaks within it are heard as one."""


def numbered_loop(channels: int = 2) -> Samples:
    """Return the loop, (LOOP_FRAMES, channels): no frame is silent, all differ, and neighbours nearly cancel out."""
    levels = MIN_LEVEL + (MAX_LEVEL - MIN_LEVEL) * np.arange(LOOP_FRAMES) / LOOP_FRAMES
    signs = np.where(np.arange(LOOP_FRAMES) % 2, -1.0, 1.0)
    return np.repeat((levels * signs)[:, None], channels, axis=1).astype(np.float32)


@dataclass(frozen=True)
class Breaks:
    """Breaks in a recording.

    Attributes:
        broken_frames: Frames of the recording that belong to the loop and aren't followed by the loop's next frame.
        foreign_count: Number of frames that don't belong to the loop, including silent ones.
        frames: Number of recorded frames after the first sound.
    """

    broken_frames: NDArray[np.int64]
    foreign_count: int
    frames: int

    @property
    def broken_tenths(self) -> int:
        """Number of tenths of a second with a break."""
        return len(np.unique(self.broken_frames // TENTH_FRAMES))


def find_breaks(recorded: Samples) -> Breaks:
    """Find the breaks in a recording of the loop, shape (frames,), from its first sound on."""
    first = int(np.argmax(recorded != 0.0))
    numbers = _numbers(recorded[first:])
    followed = (numbers[:-1] + 1) % LOOP_FRAMES == numbers[1:]
    broken = np.flatnonzero((numbers[:-1] >= 0) & ~followed)
    return Breaks(first + broken, int(np.count_nonzero(numbers < 0)), len(numbers))


def _numbers(sound: Samples) -> np.ndarray:
    """Return the number of each frame; -1 for a frame that differs from every frame of the loop."""
    loop = numbered_loop(1)[:, 0]
    levels = np.nan_to_num(np.abs(sound))
    guess = np.rint((levels - np.float32(MIN_LEVEL)) * np.float32(LOOP_FRAMES / (MAX_LEVEL - MIN_LEVEL)))
    frame_numbers = np.clip(guess, 0, LOOP_FRAMES - 1).astype(np.int32)
    return np.where(loop[frame_numbers] == sound, frame_numbers, -1)
