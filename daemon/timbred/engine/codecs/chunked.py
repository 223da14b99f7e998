"""The vocoder in pieces: any part of the audio, equal to the same part of the whole.

A convolutional vocoder depends on a limited number of mel frames around a sample. With these as context a piece equals
that part of the whole, so playback can start with the first piece; a loop, whose context wraps around, has no seam.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.codecs.mel import loudest_frames
from timbred.engine.device import precision_of


@dataclass(frozen=True)
class VocoderContext:
    """Mel frames before and after a frame that its samples depend on."""

    before: int
    after: int


def context_of(vocoder: Any) -> VocoderContext:
    """Return the context of `SpeechT5HifiGan` (HiFi-GAN, arXiv 2010.05646) from its configuration.

    The samples of one frame are traced back, layer by layer, to the first and last frame they depend on.
    """
    config = vocoder.config
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
    """

    def __init__(self, vocoder: Any, mel: torch.Tensor, circular: bool = False) -> None:
        self.vocoder = vocoder
        self.mel = mel
        self.circular = circular
        self.hop = math.prod(int(rate) for rate in vocoder.config.upsample_rates)
        self.context = context_of(vocoder)

    @property
    def frames(self) -> int:
        """Mel frames of the whole."""
        return self.mel.shape[1]

    @property
    def samples(self) -> int:
        """Samples of the whole: a hop for each frame, plus the tail of some vocoders unless circular."""
        config = self.vocoder.config
        if self.circular:
            return self.frames * self.hop
        length = self.frames
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            length = (length - 1) * rate - 2 * ((kernel - rate) // 2) + kernel
        return length

    def vocode(self) -> torch.Tensor:
        """Return all samples, (takes, samples), float32 on the CPU."""
        return self.vocode_piece(0, self.frames)

    def vocode_piece(self, first: int, last: int) -> torch.Tensor:
        """Return the samples of mel frames [first, last): (takes, samples), float32, CPU.

        The last piece includes the vocoder's tail, except for a loop.
        """
        if self.circular:
            start, end = first - self.context.before, last + self.context.after
        else:
            start, end = max(0, first - self.context.before), min(self.frames, last + self.context.after)
        frame_numbers = torch.arange(start, end, device=self.mel.device) % self.frames
        samples = self._run_vocoder(self.mel[:, frame_numbers])
        first_sample = (first - start) * self.hop
        if last == self.frames and not self.circular:
            return samples[:, first_sample:]
        return samples[:, first_sample : first_sample + (last - first) * self.hop]

    def _run_vocoder(self, mel: torch.Tensor) -> torch.Tensor:
        samples = self.vocoder(mel.to(precision_of(self.vocoder))).float().cpu()
        return samples if samples.dim() == 2 else samples[None]


FIRST_PIECE_FRAMES = 16
"""Mel frames of the first piece; each next one is twice as long, because context costs relatively less then."""

MAX_PIECE_FRAMES = 512
"""Maximum mel frames of a piece: the delay of another job between two of its steps."""

SPOT_REACH_FRAMES = 8
"""Mel frames on either side of a loud frame that are vocoded first to estimate the peak of the whole."""

MAX_SPOTS, FRAMES_PER_SPOT = 3, 128
"""Maximum number of such spots, and frames for each spot, to keep their cost small.

With one spot the peak of 20 sounds of a small AudioLDM 2 model was up to 9 dB too low, with three 2 dB, and half were
exact.
"""

SPEED_SAFETY_FACTOR = 2.0
"""Safety factor on the measured vocoder speed, against gaps in playback."""


@dataclass(frozen=True)
class AudioPiece:
    """A part of the audio: samples, (takes, frames, channels), float32, on the CPU, from sample `first` on."""

    first: int
    samples: torch.Tensor


def can_start_playback(ready_s: float, next_piece_s: float, remaining_s: float, vocoder_s_per_s: float) -> bool:
    """Tell if playback that starts now will not overtake the vocoder.

    Args:
        ready_s: Seconds of audio that are ready.
        next_piece_s: Seconds of audio of the next piece.
        remaining_s: Seconds of audio not rendered yet, including the next piece.
        vocoder_s_per_s: Seconds that the vocoder needs for a second of audio.
    """
    safe_s_per_s = SPEED_SAFETY_FACTOR * vocoder_s_per_s
    return remaining_s <= 0.0 or (
        ready_s >= safe_s_per_s * next_piece_s and ready_s + remaining_s >= safe_s_per_s * remaining_s
    )


class PieceSource(Protocol):
    """A sound that can be decoded in pieces of whole rows: mel frames, or latents.

    Attributes:
        rows: Rows of the whole.
        samples_per_row: Samples of a row.
        samples: Samples of the whole.
        first_rows: Rows of the first piece; each next one is twice as long, because context costs relatively less.
        max_rows: Maximum rows of a piece: the delay of another job between two of its steps.
    """

    rows: int
    samples_per_row: int
    samples: int
    first_rows: int
    max_rows: int

    def decode(self, first: int, last: int) -> torch.Tensor:
        """Return the samples of the rows [first, last): (takes, samples, channels), float32, on the CPU."""
        ...

    def loud_spots(self) -> list[tuple[int, int]]:
        """Return ranges of rows that are probably the loudest."""
        ...


class VocoderPieces:
    """A decoded spectrogram whose samples come from the vocoder in pieces.

    Args:
        chunked_vocoder: The spectrogram and its vocoder.
        run_vocoder: Runs a vocoder call and checks its result.
    """

    first_rows = FIRST_PIECE_FRAMES
    max_rows = MAX_PIECE_FRAMES

    def __init__(
        self,
        chunked_vocoder: ChunkedVocoder,
        run_vocoder: Callable[[Callable[[], torch.Tensor]], torch.Tensor],
    ) -> None:
        self._vocoder = chunked_vocoder
        self._run_vocoder = run_vocoder
        self.rows = chunked_vocoder.frames
        self.samples_per_row = chunked_vocoder.hop
        self.samples = chunked_vocoder.samples

    def decode(self, first: int, last: int) -> torch.Tensor:
        """Return the samples of the mel frames [first, last): (takes, samples, 1), float32, on the CPU."""
        return self._run_vocoder(lambda: self._vocoder.vocode_piece(first, last))[..., None]

    def loud_spots(self) -> list[tuple[int, int]]:
        """Return the surroundings of the loudest mel frames."""
        count = min(MAX_SPOTS, max(1, self.rows // FRAMES_PER_SPOT))
        loudest = loudest_frames(self._vocoder.mel, count, 2 * SPOT_REACH_FRAMES)
        return [(max(0, loud - SPOT_REACH_FRAMES), min(self.rows, loud + SPOT_REACH_FRAMES)) for loud in loudest]


class PieceStream:
    """A sound that is decoded piece by piece.

    Args:
        source: Decodes the pieces.
        frames: Requested number of samples; the attribute is the number that will come.
        rate: Sample rate in Hz.
        clock: Clock in seconds.

    Attributes:
        peak: Estimated peak of the whole: that of the loudest spots.
    """

    def __init__(
        self, source: PieceSource, frames: int, rate: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.frames = min(frames, source.samples)
        self.rate = rate
        self._source = source
        self._clock = clock
        self._pieces: list[torch.Tensor] = []
        self._rendered_samples = 0
        self._released_samples = 0
        self._rendered_rows = 0
        self._next_rows = source.first_rows
        self._spent_s = 0.0
        self._timed_rows = 0
        self.peak = max(float(self._decode_timed(*spot).abs().max()) for spot in source.loud_spots())

    @property
    def done(self) -> bool:
        """True when all requested samples are rendered."""
        return self._rendered_samples >= self.frames or self._rendered_rows >= self._source.rows

    @property
    def waveforms(self) -> torch.Tensor:
        """All samples rendered so far, (takes, samples, channels)."""
        return torch.cat(self._pieces, dim=1)

    @torch.inference_mode()
    def render_piece(self) -> AudioPiece | None:
        """Render the next piece, and return the audio that can be played by now.

        That is all audio held back so far, or None while playback would overtake the decoder.
        """
        last = min(self._source.rows, self._rendered_rows + self._next_rows)
        samples = self._decode_timed(self._rendered_rows, last)[:, : self.frames - self._rendered_samples]
        self._pieces.append(samples)
        self._rendered_samples += samples.shape[1]
        self._rendered_rows = last
        self._next_rows = min(self._source.max_rows, 2 * self._next_rows)
        return self._release() if self._can_release() else None

    def _release(self) -> AudioPiece:
        first, self._released_samples = self._released_samples, self._rendered_samples
        return AudioPiece(first, self.waveforms[:, first:])

    def _can_release(self) -> bool:
        if self._released_samples or self.done:
            return True
        row_s = self._source.samples_per_row / self.rate
        remaining_s = (self._source.rows - self._rendered_rows) * row_s
        decoder_s_per_s = self._spent_s / (self._timed_rows * row_s)
        next_s = min(remaining_s, self._next_rows * row_s)
        return can_start_playback(self._rendered_rows * row_s, next_s, remaining_s, decoder_s_per_s)

    def _decode_timed(self, first: int, last: int) -> torch.Tensor:
        started_at = self._clock()
        samples = self._source.decode(first, last)
        self._spent_s += self._clock() - started_at
        self._timed_rows += last - first
        return samples


class RenderedPiece:
    """A rendered sound as a source of one piece."""

    def __init__(self, waveforms: NDArray[np.float32]) -> None:
        self._samples = torch.from_numpy(waveforms)
        self.rows = self.first_rows = self.max_rows = 1
        self.samples = self.samples_per_row = self._samples.shape[1]

    def decode(self, first: int, last: int) -> torch.Tensor:
        """Return the samples, (takes, samples, channels)."""
        return self._samples[:, first * self.samples : last * self.samples]

    def loud_spots(self) -> list[tuple[int, int]]:
        """Return the only row."""
        return [(0, 1)]
