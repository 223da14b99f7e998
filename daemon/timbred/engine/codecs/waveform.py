"""Codecs from latents straight to waveforms: Oobleck's convolutions and SAME's windowed attention.

A sample depends on a limited number of latents around it. With these as context a part of the sound, decoded alone,
equals that part of the whole. Long sounds are therefore decoded in windows, which bounds the memory, and the first of
them can be played before the last one is decoded.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.batching import BatchSplitter
from timbred.engine.compile.compiled_calls import CompiledCalls, CompileQueue
from timbred.engine.device import ensure_finite, precision_of
from timbred.engine.memory.device_memory import ModelStages


@dataclass(frozen=True)
class WaveLayout:
    """Geometry of samples and latents.

    Attributes:
        rate: Sample rate in Hz.
        samples_per_row: Samples of a row of latents.
        channels: Channels of the latents.
        audio_channels: Channels of the sound.
        fixed_rows: Rows of all sounds, for networks that take one length; None where the rows follow the length.
        is_noise_rows_first: True if the stock pipeline draws noise with the rows before the channels.
    """

    rate: int
    samples_per_row: int
    channels: int
    audio_channels: int
    fixed_rows: int | None = None
    is_noise_rows_first: bool = False

    def shape(self, seconds: float, loop: bool = False) -> tuple[int, int]:
        """Return channels and rows of the latents for a length in seconds; those of a loop are the same."""
        del loop
        return self.channels, self.sound_rows(seconds) if self.fixed_rows is None else self.fixed_rows

    def sound_rows(self, seconds: float) -> int:
        """Return the rows that a sound itself has, also where all sounds have the same number of latents."""
        return max(1, math.ceil(seconds * self.rate / self.samples_per_row))


DECODED_ROWS = 256
"""Rows of latents that are decoded at once, beside their context: 12 s of Oobleck's, 24 s of SAME's."""


class WaveCodec(ABC):
    """A model's autoencoder of waveforms; every result that is not finite, even in float32, raises ModelError.

    Args:
        vae: The autoencoder.
        layout: Geometry of its latents.
        device: Compute device.
        stages: The model's components by stage.
        batch_splitter: Splitter of batches that don't fit into memory.

    Attributes:
        context: Rows of latents on each side that a row's samples depend on; None if all depend on all.
    """

    compiled_calls: CompiledCalls
    context: int | None = None

    def __init__(
        self, vae: Any, layout: WaveLayout, device: torch.device, stages: ModelStages, batch_splitter: BatchSplitter
    ) -> None:
        self.vae = vae
        self.latent_layout = layout
        self.device = device
        self._stages = stages
        self._batch_splitter = batch_splitter

    def use_compile_queue(self, compile_queue: CompileQueue) -> None:
        """Use a compile queue for the shapes that are decoded often."""
        self.compiled_calls = compile_queue.compiled_calls(_decode_latents, self.vae)

    @abstractmethod
    def encode(self, samples: torch.Tensor, rows: int, randomness: Sequence[torch.Generator]) -> torch.Tensor:
        """Encode samples, (channels, frames) at the native rate, to latents of each take, (takes, channels, rows)."""

    def _run_encoder(self, encode: Callable[[torch.Tensor], torch.Tensor], samples: torch.Tensor) -> torch.Tensor:
        """Run an encoder on samples, (channels, frames)."""
        batch = samples[None].to(self.device)

        def run_encoder() -> torch.Tensor:
            return encode(batch.to(precision_of(self.vae)))

        return self._stages.run_stage("codec", lambda: ensure_finite(self.vae, run_encoder)).float()

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, frames: int | None = None) -> NDArray[np.float32]:
        """Decode latents to waveforms, (takes, frames, channels); with `frames`, no more than these."""
        rows = latents.shape[2]
        if self.context is None:
            return self.decode_rows(latents, 0, rows)[:, :frames].numpy()
        needed_rows = rows if frames is None else min(rows, math.ceil(frames / self.latent_layout.samples_per_row))
        edges = [*range(0, needed_rows, DECODED_ROWS), needed_rows]
        parts = [self.decode_rows(latents, first, last) for first, last in pairwise(edges)]
        return torch.cat(parts, dim=1)[:, :frames].numpy()

    @torch.inference_mode()
    def decode_circle(self, latents: torch.Tensor) -> NDArray[np.float32]:
        """Decode latents whose last row is followed by the first one: (takes, frames, channels), whole rows."""
        rows, row = latents.shape[2], self.latent_layout.samples_per_row
        context = rows if self.context is None else self.context
        around = torch.arange(-context, rows + context, device=latents.device) % rows
        return self.decode(latents[:, :, around])[:, context * row : (context + rows) * row]

    def decode_rows(self, latents: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Decode the samples of the rows [first, last) of latents: (takes, frames, channels), float32, CPU.

        Requires a `context`, unless these are all rows.
        """
        rows, context = latents.shape[2], self.context or 0
        start, end = max(0, first - context), min(rows, last + context)
        rows_around = latents[:, :, start:end]
        precision = precision_of(self.vae)

        def decode() -> torch.Tensor:
            current_precision = precision_of(self.vae)
            if current_precision == precision:
                return self._batch_splitter.call(self.compiled_calls, (rows_around.to(current_precision),))
            return _decode_latents(self.vae, rows_around.to(current_precision))

        samples = self._stages.run_stage("codec", lambda: ensure_finite(self.vae, decode))
        row = self.latent_layout.samples_per_row
        begin = (first - start) * row
        stop = None if last == rows else begin + (last - first) * row
        return self.bound(samples[:, :, begin:stop].float()).transpose(1, 2).contiguous().cpu()

    def bound(self, samples: torch.Tensor) -> torch.Tensor:
        """Return decoded samples as the stock pipeline delivers them."""
        return samples

    def pieces(self, latents: torch.Tensor, seconds: float) -> "LatentPieces":
        """Return latents as a source of pieces, of at most a length in seconds."""
        return LatentPieces(self, latents, seconds)


