"""Dither for 16 bits: a little noise, so that quiet tails fade into hiss and not into distortion."""

import hashlib
import json

import numpy as np

from timbred.clip import Clip, Recipe
from timbred.render.formats import bits_of
from timbred.render.settings import RenderSettings

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
