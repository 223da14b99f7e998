"""No process is left behind: what a test started is gone when it ends."""

from collections.abc import Generator
from contextlib import contextmanager

import psutil


@contextmanager
def none_left() -> Generator[None]:
    """Around what starts processes: afterwards only those that were there before are there still."""
    before = set(psutil.Process().children(recursive=True))
    yield
    left = set(psutil.Process().children(recursive=True)) - before
    assert not left, f"processes are left: {left}"
