"""Fades at both edges of a sound, with the cuts that precede them, and crossfades between two sounds.

Automatic fades prevent a click at the beginning or the end without softening an attack:

- A channel that begins near zero, or with a step no larger than its own steps from frame to frame, gets no fade in.
- A channel whose first `AUTOMATIC_FADE_IN` seconds are far below the audio after them gets a fade in of that length.
- Otherwise its attack is in these seconds. The fade ends at the first zero crossing, if that comes before the
  attack's peak; if the peak is in the first half-wave, the fade is as long as possible without lowering the peak by
  more than `ATTACK_TOLERANCE_DB`.

At the end a channel is faded out over `AUTOMATIC_FADE_OUT`, unless it ends with a climax (a reversed drum): then the
fade begins at the last zero crossing after the climax, or is as long as the tolerance allows. Channels are examined
separately. Requested fades are applied exactly.

Crossfades, interpolation, correlation and power are arithmetic on arrays, which the pipeline, the engine and the mixer
share. `catmull_rom` also accepts torch tensors.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from timbred.audio import Clip, Samples, amplitude, frames_in
from timbred.render_settings import AUTOMATIC_FADE_IN_S, AUTOMATIC_FADE_OUT_S, RenderSettings

SILENCE_BELOW_PEAK_DB = -60.0
"""Level relative to the clip's peak below which an edge counts as silence."""

KEPT_BEFORE_S = 0.001
"""Seconds kept before the first audible frame, so that no attack is cut."""

KEPT_AFTER_S = 0.02
"""Seconds kept after the last audible frame, so that no tail is cut."""

NEAR_ZERO_DB = -60.0
"""Level of a first sample, relative to the peak of the sound's beginning, below which it makes no click."""

ATTACK_TOLERANCE_DB = 0.66
"""Decibels by which an automatic fade may lower the peak of an attack."""

SWELL_DB = 6.0
"""Level by which the peak of the next `COMPARED_AFTER_S` exceeds that of a beginning that is no attack."""

COMPARED_AFTER_S = 0.01
"""Seconds after the longest automatic fade in with which the beginning is compared."""

CLIMAX_DB = 4.0
"""Level of an ending's peak, above that of the `CLIMAX_FADE_LENGTHS` before it, from which the ending is a climax."""

CLIMAX_FADE_LENGTHS = 4
"""Lengths of the longest automatic fade out with which an ending is compared."""

Lengths = NDArray[np.int64]
"""Frames of fade for each channel, shape (channels,)."""

Curve = NDArray[np.float64]
"""Gains, angles or other values of successive frames."""


def trim(clip: Clip, settings: RenderSettings) -> Clip:
    """Cut silence at both ends if the settings ask for it. A silent clip is returned unchanged."""
    if not settings.trim:
        return clip
    level = np.abs(clip.samples).max(axis=1, initial=0.0)
    audible = np.flatnonzero(level > level.max(initial=0.0) * amplitude(SILENCE_BELOW_PEAK_DB))
    if audible.size == 0:
        return clip
    first = max(0, int(audible[0]) - frames_in(KEPT_BEFORE_S, clip.rate))
    last = int(audible[-1]) + 1 + frames_in(KEPT_AFTER_S, clip.rate)
    return clip.with_samples(clip.samples[first:last])


