"""A log that a flood of bad requests can't fill."""

import logging
import time
from collections.abc import Callable

LINES_A_SECOND = 10.0
BURST_LINES = 100.0


class LimitedLog:
    """Writes up to 100 lines at once and 10 a second in the long run; the next line says how many were left out."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._lines = BURST_LINES
        self._counted = clock()
        self._left_out = 0

    def write(self, level: int, message: str, *arguments: object) -> None:
        """Log a message, unless there were too many."""
        now = self._clock()
        self._lines = min(BURST_LINES, self._lines + (now - self._counted) * LINES_A_SECOND)
        self._counted = now
        if self._lines < 1.0:
            self._left_out += 1
            return
        self._lines -= 1.0
        if self._left_out:
            self._log.log(level, "%d more lines like the next one were left out", self._left_out)
            self._left_out = 0
        self._log.log(level, message, *arguments)
