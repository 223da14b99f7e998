"""The vocoder, piece by piece: any part of a sound can be had without the rest, exactly as it is in the whole.

A vocoder of convolutions sees only so many mel frames before and after a sample. Given these as context, a piece comes
out as it would in the whole, so that a sound can be heard from its first piece on; and a loop, whose context goes
around its end, has no seam.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from timbred.engine.adapters.notes import NamedNote
from timbred.engine.adapters.precision import precision_of
from timbred.engine.adapters.tones import Note


@dataclass(frozen=True)
class Context:
    """Mel frames before and after a frame that its samples depend on."""

    before: int
    after: int


def context_of(vocoder: Any) -> Context:
    """What a vocoder needs around a piece, from its own config: `SpeechT5HifiGan` (HiFi-GAN, arXiv 2010.05646), or
    `SpectralVocoder`."""
    return _of_spectral(vocoder) if type(vocoder).__name__ == "SpectralVocoder" else _of_hifigan(vocoder.config)


def _of_spectral(vocoder: Any) -> Context:
    """Blocks of seven frames, one to embed and one a block; then windows that overlap."""
    convolved = 3 * (int(vocoder.config.blocks) + 1)
    overlapping = (vocoder.hop - 1 + (vocoder.fft_size - vocoder.hop) // 2) // vocoder.hop
    return Context(convolved + overlapping, convolved + overlapping)


def _of_hifigan(config: Any) -> Context:
    """Walk back from the samples of one frame, layer by layer, to the first and last frame that reach them."""
    first, last = 0, math.prod(config.upsample_rates) - 1
    first, last = first - 3, last + 3  # the last convolution has seven taps, as the first
    blocks = max(
        sum((kernel - 1) * (dilation + 1) // 2 for dilation in dilations)
        for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
    )
    layers = list(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True))
    for rate, kernel in reversed(layers):
        first, last = first - blocks, last + blocks
        padding = (kernel - rate) // 2
        first, last = -((kernel - 1 - padding - first) // rate), (last + padding) // rate
    return Context(3 - first, last + 3)


class Vocoding:
    """A mel spectrogram, (takes, frames, bands), on its way to sound.

    `circular`: what follows the last frame is the first one. `note` is the pitch of its tones, which only
    `SpectralVocoder` can be told.
    """

    def __init__(self, vocoder: Any, mel: torch.Tensor, circular: bool = False, note: NamedNote | None = None) -> None:
        self.vocoder = vocoder
        self.mel = mel
        self.circular = circular
        self.hop = math.prod(int(rate) for rate in vocoder.config.upsample_rates)
        self.context = context_of(vocoder)
        self._counts_frames = type(vocoder).__name__ == "SpectralVocoder"
        self._note = None if note is None else Note(note.hertz, mel.shape[1] if circular else 0, note.share)

    @property
    def frames(self) -> int:
        """Mel frames of the whole."""
        return self.mel.shape[1]

    @property
    def samples(self) -> int:
        """Samples of the whole: a hop for each frame; some vocoders end a little later, a loop never does."""
        config = self.vocoder.config
        if self.circular or self._counts_frames:
            return self.frames * self.hop
        length = self.frames
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            length = (length - 1) * rate - 2 * ((kernel - rate) // 2) + kernel
        return length

    def whole(self) -> torch.Tensor:
        """All samples at once, (takes, samples), float32 on the CPU."""
        return self.piece(0, self.frames)

    def piece(self, first: int, last: int) -> torch.Tensor:
        """The samples of mel frames `first` to `last`, the latter not among them: (takes, samples), float32, CPU.

        The last piece has the few samples more that a vocoder gives after its last frame; a loop's hasn't.
        """
        if self.circular:
            start, end = first - self.context.before, last + self.context.after
        else:
            start, end = max(0, first - self.context.before), min(self.frames, last + self.context.after)
        places = torch.arange(start, end, device=self.mel.device) % self.frames
        samples = self._sounded(self.mel[:, places], places)
        begin = (first - start) * self.hop
        if last == self.frames and not self.circular:
            return samples[:, begin:]
        return samples[:, begin : begin + (last - first) * self.hop]

    def _sounded(self, mel: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        given = mel.to(precision_of(self.vocoder))
        samples = self.vocoder(given, places, self._note) if self._counts_frames else self.vocoder(given)
        samples = samples.float().cpu()
        return samples if samples.dim() == 2 else samples[None]
