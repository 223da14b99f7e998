"""Return of freed memory from the C library to the system.

glibc retains freed memory for later allocations. After many allocations of different sizes much of it is
fragmented, and a process grows although it uses no more memory than before.
"""

import ctypes
import functools
import sys
from collections.abc import Callable
from typing import Any

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
