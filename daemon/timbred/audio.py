"""Types for units, so that a frame count is never used as seconds."""

from dataclasses import dataclass, field, replace
from typing import Any, NewType

import numpy as np
from numpy.typing import NDArray

from timbred.errors import ModelError

Seconds = NewType("Seconds", float)
"""A length or moment in seconds."""

Frames = NewType("Frames", int)
"""A count of sample frames: one sample of every channel."""

SampleRate = NewType("SampleRate", int)
"""Frames a second (Hz)."""

Decibels = NewType("Decibels", float)
"""A gain or a level relative to full scale (dB, dBFS)."""

Lufs = NewType("Lufs", float)
"""Integrated loudness, ITU-R BS.1770."""

Bpm = NewType("Bpm", float)
"""Tempo in beats a minute."""

Megabytes = NewType("Megabytes", float)
"""Memory in units of 1,000,000 bytes."""


def frames_in(seconds: float, rate: int) -> Frames:
    """Return the number of frames nearest to `seconds` at `rate`.

    >>> frames_in(0.5, 48_000)
    24000
    """
    return Frames(round(seconds * rate))


def bars_to_seconds(bars: float, bpm: float, beats_per_bar: float) -> Seconds:
    """Return the duration of `bars` at a tempo.

    >>> bars_to_seconds(2, 120, 4)
    4.0
    """
    return Seconds(bars * beats_per_bar * 60.0 / bpm)


def amplitude(decibels: float) -> float:
    """Convert a gain in dB to a linear factor.

    >>> amplitude(-20.0)
    0.1
    """
    return 10.0 ** (decibels / 20.0)


Samples = NDArray[np.float32]
"""Sound as float32, shape (frames, channels), full scale -1..1."""

Recipe = dict[str, Any]
"""Everything needed to render a sound again: JSON-ready, see `timbred.storage.recipe`."""


@dataclass(frozen=True, eq=False)
class Clip:
    """Samples, their rate, and the recipe they came from.

    `samples` has shape (frames, channels), float32. `loop` marks that the end meets the start without
    a seam; `bpm` is set when the length is a whole number of beats at that tempo, `beats` counts them.
    """

    samples: Samples
    rate: SampleRate
    recipe: Recipe = field(default_factory=dict[str, Any])
    loop: bool = False
    bpm: float | None = None
    beats: float | None = None

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.dtype != np.float32:
            raise ValueError(
                f"samples: expected float32 of shape (frames, channels), got {self.samples.dtype} {self.samples.shape}"
            )
        if self.rate <= 0:
            raise ValueError(f"rate: expected a positive number of Hz, got {self.rate}")

    @property
    def frames(self) -> Frames:
        """Number of frames."""
        return Frames(self.samples.shape[0])

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.samples.shape[1]

    @property
    def seconds(self) -> Seconds:
        """Duration."""
        return Seconds(self.frames / self.rate)

    def with_samples(self, samples: NDArray[Any], rate: int | None = None) -> "Clip":
        """Return the same clip with other samples and, optionally, another rate."""
        return replace(
            self,
            samples=np.ascontiguousarray(samples, dtype=np.float32),
            rate=self.rate if rate is None else SampleRate(rate),
        )


def require_sound(clip: Clip) -> None:
    """Refuse a clip without valid samples.

    Raises:
        ModelError: no frames, no channels, or NaN or infinite values.
    """
    if clip.samples.size == 0:
        raise ModelError("the model returned no samples; request a longer sound")
    if not np.isfinite(clip.samples).all():
        raise ModelError("the model returned NaN or infinity; try another seed, or lower the guidance")
