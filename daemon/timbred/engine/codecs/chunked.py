"""The vocoder, piece by piece: any part of a sound can be had without the rest, exactly as it is in the whole.

A vocoder of convolutions sees only so many mel frames before and after a sample. Given these as context, a piece comes
out as it would in the whole, so that a sound can be heard from its first piece on; and a loop, whose context goes
around its end, has no seam.
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
    """What a vocoder needs around a piece, from its own config: `SpeechT5HifiGan` (HiFi-GAN, arXiv 2010.05646), or
    `SpectralVocoder`."""
    return _of_spectral(vocoder) if type(vocoder).__name__ == "SpectralVocoder" else _of_hifigan(vocoder.config)


def _of_spectral(vocoder: Any) -> VocoderContext:
    """Blocks of seven frames, one to embed and one a block; then windows that overlap."""
    convolved = 3 * (int(vocoder.config.blocks) + 1)
    overlapping = (vocoder.hop - 1 + (vocoder.fft_size - vocoder.hop) // 2) // vocoder.hop
    return VocoderContext(convolved + overlapping, convolved + overlapping)


def _of_hifigan(config: Any) -> VocoderContext:
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
    return VocoderContext(3 - first, last + 3)


class ChunkedVocoder:
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


SHORTEST_PIECE = 16
"""Mel frames of the first piece: what is heard soonest. Each next one is twice as long, for context costs less then."""

LONGEST_PIECE = 512
"""Mel frames of a piece at most: what another job waits between two of its steps."""

SPOT = 8
"""Mel frames on either side of a loud one that are made first, to know the level of the whole."""

SPOTS, FRAMES_A_SPOT = 3, 128
"""At most so many such spots, and one for so many frames: they are to cost little beside the whole. (With one, the peak
of 20 sounds of the embedded model was guessed up to 9 dB too low; with three, 2 dB, and half of them exactly.)"""

MARGIN = 2.0
"""Times slower than measured that the next pieces may be without a gap in what is heard."""


@dataclass(frozen=True)
class AudioPiece:
    """A part of the sound: samples (takes, frames), float32, on the CPU, from sample `first` on."""

    first: int
    samples: torch.Tensor


def may_be_heard(ready: float, next_piece: float, left: float, pace: float) -> bool:
    """Whether playback that begins now won't overtake the vocoder.

    All in seconds of sound: what is `ready`, how long the `next_piece` will be, and what is `left` with it. `pace` is
    how many seconds a second of sound takes to make.
    """
    slow = MARGIN * pace
    return left <= 0.0 or (ready >= slow * next_piece and ready + left >= slow * left)


class VocoderStream:
    """A decoded spectrogram on its way out of the vocoder.

    `frames` is the number of samples that will come; `peak` is the loudest of them as far as can be told before all
    are made: that of the spectrogram's loudest spots.
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
        """`frames` is the number of samples that are wanted; `make` calls the vocoder and refuses what isn't a number;
        `clock` is in seconds."""
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
        self.peak = self._loudest(analysis)

    @property
    def done(self) -> bool:
        """Whether all samples that are wanted are made."""
        return self._samples_made >= self.frames or self._mel_made >= self._vocoding.frames

    @property
    def waveforms(self) -> torch.Tensor:
        """All that was made so far, (takes, samples)."""
        return torch.cat(self._made, dim=1)

    @torch.inference_mode()
    def go_on(self) -> AudioPiece | None:
        """Make the next piece, and give what may be heard by now: with this piece all that was held back, or nothing
        while playback would overtake the vocoder."""
        last = min(self._vocoding.frames, self._mel_made + self._length)
        made = self._timed(self._mel_made, last)[:, : self.frames - self._samples_made]
        self._made.append(made)
        self._samples_made += made.shape[1]
        self._mel_made = last
        self._length = min(LONGEST_PIECE, 2 * self._length)
        return self._heard() if self._may_be_heard() else None

    def _loudest(self, analysis: Analysis) -> float:
        frames = self._vocoding.frames
        count = min(SPOTS, max(1, frames // FRAMES_A_SPOT))
        spots = [
            self._timed(max(0, loud - SPOT), min(frames, loud + SPOT))
            for loud in loudest_frames(self._vocoding.mel, analysis, count, 2 * SPOT)
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
        return may_be_heard(self._mel_made * hop, min(left, self._length * hop), left, pace)

    def _timed(self, first: int, last: int) -> torch.Tensor:
        began = self._clock()
        samples = self._make(lambda: self._vocoding.piece(first, last))
        self._spent += self._clock() - began
        self._mel_spent += last - first
        return samples
