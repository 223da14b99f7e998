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

from timbred.clip import Clip, Samples
from timbred.render.channels import channels
from timbred.render.edges import rise
from timbred.render.loudness import SILENCE
from timbred.render.settings import RenderSettings
from timbred.units import SampleRate, amplitude, frames_in


@dataclass(frozen=True, eq=False)
class Piece:
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


class EarlySound:
    """Finishes the pieces of one sound at a rate, in order."""

    def __init__(self, settings: RenderSettings, first: Piece, rate: int) -> None:
        """`first` is the first piece, which isn't taken in yet; `rate` is in Hz, the device's."""
        self._settings = settings
        self._gain = _gain(settings, first.peak)
        self._frames = _fitting(settings, first)
        self._lead, self._tail = _fades(settings, first.rate, self._frames)
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

    def take(self, piece: Piece) -> Samples:
        """What can be heard once this piece is there, (frames, channels); the converter holds some of it back until
        the next piece. After the last one exactly `frames` were given in all.

        Raises:
            ValueError: it isn't the piece that follows.
        """
        if piece.first != self._taken:
            raise ValueError(f"the piece begins with frame {piece.first}; the next one is {self._taken}")
        self._taken += piece.samples.shape[0]
        last = piece.last or self._taken >= self._frames
        if self.done:
            return piece.samples[:0]
        samples = piece.samples[: max(0, self._frames - piece.first)] * self._envelope(piece)
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

    def _envelope(self, piece: Piece) -> Samples:
        """Gain and fades of this piece, (frames, 1)."""
        places = np.arange(piece.first, min(piece.first + piece.samples.shape[0], self._frames))
        curve = np.full(places.size, self._gain, dtype=np.float32)
        for fade, distance in ((self._lead, places), (self._tail, self._frames - 1 - places)):
            inside = distance < fade
            curve[inside] *= rise(fade)[distance[inside]]
        return curve[:, None]


def _gain(settings: RenderSettings, peak: float) -> float:
    if settings.peak is None or peak < amplitude(SILENCE):
        return 1.0
    return amplitude(settings.peak) / peak


def _fitting(settings: RenderSettings, piece: Piece) -> int:
    """Frames of the whole that are wanted, at the piece's rate."""
    if settings.frames is None:
        return piece.frames
    return min(piece.frames, -(-settings.frames * piece.rate // settings.rate))


def _fades(settings: RenderSettings, rate: int, frames: int) -> tuple[int, int]:
    """Frames of the fades; together at most the whole sound, as `edges.faded` has it."""
    lead, tail = frames_in(settings.fade_in, rate), frames_in(settings.fade_out, rate)
    if lead + tail > frames:
        return frames * lead // (lead + tail), frames * tail // (lead + tail)
    return lead, tail


def can_be_early(settings: RenderSettings) -> bool:
    """Whether a sound finished so can be heard before its end is made."""
    return not settings.trim and not settings.loop and settings.loudness is None
