"""Replacement or continuation of a part of existing audio. Everything outside the part is preserved bit-exactly.

A model's output is at the model's own rate, and has passed through its codec. Only the edited part is taken from it.
That part is converted to the original's rate, matched to its level, shifted by at most a few milliseconds to where the
waveforms match best, and crossfaded with the original: inside the part, or over the end of audio that is continued.

Rendered audio with as many channels as the original keeps them. Otherwise its mean is used for all channels, matched to
the power and polarity of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from timbred.audio import Clip, SampleRate, Samples, amplitude, frames_in
from timbred.dsp.fades import (
    Curve,
    correlate,
    crossfade,
    mean_power,
    normalize_correlation,
    raised_cosine,
    sliding_sum,
)
from timbred.dsp.pipeline import find_polarities, mix_to_mono, resample
from timbred.render_settings import RenderSettings

INPAINT_CROSSFADE_S = 0.04
"""Longest crossfade at an edge of a replaced part, also limited to a third of the part."""

CONTINUE_CROSSFADE_S = 0.1
"""Longest crossfade into a continuation, also limited to half of the original."""

SHIFT_RANGE_S = 0.01
"""Range within which the rendered audio is shifted to match the waveforms: a period of 100 Hz."""

MAX_GAIN_RATIO = 4.0
"""Largest factor, up or down, by which the rendered audio's level is matched (12 dB)."""

COMPARED_S = 3.0
"""Longest stretch on each side of the part over which level and balance are compared."""

CEILING_AMPLITUDE = amplitude(-1.0)
"""Limit of the rendered audio's peak, unless the original is louder."""

CROSSOVER_OCTAVES = 1 / 3
"""Width inside an edge of the frequency band over which the original changes to the rendered audio."""


@dataclass(frozen=True)
class EditedPart:
    """The part to replace: `start` to `end` in seconds, `low` to `high` in Hz.

    A part that starts at the end of the original is its continuation.
    """

    start: float
    end: float
    low: float = 0.0
    high: float = inf


@dataclass(frozen=True)
class OriginalAudio:
    """Audio that is preserved except for a part."""

    clip: Clip
    part: EditedPart

    @property
    def is_continued(self) -> bool:
        """True if the part comes after the audio."""
        return self.part.start > self.clip.seconds - 1 / self.clip.rate


def splice_parts(rendered: Clip, original: Clip, parts: Sequence[EditedPart], rate: SampleRate, first: int = 0) -> Clip:
    """Return the original with several rendered parts in place, as `splice` does with one; they don't overlap."""
    joined = original
    for part in parts:
        joined = splice(rendered, OriginalAudio(joined, part), rate, first)
    return joined


def splice(rendered: Clip, original: OriginalAudio, rate: SampleRate, first: int = 0) -> Clip:
    """Return the original with the rendered part in place, at `rate`, with the original's channels.

    `rendered` begins with frame `first` of the whole, counted at its own rate. The whole ends with it, or with the
    part.
    """
    settings = RenderSettings(rate=rate)
    kept = resample(original.clip, settings).samples
    new = resample(rendered, settings).samples.astype(np.float64)
    if rendered.channels != original.clip.channels:
        new = mix_to_mono(new, find_polarities(rendered.samples))[:, None]
    offset, frames = round(first * rate / rendered.rate), kept.shape[0]
    if original.is_continued:
        frames = max(frames, frames_in(original.part.end, rate))
        if offset + len(new) < frames - frames_in(SHIFT_RANGE_S, rate):
            frames = max(kept.shape[0], offset + len(new))  # a preview, which is shorter than the whole
    join = _Join(kept, _place(new, offset, frames), original, rate)
    return rendered.with_samples(join.samples(), rate)


