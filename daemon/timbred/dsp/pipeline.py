"""The steps from a rendered clip to the samples of a file, with the conversion of channels and the dither."""

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

OPPOSITE_CORRELATION = -0.5
"""Correlation of a channel with the sum of the louder ones below which its polarity is inverted before summing."""

Polarities = NDArray[np.float64]
"""1 or -1 for each channel, shape (channels,)."""


def convert_channels(clip: Clip, settings: RenderSettings) -> Clip:
    """Convert the clip to the requested number of channels.

    One channel is copied into two at the same level; two or more become one by their mean, so that nothing can clip.
    More than two become two by way of one. Channels of opposite polarity cancel each other in this mean.
    """
    count = settings.channels
    if count is None or count == clip.channels:
        return clip
    mean = clip.samples.mean(axis=1, keepdims=True, dtype=np.float64)
    return clip.with_samples(np.repeat(mean, count, axis=1))


def mix_to_mono(samples: NDArray[Any], signs: Polarities) -> NDArray[np.float64]:
    """Return the mean of channels with these polarities, shape (frames,), as a model gets it."""
    return samples @ (signs / samples.shape[1])


def find_polarities(samples: NDArray[Any]) -> Polarities:
    """Return the polarity with which each channel of (frames, channels) is summed, so that none cancels another.

    All are 1 except for channels that are nearly the inverse of the sum of the louder ones: a balanced line recorded as
    stereo, or a cable with its wires swapped. The plain mean of such channels would be close to silence.
    """
    count = samples.shape[1]
    signs = np.ones(count)
    if count == 1:
        return signs
    products = np.einsum("fi,fj->ij", samples, samples, dtype=np.float64, optimize=True)
    order = np.argsort(-products.diagonal(), kind="stable")  # the loudest first: its polarity is kept
    for rank, channel in enumerate(order[1:], start=1):
        louder = order[:rank]
        power = signs[louder] @ products[np.ix_(louder, louder)] @ signs[louder] * products[channel, channel]
        if signs[louder] @ products[louder, channel] < OPPOSITE_CORRELATION * np.sqrt(max(power, 0.0)):
            signs[channel] = -1.0
    return signs


STEPS_16_BIT = 32_768
"""Steps of a 16-bit sample from 0 to full scale."""


def dither(clip: Clip, settings: RenderSettings) -> Clip:
    """Quantise the clip to 16 bits with dither, if the file has 16 bits. The same recipe gives the same noise.

    Samples that are exact 16-bit values already are unchanged: those of a continued 16-bit file, and silence.

    Triangular noise two steps wide makes the error independent of the sound (Lipshitz, Wannamaker and Vanderkooy,
    1992). Digital silence stays silent.
    """
    if bits_of(settings) != 16 or not clip.samples.any():
        return clip
    generator = np.random.default_rng(dither_seed(clip.recipe))
    noise = generator.random(clip.samples.shape, np.float32) - generator.random(clip.samples.shape, np.float32)
    exact = clip.samples * np.float32(STEPS_16_BIT)
    steps = np.where(exact == np.rint(exact), exact, np.rint(exact + noise))
    return clip.with_samples(np.clip(steps, -STEPS_16_BIT, STEPS_16_BIT - 1) / np.float32(STEPS_16_BIT))


def dither_seed(recipe: Recipe) -> int:
    """Derive a seed from everything in the recipe except its date."""
    parameters = {name: value for name, value in recipe.items() if name != "created"}
    text = json.dumps(parameters, sort_keys=True, default=str)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


class PipelineStep(NamedTuple):
    """One step: a pure function of the clip and the settings."""

    name: str
    apply: Callable[[Clip, RenderSettings], Clip]


PIPELINE_STEPS: tuple[PipelineStep, ...] = (
    PipelineStep("trim", trim),
    PipelineStep("fit", fit),
    PipelineStep("loop", loop),
    PipelineStep("fade", fade),
    PipelineStep("resample", resample),
    PipelineStep("channels", convert_channels),
    PipelineStep("level", level),
    PipelineStep("dither", dither),
)
"""Every step, in order."""


def run_pipeline(clip: Clip, settings: RenderSettings) -> Clip:
    """Apply every step; the result has the rate, channels, level and number of frames of the settings.

    Raises:
        BadRequest: the settings contradict each other or the format.
        ModelError: the clip has no samples, or samples that are NaN or infinite.
    """
    check_settings(settings)
    require_sound(clip)
    for step in PIPELINE_STEPS:
        clip = step.apply(clip, settings)
    return clip
