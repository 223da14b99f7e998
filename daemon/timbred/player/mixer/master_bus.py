"""Takes a standing offset off the sum. What has none goes out as it is."""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from timbred.audio import Samples, amplitude

CORNER = 0.1
"""Hz below which a level counts as standing: far below any tone, so that none is touched."""

TOLERATED = 0.003
"""Offset that is left alone (-50 dBFS)."""


class DcBlocker:
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


CEILING = -1.0
"""dBFS, true peak."""

PHASES = np.array([
    [0.0017089843750, 0.0109863281250, -0.0196533203125, 0.0332031250000, -0.0594482421875, 0.1373291015625,
     0.9721679687500, -0.1022949218750, 0.0476074218750, -0.0266113281250, 0.0148925781250, -0.0083007812500],
    [-0.0291748046875, 0.0292968750000, -0.0517578125000, 0.0891113281250, -0.1665039062500, 0.4650878906250,
     0.7797851562500, -0.2003173828125, 0.1015625000000, -0.0582275390625, 0.0330810546875, -0.0189208984375],
    [-0.0189208984375, 0.0330810546875, -0.0582275390625, 0.1015625000000, -0.2003173828125, 0.7797851562500,
     0.4650878906250, -0.1665039062500, 0.0891113281250, -0.0517578125000, 0.0292968750000, -0.0291748046875],
    [-0.0083007812500, 0.0148925781250, -0.0266113281250, 0.0476074218750, -0.1022949218750, 0.9721679687500,
     0.1373291015625, -0.0594482421875, 0.0332031250000, -0.0196533203125, 0.0109863281250, 0.0017089843750],
]).astype(np.float32)  # fmt: skip
"""The filter of BS.1770's table, by phase."""

TAPS = PHASES.shape[1]
REACH = float(np.abs(PHASES).sum(axis=1).max())
"""The most that a true peak can be above the samples around it."""

MARGIN = 0.03
"""Part by which more is taken off than the estimate asks, once it is well over: the filter reads a little low."""


class Limiter:
    """Holds the sum of each pair of output channels under the ceiling. State goes on from block to block."""

    def __init__(self, rate: float, channels: int, ahead: float = 0.0015, release: float = 0.08) -> None:
        """`ahead` is how far the gain looks ahead, `release` how fast it returns, in seconds."""
        self.ceiling = amplitude(CEILING)
        self.window = max(8, round(ahead * rate))
        self.latency = self.window + TAPS // 2
        self._pairs = [slice(first, min(first + 2, channels)) for first in range(0, channels, 2)]
        self._decay = float(np.exp(-1.0 / (release * rate)))
        self._delayed = np.zeros((self.latency, channels), np.float32)
        self._heard = np.zeros((TAPS - 1, channels), np.float32)
        self._wanted = np.zeros((self.window, len(self._pairs)))
        self._released = np.zeros((self.window - 1, len(self._pairs)))
        bell = np.hanning(self.window + 2)[1:-1]
        self._bell = bell / bell.sum()

    @property
    def idle(self) -> bool:
        """Whether everything goes out as it came in."""
        return not self._wanted.any() and not self._released.any()

    def process(self, block: Samples) -> Samples:
        """The next frames, held under the ceiling and `latency` frames later. Shape (frames, channels)."""
        frames = block.shape[0]
        joined = np.concatenate((self._delayed, block))
        out, self._delayed = joined[:frames], joined[frames:]
        heard = np.concatenate((self._heard, block))
        self._heard = heard[-(TAPS - 1) :]
        quiet = float(np.abs(heard).max(initial=0.0)) * REACH <= self.ceiling
        if quiet and self.idle:
            return out
        excess = np.zeros((frames, len(self._pairs))) if quiet else self._excess(heard, frames)
        reduction = self._reduction(excess)
        if not reduction.any():
            return out
        gains = np.repeat(1.0 - reduction, 2, axis=1)[:, : out.shape[1]]
        return (out * gains).astype(np.float32)

    def _excess(self, heard: Samples, frames: int) -> NDArray[np.float64]:
        """How much must be taken off at each frame, 0 to 1, for each pair."""
        windows = sliding_window_view(heard, TAPS, axis=0)  # (frames, channels, taps)
        between = np.abs(windows @ PHASES.T[::-1]).max(axis=2)
        samples = np.abs(heard[TAPS // 2 - 1 : TAPS // 2 - 1 + frames])
        peaks = np.maximum(between, samples).astype(np.float64)
        peak = np.stack([peaks[:, pair].max(axis=1) for pair in self._pairs], axis=1)
        over = np.maximum(peak / self.ceiling, 1.0)
        asked = over * (1.0 + MARGIN * np.minimum(1.0, (over - 1.0) * 8.0))
        return 1.0 - 1.0 / asked

    def _reduction(self, excess: NDArray[np.float64]) -> NDArray[np.float64]:
        """The part taken off at each frame that goes out: at each peak what it needs, smooth before and after.

        The highest excess of the time ahead is held, let go slowly, and averaged over the same time: when a peak
        goes out, every value in its average was held for it.
        """
        wanted = np.concatenate((self._wanted, excess))
        self._wanted = wanted[-self.window :]
        held = sliding_window_view(wanted, self.window + 1, axis=0).max(axis=2)
        line = np.concatenate((self._released, self._let_go(held)))
        self._released = line[-(self.window - 1) :]
        smooth = np.empty_like(excess)
        for pair in range(line.shape[1]):
            smooth[:, pair] = np.convolve(line[:, pair], self._bell, "valid")
        return smooth

    def _let_go(self, held: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rises at once, falls slowly: the highest of all that came before, each decayed by its age."""
        decayed = self._decay ** np.arange(1, held.shape[0] + 1)[:, None]
        highest = np.maximum.accumulate(held / decayed, axis=0)
        released = np.maximum(highest, self._released[-1]) * decayed
        released[released < 1e-7] = 0.0
        return released
