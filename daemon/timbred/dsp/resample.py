"""Conversion to another sample rate with an exact number of frames, by soxr's linear-phase VHQ converter."""

from math import ceil, gcd
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from timbred.audio import Clip, Samples
from timbred.render_settings import RenderSettings

CONTEXT_FRAMES = 2048
"""Frames, at the lower rate, that the converter's filter reaches at most on either side."""


def resample(clip: Clip, settings: RenderSettings) -> Clip:
    """Convert the clip to the file's rate and exact length.

    Nothing is shifted: frame n is at the time n / rate before and after. A loop is converted with its ends wrapped
    around, so that no seam is added.
    """
    frames = settings.frames or max(1, round(clip.frames * settings.rate / clip.rate))
    if clip.rate == settings.rate and clip.frames == frames:
        return clip
    convert = _convert_loop if clip.loop else _convert_one_shot
    return clip.with_samples(convert(clip, frames, settings.rate), settings.rate)


def resample_to_frames(clip: Clip, frames: int, rate: float) -> Samples:
    """Convert the clip's samples to any rate, also a fractional one, as `frames` frames; loops as in `resample`."""
    if clip.rate == rate and clip.frames == frames:
        return clip.samples
    return (_convert_loop if clip.loop else _convert_one_shot)(clip, frames, rate)


def _convert_one_shot(clip: Clip, frames: int, rate: float) -> Samples:
    """Convert a sound followed by silence, as soxr rounds the number of frames."""
    silence = ceil(clip.rate / rate) * 4
    padded = np.pad(clip.samples, ((0, silence), (0, 0)))
    return _convert(padded, clip.rate, rate, 0, frames)


def _convert_loop(clip: Clip, frames: int, rate: float) -> Samples:
    """Convert a loop. Its period in frames becomes a whole number of frames, so the ratio of both is used.

    The context is a number of frames that corresponds to a whole number of frames of the result: only then is the cut
    exact.
    """
    period = clip.frames
    unit = period // gcd(period, frames)
    reach = CONTEXT_FRAMES * ceil(max(1.0, clip.rate / rate))
    context = ceil(reach / unit) * unit
    wrapped = clip.samples[np.arange(-context, period + context) % period]
    return _convert(wrapped, period, frames, context * frames // period, frames)


def _convert(samples: Samples, rate_in: float, rate_out: float, start: int, frames: int) -> Samples:
    """Convert samples, and return `frames` frames of the result from `start` on; silence follows if it is too short."""
    converted: NDArray[Any] = samples
    if rate_in != rate_out:
        converted = soxr.resample(samples, rate_in, rate_out, quality="VHQ")
    part = converted[start : start + frames]
    return np.pad(part, ((0, frames - part.shape[0]), (0, 0)))