class _Join:
    """Original audio, (frames, channels), and rendered audio, (frames or more, channels or 1), on one time axis.

    Only the surroundings of the part, from frame `begins` to `ends`, are mixed. Frames before and after them are the
    original's or, where that is continued, the rendered ones.
    """

    def __init__(self, kept: Samples, new: Curve, original: OriginalAudio, rate: int) -> None:
        self.rate, self.part, self.kept = rate, original.part, kept
        self.signs = find_polarities(original.clip.samples)
        reach = frames_in(COMPARED_S, rate)
        start, end = (min(frames_in(moment, rate), len(kept)) for moment in (self.part.start, self.part.end))
        if original.is_continued:
            start = end = len(kept)
        self.begins, self.ends = max(0, start - reach), min(len(kept), end + reach)
        self.original = kept[self.begins : self.ends].astype(np.float64)
        self.edges = self._find_edges(start - self.begins, end - self.begins, original.is_continued)
        self.share = self._new_share()
        self.all_new = self._align(new)
        self.new = self.all_new[self.begins : self.ends]

    def _find_edges(self, start: int, end: int, continued: bool) -> list[tuple[int, int]]:
        """Return the first and the end frame of both crossfades: into the part, and out of it."""
        last = self.ends - self.begins
        if continued:
            length = min(frames_in(CONTINUE_CROSSFADE_S, self.rate), len(self.kept) // 2)
            return [(last - length, last), (last, last)]
        length = min(frames_in(INPAINT_CROSSFADE_S, self.rate), (end - start) // 3)
        fade_in = (start, start + length) if start > 0 else (0, 0)
        return [fade_in, (end - length, end) if end < last else (last, last)]

    def _new_share(self) -> Curve:
        """Return the share of the rendered audio at each frame, 0 to 1."""
        share = np.zeros(self.ends - self.begins)
        (fades_in, is_in), (fades_out, is_out) = self.edges
        share[is_in:fades_out] = 1.0
        share[fades_in:is_in] = _rise(is_in - fades_in)
        share[fades_out:is_out] = _rise(is_out - fades_out)[::-1]
        return share

    def _align(self, new: Curve) -> Curve:
        """Shift the rendered audio to where it matches the original best at the crossfades.

        At the beginning or the end of the whole no frame may be missing, so there it is shifted to one side only.
        """
        edges = [edge for edge in self.edges if edge[1] > edge[0]]
        reach = frames_in(SHIFT_RANGE_S, self.rate)
        if not edges:
            return new
        at_start, at_end = self.edges[0] == (0, 0), self.edges[1][0] == self.edges[1][1]
        least = 0 if at_end else -reach if at_start else -reach // 2
        mono = mix_to_mono(self.original, self.signs)
        new_mono = mix_to_mono(new, find_polarities(new))
        match = sum(
            _match_shifts(mono[first:last], new_mono, self.begins + first - least, reach) for first, last in edges
        )
        return _place(new, least + int(np.argmax(match)), len(new))

    def samples(self) -> Samples:
        """Return the joined audio, (frames, channels), float32."""
        gain, after = self._match_gain(), self.all_new[len(self.kept) :]
        mixed = self._mix(gain)
        ceiling = max(CEILING_AMPLITUDE, float(np.abs(self.kept).max(initial=0.0)))
        peak = max(float(np.abs(mixed).max(initial=0.0)), float(np.abs(after).max(initial=0.0) * np.abs(gain).max()))
        if peak > ceiling:
            gain = gain * (ceiling / peak)
            mixed = self._mix(gain)
        rest = (after * gain).astype(np.float32)
        return np.concatenate([self.kept[: self.begins], mixed.astype(np.float32), self.kept[self.ends :], rest])

    def _mix(self, gain: Curve) -> Curve:
        """Crossfade the part's band at even power, and keep the original outside it."""
        original, new = self._filter_band(self.original), self._filter_band(self.new) * gain
        share = self.share[:, None]
        correlation = np.zeros_like(original)
        for first, last in self.edges:
            correlation[first:last] = np.minimum(correlate(original[first:last], new[first:last], axis=0), 1.0)
        power_sum = (1 - share) ** 2 + share**2
        # `share` and `1 - share` add up to 1, not their squares
        band = crossfade(new, original, share, 1 - share, correlation, power_sum)
        return np.where(share > 0, self.original - original + band, self.original)

    def _filter_band(self, samples: Curve) -> Curve:
        """Return the part's frequency band, without delay or change of phase."""
        low, high = self.part.low, min(self.part.high, self.rate / 2)
        if low <= 0 and high >= self.rate / 2:
            return samples
        padding = self.rate  # a second of silence, so that the end doesn't wrap into the beginning
        size = len(samples) + padding
        octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / self.rate), 1e-3))
        mask = np.ones(octaves.size)
        if low > 0:
            mask *= _smooth_step((octaves - np.log2(low)) / CROSSOVER_OCTAVES)
        if high < self.rate / 2:
            mask *= _smooth_step((np.log2(high) - octaves) / CROSSOVER_OCTAVES)
        spectrum = np.fft.rfft(samples, size, axis=0) * mask[:, None]
        return np.fft.irfft(spectrum, size, axis=0)[: len(samples)]

    def _match_gain(self) -> Curve:
        """Return the factors that match the rendered audio to the original's level, shape (channels,).

        Powers are compared outside the part, where both are the same sound. Several rendered channels keep their
        balance. One channel is matched to the power and polarity of each of the original's: the model's input was
        their mean, so the gain of its codec is found from that mean; the balance from their own powers.
        """
        original, new, outside = self.original, self.new, self.share == 0
        if not outside.any():
            outside = ~outside
            original, new = original - self._filter_band(original), new - self._filter_band(new)
        if new.shape[1] > 1:
            both = outside & (self.new != 0).any(axis=1)
            ratio = _level_ratio(np.sum(mean_power(original[both], axis=0)), np.sum(mean_power(new[both], axis=0)))
            return np.full(new.shape[1], np.clip(ratio, 1 / MAX_GAIN_RATIO, MAX_GAIN_RATIO))
        mono = mix_to_mono(original, self.signs)
        both = outside & (self.new[:, 0] != 0)
        codec_gain = _level_ratio(mean_power(mono[both], axis=0), mean_power(new[both, 0], axis=0))
        power, mono_power = mean_power(original[outside], axis=0), float(mean_power(mono[outside], axis=0))
        balance = np.sqrt(power / mono_power) if mono_power > 0 else np.ones(len(power))
        balance = np.minimum(balance, MAX_GAIN_RATIO * len(power))  # channels that cancel each other in part
        return self.signs * np.clip(codec_gain, 1 / MAX_GAIN_RATIO, MAX_GAIN_RATIO) * balance


