"""A loop in which every frame tells its number, and what is wrong with a recording of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timbred.audio import Samples

LOOP_FRAMES = 48_000
MIN_LEVEL, MAX_LEVEL = 0.02, 0.2

TENTH_FRAMES = 4_800
"""Frames of a tenth of a second, in which breaks are counted too: many in a row are heard as one."""


def numbered_loop(channels: int = 2) -> Samples:
    """Shape (FRAMES, channels). No frame is silent, none is there twice, and neighbours cancel out nearly."""
    levels = MIN_LEVEL + (MAX_LEVEL - MIN_LEVEL) * np.arange(LOOP_FRAMES) / LOOP_FRAMES
    signs = np.where(np.arange(LOOP_FRAMES) % 2, -1.0, 1.0)
    return np.repeat((levels * signs)[:, None], channels, axis=1).astype(np.float32)


@dataclass(frozen=True)
class Breaks:
    """What is wrong.

    `places`: the frames of the recording that are the loop's and aren't followed by the next one. `foreign`: how
    many are none of the loop's, silent ones among them. All of `frames`, after the first sound.
    """

    broken_frames: NDArray[np.int64]
    foreign_count: int
    frames: int

    @property
    def broken_tenths(self) -> int:
        """Tenths of a second with such a place."""
        return len(np.unique(self.broken_frames // TENTH_FRAMES))


def find_breaks(recorded: Samples) -> Breaks:
    """What is wrong with a recording of the loop, shape (frames,), from its first sound on."""
    first = int(np.argmax(recorded != 0.0))
    numbers = _numbers(recorded[first:])
    followed = (numbers[:-1] + 1) % LOOP_FRAMES == numbers[1:]
    broken = np.flatnonzero((numbers[:-1] >= 0) & ~followed)
    return Breaks(first + broken, int(np.count_nonzero(numbers < 0)), len(numbers))


def _numbers(sound: Samples) -> np.ndarray:
    """The number of each frame; -1 where it is none of the loop's, to the last bit."""
    loop = numbered_loop(1)[:, 0]
    levels = np.nan_to_num(np.abs(sound))
    guess = np.rint((levels - np.float32(MIN_LEVEL)) * np.float32(LOOP_FRAMES / (MAX_LEVEL - MIN_LEVEL)))
    frame_numbers = np.clip(guess, 0, LOOP_FRAMES - 1).astype(np.int32)
    return np.where(loop[frame_numbers] == sound, frame_numbers, -1)
