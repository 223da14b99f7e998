"""Bounded caches: the entries used last are kept."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteCache(Generic[Key, Value]):
    """Values by key, those used last, of at most `max_bytes` bytes together. For use from several threads.

    >>> cache = ByteCache[str, bytes](10, len)
    >>> [cache.get(key, lambda: bytes(4)) and cache.size for key in "abcb"]
    [4, 8, 8, 8]
    >>> len(cache)
    2
    """

    def __init__(self, max_bytes: int, count_bytes: Callable[[Value], int]) -> None:
        """`count_bytes` gives a value's bytes."""
        self.max_bytes = max_bytes
        self._count_bytes = count_bytes
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return self._size

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value that is kept, else what `make` gives. A value of more than `max_bytes` bytes isn't kept."""
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
        """Keep nothing of what there was."""
        with self._lock:
            self._values.clear()
            self._size = 0


class RecentDict(OrderedDict[Key, Value]):
    """A dictionary of the `max_keys` keys that were set last, for what is learned by kind of work.

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
