"""Caches by length or by prompt stay within their bounds, and freed memory that the process still holds goes back."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.patience import TIMEOUT_S
from timbred import process_memory
from timbred.engine.batching import MAX_KINDS, DurationEma, ThreadTuner
from timbred.engine.model_manager import IDLE_DELAY_S, MAX_TIDY_INTERVAL_S, Upkeep
from timbred.process_memory import ByteCache, RecentDict


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30))), st.integers(0, 40))
def test_byte_cache_never_holds_more_than_its_limit(calls: list[tuple[int, int]], limit: int):
    cache = ByteCache[int, bytes](limit, len)
    sizes: dict[int, int] = {}
    for key, size in calls:
        found = cache.get(key, lambda size=size: bytes(size))
        sizes.setdefault(key, size)
        assert len(found) in (size, sizes[key])
        sizes[key] = len(found)
        assert cache.size <= limit
    cache.clear()
    assert (cache.size, len(cache)) == (0, 0)


def test_byte_cache_drops_the_value_used_least_recently():
    made: list[str] = []

    def make(key: str) -> bytes:
        made.append(key)
        return bytes(4)

    cache = ByteCache[str, bytes](8, len)
    for key in ("a", "b", "a", "c", "a", "b"):
        cache.get(key, lambda key=key: make(key))
    assert made == ["a", "b", "c", "b"]


def test_byte_cache_leaves_the_others_when_a_value_is_too_large():
    cache = ByteCache[str, bytes](8, len)
    cache.get("small", lambda: bytes(4))
    assert len(cache.get("large", lambda: bytes(9))) == 9
    assert cache.size == 4


def test_recent_dict_keeps_the_keys_set_last():
    recent = RecentDict[int, int](3)
    for key in (1, 2, 3, 1, 4):
        recent[key] = key
    assert list(recent) == [3, 1, 4]


def test_thread_tuner_bounds_what_it_keeps_by_length():
    pace, threads = DurationEma(), ThreadTuner(2)
    for number in range(3 * MAX_KINDS):
        pace.record(("step", number), 0.1)
        threads.record(number, threads.choose_threads(number), 0.1)
    assert len(pace._means) == MAX_KINDS  # pyright: ignore[reportPrivateUsage]
    for learned in (threads._seconds, threads._trial, threads._latest):  # pyright: ignore[reportPrivateUsage]
        assert len(learned) <= MAX_KINDS


def test_upkeep_runs_once_after_work_and_at_times_during_work():
    now, given_back = [0.0], list[float]()
    upkeep = Upkeep(lambda _work: given_back.append(now[0]), lambda: now[0])
    assert upkeep.due_in_s is None
    now[0] = 1.0
    upkeep.record_work()
    assert upkeep.due_in_s == IDLE_DELAY_S
    now[0] += IDLE_DELAY_S
    assert upkeep.due_in_s == 0.0
    upkeep.tidy()
    assert upkeep.due_in_s is None
    assert given_back == [1.0 + IDLE_DELAY_S]
    for _ in range(int(3 * MAX_TIDY_INTERVAL_S)):
        now[0] += 1.0
        upkeep.record_work()
    assert len(given_back) == 4


FRAGMENTED = """
import ctypes, sys
from timbred import process_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_size_t,), (ctypes.c_void_p,)
blocks = [libc.malloc(60_000) for _ in range(1_000)]
for block in blocks:
    ctypes.memset(block, 1, 60_000)
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
for block in blocks[:-1]:
    libc.free(block)
held, before = process_memory.retained_free_bytes(), resident()
assert held > 50_000_000, held
assert not process_memory.release_free_memory(threshold_bytes=200_000_000)
assert process_memory.release_free_memory(threshold_bytes=10_000_000)
assert before - resident() > 50_000_000, (before, resident())
"""


@pytest.mark.skipif(
    process_memory.retained_free_bytes() == 0, reason="this C library doesn't say what it holds (glibc 2.33 does)"
)
def test_process_memory_release_returns_what_lies_between_blocks_in_use():
    done = subprocess.run(
        [sys.executable, "-c", FRAGMENTED], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr


def test_process_memory_release_does_nothing_without_glibc(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process_memory, "_glibc", lambda: None)
    assert process_memory.retained_free_bytes() == 0
    assert not process_memory.release_free_memory()
    process_memory.limit_arenas(2)
