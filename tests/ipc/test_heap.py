"""Freed memory that the process still holds goes back to the system."""

import subprocess
import sys

import pytest

from tests.patience import TIMEOUT_S
from timbred.ipc import heap

FRAGMENTED = """
import ctypes, sys
from timbred.ipc import heap

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_size_t,), (ctypes.c_void_p,)
blocks = [libc.malloc(60_000) for _ in range(1_000)]
for block in blocks:
    ctypes.memset(block, 1, 60_000)
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
for block in blocks[:-1]:
    libc.free(block)
held, before = heap.retained_free_bytes(), resident()
assert held > 50_000_000, held
assert not heap.release_free_memory(threshold_bytes=200_000_000)
assert heap.release_free_memory(threshold_bytes=10_000_000)
assert before - resident() > 50_000_000, (before, resident())
"""


@pytest.mark.skipif(
    heap.retained_free_bytes() == 0, reason="this C library doesn't say what it holds (glibc 2.33 does)"
)
def test_heap_release_returns_what_lies_between_blocks_in_use():
    done = subprocess.run(
        [sys.executable, "-c", FRAGMENTED], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr


def test_heap_release_does_nothing_without_glibc(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    assert heap.retained_free_bytes() == 0
    assert not heap.release_free_memory()
    heap.limit_arenas(2)
