"""A sound in memory and a head that reads it: frame by frame, or between frames at another speed."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timbred.audio import Samples
from timbred.dsp.crossfade import catmull_rom

NEIGHBOURS = np.arange(-1, 3)

ATTACK_LOSS = 0.7
"""A beginning is an attack if a fade in lowers its peak, or its steepest step by its square, below this factor."""

COMPARED_FADES = 3
"""Lengths of the fade from the beginning in which peak and steepest step are looked for."""


@dataclass(eq=False)
class VoiceSource:
    """`samples` has shape (frames, channels), float32. A loop goes on at its beginning without a gap. While a sound is
    being made only the first `ready` frames are there; None: all are."""

    samples: Samples
    rate: float
    loop: bool = False
    ready: int | None = None

    def add(self, samples: Samples) -> None:
        """The next frames are there."""
        first = self.frames if self.ready is None else self.ready
        last = min(self.frames, first + samples.shape[0])
        self.samples[first:last] = samples[: last - first]
        self.ready = None if last == self.frames else last

    @property
    def frames(self) -> int:
        return self.samples.shape[0]

    @property
    def channels(self) -> int:
        return self.samples.shape[1]


def has_attack(sound: VoiceSource, position: int, frames: int) -> bool:
    """Whether a fade in of equal power over so many frames, from `position` on, would take an attack off a sound: its
    loudest or its steepest place lies under the fade, and no like one after it."""
    ready = sound.frames if sound.ready is None else sound.ready
    places = np.arange(position, position + COMPARED_FADES * frames)
    beginning = sound.samples[places % sound.frames if sound.loop else places[places < ready]]
    if beginning.shape[0] < 2:
        return False
    gains = np.sin(0.5 * np.pi * np.minimum(1.0, np.arange(1, beginning.shape[0] + 1) / frames))
    levels, steps = np.abs(beginning).max(axis=1), np.abs(np.diff(beginning, axis=0)).max(axis=1)
    is_softer = (levels * gains).max() < ATTACK_LOSS * levels.max()
    is_duller = (steps * gains[1:]).max() < ATTACK_LOSS**2 * steps.max()
    return bool(is_softer or is_duller)


@dataclass
class ReadResult:
    """Frames read ahead at a steady `step`, from `first` on; `used` of them were given out."""

    first: float
    step: float
    block: Samples
    used: int = 0

    @property
    def position(self) -> float:
        return self.first + self.step * self.used


class ReadHead:
    """Where in a sound we are, in its frames."""

    def __init__(self, sound: VoiceSource, position: float = 0.0) -> None:
        self.sound = sound
        self.position = position
        self._drawn: ReadResult | None = None

    @property
    def at_end(self) -> bool:
        return not self.sound.loop and self.position >= self.sound.frames

    @property
    def ahead(self) -> float:
        """Frames of the sound that may be read on, from here; unlimited when all are there."""
        return math.inf if self.sound.ready is None else self.sound.ready - self.position - NEIGHBOURS[-1]

    def read(self, frames: int) -> Samples:
        """The next frames as they are; fewer at the end of the sound. Needs a whole position."""
        sound, begin = self.sound, int(self.position)
        end = begin + frames
        if end <= sound.frames:
            block = sound.samples[begin:end]
        elif sound.loop:
            block = sound.samples[np.arange(begin, end) % sound.frames]
        else:
            block = sound.samples[begin:]
        self._go(begin + block.shape[0])
        return block

    def read_at(self, steps: NDArray[np.float64]) -> Samples:
        """A frame after each of `steps` (frames of the sound), between frames by a cubic (Catmull and Rom, 1974)."""
        places = self.position + np.concatenate(([0.0], np.cumsum(steps)))
        count = len(steps) if self.sound.loop else int(np.searchsorted(places[:-1], self.sound.frames))
        block = self._between(places[:count])
        self._go(float(places[count]))
        return block

    def read_steadily(self, frames: int, step: float, ahead: int) -> Samples:
        """The next frames, each `step` after the one before, as `read_at` gives them; fewer at the end of the sound.

        They are read `ahead` at a time, for a call costs more than the frames; of a sound that is still being made only
        those asked for.
        """
        drawn = self._drawn
        if drawn is None or not self._fits(drawn, frames, step):
            drawn = self._drawn = self._draw(max(frames, ahead) if self.sound.ready is None else frames, step)
        block = drawn.block[drawn.used : drawn.used + frames]
        drawn.used += block.shape[0]
        self._go(drawn.position)
        return block

    def _fits(self, drawn: ReadResult, frames: int, step: float) -> bool:
        """Whether what was read ahead goes on from here, and is enough."""
        here = drawn.step == step and self._within(drawn.position) == self.position
        return here and drawn.used + frames <= drawn.block.shape[0]

    def _draw(self, frames: int, step: float) -> ReadResult:
        places = self.position + step * np.arange(frames, dtype=np.float64)
        count = frames if self.sound.loop else int(np.searchsorted(places, self.sound.frames))
        return ReadResult(self.position, step, self._between(places[:count]))

    def _within(self, position: float) -> float:
        return position % self.sound.frames if self.sound.loop else position

    def _go(self, position: float) -> None:
        self.position = self._within(position)

    def _between(self, places: NDArray[np.float64]) -> Samples:
        whole = places.astype(np.int64)
        share = (places - whole).astype(np.float32)[:, None]
        before, this, after, next_ = self._neighbours(whole)
        return catmull_rom(before, this, after, next_, share).astype(np.float32, copy=False)

    def _neighbours(self, whole: NDArray[np.int64]) -> list[Samples]:
        sound = self.sound
        if len(whole) and whole[0] >= 1 and whole[-1] + 2 < sound.frames:
            return [sound.samples.take(whole + neighbour, axis=0) for neighbour in NEIGHBOURS]
        wanted = [whole + neighbour for neighbour in NEIGHBOURS]
        if sound.loop:
            return [sound.samples[indexes % sound.frames] for indexes in wanted]
        within = [(indexes >= 0) & (indexes < sound.frames) for indexes in wanted]
        return [
            sound.samples[np.clip(indexes, 0, sound.frames - 1)] * inside[:, None]
            for indexes, inside in zip(wanted, within, strict=True)
        ]
