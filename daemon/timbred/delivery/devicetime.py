"""When a frame is heard: a line through what the device was seen to have taken. Pure."""

from collections import deque

WINDOW = 400
"""Observations that are remembered: some seconds of them, for a device's clock drifts."""


class DeviceTime:
    """Learns which frame the device is at, at which moment.

    Whoever asks the device sees a staircase, and always late: a step is seen some time after it happened, never
    before. So the earliest steps are the true ones.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._starts: deque[float] = deque(maxlen=WINDOW)
        self._frames = -1

    def saw(self, frames: int, moment: float) -> None:
        """The device had taken `frames` in all at `moment` (seconds)."""
        if frames == self._frames:
            return
        if self._frames >= 0:  # with this step it began to play what follows those it had before
            self._starts.append(moment - self._frames / self.rate)
        self._frames = frames

    @property
    def settled(self) -> bool:
        """Whether enough was seen to rely on."""
        return len(self._starts) >= 20

    def frame_at(self, moment: float) -> float:
        """The frame that goes into the device at `moment`. Needs `settled`."""
        return (moment - min(self._starts)) * self.rate

    def restart(self) -> None:
        """Forget: frames were skipped."""
        self._starts.clear()
        self._frames = -1
