"""VAE codec: samples to mel frames to rows of latents, and back by the VAE and the vocoder."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.batching import BatchSplitter, circular_time
from timbred.engine.codecs.chunked import ChunkedVocoder
from timbred.engine.codecs.mel import analysis_of, log_mel
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
        frames_per_row: Frames (and bands) of a row (and column) of latents.
        channels: Channels of the latents.
        row_multiple: Rows are halved down to this multiple by the network's levels.
    """

    rate: int
    hop: int
    bands: int
    frames_per_row: int
    channels: int
    row_multiple: int

    is_noise_rows_first = False

    @classmethod
    def of(cls, pipeline: Any) -> "LatentLayout":
        """Read the layout from the configurations of a pipeline's components."""
        vocoder, network = pipeline.vocoder.config, pipeline.unet.config
        return cls(
            rate=int(vocoder.sampling_rate),
            hop=int(math.prod(vocoder.upsample_rates)),
            bands=int(vocoder.model_in_dim),
            frames_per_row=int(pipeline.vae_scale_factor),
            channels=int(network.in_channels),
            row_multiple=2 ** (len(network.block_out_channels) - 1),
        )

    @property
    def samples_per_row(self) -> int:
        """Samples of a row of latents."""
        return self.frames_per_row * self.hop

    def shape(self, seconds: float, loop: bool = False) -> tuple[int, int, int]:
        """Return channels, time and bands of the latents for a length in seconds.

        The time is rounded up to what the VAE can decode, for a loop to what the network can halve on all its levels.
        """
        if loop:
            rows = count_loop_rows(seconds, self.rate, self.frames_per_row, self.hop, self.row_multiple)
        else:
            rows = math.ceil(max(self.frames_per_row, int(seconds * self.rate / self.hop)) / self.frames_per_row)
        return self.channels, rows, self.bands // self.frames_per_row


def count_loop_rows(seconds: float, rate: int, frames_per_row: int, hop: int, row_multiple: int) -> int:
    """Return the rows of latents of a loop: at least its length, and a multiple of the network's total downsampling.

    Otherwise the circle would not be even on all levels.
    """
    rows = math.ceil(seconds * rate / hop / frames_per_row - 1e-9)
    return max(1, math.ceil(rows / row_multiple)) * row_multiple


class MelVaeCodec:
    """A model's VAE and vocoder; every result that is not finite, even in float32, raises ModelError."""

    compiled_calls: CompiledCalls

    def __init__(self, pipeline: Any, device: torch.device, stages: ModelStages, batch_splitter: BatchSplitter) -> None:
        self.vae = pipeline.vae
        self.vocoder = pipeline.vocoder
        self.device = device
        self.latent_layout = LatentLayout.of(pipeline)
        self.analysis = analysis_of(pipeline.vocoder)
        self._stages = stages
        self._batch_splitter = batch_splitter

    def use_compile_queue(self, compile_queue: CompileQueue) -> None:
        """Use a compile queue for the VAE shapes that are decoded often."""
        self.compiled_calls = compile_queue.compiled_calls(_decode_latents, self.vae)

    def encode(self, samples: torch.Tensor) -> torch.Tensor:
        """Encode samples, (frames,) at the native rate and whole rows of latents, to (1, channels, time, bands)."""
        spectrogram = log_mel(samples, self.analysis)[None, None]
        vae_input = spectrogram.to(self.device, precision_of(self.vae))
        latents = self._stages.run_stage("codec", lambda: self.vae.encode(vae_input)).latent_dist.mode()
        return latents * self.vae.config.scaling_factor

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> NDArray[np.float32]:
        """Decode latents to waveforms, (takes, frames)."""
        return self.vocode(self.decode_mel(latents))

    def decode_mel(self, latents: torch.Tensor, circular_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Decode latents to the vocoder's log-mel spectrogram, (takes, frames, bands).

        `circular_mask` is given for loops: 1 for each circular row, 0 for others.
        """
        precision = precision_of(self.vae)

        def decode() -> torch.Tensor:
            current_precision = precision_of(self.vae)
            scaled = (latents / self.vae.config.scaling_factor).to(current_precision)
            call = self.compiled_calls if current_precision == precision else partial(_decode_latents, self.vae)
            inputs = (scaled,) if circular_mask is None else (scaled, circular_mask.to(current_precision))
            return self._batch_splitter.call(call, inputs).squeeze(1)

        return self._stages.run_stage("codec", lambda: ensure_finite(self.vae, decode))

    def vocode(self, mel: torch.Tensor) -> NDArray[np.float32]:
        """Convert log-mel spectrograms to waveforms, (takes, frames)."""
        chunked_vocoder = self.chunked_vocoder(mel)
        return np.ascontiguousarray(self.run_vocoder(chunked_vocoder.vocode).numpy(), dtype=np.float32)

    def chunked_vocoder(self, mel: torch.Tensor, circular: bool = False) -> ChunkedVocoder:
        """Prepare a log-mel spectrogram for the vocoder; its calls must run inside `run_vocoder`."""
        return ChunkedVocoder(self.vocoder, mel, circular)

    def run_vocoder(self, call: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Run vocoder calls with the vocoder on the device, and check that the result is finite."""
        return self._stages.run_stage("codec", lambda: ensure_finite(self.vocoder, call))


def _decode_latents(vae: Any, latents: torch.Tensor, circular_mask: torch.Tensor | None = None) -> torch.Tensor:
    with nullcontext() if circular_mask is None else circular_time(circular_mask):
        return vae.decode(latents, return_dict=False)[0]
