"""Sounds with known properties."""

from typing import Any

import numpy as np

from timbred.audio import Clip, SampleRate, Samples

RECIPE: dict[str, Any] = {
    "timbred": "0.1.0",
    "recipe": 1,
    "model": "pocket",
    "licence": "Apache-2.0",
    "prompt": "Regen auf Blech, дождь 雨 🌧",
    "seed": 7,
    "created": "2026-01-31T12:00:00Z",
    "parameters": {"seconds": 2.0, "negative": "ж雨🎹 " * 2_500},
}


def tone(hertz: float, seconds: float, rate: int, level: float = 0.5, channels: int = 1) -> Clip:
    """A sine of `level` peak, beginning at 0."""
    moments = np.arange(round(seconds * rate)) / rate
    return clip(level * np.sin(2 * np.pi * hertz * moments), rate, channels)


def noise(seconds: float, rate: int, level: float = 0.1, channels: int = 1, seed: int = 0) -> Clip:
    """Gaussian noise, the channels unlike each other."""
    chance = np.random.default_rng(seed)
    return Clip(
        (level * chance.standard_normal((round(seconds * rate), channels))).astype(np.float32), SampleRate(rate)
    )


def clip(values: Any, rate: int, channels: int = 1) -> Clip:
    """One row of values in every channel."""
    column = np.asarray(values, dtype=np.float32)[:, None]
    return Clip(np.repeat(column, channels, axis=1), SampleRate(rate))


def decibels(ratio: float) -> float:
    return 20 * float(np.log10(ratio))


def peak(samples: Samples) -> float:
    return float(np.abs(samples).max())


def seam_is_smooth(samples: Samples) -> bool:
    """Whether the step from the last frame to the first is no larger than nearly all steps inside.

    Two percent are allowed over the 99th percentile: a sine's own steepest step is that much over it.
    """
    inside = np.abs(np.diff(samples, axis=0)).max(axis=1)
    seam = float(np.abs(samples[0] - samples[-1]).max())
    return seam <= float(np.percentile(inside, 99)) * 1.02 + 1e-7
