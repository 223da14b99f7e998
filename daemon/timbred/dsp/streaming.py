"""The pipeline of `timbred.dsp.pipeline` for sounds that are played while they are rendered, piece by piece.

Only the steps that need no more than a piece are applied: fit, fade, resample, channels and level. Sounds that need a
step over the whole (trim, a target loudness, a loop's crossfade) are not streamed. The level depends on the loudest
sample of the whole, which is nearly always in one of the loudest regions of the spectrogram; the engine renders these
first. All pieces get one gain, which differs from that of the finished take only by the error of this estimate. If
another region is louder, the player's limiter holds the peak; the file isn't affected.
"""

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from timbred.audio import Clip, SampleRate, Samples, amplitude, frames_in
from timbred.dsp.fades import (
    Lengths,
    add_fades,
    fade_curve,
    fade_in_examined,
    fade_in_lengths,
    fade_out_examined,
    fade_out_lengths,
    limit_fades,
)
from timbred.dsp.pipeline import SILENCE_DBFS, convert_channels
from timbred.render_settings import AUTOMATIC_FADE_IN_S, AUTOMATIC_FADE_OUT_S, RenderSettings


@dataclass(frozen=True, eq=False)
class StreamPiece:
    """A rendered part of a sound.

    Attributes:
        samples: shape (frames, channels).
        rate: in Hz.
        first: the number of its first frame.
        frames: frames of the whole sound.
        peak: the loudest sample of the whole sound as far as it is known.
        last: True for the sound's last piece.
    """

    samples: Samples
    rate: int
    first: int
    frames: int
    peak: float
    last: bool


class StreamedSound:
    """Processes the pieces of one sound in order.

    Args:
        settings: the settings of the take.
        first: the first piece; `process` must still be called with it.
        rate: the output device's, in Hz.

    Attributes:
        frames: frames of the whole sound at the device's rate.
    """

    def __init__(self, settings: RenderSettings, first: StreamPiece, rate: int) -> None:
        self._settings = settings
        self._gain = _gain(settings, first.peak)
        self._frames = _total_frames(settings, first)
        self._edges = _StreamedFades(settings, first.rate, self._frames, first.samples.shape[1])
        self._frames_received = 0
        self._frames_returned = 0
        self.frames = round(self._frames * rate / first.rate)
        self._stream = None
        if rate != first.rate:
            count = first.samples.shape[1]
            self._stream = soxr.ResampleStream(first.rate, rate, count, dtype="float32", quality="VHQ")

    @property
    def done(self) -> bool:
        """True if all frames were returned."""
        return self._frames_returned >= self.frames

    def process(self, piece: StreamPiece) -> Samples:
        """Return the frames that can be played once this piece has arrived, shape (frames, channels).

        The fades and the converter hold some frames back until the next piece. After the last piece exactly `frames`
        frames have been returned in all.

        Raises:
            ValueError: the piece doesn't begin where the last one ended.
        """
        if piece.first != self._frames_received:
            raise ValueError(f"the piece begins with frame {piece.first}; the next one is {self._frames_received}")
        self._frames_received += piece.samples.shape[0]
        last = piece.last or self._frames_received >= self._frames
        if self.done:
            return piece.samples[:0]
        samples = self._edges.process(piece.samples[: max(0, self._frames - piece.first)], last) * np.float32(
            self._gain
        )
        if self._stream is not None:
            samples = self._stream.resample_chunk(np.ascontiguousarray(samples), last=last)
        samples = self._fit_frames(samples, last)
        self._frames_returned += samples.shape[0]
        clip = Clip(np.ascontiguousarray(samples, dtype=np.float32), SampleRate(piece.rate))
        return convert_channels(clip, self._settings).samples

    def _fit_frames(self, samples: Samples, last: bool) -> Samples:
        left = self.frames - self._frames_returned
        missing = max(0, left - samples.shape[0]) if last else 0
        return np.pad(samples[:left], ((0, missing), (0, 0)))


class _StreamedFades:
    """The fades of a sound that arrives in pieces, equal to those of `trim_fade.add_fades` on the whole.

    No frame is returned before the fade in is known, and none of the end before the fade out is. A sound so short that
    both depend on the same frames is held back as a whole.
    """

    def __init__(self, settings: RenderSettings, rate: int, frames: int, channels: int) -> None:
        self._settings = settings
        self._rate = rate
        self._frames = frames
        self._held = np.zeros((0, channels), np.float32)
        self._frames_returned = 0
        self._leads: Lengths | None = None
        self._tails: Lengths | None = None
        lead = frames_in(AUTOMATIC_FADE_IN_S if settings.fade_in is None else settings.fade_in, rate)
        tail = frames_in(AUTOMATIC_FADE_OUT_S if settings.fade_out is None else settings.fade_out, rate)
        if settings.fade_in is not None and settings.fade_out is not None:
            lead, tail = limit_fades(lead, tail, frames)
            self._leads, self._tails = np.full(channels, lead), np.full(channels, tail)
        self._examined = fade_in_examined(settings, rate), fade_out_examined(settings, rate)
        self._is_whole = self._leads is None and max(lead + tail, sum(self._examined)) > frames

    def process(self, samples: Samples, last: bool) -> Samples:
        """Add samples, and return the frames whose fades are known; `last` marks the last call."""
        self._held = np.concatenate([self._held, samples])
        if self._is_whole:
            return add_fades(self._next(len(self._held)), self._settings, self._rate) if last else self._next(0)
        received = self._frames_returned + len(self._held)
        if self._leads is None and (last or received >= self._examined[0]):
            self._leads = fade_in_lengths(self._held, self._settings, self._rate)
        if self._tails is None and (last or self._settings.fade_out is not None):
            self._tails = fade_out_lengths(self._held, self._settings, self._rate)
        if self._leads is None:
            return self._next(0)
        known = received if self._tails is not None else min(received, self._frames - self._examined[1])
        places = np.arange(self._frames_returned, max(self._frames_returned, known))
        ready = self._next(len(places)).copy()
        self._fade(ready, self._leads, places)
        if self._tails is not None:
            self._fade(ready, self._tails, self._frames - 1 - places)
        return ready

    def _next(self, count: int) -> Samples:
        """Return the next `count` of the frames that are held back."""
        ready, self._held = self._held[:count], self._held[count:]
        self._frames_returned += count
        return ready

    @staticmethod
    def _fade(samples: Samples, lengths: Lengths, distances: NDArray[np.int64]) -> None:
        """Fade each channel over its length; `distances` are in frames from the sound's edge."""
        for channel, length in enumerate(lengths):
            inside = distances < length
            samples[inside, channel] *= fade_curve(int(length))[distances[inside]]


def _gain(settings: RenderSettings, peak: float) -> float:
    if settings.peak is None or peak < amplitude(SILENCE_DBFS):
        return 1.0
    return amplitude(settings.peak) / peak


def _total_frames(settings: RenderSettings, piece: StreamPiece) -> int:
    """Return the frames of the whole sound under these settings, at the piece's rate."""
    if settings.frames is None:
        return piece.frames
    return min(piece.frames, -(-settings.frames * piece.rate // settings.rate))


def can_stream(settings: RenderSettings) -> bool:
    """Return whether a sound with these settings can be played while it is rendered."""
    return not settings.trim and not settings.loop and settings.loudness is None