def _place(samples: Curve, offset: int, frames: int) -> Curve:
    """Return `frames` of silence with the samples, (frames, ...), in it from frame `offset` on."""
    result = np.zeros((frames, *samples.shape[1:]))
    first, last = max(0, offset), min(frames, offset + len(samples))
    if first < last:
        result[first:last] = samples[first - offset : last - offset]
    return result


def _rise(frames: int) -> Curve:
    return raised_cosine(np.pi * (np.arange(frames) + 0.5) / max(frames, 1))


def _smooth_step(position: Curve) -> Curve:
    return raised_cosine(np.pi * np.clip(position, 0, 1))


def _match_shifts(target: Curve, source: Curve, first: int, reach: int) -> Curve:
    """Correlate `target` with the source at frames `first`, `first - 1` and so on: shape (reach + 1,), -1 to 1."""
    length = len(target)
    excerpt = _place(source, reach - first, reach + length)
    size = len(excerpt) + length
    product = np.fft.irfft(np.fft.rfft(excerpt, size) * np.conj(np.fft.rfft(target, size)), size)[: reach + 1]
    energies = sliding_sum(excerpt**2, length) * np.sum(target**2)
    return normalize_correlation(product, energies)[::-1]


def _level_ratio(target: Curve, power: Curve) -> Curve:
    """Return the square root of a ratio of powers; 1 where one of them is 0."""
    return np.where((target > 0) & (power > 0), np.sqrt(target / np.maximum(power, 1e-20)), 1.0)
