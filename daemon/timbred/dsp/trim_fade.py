"""Where a sound begins and ends: silence trimmed, length made exact, edges faded.

A fade that isn't asked for keeps the sound from beginning or ending with a click, and must not soften an attack:

- A channel that begins near zero, or with a step no larger than its own steps from frame to frame, isn't faded in.
- One whose first `AUTOMATIC_FADE_IN` is far below what follows is faded in over that time: it swells.
- Else its attack lies there. Then the fade ends at the first zero crossing, if that comes before the attack's peak; if
  the attack begins with its first half-wave, the fade is as long as it can be without lowering the peak by more than
  `ATTACK_TOLERANCE_DB`.

At the end a channel is faded out over `AUTOMATIC_FADE_OUT`, unless it ends with a climax (a reversed drum): then the
fade begins at the last zero crossing after the climax, or is as long as the tolerance allows. Channels are examined one
by one. A fade that is asked for is applied exactly.
"""

import numpy as np
from numpy.typing import NDArray

from timbred.audio import Clip, Samples, amplitude, frames_in
from timbred.render_settings import AUTOMATIC_FADE_IN, AUTOMATIC_FADE_OUT, RenderSettings

SILENT_BELOW = -60.0
"""dB under the clip's own peak: what is quieter at an end counts as silence."""

KEPT_BEFORE = 0.001
KEPT_AFTER = 0.02
"""Seconds kept before the first and after the last audible frame, so that no attack or tail is clipped."""

NEAR_ZERO_DB = -60.0
"""Level of a first sample, relative to the peak of the sound's beginning, below which it makes no click."""

ATTACK_TOLERANCE_DB = 0.66
"""Decibels by which an automatic fade may lower the peak of an attack."""

FAR_BELOW_DB = 6.0
COMPARED_AFTER_S = 0.01
"""A beginning whose peak is this much below that of these seconds after it isn't an attack."""

CLIMAX_DB = 4.0
"""An end whose peak is this much above the `CLIMAX_COMPARED` lengths of fade before it is a climax."""

CLIMAX_COMPARED = 4

Lengths = NDArray[np.int64]
"""Frames of fade for each channel, shape (channels,)."""


def trim(clip: Clip, settings: RenderSettings) -> Clip:
    """Cut silence at both ends, if asked. A clip of nothing but silence is kept as it is."""
    if not settings.trim:
        return clip
    level = np.abs(clip.samples).max(axis=1, initial=0.0)
    audible = np.flatnonzero(level > level.max(initial=0.0) * amplitude(SILENT_BELOW))
    if audible.size == 0:
        return clip
    first = max(0, int(audible[0]) - frames_in(KEPT_BEFORE, clip.rate))
    last = int(audible[-1]) + 1 + frames_in(KEPT_AFTER, clip.rate)
    return clip.with_samples(clip.samples[first:last])


