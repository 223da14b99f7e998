"""VAE codec: samples to mel frames to rows of latents, and back by the VAE and the vocoder."""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.batching import BatchSplitter
from timbred.engine.circular import circular_time
from timbred.engine.codecs.chunked import ChunkedVocoder
from timbred.engine.codecs.mel import analysis_of, log_mel
from timbred.engine.codecs.note_synthesis import NamedNote
from timbred.engine.compile.compiled_calls import CompiledCalls, CompileQueue
from timbred.engine.device import ensure_finite, precision_of
from timbred.engine.memory.device_memory import ModelStages


@dataclass(frozen=True)
class LatentLayout:
    """Geometry of samples, mel frames and latents.

    Attributes:
        rate: Sample rate in Hz.
        hop: Samples of a mel frame.
        bands: Mel bands of a frame.
        factor: Frames (and bands) of a row (and column) of latents.
        channels: Channels of the latents.
        unit: Rows are halved down to this multiple by the network's levels.
    """

    rate: int
    hop: int
    bands: int
    factor: int
    channels: int
    unit: int

    @classmethod
    def of(cls, pipeline: Any) -> "LatentLayout":
        """Read the layout from the configurations of a pipeline's components."""
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
        """Return channels, time and bands of the latents for a length in seconds.

        The time is rounded up to what the VAE can decode, for a loop to what the network can halve on all its levels.
        """
        if loop:
            rows = rows_of_loop(seconds, self.rate, self.factor, self.hop, self.unit)
        else:
            rows = math.ceil(max(self.factor, int(seconds * self.rate / self.hop)) / self.factor)
        return self.channels, rows, self.bands // self.factor


def rows_of_loop(seconds: float, rate: int, frames_a_row: int, hop: int, unit: int) -> int:
    """Return the rows of latents of a loop: at least its length, and a multiple of the network's total downsampling.

    Otherwise the circle would not be even on all levels.
    """
    rows = math.ceil(seconds * rate / hop / frames_a_row - 1e-9)
    return max(1, math.ceil(rows / unit)) * unit


class MelVaeCodec:
    """A model's VAE and vocoder; every result that is not finite, even in float32, raises ModelError."""

    fast: CompiledCalls

    def __init__(self, pipeline: Any, device: torch.device, stages: ModelStages, batches: BatchSplitter) -> None:
        self.vae = pipeline.vae
        self.vocoder = pipeline.vocoder
        self.device = device
        self.grid = LatentLayout.of(pipeline)
        self.analysis = analysis_of(pipeline.vocoder)
        self._stages = stages
        self._batches = batches
        self._note: NamedNote | None = None

    def prepare(self, workshop: CompileQueue) -> None:
        """Use a compile queue for the VAE shapes that are decoded often."""
        self.fast = workshop.calls(_decoded, self.vae)

    def playing(self, note: NamedNote | None) -> "MelVaeCodec":
        """Return the codec with tones of this pitch, if the vocoder takes one."""
        if note == self._note or type(self.vocoder).__name__ != "SpectralVocoder":
            return self
        found = copy.copy(self)
        found._note = note
        return found

    def encode(self, samples: torch.Tensor) -> torch.Tensor:
        """Encode samples, (frames,) at the native rate and whole rows of latents, to (1, channels, time, bands)."""
        spectrogram = log_mel(samples, self.analysis)[None, None]
        given = spectrogram.to(self.device, precision_of(self.vae))
        found = self._stages.run_stage("sound", lambda: self.vae.encode(given)).latent_dist.mode()
        return found * self.vae.config.scaling_factor

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> NDArray[np.float32]:
        """Decode latents to waveforms, (takes, frames)."""
        return self.waveforms(self.spectrogram(latents))

    def spectrogram(self, latents: torch.Tensor, around: torch.Tensor | None = None) -> torch.Tensor:
        """Decode latents to the vocoder's log-mel spectrogram, (takes, frames, bands).

        `around` is given for loops: 1 for each circular row, 0 for others.
        """
        precision = precision_of(self.vae)

        def decoded() -> torch.Tensor:
            now = precision_of(self.vae)
            scaled = (latents / self.vae.config.scaling_factor).to(now)
            fast = self.fast if now == precision else partial(_decoded, self.vae)
            inputs = (scaled,) if around is None else (scaled, around.to(now))
            return self._batches.call(fast, inputs).squeeze(1)

        return self._stages.run_stage("sound", lambda: ensure_finite(self.vae, decoded))

    def waveforms(self, mel: torch.Tensor) -> NDArray[np.float32]:
        """Convert log-mel spectrograms to waveforms, (takes, frames)."""
        vocoding = self.vocoding(mel)
        return np.ascontiguousarray(self.vocoded(vocoding.whole).numpy(), dtype=np.float32)

    def vocoding(self, mel: torch.Tensor, circular: bool = False) -> ChunkedVocoder:
        """Prepare a log-mel spectrogram for the vocoder; its calls must run inside `vocoded`."""
        return ChunkedVocoder(self.vocoder, mel, circular, self._note)

    def vocoded(self, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Run vocoder calls with the vocoder on the device, and check that the result is finite."""
        return self._stages.run_stage("sound", lambda: ensure_finite(self.vocoder, make))


def _decoded(vae: Any, latents: torch.Tensor, around: torch.Tensor | None = None) -> torch.Tensor:
    with nullcontext() if around is None else circular_time(around):
        return vae.decode(latents, return_dict=False)[0]
