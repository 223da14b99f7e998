"""A given sound of which a part is made anew, or that is continued: everything else stays as it was, to the bit.

What a model makes is mono, at the model's own rate, and has been through its codec. So only the part that it was asked
for is taken from it. That is brought to the given sound's rate, and to the power and polarity of each of its channels,
moved by at most a few milliseconds to where its waves fit best, and crossfaded with the given sound: within the part,
or over the end of what is continued.
"""

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from timbred.audio import Clip, SampleRate, Samples, amplitude, frames_in
from timbred.dsp.pipeline import mono, polarities
from timbred.dsp.resample import resample
from timbred.render_settings import RenderSettings

REPAINTED, CONTINUED = 0.04, 0.1
"""Seconds of crossfade, at most; and never more than a third of a part, or half of what is continued."""

MOVED = 0.01
"""Seconds by which what was made may be moved in all, so that its waves fit: a period of 100 Hz."""

MOST_LIFT = 4.0
"""Times that what was made is made louder or softer at most, to have the given sound's level (12 dB)."""

COMPARED = 3.0
"""Seconds beside the part over which level and balance are compared, at most."""

CEILING = amplitude(-1.0)
"""What is made gets no louder than this, unless the given sound is."""

CROSSOVER = 1 / 3
"""Octaves inside a band's edge over which what is kept becomes what was made."""

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class EditedPart:
    """What is made anew: from `start` to `end`, in seconds, and from `low` to `high`, in Hz. One that ends after the
    given sound is its continuation."""

    start: float
    end: float
    low: float = 0.0
    high: float = inf


@dataclass(frozen=True)
class GivenSound:
    """A sound that stays as it is but for a part of it."""

    clip: Clip
    part: EditedPart

    @property
    def is_continued(self) -> bool:
        """Whether the part comes after it."""
        return self.part.start > self.clip.seconds - 1 / self.clip.rate


def splice(made: Clip, given: GivenSound, rate: SampleRate, first: int = 0) -> Clip:
    """The given sound, with the part that was made in its place: at `rate`, in the given sound's channels.

    `made` begins with frame `first` of the whole, counted at its own rate; the whole ends with it, or with the part.
    """
    settings = RenderSettings(rate=rate)
    there = resample(given.clip, settings).samples
    new = mono(resample(made, settings).samples, polarities(made.samples))
    offset, frames = round(first * rate / made.rate), there.shape[0]
    if given.is_continued:
        frames = max(frames, frames_in(given.part.end, rate))
        if offset + len(new) < frames - frames_in(MOVED, rate):
            frames = max(there.shape[0], offset + len(new))  # a preview, which has come so far
    joint = _Seam(there, _placed(new, offset, frames), given, rate)
    return made.with_samples(joint.samples(), rate)


