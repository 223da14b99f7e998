"""Processing of the mixed sum: removal of a DC offset, and a true-peak limiter."""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from timbred.audio import Samples, amplitude

OFFSET_CORNER_HZ = 0.1
"""Frequency in Hz below which a level counts as an offset: far below any tone."""

MAX_TOLERATED_OFFSET = 0.003
"""Offset that isn't removed (-50 dBFS)."""


class DcBlocker:
    """Tracks the slow mean of each channel and subtracts what exceeds the tolerated offset, without steps."""

    def __init__(self, rate: float, channels: int) -> None:
        self._speed = 2.0 * math.pi * OFFSET_CORNER_HZ / rate
        self._mean = np.zeros((2, channels))
        self._removed = np.zeros(channels)

    def process(self, block: Samples) -> Samples:
        """Return the next frames without their offset, shape (frames, channels)."""
        frames = block.shape[0]
        share = 1.0 - math.exp(-self._speed * frames)
        self._mean[0] += share * (block.mean(axis=0, dtype=np.float64) - self._mean[0])
        self._mean[1] += share * (self._mean[0] - self._mean[1])
        offset = self._mean[1]
        target = np.sign(offset) * np.maximum(np.abs(offset) - MAX_TOLERATED_OFFSET, 0.0)
        if not target.any() and not self._removed.any():
            return block
        path = np.arange(1, frames + 1)[:, None] / frames
        removed = self._removed + (target - self._removed) * path
        self._removed = target
        return block - removed.astype(np.float32)


CEILING_DBFS = -1.0
"""Limit of the true peak in dBFS."""

FILTER_PHASES = np.array([
    [0.0017089843750, 0.0109863281250, -0.0196533203125, 0.0332031250000, -0.0594482421875, 0.1373291015625,
     0.9721679687500, -0.1022949218750, 0.0476074218750, -0.0266113281250, 0.0148925781250, -0.0083007812500],
    [-0.0291748046875, 0.0292968750000, -0.0517578125000, 0.0891113281250, -0.1665039062500, 0.4650878906250,
     0.7797851562500, -0.2003173828125, 0.1015625000000, -0.0582275390625, 0.0330810546875, -0.0189208984375],
    [-0.0189208984375, 0.0330810546875, -0.0582275390625, 0.1015625000000, -0.2003173828125, 0.7797851562500,
     0.4650878906250, -0.1665039062500, 0.0891113281250, -0.0517578125000, 0.0292968750000, -0.0291748046875],
    [-0.0083007812500, 0.0148925781250, -0.0266113281250, 0.0476074218750, -0.1022949218750, 0.9721679687500,
     0.1373291015625, -0.0594482421875, 0.0332031250000, -0.0196533203125, 0.0109863281250, 0.0017089843750],
]).astype(np.float32)  # fmt: skip
"""The interpolation filter of BS.1770's table, by phase."""

FILTER_TAPS = FILTER_PHASES.shape[1]
"""Length of the filter in samples."""
MAX_OVERSHOOT_RATIO = float(np.abs(FILTER_PHASES).sum(axis=1).max())
"""Largest ratio of a true peak to the samples around it."""

REDUCTION_MARGIN = 0.03
"""Share by which the reduction exceeds the estimate once it is well over: the filter reads slightly low."""


class Limiter:
    """Keeps the sum of each pair of output channels below the ceiling. Its state continues from block to block.

    Args:
        rate: in Hz.
        channels: output channels of the device.
        ahead: look-ahead of the gain in seconds.
        release: time constant of the gain's return in seconds.
    """

    def __init__(self, rate: float, channels: int, ahead: float = 0.0015, release: float = 0.08) -> None:
        self.ceiling = amplitude(CEILING_DBFS)
        self.window = max(8, round(ahead * rate))
        self.latency = self.window + FILTER_TAPS // 2
        self._pairs = [slice(first, min(first + 2, channels)) for first in range(0, channels, 2)]
        self._decay = float(np.exp(-1.0 / (release * rate)))
        self._delayed = np.zeros((self.latency, channels), np.float32)
        self._history = np.zeros((FILTER_TAPS - 1, channels), np.float32)
        self._excess_ahead = np.zeros((self.window, len(self._pairs)))
        self._released = np.zeros((self.window - 1, len(self._pairs)))
        bell = np.hanning(self.window + 2)[1:-1]
        self._bell = bell / bell.sum()

    @property
    def idle(self) -> bool:
        """True if all samples are output unchanged."""
        return not self._excess_ahead.any() and not self._released.any()

    def process(self, block: Samples) -> Samples:
        """Return the next frames, limited and delayed by `latency` frames, shape (frames, channels)."""
        frames = block.shape[0]
        joined = np.concatenate((self._delayed, block))
        out, self._delayed = joined[:frames], joined[frames:]
        history = np.concatenate((self._history, block))
        self._history = history[-(FILTER_TAPS - 1) :]
        is_quiet = float(np.abs(history).max(initial=0.0)) * MAX_OVERSHOOT_RATIO <= self.ceiling
        if is_quiet and self.idle:
            return out
        excess = np.zeros((frames, len(self._pairs))) if is_quiet else self._excess(history, frames)
        reduction = self._reduction(excess)
        if not reduction.any():
            return out
        gains = np.repeat(1.0 - reduction, 2, axis=1)[:, : out.shape[1]]
        return (out * gains).astype(np.float32)

    def _excess(self, history: Samples, frames: int) -> NDArray[np.float64]:
        """Return the reduction that each frame needs, 0 to 1, for each pair of channels."""
        windows = sliding_window_view(history, FILTER_TAPS, axis=0)  # (frames, channels, taps)
        between = np.abs(windows @ FILTER_PHASES.T[::-1]).max(axis=2)
        samples = np.abs(history[FILTER_TAPS // 2 - 1 : FILTER_TAPS // 2 - 1 + frames])
        peaks = np.maximum(between, samples).astype(np.float64)
        peak = np.stack([peaks[:, pair].max(axis=1) for pair in self._pairs], axis=1)
        over = np.maximum(peak / self.ceiling, 1.0)
        reduced = over * (1.0 + REDUCTION_MARGIN * np.minimum(1.0, (over - 1.0) * 8.0))
        return 1.0 - 1.0 / reduced

    def _reduction(self, excess: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the reduction applied at each frame: as much as each peak needs, smooth before and after it.

        The highest excess in the look-ahead is held, released slowly, and averaged over the same time: when a peak is
        output, every value in its average was held for it.
        """
        excesses = np.concatenate((self._excess_ahead, excess))
        self._excess_ahead = excesses[-self.window :]
        peak_excess = sliding_window_view(excesses, self.window + 1, axis=0).max(axis=2)
        line = np.concatenate((self._released, self._release(peak_excess)))
        self._released = line[-(self.window - 1) :]
        smooth = np.empty_like(excess)
        for pair in range(line.shape[1]):
            smooth[:, pair] = np.convolve(line[:, pair], self._bell, "valid")
        return smooth

    def _release(self, peak_excess: NDArray[np.float64]) -> NDArray[np.float64]:
        """Follow rises immediately and fall slowly: the maximum of all values before, each decayed by its age."""
        decayed = self._decay ** np.arange(1, peak_excess.shape[0] + 1)[:, None]
        highest = np.maximum.accumulate(peak_excess / decayed, axis=0)
        released = np.maximum(highest, self._released[-1]) * decayed
        released[released < 1e-7] = 0.0
        return released
