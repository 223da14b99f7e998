"""Between jobs, and now and then beside them: memory that was freed goes back to the system."""

import gc
import logging
import time
from collections.abc import Callable

from timbred.ipc.heap import release_free_memory

log = logging.getLogger("timbred.engine.memory")

IDLE_AFTER_S = 2.0
"""Seconds without work after which there is time for it."""

AT_MOST_AFTER_S = 30.0
"""Seconds of work after which it is done beside the work."""

MIN_FREED_BYTES = 32_000_000
"""Free memory that the process may hold: less isn't given back, since the next sound takes it again."""


class Upkeep:
    """When memory is tidied: once after work, when nothing is to be done, and every `AT_MOST_AFTER_S` during work.

    Giving memory back takes a few milliseconds and happens in another thread, given by `beside`. The search for objects
    that refer to each other stops all threads, for some 10 ms: it is done between two steps, as rarely.
    """

    def __init__(
        self, beside: Callable[[Callable[[], None]], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._beside = beside
        self._clock = clock
        self._done = clock()
        self._worked: float | None = None

    def worked(self) -> None:
        """Something was done just now: a step, or an order."""
        self._worked = self._clock()
        if self._worked - self._done >= AT_MOST_AFTER_S:
            self.tidy()

    @property
    def due_in(self) -> float | None:
        """Seconds after which to call `tidy` if nothing is done until then; None when all is tidy."""
        return None if self._worked is None else max(0.0, self._worked + IDLE_AFTER_S - self._clock())

    def tidy(self) -> None:
        """Collect what nobody can reach, and have free memory given back."""
        self._worked = None
        self._done = self._clock()
        gc.collect()
        self._beside(_give_back)


def _give_back() -> None:
    if release_free_memory(MIN_FREED_BYTES):
        log.debug("free memory was given back to the system")