class _Seam:
    """A given sound, (frames, channels), and what was made, (frames or more,), on the same places.

    Mixed is only what lies around the part, from place `begins` to `ends`; before and after it all is the given sound's
    or, where that is continued, all is new.
    """

    def __init__(self, there: Samples, new: Curve, given: GivenSound, rate: int) -> None:
        self.rate, self.part, self.there = rate, given.part, there
        self.signs = polarities(given.clip.samples)
        reach = frames_in(COMPARED, rate)
        start, end = (min(frames_in(moment, rate), len(there)) for moment in (self.part.start, self.part.end))
        if given.is_continued:
            start = end = len(there)
        self.begins, self.ends = max(0, start - reach), min(len(there), end + reach)
        self.given = there[self.begins : self.ends].astype(np.float64)
        self.edges = self._edges(start - self.begins, end - self.begins, given.is_continued)
        self.share = self._share()
        self.whole_new = self._moved(new)
        self.new = self.whole_new[self.begins : self.ends, None]

    def _edges(self, start: int, end: int, continued: bool) -> list[tuple[int, int]]:
        """First and last place of each crossfade, the latter not among them: one that enters, and one that leaves."""
        last = self.ends - self.begins
        if continued:
            length = min(frames_in(CONTINUED, self.rate), len(self.there) // 2)
            return [(last - length, last), (last, last)]
        length = min(frames_in(REPAINTED, self.rate), (end - start) // 3)
        enters = (start, start + length) if start > 0 else (0, 0)
        return [enters, (end - length, end) if end < last else (last, last)]

    def _share(self) -> Curve:
        """How much of what was made there is at each place, 0 to 1."""
        share = np.zeros(self.ends - self.begins)
        (enters, in_full), (leaves, left) = self.edges
        share[in_full:leaves] = 1.0
        share[enters:in_full] = _ramp(in_full - enters)
        share[leaves:left] = _ramp(left - leaves)[::-1]
        return share

    def _moved(self, new: Curve) -> Curve:
        """What was made, where its waves fit those of the given sound best at the crossfades. At the whole's own
        beginning or end nothing may be missing, so there it is moved to one side only."""
        edges = [edge for edge in self.edges if edge[1] > edge[0]]
        reach = frames_in(MOVED, self.rate)
        if not edges:
            return new
        at_start, at_end = self.edges[0] == (0, 0), self.edges[1][0] == self.edges[1][1]
        least = 0 if at_end else -reach if at_start else -reach // 2
        summed = mono(self.given, self.signs)
        likeness = sum(_alike(summed[first:last], new, self.begins + first - least, reach) for first, last in edges)
        return _placed(new, least + int(np.argmax(likeness)), len(new))

    def samples(self) -> Samples:
        """Both in one, (frames, channels), float32."""
        lift, after = self._lift(), self.whole_new[len(self.there) :]
        mixed = self._mixed(lift)
        ceiling = max(CEILING, float(np.abs(self.there).max(initial=0.0)))
        peak = max(float(np.abs(mixed).max(initial=0.0)), float(np.abs(after).max(initial=0.0) * np.abs(lift).max()))
        if peak > ceiling:
            lift = lift * (ceiling / peak)
            mixed = self._mixed(lift)
        rest = (after[:, None] * lift).astype(np.float32)
        return np.concatenate([self.there[: self.begins], mixed.astype(np.float32), self.there[self.ends :], rest])

    def _mixed(self, lift: Curve) -> Curve:
        """The band of the part crossfaded at even power, what is outside as it was."""
        given, made = self._banded(self.given), self._banded(self.new) * lift
        share = self.share[:, None]
        alike = np.zeros_like(given)
        for first, last in self.edges:
            alike[first:last] = _likeness(given[first:last], made[first:last])
        even = np.sqrt((1 - share) ** 2 + share**2 + 2 * alike * share * (1 - share))
        mixed = self.given - given + (given * (1 - share) + made * share) / even
        return np.where(share > 0, mixed, self.given)

    def _banded(self, samples: Curve) -> Curve:
        """What lies in the part's band, with neither delay nor a change of phase."""
        low, high = self.part.low, min(self.part.high, self.rate / 2)
        if low <= 0 and high >= self.rate / 2:
            return samples
        ringing = self.rate  # a second of silence: the end doesn't ring into the beginning
        size = len(samples) + ringing
        octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / self.rate), 1e-3))
        mask = np.ones(octaves.size)
        if low > 0:
            mask *= _smooth((octaves - np.log2(low)) / CROSSOVER)
        if high < self.rate / 2:
            mask *= _smooth((np.log2(high) - octaves) / CROSSOVER)
        spectrum = np.fft.rfft(samples, size, axis=0) * mask[:, None]
        return np.fft.irfft(spectrum, size, axis=0)[: len(samples)]

    def _lift(self) -> Curve:
        """The factors that give the one channel that was made the power and polarity of each given one, (channels,).

        Powers are compared where both are the same sound, which is outside of the part. What the model was given is the
        given channels' mean, so its codec's gain is found from that; from the mean to each channel it is their powers.
        """
        given, new, beside = self.given, self.new, self.share == 0
        if not beside.any():
            beside = ~beside
            given, new = given - self._banded(given), new - self._banded(new)
        summed = mono(given, self.signs)
        both = beside & (self.new[:, 0] != 0)
        codec = _root(_power(summed[both]), _power(new[both, 0]))
        power, summed_power = _power(given[beside]), float(_power(summed[beside]))
        balance = np.sqrt(power / summed_power) if summed_power > 0 else np.ones(len(power))
        balance = np.minimum(balance, MOST_LIFT * len(power))  # sums of channels that cancel each other in part
        return self.signs * np.clip(codec, 1 / MOST_LIFT, MOST_LIFT) * balance


def _placed(samples: Curve, offset: int, frames: int) -> Curve:
    """Samples from place `offset` of so many on, with silence around them."""
    result = np.zeros(frames)
    first, last = max(0, offset), min(frames, offset + len(samples))
    if first < last:
        result[first:last] = samples[first - offset : last - offset]
    return result


def _ramp(frames: int) -> Curve:
    return 0.5 - 0.5 * np.cos(np.pi * (np.arange(frames) + 0.5) / max(frames, 1))


def _smooth(x: Curve) -> Curve:
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(x, 0, 1))


def _alike(wanted: Curve, source: Curve, first: int, reach: int) -> Curve:
    """How like `wanted` the source is from `first` on, from one place earlier on, and so on: (reach + 1,), -1 to 1."""
    length = len(wanted)
    piece = _placed(source, reach - first, reach + length)
    size = len(piece) + length
    product = np.fft.irfft(np.fft.rfft(piece, size) * np.conj(np.fft.rfft(wanted, size)), size)[: reach + 1]
    added = np.concatenate([[0.0], np.cumsum(piece**2)])
    energy = (added[length:] - added[:-length]) * np.sum(wanted**2)
    return (product / np.sqrt(np.maximum(energy, 1e-18)))[::-1]


def _likeness(one: Curve, other: Curve) -> Curve:
    """The correlation of each channel of two sounds of shape (frames, channels): (channels,), 0 to 1."""
    energy = np.sqrt(np.sum(one**2, axis=0) * np.sum(other**2, axis=0))
    return np.clip(np.sum(one * other, axis=0) / np.maximum(energy, 1e-30), 0.0, 1.0)


def _power(samples: Curve) -> Curve:
    return np.mean(np.square(samples), axis=0) if samples.size else np.zeros(samples.shape[1:])


def _root(wanted: Curve, there: Curve) -> Curve:
    """The square root of a ratio of powers; 1 where there is nothing to compare."""
    return np.where((wanted > 0) & (there > 0), np.sqrt(wanted / np.maximum(there, 1e-20)), 1.0)
