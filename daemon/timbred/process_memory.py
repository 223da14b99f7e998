"""Memory of a process: bounded caches, and the return of freed memory from the C library to the system.

The caches evict the least recently used entries. glibc retains freed memory for later allocations. After many
allocations of different sizes much of it is fragmented, and a process grows although it uses no more memory than
before.
"""

import ctypes
import functools
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteCache(Generic[Key, Value]):
    """Cache of at most `max_bytes` bytes that evicts the least recently used values. Thread-safe.

    >>> cache = ByteCache[str, bytes](10, len)
    >>> [cache.get(key, lambda: bytes(4)) and cache.size for key in "abcb"]
    [4, 8, 8, 8]
    >>> len(cache)
    2
    """

    def __init__(self, max_bytes: int, count_bytes: Callable[[Value], int]) -> None:
        """Create an empty cache; `count_bytes` returns a value's size in bytes."""
        self.max_bytes = max_bytes
        self._count_bytes = count_bytes
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def size(self) -> int:
        """Total size of all values in bytes."""
        return self._size

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the cached value, or the result of `make`, which is cached if it has at most `max_bytes` bytes."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        size = self._count_bytes(value)
        with self._lock:
            if key not in self._values and size <= self.max_bytes:
                self._values[key] = value
                self._size += size
            while self._size > self.max_bytes:
                _, oldest = self._values.popitem(last=False)
                self._size -= self._count_bytes(oldest)
        return value

    def clear(self) -> None:
        """Remove all values."""
        with self._lock:
            self._values.clear()
            self._size = 0


class RecentDict(OrderedDict[Key, Value]):
    """Dictionary that keeps the `max_keys` keys set last.

    >>> seen = RecentDict[str, int](2)
    >>> seen["a"], seen["b"], seen["a"], seen["c"] = 1, 2, 3, 4
    >>> dict(seen)
    {'a': 3, 'c': 4}
    """

    def __init__(self, max_keys: int) -> None:
        super().__init__()
        self._max_keys = max_keys

    def __setitem__(self, key: Key, value: Value) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > self._max_keys:
            del self[next(iter(self))]


_M_ARENA_MAX_PARAMETER = -8


class _Mallinfo2(ctypes.Structure):
    """mallinfo(3): bytes in use are `uordblks`, free bytes that are retained `fordblks`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


@functools.cache
def _glibc() -> tuple[Callable[[int], int], Callable[[], Any]] | None:
    """Return `malloc_trim` and `mallinfo2`; None on systems without them (other C libraries, glibc before 2.33)."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)  # calls release the GIL
    try:
        trim, info = library.malloc_trim, library.mallinfo2
    except AttributeError:
        return None
    trim.argtypes, trim.restype = (ctypes.c_size_t,), ctypes.c_int
    info.argtypes, info.restype = (), _Mallinfo2
    return trim, info


def retained_free_bytes() -> int:
    """Return the freed bytes that the process retains; 0 if that is unknown."""
    functions = _glibc()
    return 0 if functions is None else int(functions[1]().fordblks)


def release_free_memory(threshold_bytes: int = 0) -> bool:
    """Return freed memory to the system if it exceeds `threshold_bytes`, and return True if it did. Thread-safe."""
    functions = _glibc()
    if functions is None or retained_free_bytes() <= threshold_bytes:
        return False
    functions[0](0)
    return True


def limit_arenas(max_arenas: int) -> None:
    """Limit the arenas that threads share, by mallopt(3), because each arena retains its own freed memory.

    Call it before threads are started. It has no effect where the C library has no arenas.
    """
    if _glibc() is not None:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX_PARAMETER, max_arenas)