FIRST_PIECE_S, MAX_PIECE_S = 0.16, 5.0
"""Seconds of the first and of the longest piece."""

SPOT_S = 0.3
"""Seconds that are decoded first to estimate the peak of the whole."""


class LatentPieces:
    """Latents that are decoded in pieces, if the codec has a context, else all at once.

    Args:
        codec: The codec.
        latents: Latents of all takes.
        seconds: Length of the sound; latents after it are context only.
    """

    def __init__(self, codec: WaveCodec, latents: torch.Tensor, seconds: float) -> None:
        layout = codec.latent_layout
        self._codec = codec
        self._latents = latents
        self.samples_per_row = layout.samples_per_row
        needed_rows = math.ceil(int(seconds * layout.rate) / layout.samples_per_row)
        self.rows = latents.shape[2] if codec.context is None else min(latents.shape[2], max(1, needed_rows))
        self.samples = self.rows * layout.samples_per_row
        rows_per_second = layout.rate / layout.samples_per_row
        self.first_rows = self.rows if codec.context is None else max(1, round(FIRST_PIECE_S * rows_per_second))
        self.max_rows = self.rows if codec.context is None else max(1, round(MAX_PIECE_S * rows_per_second))
        self._spot_rows = max(1, round(SPOT_S * rows_per_second))

    def decode(self, first: int, last: int) -> torch.Tensor:
        """Return the samples of the rows [first, last): (takes, samples, channels), float32, on the CPU."""
        return self._codec.decode_rows(self._latents, first, last)

    def loud_spots(self) -> list[tuple[int, int]]:
        """Return the rows around those latents that deviate most, which are mostly loud."""
        if self._codec.context is None:
            return [(0, self.rows)]
        deviations = self._latents[:, :, : self.rows].float().square().mean(dim=(0, 1))
        first = max(0, int(deviations.argmax()) - self._spot_rows // 2)
        return [(first, min(self.rows, first + self._spot_rows))]


def _decode_latents(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    return vae.decode(latents, return_dict=False)[0]


class WholePiece(LatentPieces):
    """Latents that are decoded all at once, of which the sound begins at a frame."""

    def __init__(self, codec: WaveCodec, latents: torch.Tensor, first_frame: int = 0) -> None:
        layout = codec.latent_layout
        super().__init__(codec, latents, latents.shape[2] * layout.samples_per_row / layout.rate)
        self._whole = torch.from_numpy(codec.decode(latents)[:, first_frame:])
        self.samples = self._whole.shape[1]
        self.rows = math.ceil(self.samples / self.samples_per_row)
        self.first_rows = self.max_rows = self.rows

    def decode(self, first: int, last: int) -> torch.Tensor:
        """Return the samples of the rows [first, last): (takes, samples, channels), float32, on the CPU."""
        return self._whole[:, first * self.samples_per_row : last * self.samples_per_row]


class OobleckCodec(WaveCodec):
    """Oobleck, a convolutional autoencoder whose encoder returns a distribution (arXiv 2407.14358)."""

    def __init__(
        self, vae: Any, layout: WaveLayout, device: torch.device, stages: ModelStages, batch_splitter: BatchSplitter
    ) -> None:
        super().__init__(vae, layout, device, stages, batch_splitter)
        self.context = oobleck_context(vae.config.downsampling_ratios)

    def encode(self, samples: torch.Tensor, rows: int, randomness: Sequence[torch.Generator]) -> torch.Tensor:
        """Encode samples padded with silence, or truncated, to `rows`; each take is drawn by its own generator."""
        frames = rows * self.latent_layout.samples_per_row
        padded = torch.nn.functional.pad(samples, (0, max(0, frames - samples.shape[1])))[:, :frames]
        both = self._run_encoder(lambda given: _moments(self.vae.encode(given).latent_dist), padded)
        mean, deviation = both.chunk(2)
        drawn = [torch.randn(mean.shape, generator=generator).to(mean.device) for generator in randomness]
        return torch.cat([mean + deviation * noise for noise in drawn])


def _moments(distribution: Any) -> torch.Tensor:
    """Return the mean and the standard deviation of a distribution, one after the other."""
    return torch.cat([distribution.mean, distribution.std])


def oobleck_context(ratios: Sequence[int]) -> int | None:
    """Return the rows of latents on each side that a sample of Oobleck depends on.

    None for odd ratios, with which the decoder's blocks aren't aligned with the rows.

    >>> oobleck_context([2, 4, 4, 8, 8]), oobleck_context([3])
    (10, None)
    """
    if any(ratio % 2 for ratio in ratios):
        return None
    reach = 3
    for ratio in ratios:
        reach += 3 * (1 + 3 + 9)  # three residual units with seven taps and these dilations
        reach = math.ceil(reach / ratio) + 1
    return reach + 3


PEAK_AMPLITUDE = 10.0 ** (-1.0 / 20.0)
"""Peak of each take of `NormalizedOobleckCodec`: -1 dBFS."""

MIN_PEAK_AMPLITUDE = 1e-6
"""Peak below which a take is silence, and its level is left alone."""


class NormalizedOobleckCodec(OobleckCodec):
    """Oobleck whose takes have one peak, and whose init latents are the mean of the encoder's distribution."""

    def encode(self, samples: torch.Tensor, rows: int, randomness: Sequence[torch.Generator]) -> torch.Tensor:
        """Encode samples padded with silence, or truncated, to `rows`; all takes have the same."""
        frames = rows * self.latent_layout.samples_per_row
        padded = torch.nn.functional.pad(samples, (0, max(0, frames - samples.shape[1])))[:, :frames]
        mean = self._run_encoder(lambda given: self.vae.encode(given).latent_dist.mode(), padded)
        return mean.expand(len(randomness), -1, -1)

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, frames: int | None = None) -> NDArray[np.float32]:
        """Decode latents to waveforms of the same peak, (takes, frames, channels)."""
        samples = super().decode(latents)
        peaks = np.abs(samples).max(axis=(1, 2), keepdims=True)
        return (samples * (PEAK_AMPLITUDE / np.maximum(peaks, MIN_PEAK_AMPLITUDE)))[:, :frames]

    def pieces(self, latents: torch.Tensor, seconds: float) -> "LatentPieces":
        """Return latents as a source of one piece, because the level of any part depends on the whole."""
        return WholePiece(self, latents)


class SameCodec(WaveCodec):
    """SAME, an autoencoder of transformers whose attention reaches a few latents (arXiv 2605.17991)."""

    def __init__(
        self, vae: Any, layout: WaveLayout, device: torch.device, stages: ModelStages, batch_splitter: BatchSplitter
    ) -> None:
        super().__init__(vae, layout, device, stages, batch_splitter)
        config = vae.config
        depths, strides = list(config.encoder_transformer_depths), list(config.encoder_strides)
        self.context = same_context(depths, strides, int(config.sliding_window))

    def encode(self, samples: torch.Tensor, rows: int, randomness: Sequence[torch.Generator]) -> torch.Tensor:
        """Encode samples to latents padded with zeros, or truncated, to `rows`; all takes have the same."""
        latents = self._run_encoder(lambda given: self.vae.encode(given).latents, samples)
        fitted = torch.nn.functional.pad(latents, (0, max(0, rows - latents.shape[2])))[:, :, :rows]
        return fitted.expand(len(randomness), -1, -1)

    def bound(self, samples: torch.Tensor) -> torch.Tensor:
        """Return decoded samples within full scale, as the stock pipeline delivers them."""
        return samples.clamp(-1.0, 1.0)


def same_context(depths: Sequence[int], strides: Sequence[int], window: int) -> int:
    """Return the rows of latents on each side that a sample of SAME depends on.

    Each layer of a block reaches `window` rows of the block; the first block of the decoder has the latents' rows, the
    following ones finer rows.

    >>> same_context([6], [16], 1)
    6
    """
    reach, fineness = 0.0, 1
    for depth, stride in zip(reversed(depths), reversed(strides), strict=True):
        reach += depth * window / fineness
        fineness *= stride
    return math.ceil(reach)
