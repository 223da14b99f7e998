"""Another sample rate, with exactly the frames asked for. Source: soxr's VHQ, a linear-phase converter."""

from math import ceil, gcd
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from timbred.audio import Clip, Samples
from timbred.render_settings import RenderSettings

CONTEXT = 2048
"""Frames (of the lower rate) that the converter's filter reaches at most, on either side."""


def resample(clip: Clip, settings: RenderSettings) -> Clip:
    """The clip at the file's rate, of exactly the file's length.

    Nothing is shifted: frame n stands for the moment n / rate before and after. A loop is converted
    with its own ends wrapped around it, so that no seam is added.
    """
    frames = settings.frames or max(1, round(clip.frames * settings.rate / clip.rate))
    if clip.rate == settings.rate and clip.frames == frames:
        return clip
    convert = _around if clip.loop else _along
    return clip.with_samples(convert(clip, frames, settings.rate), settings.rate)


def stretched(clip: Clip, frames: int, rate: float) -> Samples:
    """The clip's samples at any rate, whole number or not, as exactly so many frames; a loop as in `resample`."""
    if clip.rate == rate and clip.frames == frames:
        return clip.samples
    return (_around if clip.loop else _along)(clip, frames, rate)


def _along(clip: Clip, frames: int, rate: float) -> Samples:
    """A sound with silence after it. Cut from slightly too many frames, for soxr rounds their number."""
    silence = ceil(clip.rate / rate) * 4
    padded = np.pad(clip.samples, ((0, silence), (0, 0)))
    return _exactly(_converted(padded, clip.rate, rate), frames)


def _around(clip: Clip, frames: int, rate: float) -> Samples:
    """A loop. Its period in frames maps to a whole number of frames, so the ratio is theirs.

    The context is a number of frames that falls on a whole frame of the result too: only then can the
    cut be exact.
    """
    period = clip.frames
    unit = period // gcd(period, frames)
    reach = CONTEXT * ceil(max(1.0, clip.rate / rate))
    context = ceil(reach / unit) * unit
    wrapped = clip.samples[np.arange(-context, period + context) % period]
    start = context * frames // period
    return _exactly(_converted(wrapped, period, frames)[start:], frames)


def _converted(samples: Samples, rate_in: float, rate_out: float) -> NDArray[Any]:
    return samples if rate_in == rate_out else soxr.resample(samples, rate_in, rate_out, quality="VHQ")


def _exactly(samples: NDArray[Any], frames: int) -> Samples:
    missing = max(0, frames - samples.shape[0])
    return np.pad(samples[:frames], ((0, missing), (0, 0)))
