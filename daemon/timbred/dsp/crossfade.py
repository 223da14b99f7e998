"""Crossfades, fade curves, correlation and interpolation, shared by the pipeline, the engine and the mixer.

Everything here is arithmetic on arrays. `catmull_rom` also accepts torch tensors.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]


def raised_cosine(angle: Curve) -> Curve:
    """Return half a cosine that rises from 0 at angle 0 to 1 at angle pi."""
    return 0.5 - 0.5 * np.cos(angle)


def catmull_rom(before: Any, start: Any, end: Any, after: Any, position: Any) -> Any:
    """Interpolate between `start` and `end` along a Catmull-Rom spline (Catmull and Rom, 1974).

    Args:
        before: the value before `start`; all four are arrays or tensors of one shape.
        start: the value at position 0.
        end: the value at position 1.
        after: the value after `end`.
        position: where to interpolate, 0 to 1; broadcast against the values.
    """
    squared = position * position
    cubed = squared * position
    slope, next_slope = (end - before) / 2, (after - start) / 2
    return (
        (2 * cubed - 3 * squared + 1) * start
        + (cubed - 2 * squared + position) * slope
        + (3 * squared - 2 * cubed) * end
        + (cubed - squared) * next_slope
    )


def crossfade(
    leaving: NDArray[Any], entering: NDArray[Any], fade_out: Curve, fade_in: Curve, correlation: Any,
    power_sum: Any = 1.0,
) -> Curve:  # fmt: skip
    """Mix two signals so that the power stays even through the crossfade, whatever their correlation is.

    The sum is divided by the gain in power that the correlation of the two signals would cause.

    Args:
        leaving: the samples that fade out.
        entering: the samples that fade in, of the same shape.
        fade_out: the gain of `leaving`, 0 to 1, broadcast against it.
        fade_in: the gain of `entering`, 0 to 1, broadcast against it.
        correlation: of the two signals, 0 (unrelated) to 1 (equal); see `correlate`.
        power_sum: the sum of the squared gains; 1 for cosine and sine.
    """
    even = np.sqrt(power_sum + 2.0 * correlation * fade_out * fade_in)
    return (leaving * fade_out + entering * fade_in) / even


def correlate(first: NDArray[Any], second: NDArray[Any], axis: int | None = None) -> Any:
    """Return the normalised correlation of two signals of one shape; 0 for silence and for opposite polarity."""
    energy = np.sqrt(
        np.sum(np.square(first, dtype=np.float64), axis=axis) * np.sum(np.square(second, dtype=np.float64), axis=axis)
    )
    return np.maximum(np.sum(first * second, axis=axis, dtype=np.float64) / np.maximum(energy, 1e-30), 0.0)


def normalize_correlation(products: Curve, energies: Curve) -> Curve:
    """Divide sums of products by the root of the product of both energies: -1 to 1."""
    return products / np.sqrt(np.maximum(energies, 1e-18))


def sliding_sum(values: Curve, length: int) -> Curve:
    """Return the sum of each window of `length` values: shape (values - length + 1,)."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    return total[length:] - total[:-length]


def mean_power(samples: NDArray[Any], axis: int | None = None) -> Any:
    """Return the mean of the squared samples, as float64; 0 where there are none."""
    if not samples.size:
        return np.zeros(() if axis is None else np.delete(samples.shape, axis))
    return np.mean(np.square(samples, dtype=np.float64), axis=axis)
