"""How a model lays a sound out: samples in mel frames, frames in rows of latents."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Grid:
    """`rate` in Hz; `hop` samples are a mel frame of so many `bands`, and `factor` frames (and bands) one of the
    latents, which have `channels`. The network halves their rows on its levels down to one of `unit`."""

    rate: int
    hop: int
    bands: int
    factor: int
    channels: int
    unit: int

    @classmethod
    def of(cls, pipeline: Any) -> "Grid":
        """As a pipeline's components have it in their configs."""
        vocoder, network = pipeline.vocoder.config, pipeline.unet.config
        return cls(
            rate=int(vocoder.sampling_rate),
            hop=int(math.prod(vocoder.upsample_rates)),
            bands=int(vocoder.model_in_dim),
            factor=int(pipeline.vae_scale_factor),
            channels=int(network.in_channels),
            unit=2 ** (len(network.block_out_channels) - 1),
        )

    @property
    def row(self) -> int:
        """Samples of a row of latents."""
        return self.factor * self.hop

    def shape(self, seconds: float, loop: bool = False) -> tuple[int, int, int]:
        """Channels, time and bands of the latents for a length, rounded up to what the VAE can decode, and for a loop
        to what the network can halve on all its levels."""
        if loop:
            rows = rows_of_loop(seconds, self.rate, self.factor, self.hop, self.unit)
        else:
            rows = math.ceil(max(self.factor, int(seconds * self.rate / self.hop)) / self.factor)
        return self.channels, rows, self.bands // self.factor


def rows_of_loop(seconds: float, rate: int, frames_a_row: int, hop: int, unit: int) -> int:
    """Rows of latents for a loop: enough for its length, and a multiple of what the network halves rows by, for only
    then the circle is even on all its levels."""
    rows = math.ceil(seconds * rate / hop / frames_a_row - 1e-9)
    return max(1, math.ceil(rows / unit)) * unit