def fit(clip: Clip, settings: RenderSettings) -> Clip:
    """Cut or pad to the requested length, at the clip's own rate; resampling then makes it exact.

    A clip that is too short is faded out and followed by silence. The length of a loop is left to
    `timbred.dsp.pipeline`, which needs the frames after the end.
    """
    if settings.frames is None or settings.loop:
        return clip
    frames = -(-settings.frames * clip.rate // settings.rate)
    missing = frames - clip.frames
    if missing <= 0:
        return clip.with_samples(clip.samples[:frames])
    faded = apply_fades(clip.samples, 0, fade_out_lengths(clip.samples, settings, clip.rate))
    return clip.with_samples(np.pad(faded, ((0, missing), (0, 0))))


def fade(clip: Clip, settings: RenderSettings) -> Clip:
    """Fade in and out. A loop has no edges and gets no fades."""
    if settings.loop:
        return clip
    return clip.with_samples(add_fades(clip.samples, settings, clip.rate))


def add_fades(samples: Samples, settings: RenderSettings, rate: int) -> Samples:
    """Add the fades of the settings to samples of shape (frames, channels): requested lengths, or automatic ones."""
    return apply_fades(samples, fade_in_lengths(samples, settings, rate), fade_out_lengths(samples, settings, rate))


def fade_in_lengths(samples: Samples, settings: RenderSettings, rate: int) -> Lengths:
    """Return each channel's frames of fade in. Automatic lengths depend on the first `fade_in_examined` frames."""
    if settings.fade_in is not None:
        return np.full(samples.shape[1], frames_in(settings.fade_in, rate))
    longest = frames_in(AUTOMATIC_FADE_IN_S, rate)
    beginning = samples[: fade_in_examined(settings, rate)].astype(np.float64)
    return np.array([_automatic_fade_in(channel, longest) for channel in beginning.T], dtype=np.int64)


def fade_out_lengths(samples: Samples, settings: RenderSettings, rate: int) -> Lengths:
    """Return each channel's frames of fade out. Automatic lengths depend on the last `fade_out_examined` frames."""
    if settings.fade_out is not None:
        return np.full(samples.shape[1], frames_in(settings.fade_out, rate))
    longest = frames_in(AUTOMATIC_FADE_OUT_S, rate)
    ending = samples[-fade_out_examined(settings, rate) :].astype(np.float64)
    return np.array([_automatic_fade_out(channel, longest) for channel in ending.T], dtype=np.int64)


def fade_in_examined(settings: RenderSettings, rate: int) -> int:
    """Return the frames at the beginning that the fade in depends on."""
    return 0 if settings.fade_in is not None else frames_in(AUTOMATIC_FADE_IN_S + COMPARED_AFTER_S, rate)


def fade_out_examined(settings: RenderSettings, rate: int) -> int:
    """Return the frames at the end that the fade out depends on."""
    return 0 if settings.fade_out is not None else (1 + CLIMAX_FADE_LENGTHS) * frames_in(AUTOMATIC_FADE_OUT_S, rate)


def _automatic_fade_in(channel: Curve, longest: int) -> int:
    longest = min(longest, len(channel))
    beginning, levels = channel[:longest], np.abs(channel)
    if longest == 0 or levels[0] <= levels.max() * amplitude(NEAR_ZERO_DB):
        return 0
    if levels[0] <= np.abs(np.diff(beginning)).max(initial=0.0):
        return 0
    if levels[:longest].max() < levels.max() * amplitude(-SWELL_DB):
        return longest
    return _fade_before_attack(beginning)


def _automatic_fade_out(channel: Curve, longest: int) -> int:
    longest = min(longest, len(channel))
    ending, before = channel[len(channel) - longest :], channel[: len(channel) - longest]
    before_peak = float(np.abs(before).max(initial=0.0))
    if not before_peak or np.abs(ending).max(initial=0.0) <= before_peak * amplitude(CLIMAX_DB):
        return longest
    return _fade_before_attack(ending[::-1])


def _fade_before_attack(channel: Curve) -> int:
    """Return the longest fade in, in frames, that keeps the peak of these samples within the tolerance."""
    levels = np.abs(channel)
    peak = int(levels.argmax())
    crossings = np.flatnonzero(np.signbit(channel[: peak + 1]) != np.signbit(channel[0]))
    if crossings.size:
        return int(crossings[0])
    lengths = range(1, len(channel) + 1)
    kept = [
        length
        for length in lengths
        if _is_kept(levels[peak], (levels[:length] * fade_curve(length)).max(initial=0.0))
        or (length < len(channel) and _is_kept(levels[peak], levels[length:].max()))
    ]
    return max(kept, default=0)


def _is_kept(level: float, faded_level: float) -> bool:
    return bool(faded_level >= level * amplitude(-ATTACK_TOLERANCE_DB))


def apply_fades(samples: Samples, fade_in: int | Lengths, fade_out: int | Lengths) -> Samples:
    """Apply raised-cosine fades of `fade_in` and `fade_out` frames; the outermost frames become 0.

    Each length is one number, or one for each channel. Fades that together are longer than the sound are shortened in
    proportion, and meet inside it.
    """
    result = samples.copy()
    frames, channels = samples.shape
    leads, tails = np.broadcast_to(fade_in, channels), np.broadcast_to(fade_out, channels)
    for channel in range(channels):
        lead, tail = limit_fades(int(leads[channel]), int(tails[channel]), frames)
        result[:lead, channel] *= fade_curve(lead)
        result[frames - tail :, channel] *= fade_curve(tail)[::-1]
    return result


def limit_fades(lead: int, tail: int, frames: int) -> tuple[int, int]:
    """Shorten two fades in proportion, so that together they fit into `frames`."""
    if lead + tail <= frames:
        return lead, tail
    return frames * lead // (lead + tail), frames * tail // (lead + tail)


def fade_curve(frames: int) -> NDArray[np.float32]:
    """Return a raised-cosine rise from 0, of shape (frames,); the value after its last one would be 1."""
    steps = np.arange(frames, dtype=np.float64) / max(frames, 1)
    return raised_cosine(np.pi * steps).astype(np.float32)


def raised_cosine(angle: Curve) -> Curve:
    """Return half a cosine that rises from 0 at angle 0 to 1 at angle pi."""
    return 0.5 - 0.5 * np.cos(angle)


def catmull_rom(before: Any, start: Any, end: Any, after: Any, position: Any) -> Any:
    """Interpolate between `start` and `end` along a Catmull-Rom spline (Catmull and Rom, 1974).

    Args:
        before: the value before `start`; all four are arrays or tensors of one shape.
        start: the value at position 0.
        end: the value at position 1.
        after: the value after `end`.
        position: where to interpolate, 0 to 1; broadcast against the values.
    """
    squared = position * position
    cubed = squared * position
    slope, next_slope = (end - before) / 2, (after - start) / 2
    return (
        (2 * cubed - 3 * squared + 1) * start
        + (cubed - 2 * squared + position) * slope
        + (3 * squared - 2 * cubed) * end
        + (cubed - squared) * next_slope
    )


def crossfade(
    leaving: NDArray[Any], entering: NDArray[Any], fade_out: Curve, fade_in: Curve, correlation: Any,
    power_sum: Any = 1.0,
) -> Curve:  # fmt: skip
    """Mix two signals so that the power stays even through the crossfade, whatever their correlation is.

    The sum is divided by the gain in power that the correlation of the two signals would cause.

    Args:
        leaving: the samples that fade out.
        entering: the samples that fade in, of the same shape.
        fade_out: the gain of `leaving`, 0 to 1, broadcast against it.
        fade_in: the gain of `entering`, 0 to 1, broadcast against it.
        correlation: of the two signals, 0 (unrelated) to 1 (equal); see `correlate`.
        power_sum: the sum of the squared gains; 1 for cosine and sine.
    """
    even = np.sqrt(power_sum + 2.0 * correlation * fade_out * fade_in)
    return (leaving * fade_out + entering * fade_in) / even


def correlate(first: NDArray[Any], second: NDArray[Any], axis: int | None = None) -> Any:
    """Return the normalised correlation of two signals of one shape; 0 for silence and for opposite polarity."""
    energy = np.sqrt(
        np.sum(np.square(first, dtype=np.float64), axis=axis) * np.sum(np.square(second, dtype=np.float64), axis=axis)
    )
    return np.maximum(np.sum(first * second, axis=axis, dtype=np.float64) / np.maximum(energy, 1e-30), 0.0)


def normalize_correlation(products: Curve, energies: Curve) -> Curve:
    """Divide sums of products by the root of the product of both energies: -1 to 1."""
    return products / np.sqrt(np.maximum(energies, 1e-18))


def sliding_sum(values: Curve, length: int) -> Curve:
    """Return the sum of each window of `length` values: shape (values - length + 1,)."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    return total[length:] - total[:-length]


def mean_power(samples: NDArray[Any], axis: int | None = None) -> Any:
    """Return the mean of the squared samples, as float64; 0 where there are none."""
    if not samples.size:
        return np.zeros(() if axis is None else np.delete(samples.shape, axis))
    return np.mean(np.square(samples, dtype=np.float64), axis=axis)
