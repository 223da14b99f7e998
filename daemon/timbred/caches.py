"""Bounded caches that evict the least recently used entries."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

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
