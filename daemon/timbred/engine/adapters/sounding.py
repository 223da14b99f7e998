"""A sound that is heard while the rest of it is still made: the vocoder's pieces, in order, as soon as that is safe."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from timbred.engine.adapters.spectrogram import Analysis, loudest_frames
from timbred.engine.adapters.vocoding import Vocoding

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
class Piece:
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


class Sounding:
    """A decoded spectrogram on its way out of the vocoder.

    `frames` is the number of samples that will come; `peak` is the loudest of them as far as can be told before all
    are made: that of the spectrogram's loudest spots.
    """

    def __init__(
        self,
        vocoding: Vocoding,
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
    def go_on(self) -> Piece | None:
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

    def _heard(self) -> Piece:
        first, self._samples_heard = self._samples_heard, self._samples_made
        return Piece(first, self.waveforms[:, first:])

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
