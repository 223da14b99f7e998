"""The vocoder in pieces: any part of the audio, equal to the same part of the whole.

A convolutional vocoder depends on a limited number of mel frames around a sample. With these as context a piece equals
that part of the whole, so playback can start with the first piece; a loop, whose context wraps around, has no seam.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from timbred.engine.codecs.mel import Analysis, loudest_frames
from timbred.engine.codecs.note_synthesis import NamedNote, Note
from timbred.engine.device import precision_of


@dataclass(frozen=True)
class VocoderContext:
    """Mel frames before and after a frame that its samples depend on."""

    before: int
    after: int


def context_of(vocoder: Any) -> VocoderContext:
    """Return the context of a vocoder from its configuration.

    Known are `SpectralVocoder` and `SpeechT5HifiGan` (HiFi-GAN, arXiv 2010.05646).
    """
    return _of_spectral(vocoder) if type(vocoder).__name__ == "SpectralVocoder" else _of_hifigan(vocoder.config)


def _of_spectral(vocoder: Any) -> VocoderContext:
    """Blocks of seven frames, one embedding and one for each block; then overlapping windows."""
    convolved = 3 * (int(vocoder.config.blocks) + 1)
    overlapping = (vocoder.hop - 1 + (vocoder.fft_size - vocoder.hop) // 2) // vocoder.hop
    return VocoderContext(convolved + overlapping, convolved + overlapping)


def _of_hifigan(config: Any) -> VocoderContext:
    """Trace the samples of one frame back, layer by layer, to the first and last frame they depend on."""
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
    return VocoderContext(3 - first, last + 3)


class ChunkedVocoder:
    """A log-mel spectrogram, (takes, frames, bands), that is vocoded in pieces.

    Args:
        vocoder: The model's vocoder.
        mel: Log-mel spectrogram.
        circular: True if the first frame follows the last one.
        note: Pitch of the tones, for `SpectralVocoder` only.
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
        """Samples of the whole: a hop for each frame, plus the tail of some vocoders unless circular."""
        config = self.vocoder.config
        if self.circular or self._counts_frames:
            return self.frames * self.hop
        length = self.frames
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            length = (length - 1) * rate - 2 * ((kernel - rate) // 2) + kernel
        return length

    def whole(self) -> torch.Tensor:
        """Return all samples, (takes, samples), float32 on the CPU."""
        return self.piece(0, self.frames)

    def piece(self, first: int, last: int) -> torch.Tensor:
        """Return the samples of mel frames [first, last): (takes, samples), float32, CPU.

        The last piece includes the vocoder's tail, except for a loop.
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


SHORTEST_PIECE = 16
"""Mel frames of the first piece; each next one is twice as long, because context costs relatively less then."""

LONGEST_PIECE = 512
"""Maximum mel frames of a piece: the delay of another job between two of its steps."""

SPOT_REACH_FRAMES = 8
"""Mel frames on either side of a loud frame that are vocoded first to estimate the peak of the whole."""

SPOTS, FRAMES_A_SPOT = 3, 128
"""Maximum number of such spots, and frames for each spot, to keep their cost small.

With one spot the peak of 20 sounds of the embedded model was up to 9 dB too low, with three 2 dB, and half were exact.
"""

SPEED_SAFETY_FACTOR = 2.0
"""Safety factor on the measured vocoder speed, against gaps in playback."""


@dataclass(frozen=True)
class AudioPiece:
    """A part of the audio: samples, (takes, frames), float32, on the CPU, from sample `first` on."""

    first: int
    samples: torch.Tensor


def can_start_playback(ready: float, next_piece: float, left: float, pace: float) -> bool:
    """Tell if playback that starts now will not overtake the vocoder.

    Args:
        ready: Seconds of audio that are ready.
        next_piece: Seconds of audio of the next piece.
        left: Seconds of audio not rendered yet, including the next piece.
        pace: Seconds that the vocoder needs for a second of audio.
    """
    slow = SPEED_SAFETY_FACTOR * pace
    return left <= 0.0 or (ready >= slow * next_piece and ready + left >= slow * left)


class VocoderStream:
    """A decoded spectrogram that is vocoded piece by piece.

    Args:
        vocoding: The spectrogram and its vocoder.
        frames: Requested number of samples; the attribute is the number that will come.
        rate: Sample rate in Hz.
        analysis: Mel analysis, to find the loudest frames.
        make: Runs a vocoder call and checks its result.
        clock: Clock in seconds.

    Attributes:
        peak: Estimated peak of the whole: that of the loudest spots.
    """

    def __init__(
        self,
        vocoding: ChunkedVocoder,
        frames: int,
        rate: int,
        analysis: Analysis,
        make: Callable[[Callable[[], torch.Tensor]], torch.Tensor],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.frames = min(frames, vocoding.samples)
        self.rate = rate
        self._vocoding = vocoding
        self._make = make
        self._clock = clock
        self._made: list[torch.Tensor] = []
        self._samples_made = 0
        self._samples_heard = 0
        self._mel_made = 0
        self._length = SHORTEST_PIECE
        self._spent = 0.0
        self._mel_spent = 0
        self.peak = self._estimate_peak(analysis)

    @property
    def done(self) -> bool:
        """True when all requested samples are rendered."""
        return self._samples_made >= self.frames or self._mel_made >= self._vocoding.frames

    @property
    def waveforms(self) -> torch.Tensor:
        """All samples rendered so far, (takes, samples)."""
        return torch.cat(self._made, dim=1)

    @torch.inference_mode()
    def go_on(self) -> AudioPiece | None:
        """Render the next piece, and return the audio that can be played by now.

        That is all audio held back so far, or None while playback would overtake the vocoder.
        """
        last = min(self._vocoding.frames, self._mel_made + self._length)
        made = self._timed(self._mel_made, last)[:, : self.frames - self._samples_made]
        self._made.append(made)
        self._samples_made += made.shape[1]
        self._mel_made = last
        self._length = min(LONGEST_PIECE, 2 * self._length)
        return self._heard() if self._may_be_heard() else None

    def _estimate_peak(self, analysis: Analysis) -> float:
        frames = self._vocoding.frames
        count = min(SPOTS, max(1, frames // FRAMES_A_SPOT))
        spots = [
            self._timed(max(0, loud - SPOT_REACH_FRAMES), min(frames, loud + SPOT_REACH_FRAMES))
            for loud in loudest_frames(self._vocoding.mel, analysis, count, 2 * SPOT_REACH_FRAMES)
        ]
        return max(float(spot.abs().max()) for spot in spots)

    def _heard(self) -> AudioPiece:
        first, self._samples_heard = self._samples_heard, self._samples_made
        return AudioPiece(first, self.waveforms[:, first:])

    def _may_be_heard(self) -> bool:
        if self._samples_heard or self.done:
            return True
        hop = self._vocoding.hop / self.rate
        left = (self._vocoding.frames - self._mel_made) * hop
        pace = self._spent / (self._mel_spent * hop)
        return can_start_playback(self._mel_made * hop, min(left, self._length * hop), left, pace)

    def _timed(self, first: int, last: int) -> torch.Tensor:
        began = self._clock()
        samples = self._make(lambda: self._vocoding.piece(first, last))
        self._spent += self._clock() - began
        self._mel_spent += last - first
        return samples
