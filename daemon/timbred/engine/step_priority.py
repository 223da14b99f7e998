"""The thread that generates goes first; others, which load or prepare, go on between its steps.

Python's threads share one lock, which knows no priorities. A step takes that lock hundreds of times, once for each
operation that it hands to the device, and beside a thread that computes in Python it waits a whole switching interval
each time: one step then lasts as long as twenty. So such a thread rests while a step is taken, wherever in its work it
is; what it does without the lock (reading, copying, hashing) goes on all the same.
"""

import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

REST = 0.02
"""Seconds after which a thread goes on for a moment although the step still lasts, so that long steps don't stop it."""

MOMENT = 0.002
"""Seconds of that moment."""

SHARE = 0.4
"""Of the time that a step usually takes: what others get before the next one, if any of them wants it. A step that took
longer than usual had its delay already: they get that much less."""

LONGEST_SHARE = 0.05
"""Seconds that they get at most: longer steps are work of the device, beside which they had their moments."""

NEWEST = 0.1
"""Weight of the newest step in what is usual."""

Result = TypeVar("Result")


class _HeldState(threading.local):
    """How many `PromptLock`s this thread has."""

    count: int = 0


_held = _HeldState()


class FairLock:
    """A lock that the one who goes first may have to wait for: nobody rests with it. May be taken more than once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        _held.count += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        _held.count -= 1


def share(took: float, usual: float) -> float:
    """Seconds that the others get after a step, of how long it took and what is usual.

    >>> share(took=0.01, usual=0.01), share(took=0.02, usual=0.01), share(took=1.0, usual=1.0)
    (0.004, 0.0, 0.05)
    """
    return min(LONGEST_SHARE, max(0.0, SHARE * usual - max(0.0, took - usual)))


class StepPriority:
    """One thread works in `first`, any others in `behind`."""

    def __init__(self) -> None:
        self._free = threading.Event()
        self._free.set()
        self._resting = 0
        self._usual = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def first(self) -> Generator[None]:
        """Here the others rest. Afterwards they get their share of time, if any of them wants it."""
        began = time.perf_counter()
        self._free.clear()
        try:
            yield
        finally:
            wanted = self._resting > 0
            self._free.set()
        took = time.perf_counter() - began
        self._usual += NEWEST * (took - self._usual) if self._usual else took
        if wanted:
            time.sleep(share(took, self._usual))

    def behind(self, work: Callable[[], Result]) -> Result:
        """Do something in this thread that gives way between any two calls of functions, however deep inside."""
        goes_on_until = 0.0

        def rest(_frame: FrameType, _event: str, _argument: Any) -> None:
            nonlocal goes_on_until
            if not self._free.is_set() and not _held.count and time.perf_counter() >= goes_on_until:
                self._rest()
                goes_on_until = time.perf_counter() + MOMENT

        before = sys.getprofile()
        sys.setprofile(rest)
        try:
            return work()
        finally:
            sys.setprofile(before)

    def _rest(self) -> None:
        with self._lock:
            self._resting += 1
        self._free.wait(REST)
        with self._lock:
            self._resting -= 1
