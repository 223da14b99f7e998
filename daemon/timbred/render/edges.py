"""Where a sound begins and ends: silence trimmed, length made exact, edges faded."""

import numpy as np
from numpy.typing import NDArray

from timbred.clip import Clip, Samples
from timbred.render.settings import RenderSettings
from timbred.units import amplitude, frames_in

SILENT_BELOW = -60.0
"""dB under the clip's own peak: what is quieter at an end counts as silence."""

KEPT_BEFORE = 0.001
KEPT_AFTER = 0.02
"""Seconds kept before the first and after the last audible frame, so that no attack or tail is clipped."""


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
    break off. A loop's length is made by `timbred.render.loop`, which needs what comes after the end.
    """
    if settings.frames is None or settings.loop:
        return clip
    wanted = -(-settings.frames * clip.rate // settings.rate)
    missing = wanted - clip.frames
    if missing <= 0:
        return clip.with_samples(clip.samples[:wanted])
    ended = faded(clip.samples, 0, frames_in(settings.fade_out, clip.rate))
    return clip.with_samples(np.pad(ended, ((0, missing), (0, 0))))


def fade(clip: Clip, settings: RenderSettings) -> Clip:
    """Fade in and out. A loop has no edges, and so no fades."""
    if settings.loop:
        return clip
    lead, tail = frames_in(settings.fade_in, clip.rate), frames_in(settings.fade_out, clip.rate)
    return clip.with_samples(faded(clip.samples, lead, tail))


def faded(samples: Samples, lead: int, tail: int) -> Samples:
    """Samples under raised-cosine fades of `lead` and `tail` frames; the outermost frames become 0.

    Fades that together are longer than the sound are shortened in proportion, and meet inside it.
    """
    frames = samples.shape[0]
    if lead + tail > frames:
        lead, tail = frames * lead // (lead + tail), frames * tail // (lead + tail)
    result = samples.copy()
    result[:lead] *= rise(lead)[:, None]
    result[frames - tail :] *= rise(tail)[::-1, None]
    return result


def rise(frames: int) -> NDArray[np.float32]:
    """A raised-cosine rise from 0, of shape (frames,), whose next value would be 1."""
    steps = np.arange(frames, dtype=np.float64) / max(frames, 1)
    return (0.5 - 0.5 * np.cos(np.pi * steps)).astype(np.float32)
