"""Mono and stereo."""

import numpy as np

from timbred.clip import Clip
from timbred.render.settings import RenderSettings


def channels(clip: Clip, settings: RenderSettings) -> Clip:
    """The clip with the channels asked for.

    One channel becomes two by standing in both at the same level; two (or more) become one by their
    mean, so that nothing can clip. More than two become two by way of one.
    """
    wanted = settings.channels
    if wanted is None or wanted == clip.channels:
        return clip
    mono = clip.samples.mean(axis=1, keepdims=True, dtype=np.float64)
    return clip.with_samples(np.repeat(mono, wanted, axis=1))
