"""A sound that is heard before its end is made: what `chain` does to a whole take, done to its pieces as they come.

Of the chain's steps only those are here that need no more than a piece: fit, fade, resample, channels and level. What
needs the whole sound (trim, a loudness to reach, a loop's seam) is never heard early. The level needs the whole sound
too, for it follows the loudest sample; but that lies in one of the spectrogram's loudest spots nearly always, and the
engine makes these first. So the gain is one for all pieces, and that of the finished take but for what little the
guess is off; where another spot is louder, a limiter behind it holds it, and the file is not concerned.
"""

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from timbred.audio import Clip, SampleRate, Samples, amplitude, frames_in
from timbred.dsp.loudness import SILENCE
from timbred.dsp.pipeline import channels
from timbred.dsp.trim_fade import (
    Lengths,
    fade_in_examined,
    fade_in_lengths,
    fade_out_examined,
    fade_out_lengths,
    rise,
    shortened,
    with_fades,
)
from timbred.render_settings import AUTOMATIC_FADE_IN, AUTOMATIC_FADE_OUT, RenderSettings


@dataclass(frozen=True, eq=False)
class StreamPiece:
    """A part of a sound as the engine made it. `samples` has shape (frames, channels) at `rate`.

    `first` is its first frame, `frames` how many the whole has, `last` whether it ends with this piece, `peak` the
    whole's loudest sample as far as known.
    """

    samples: Samples
    rate: int
    first: int
    frames: int
    peak: float
    last: bool


class StreamedSound:
    """Finishes the pieces of one sound at a rate, in order."""

    def __init__(self, settings: RenderSettings, first: StreamPiece, rate: int) -> None:
        """`first` is the first piece, which isn't taken in yet; `rate` is in Hz, the device's."""
        self._settings = settings
        self._gain = _gain(settings, first.peak)
        self._frames = _fitting(settings, first)
        self._edges = _Edges(settings, first.rate, self._frames, first.samples.shape[1])
        self._taken = 0
        self._given = 0
        self.frames = round(self._frames * rate / first.rate)
        """Frames of the whole at the device's rate."""
        self._stream = None
        if rate != first.rate:
            count = first.samples.shape[1]
            self._stream = soxr.ResampleStream(first.rate, rate, count, dtype="float32", quality="VHQ")

    @property
    def done(self) -> bool:
        """Whether all frames were given."""
        return self._given >= self.frames

    def take(self, piece: StreamPiece) -> Samples:
        """What can be heard once this piece is there, (frames, channels); the fades and the converter hold some of it
        back until the next piece. After the last one exactly `frames` were given in all.

        Raises:
            ValueError: it isn't the piece that follows.
        """
        if piece.first != self._taken:
            raise ValueError(f"the piece begins with frame {piece.first}; the next one is {self._taken}")
        self._taken += piece.samples.shape[0]
        last = piece.last or self._taken >= self._frames
        if self.done:
            return piece.samples[:0]
        samples = self._edges.take(piece.samples[: max(0, self._frames - piece.first)], last) * np.float32(self._gain)
        if self._stream is not None:
            samples = self._stream.resample_chunk(np.ascontiguousarray(samples), last=last)
        samples = self._exactly(samples, last)
        self._given += samples.shape[0]
        clip = Clip(np.ascontiguousarray(samples, dtype=np.float32), SampleRate(piece.rate))
        return channels(clip, self._settings).samples

    def _exactly(self, samples: Samples, last: bool) -> Samples:
        left = self.frames - self._given
        missing = max(0, left - samples.shape[0]) if last else 0
        return np.pad(samples[:left], ((0, missing), (0, 0)))


class _Edges:
    """The fades of a sound of so many `frames` that comes in pieces, as `edges.with_fades` makes them.

    No frame is given before the fade in is known, and none of the end before the fade out is. A sound so short that the
    two depend on the same frames is held back as a whole.
    """

    def __init__(self, settings: RenderSettings, rate: int, frames: int, channels: int) -> None:
        self._settings = settings
        self._rate = rate
        self._frames = frames
        self._held = np.zeros((0, channels), np.float32)
        self._given = 0
        self._leads: Lengths | None = None
        self._tails: Lengths | None = None
        lead = frames_in(AUTOMATIC_FADE_IN if settings.fade_in is None else settings.fade_in, rate)
        tail = frames_in(AUTOMATIC_FADE_OUT if settings.fade_out is None else settings.fade_out, rate)
        if settings.fade_in is not None and settings.fade_out is not None:
            lead, tail = shortened(lead, tail, frames)
            self._leads, self._tails = np.full(channels, lead), np.full(channels, tail)
        self._examined = fade_in_examined(settings, rate), fade_out_examined(settings, rate)
        self._is_whole = self._leads is None and max(lead + tail, sum(self._examined)) > frames

    def take(self, samples: Samples, last: bool) -> Samples:
        """The frames that can be given now that these have come. After `last` no more come."""
        self._held = np.concatenate([self._held, samples])
        if self._is_whole:
            return with_fades(self._next(len(self._held)), self._settings, self._rate) if last else self._next(0)
        there = self._given + len(self._held)
        if self._leads is None and (last or there >= self._examined[0]):
            self._leads = fade_in_lengths(self._held, self._settings, self._rate)
        if self._tails is None and (last or self._settings.fade_out is not None):
            self._tails = fade_out_lengths(self._held, self._settings, self._rate)
        if self._leads is None:
            return self._next(0)
        known = there if self._tails is not None else min(there, self._frames - self._examined[1])
        places = np.arange(self._given, max(self._given, known))
        ready = self._next(len(places)).copy()
        self._fade(ready, self._leads, places)
        if self._tails is not None:
            self._fade(ready, self._tails, self._frames - 1 - places)
        return ready

    def _next(self, count: int) -> Samples:
        """The next frames of those that are held back."""
        ready, self._held = self._held[:count], self._held[count:]
        self._given += count
        return ready

    @staticmethod
    def _fade(samples: Samples, lengths: Lengths, distances: NDArray[np.int64]) -> None:
        """Fade each channel over its length; `distances` are the frames from the edge of the sound."""
        for channel, length in enumerate(lengths):
            inside = distances < length
            samples[inside, channel] *= rise(int(length))[distances[inside]]


def _gain(settings: RenderSettings, peak: float) -> float:
    if settings.peak is None or peak < amplitude(SILENCE):
        return 1.0
    return amplitude(settings.peak) / peak


def _fitting(settings: RenderSettings, piece: StreamPiece) -> int:
    """Frames of the whole that are wanted, at the piece's rate."""
    if settings.frames is None:
        return piece.frames
    return min(piece.frames, -(-settings.frames * piece.rate // settings.rate))


def can_be_early(settings: RenderSettings) -> bool:
    """Whether a sound finished so can be heard before its end is made."""
    return not settings.trim and not settings.loop and settings.loudness is None
