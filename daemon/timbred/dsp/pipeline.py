"""Mono and stereo, and the sum of channels that others are compared with."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from timbred.audio import Clip, Recipe, require_sound
from timbred.dsp.loop import loop
from timbred.dsp.loudness import level
from timbred.dsp.resample import resample
from timbred.dsp.trim_fade import fade, fit, trim
from timbred.render_settings import RenderSettings, bits_of, check_settings

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


STEPS = 32_768
"""Steps of a 16-bit sample from 0 to full scale."""


def dither(clip: Clip, settings: RenderSettings) -> Clip:
    """The clip on the grid of 16 bits, when the file has 16. The same recipe gives the same noise.

    Samples that are on the grid already stay as they are: those of a 16-bit file that is continued, and silence.

    Triangular noise of two steps' width makes the error independent of the sound (Lipshitz, Wannamaker
    and Vanderkooy, 1992). Digital silence stays silent.
    """
    if bits_of(settings) != 16 or not clip.samples.any():
        return clip
    chance = np.random.default_rng(dither_seed(clip.recipe))
    noise = chance.random(clip.samples.shape, np.float32) - chance.random(clip.samples.shape, np.float32)
    exact = clip.samples * np.float32(STEPS)
    steps = np.where(exact == np.rint(exact), exact, np.rint(exact + noise))
    return clip.with_samples(np.clip(steps, -STEPS, STEPS - 1) / np.float32(STEPS))


def dither_seed(recipe: Recipe) -> int:
    """A seed from the recipe; when it was made doesn't count, only what was asked."""
    asked = {name: value for name, value in recipe.items() if name != "created"}
    text = json.dumps(asked, sort_keys=True, default=str)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


__all__ = ["CHAIN", "PipelineStep", "RenderSettings", "run_pipeline"]


class PipelineStep(NamedTuple):
    """One step of the chain: a pure function of the clip and the settings."""

    name: str
    apply: Callable[[Clip, RenderSettings], Clip]


CHAIN: tuple[PipelineStep, ...] = (
    PipelineStep("trim", trim),
    PipelineStep("fit", fit),
    PipelineStep("loop", loop),
    PipelineStep("fade", fade),
    PipelineStep("resample", resample),
    PipelineStep("channels", channels),
    PipelineStep("level", level),
    PipelineStep("dither", dither),
)
"""Every step, in order."""


def run_pipeline(clip: Clip, settings: RenderSettings) -> Clip:
    """The clip as the file will hold it: its rate, channels, level, and exactly `settings.frames` frames.

    Raises:
        BadRequest: settings that can't be carried out.
        ModelError: no samples, or values that aren't finite numbers.
    """
    check_settings(settings)
    require_sound(clip)
    for step in CHAIN:
        clip = step.apply(clip, settings)
    return clip
