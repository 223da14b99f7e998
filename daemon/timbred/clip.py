"""Clip: a piece of sound on its way from the model to the musician."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timbred.units import Frames, SampleRate, Seconds

Samples = NDArray[np.float32]
"""Sound as float32, shape (frames, channels), full scale -1..1."""

Recipe = dict[str, Any]
"""Everything needed to make a sound again: JSON-ready, see `timbred.library.recipe`."""


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
        return Frames(self.samples.shape[0])

    @property
    def channels(self) -> int:
        return self.samples.shape[1]

    @property
    def seconds(self) -> Seconds:
        return Seconds(self.frames / self.rate)

    def with_samples(self, samples: NDArray[Any], rate: int | None = None) -> "Clip":
        """The same clip with other samples (and, if given, another rate)."""
        return replace(
            self,
            samples=np.ascontiguousarray(samples, dtype=np.float32),
            rate=self.rate if rate is None else SampleRate(rate),
        )
