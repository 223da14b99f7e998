"""Where a sound stands between two output channels."""

import math

import numpy as np

from timbred.delivery.mixer.curves import Values
from timbred.units import amplitude


def balance(gain: float, pan: float, outputs: int) -> Values:
    """The factor of each output channel: `gain` in dB, `pan` from left -1 to right 1.

    In the middle both are exactly the gain, so that a sound goes out as it is; towards a side the other one
    falls along a quarter of a cosine. One output takes no pan.

    >>> balance(0.0, 0.0, 2).tolist()
    [1.0, 1.0]
    """
    factor = amplitude(gain)
    if outputs == 1:
        return np.array([factor])
    left = min(1.0, math.cos(max(0.0, pan) * math.pi / 2))
    right = min(1.0, math.cos(max(0.0, -pan) * math.pi / 2))
    return np.array([factor * left, factor * right])
