"""Stalls of the machine itself: a thread of the highest priority on one core that wakes every millisecond.

`python -m benchmarks.witness FILE CORE` records each late wake-up until its standard input ends. If even
this thread isn't woken, the kernel or the host of a virtual machine is the cause.
"""

import argparse
import gc
import os
import select
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.jack import is_realtime_allowed

WITNESS_PRIORITY = 90
"""Real-time priority, above that of the sound servers."""

WAKE_INTERVAL_S = 0.001
MIN_STALL_S = 0.001
"""Delay in seconds from which a wake-up counts as late."""

Stalls = NDArray[np.float64]
"""Start and end of each stall in seconds of the monotonic clock, (stalls, 2)."""


@contextmanager
def witnesses(folder: Path) -> Generator[list[Stalls]]:
    """Run a witness on every core; the list has the stalls of each core afterwards, none without real-time rights."""
    stalls_by_core: list[Stalls] = []
    if not is_realtime_allowed():
        yield stalls_by_core
        return
    paths = [folder / f"witness-{core}.npy" for core in sorted(os.sched_getaffinity(0))]
    with ExitStack() as stack:
        for core, path in zip(sorted(os.sched_getaffinity(0)), paths, strict=True):
            command = [sys.executable, "-m", "benchmarks.witness", str(path), str(core)]
            program = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
            assert program.stdin
            stack.callback(program.stdin.close)
        yield stalls_by_core
    stalls_by_core.extend(np.load(path) for path in paths)


def main() -> None:
    """Record late wake-ups of one core."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("core", type=int)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(WITNESS_PRIORITY))
    gc.disable()
    stalls: list[tuple[float, float]] = []
    readable: Sequence[object] = ()
    due_at = time.monotonic() + WAKE_INTERVAL_S
    while not readable:
        readable, _, _ = select.select([sys.stdin], [], [], WAKE_INTERVAL_S)
        now = time.monotonic()
        if now - due_at > MIN_STALL_S and not readable:
            stalls.append((due_at, now))
        due_at = now + WAKE_INTERVAL_S
    np.save(options.path, np.array(stalls).reshape(-1, 2))


if __name__ == "__main__":
    main()
