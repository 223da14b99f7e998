"""Samples of a voice, and the read position in them: frame by frame, or between frames at another speed."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timbred.audio import Samples
from timbred.dsp.fades import catmull_rom

NEIGHBOUR_OFFSETS = np.arange(-1, 3)
"""Frames around a position that interpolation needs."""

ATTACK_LOSS_RATIO = 0.7
"""Factor below which a fade in that lowers the peak, or its square the steepest step, takes off an attack."""

COMPARED_FADE_LENGTHS = 3
"""Lengths of the fade, from the beginning, in which peak and steepest step are compared."""


@dataclass(eq=False)
class VoiceSource:
    """Samples to play.

    Attributes:
        samples: shape (frames, channels), float32.
        rate: in Hz at speed 1.
        loop: True if the sound repeats without a gap.
        ready_frames: the frames that have arrived while the sound is still being rendered; None if all have.
    """

    samples: Samples
    rate: float
    loop: bool = False
    ready_frames: int | None = None

    def add(self, samples: Samples) -> None:
        """Store the next frames of a sound that is being rendered."""
        first = self.frames if self.ready_frames is None else self.ready_frames
        last = min(self.frames, first + samples.shape[0])
        self.samples[first:last] = samples[: last - first]
        self.ready_frames = None if last == self.frames else last

    @property
    def frames(self) -> int:
        """Frames of the whole sound."""
        return self.samples.shape[0]

    @property
    def channels(self) -> int:
        """Channels of the sound."""
        return self.samples.shape[1]


def has_attack(sound: VoiceSource, position: int, frames: int) -> bool:
    """Return whether an equal-power fade in over `frames`, from `position` on, would take off an attack.

    This is so if the loudest or the steepest place is within the fade and no similar one follows it.
    """
    ready_frames = sound.frames if sound.ready_frames is None else sound.ready_frames
    positions = np.arange(position, position + COMPARED_FADE_LENGTHS * frames)
    beginning = sound.samples[positions % sound.frames if sound.loop else positions[positions < ready_frames]]
    if beginning.shape[0] < 2:
        return False
    gains = np.sin(0.5 * np.pi * np.minimum(1.0, np.arange(1, beginning.shape[0] + 1) / frames))
    levels, steps = np.abs(beginning).max(axis=1), np.abs(np.diff(beginning, axis=0)).max(axis=1)
    is_softer = (levels * gains).max() < ATTACK_LOSS_RATIO * levels.max()
    is_duller = (steps * gains[1:]).max() < ATTACK_LOSS_RATIO**2 * steps.max()
    return bool(is_softer or is_duller)


@dataclass
class ReadResult:
    """Frames that were read ahead at a steady `step`, from `first` on; `used_frames` of them were returned."""

    first: float
    step: float
    block: Samples
    used_frames: int = 0

    @property
    def position(self) -> float:
        """The position after the frames that were used."""
        return self.first + self.step * self.used_frames


class ReadHead:
    """A read position in a sound, in its frames."""

    def __init__(self, sound: VoiceSource, position: float = 0.0) -> None:
        self.sound = sound
        self.position = position
        self._read_ahead: ReadResult | None = None

    @property
    def at_end(self) -> bool:
        """True after the last frame of a sound that isn't a loop."""
        return not self.sound.loop and self.position >= self.sound.frames

    @property
    def ahead(self) -> float:
        """Frames of the sound that can be read from here on; infinite if all have arrived."""
        return (
            math.inf
            if self.sound.ready_frames is None
            else self.sound.ready_frames - self.position - NEIGHBOUR_OFFSETS[-1]
        )

    def read(self, frames: int) -> Samples:
        """Return the next frames unchanged; fewer at the end of the sound. Needs a whole position."""
        sound, begin = self.sound, int(self.position)
        end = begin + frames
        if end <= sound.frames:
            block = sound.samples[begin:end]
        elif sound.loop:
            block = sound.samples[np.arange(begin, end) % sound.frames]
        else:
            block = sound.samples[begin:]
        self._move_to(begin + block.shape[0])
        return block

    def read_at(self, steps: NDArray[np.float64]) -> Samples:
        """Return a frame after each of `steps` (in frames of the sound), interpolated between frames."""
        positions = self.position + np.concatenate(([0.0], np.cumsum(steps)))
        count = len(steps) if self.sound.loop else int(np.searchsorted(positions[:-1], self.sound.frames))
        block = self._interpolate(positions[:count])
        self._move_to(float(positions[count]))
        return block

    def read_steadily(self, frames: int, step: float, ahead: int) -> Samples:
        """Return the next frames, each `step` after the one before, as `read_at` does; fewer at the end of the sound.

        They are read `ahead` at a time, as a call costs more than the frames; of a sound that is being rendered only
        the requested ones.
        """
        result = self._read_ahead
        if result is None or not self._fits(result, frames, step):
            result = self._read_ahead = self._fill_read_ahead(
                max(frames, ahead) if self.sound.ready_frames is None else frames, step
            )
        block = result.block[result.used_frames : result.used_frames + frames]
        result.used_frames += block.shape[0]
        self._move_to(result.position)
        return block

    def _fits(self, result: ReadResult, frames: int, step: float) -> bool:
        """Return whether the frames that were read ahead continue from here and suffice."""
        is_continued = result.step == step and self._wrap(result.position) == self.position
        return is_continued and result.used_frames + frames <= result.block.shape[0]

    def _fill_read_ahead(self, frames: int, step: float) -> ReadResult:
        positions = self.position + step * np.arange(frames, dtype=np.float64)
        count = frames if self.sound.loop else int(np.searchsorted(positions, self.sound.frames))
        return ReadResult(self.position, step, self._interpolate(positions[:count]))

    def _wrap(self, position: float) -> float:
        return position % self.sound.frames if self.sound.loop else position

    def _move_to(self, position: float) -> None:
        self.position = self._wrap(position)

    def _interpolate(self, positions: NDArray[np.float64]) -> Samples:
        whole = positions.astype(np.int64)
        fraction = (positions - whole).astype(np.float32)[:, None]
        before, this, after, next_ = self._neighbours(whole)
        return catmull_rom(before, this, after, next_, fraction).astype(np.float32, copy=False)

    def _neighbours(self, whole: NDArray[np.int64]) -> list[Samples]:
        sound = self.sound
        if len(whole) and whole[0] >= 1 and whole[-1] + 2 < sound.frames:
            return [sound.samples.take(whole + neighbour, axis=0) for neighbour in NEIGHBOUR_OFFSETS]
        indexes_by_offset = [whole + neighbour for neighbour in NEIGHBOUR_OFFSETS]
        if sound.loop:
            return [sound.samples[indexes % sound.frames] for indexes in indexes_by_offset]
        is_inside = [(indexes >= 0) & (indexes < sound.frames) for indexes in indexes_by_offset]
        return [
            sound.samples[np.clip(indexes, 0, sound.frames - 1)] * inside[:, None]
            for indexes, inside in zip(indexes_by_offset, is_inside, strict=True)
        ]