def fit(clip: Clip, settings: RenderSettings) -> Clip:
    """Cut or fill up to the length asked for, at the clip's own rate; resampling then makes it exact.

    A clip that is too short is followed by silence, its own end faded first, so that the sound doesn't
    break off. A loop's length is made by `timbred.dsp.loop`, which needs what comes after the end.
    """
    if settings.frames is None or settings.loop:
        return clip
    wanted = -(-settings.frames * clip.rate // settings.rate)
    missing = wanted - clip.frames
    if missing <= 0:
        return clip.with_samples(clip.samples[:wanted])
    ended = faded(clip.samples, 0, fade_out_lengths(clip.samples, settings, clip.rate))
    return clip.with_samples(np.pad(ended, ((0, missing), (0, 0))))


def fade(clip: Clip, settings: RenderSettings) -> Clip:
    """Fade in and out. A loop has no edges, and so no fades."""
    if settings.loop:
        return clip
    return clip.with_samples(with_fades(clip.samples, settings, clip.rate))


def with_fades(samples: Samples, settings: RenderSettings, rate: int) -> Samples:
    """Samples, (frames, channels), with the fades of these settings: exact where they are asked for, else automatic."""
    return faded(samples, fade_in_lengths(samples, settings, rate), fade_out_lengths(samples, settings, rate))


def fade_in_lengths(samples: Samples, settings: RenderSettings, rate: int) -> Lengths:
    """Frames of fade in for each channel. Automatic lengths depend on the first `fade_in_examined` frames only."""
    if settings.fade_in is not None:
        return np.full(samples.shape[1], frames_in(settings.fade_in, rate))
    longest = frames_in(AUTOMATIC_FADE_IN, rate)
    beginning = samples[: fade_in_examined(settings, rate)].astype(np.float64)
    return np.array([_automatic_fade_in(channel, longest) for channel in beginning.T], dtype=np.int64)


def fade_out_lengths(samples: Samples, settings: RenderSettings, rate: int) -> Lengths:
    """Frames of fade out for each channel. Automatic lengths depend on the last `fade_out_examined` frames only."""
    if settings.fade_out is not None:
        return np.full(samples.shape[1], frames_in(settings.fade_out, rate))
    longest = frames_in(AUTOMATIC_FADE_OUT, rate)
    ending = samples[-fade_out_examined(settings, rate) :].astype(np.float64)
    return np.array([_automatic_fade_out(channel, longest) for channel in ending.T], dtype=np.int64)


def fade_in_examined(settings: RenderSettings, rate: int) -> int:
    """Frames of a sound's beginning that its fade in depends on."""
    return 0 if settings.fade_in is not None else frames_in(AUTOMATIC_FADE_IN + COMPARED_AFTER_S, rate)


def fade_out_examined(settings: RenderSettings, rate: int) -> int:
    """Frames of a sound's end that its fade out depends on."""
    return 0 if settings.fade_out is not None else (1 + CLIMAX_COMPARED) * frames_in(AUTOMATIC_FADE_OUT, rate)


def _automatic_fade_in(channel: NDArray[np.float64], longest: int) -> int:
    longest = min(longest, len(channel))
    beginning, levels = channel[:longest], np.abs(channel)
    if longest == 0 or levels[0] <= levels.max() * amplitude(NEAR_ZERO_DB):
        return 0
    if levels[0] <= np.abs(np.diff(beginning)).max(initial=0.0):
        return 0
    if levels[:longest].max() < levels.max() * amplitude(-FAR_BELOW_DB):
        return longest
    return _fade_before_attack(beginning)


def _automatic_fade_out(channel: NDArray[np.float64], longest: int) -> int:
    longest = min(longest, len(channel))
    ending, before = channel[len(channel) - longest :], channel[: len(channel) - longest]
    before_peak = float(np.abs(before).max(initial=0.0))
    if not before_peak or np.abs(ending).max(initial=0.0) <= before_peak * amplitude(CLIMAX_DB):
        return longest
    return _fade_before_attack(ending[::-1])


def _fade_before_attack(channel: NDArray[np.float64]) -> int:
    """The frames of fade in that leave the peak of these as it is, or lower it within the tolerance."""
    levels = np.abs(channel)
    peak = int(levels.argmax())
    crossings = np.flatnonzero(np.signbit(channel[: peak + 1]) != np.signbit(channel[0]))
    if crossings.size:
        return int(crossings[0])
    lengths = range(1, len(channel) + 1)
    kept = [
        length
        for length in lengths
        if _is_kept(levels[peak], (levels[:length] * rise(length)).max(initial=0.0))
        or (length < len(channel) and _is_kept(levels[peak], levels[length:].max()))
    ]
    return max(kept, default=0)


def _is_kept(level: float, under_fade: float) -> bool:
    return bool(under_fade >= level * amplitude(-ATTACK_TOLERANCE_DB))


def faded(samples: Samples, lead: int | Lengths, tail: int | Lengths) -> Samples:
    """Samples under raised-cosine fades of `lead` and `tail` frames, one number or one for each channel; the outermost
    frames become 0.

    Fades that together are longer than the sound are shortened in proportion, and meet inside it.
    """
    result = samples.copy()
    frames, channels = samples.shape
    leads, tails = np.broadcast_to(lead, channels), np.broadcast_to(tail, channels)
    for channel in range(channels):
        first, last = shortened(int(leads[channel]), int(tails[channel]), frames)
        result[:first, channel] *= rise(first)
        result[frames - last :, channel] *= rise(last)[::-1]
    return result


def shortened(lead: int, tail: int, frames: int) -> tuple[int, int]:
    """The lengths of two fades that together have room in so many frames."""
    if lead + tail <= frames:
        return lead, tail
    return frames * lead // (lead + tail), frames * tail // (lead + tail)


def rise(frames: int) -> NDArray[np.float32]:
    """A raised-cosine rise from 0, of shape (frames,), whose next value would be 1."""
    steps = np.arange(frames, dtype=np.float64) / max(frames, 1)
    return (0.5 - 0.5 * np.cos(np.pi * steps)).astype(np.float32)
