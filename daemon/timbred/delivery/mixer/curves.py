"""Values on their way: gains that glide and fades of equal power, sample by sample, never a step."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


class Glide:
    """Values that move to new ones along half a cosine. Shape (values,); a block is (frames, values)."""

    def __init__(self, values: Values) -> None:
        self.now = values
        self.target = values
        self._from = values
        self._length = 0
        self._done = 0

    @property
    def moving(self) -> bool:
        return self._done < self._length

    def to(self, target: Values, frames: int) -> None:
        """Set out for `target`, to be there after `frames` frames."""
        self._from, self.target = self.now, target
        self._length, self._done = max(1, frames), 0

    def scale(self, factor: float) -> None:
        """Count in another unit from now on."""
        self.now, self.target, self._from = (values * factor for values in (self.now, self.target, self._from))

    def take(self, frames: int) -> Values:
        """The next block's values."""
        passed = np.minimum(np.arange(self._done + 1, self._done + frames + 1), self._length) / self._length
        share = 0.5 - 0.5 * np.cos(np.pi * passed)[:, None]
        values = self._from + (self.target - self._from) * share
        self._done += frames
        self.now = values[-1] if self.moving else self.target
        return values


class Fade:
    """A fade in or out of equal power: two that run together keep the sum of their powers at 1."""

    def __init__(self, frames: int, rising: bool) -> None:
        self.frames = max(1, frames)
        self.rising = rising
        self.done = 0

    @property
    def left(self) -> int:
        return max(0, self.frames - self.done)

    def take(self, frames: int) -> Values:
        """The next block's factors, shape (frames, 1): from above 0 to exactly 1, or the other way to exactly 0."""
        passed = np.minimum(np.arange(self.done + 1, self.done + frames + 1) / self.frames, 1.0)
        self.done += frames
        shape = np.sin(0.5 * np.pi * (passed if self.rising else 1.0 - passed))
        return shape[:, None]
