"""Mono and stereo, and the sum of channels that others are compared with."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from timbred.clip import Clip
from timbred.render.settings import RenderSettings

CANCELLING = -0.5
"""Correlation of a channel with those before it below which its polarity is inverted before they are summed."""

Polarities = NDArray[np.float64]
"""1 or -1 for each channel, shape (channels,)."""


def channels(clip: Clip, settings: RenderSettings) -> Clip:
    """The clip with the channels asked for.

    One channel becomes two by standing in both at the same level; two (or more) become one by their mean, so that
    nothing can clip. More than two become two by way of one. Channels that cancel each other do so in this mean too:
    it is what was asked for.
    """
    wanted = settings.channels
    if wanted is None or wanted == clip.channels:
        return clip
    mean = clip.samples.mean(axis=1, keepdims=True, dtype=np.float64)
    return clip.with_samples(np.repeat(mean, wanted, axis=1))


def mono(samples: NDArray[Any], signs: Polarities) -> NDArray[np.float64]:
    """The mean of channels of these polarities, shape (frames,): the sound as a model is given it."""
    return samples @ (signs / samples.shape[1])


def polarities(samples: NDArray[Any]) -> Polarities:
    """The polarity with which each channel of (frames, channels) is summed, so that channels don't cancel each other.

    All are 1 but for channels that are nearly the inverse of the sum of those before them: a balanced line recorded as
    stereo, or a cable with its wires swapped. The mean of such channels would be next to silence.
    """
    count = samples.shape[1]
    signs = np.ones(count)
    if count == 1:
        return signs
    products = np.einsum("fi,fj->ij", samples, samples, dtype=np.float64, optimize=True)
    order = np.argsort(-products.diagonal(), kind="stable")  # the loudest first: its polarity stays
    for place, channel in enumerate(order[1:], start=1):
        before = order[:place]
        power = signs[before] @ products[np.ix_(before, before)] @ signs[before] * products[channel, channel]
        if signs[before] @ products[before, channel] < CANCELLING * np.sqrt(max(power, 0.0)):
            signs[channel] = -1.0
    return signs
