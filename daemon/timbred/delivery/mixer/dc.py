"""Takes a standing offset off the sum. What has none goes out as it is."""

import math

import numpy as np

from timbred.clip import Samples

CORNER = 0.1
"""Hz below which a level counts as standing: far below any tone, so that none is touched."""

TOLERATED = 0.003
"""Offset that is left alone (-50 dBFS)."""


class OffsetRemover:
    """Follows the slow mean of each channel and takes off what it has above the tolerated, gliding."""

    def __init__(self, rate: float, channels: int) -> None:
        self._speed = 2.0 * math.pi * CORNER / rate
        self._mean = np.zeros((2, channels))
        self._taken = np.zeros(channels)

    def process(self, block: Samples) -> Samples:
        """The next frames without their offset. Shape (frames, channels)."""
        frames = block.shape[0]
        share = 1.0 - math.exp(-self._speed * frames)
        self._mean[0] += share * (block.mean(axis=0, dtype=np.float64) - self._mean[0])
        self._mean[1] += share * (self._mean[0] - self._mean[1])
        standing = self._mean[1]
        target = np.sign(standing) * np.maximum(np.abs(standing) - TOLERATED, 0.0)
        if not target.any() and not self._taken.any():
            return block
        path = np.arange(1, frames + 1)[:, None] / frames
        taken = self._taken + (target - self._taken) * path
        self._taken = target
        return block - taken.astype(np.float32)
