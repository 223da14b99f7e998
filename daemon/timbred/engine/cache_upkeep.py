"""Garbage collection and return of freed memory, in idle time and at intervals during work."""

import gc
import logging
import time
from collections.abc import Callable

from timbred.ipc.heap import release_free_memory

log = logging.getLogger("timbred.engine.memory")

IDLE_AFTER_S = 2.0
"""Seconds without work after which memory is tidied."""

AT_MOST_AFTER_S = 30.0
"""Seconds of work after which memory is tidied between steps."""

MIN_FREED_BYTES = 32_000_000
"""Free heap that the process may keep; less is not returned, because the next render allocates it again."""


class Upkeep:
    """Decides when memory is tidied: once when idle after work, and every `AT_MOST_AFTER_S` during work.

    Returning memory takes a few milliseconds in another thread, which `beside` provides. Garbage collection stops all
    threads for some 10 ms, so it runs between steps and as rarely.
    """

    def __init__(
        self, beside: Callable[[Callable[[], None]], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._beside = beside
        self._clock = clock
        self._done = clock()
        self._worked: float | None = None

    def worked(self) -> None:
        """Record that a step or a message was handled now."""
        self._worked = self._clock()
        if self._worked - self._done >= AT_MOST_AFTER_S:
            self.tidy()

    @property
    def due_in(self) -> float | None:
        """Seconds until `tidy` is due if nothing is done; None when it is done."""
        return None if self._worked is None else max(0.0, self._worked + IDLE_AFTER_S - self._clock())

    def tidy(self) -> None:
        """Collect garbage, and have free memory returned to the system."""
        self._worked = None
        self._done = self._clock()
        gc.collect()
        self._beside(_give_back)


def _give_back() -> None:
    if release_free_memory(MIN_FREED_BYTES):
        log.debug("free memory was returned to the system")
