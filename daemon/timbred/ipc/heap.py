"""Memory that was freed and that the C library still holds: given back to the system.

glibc keeps what is freed, for whoever asks next. After many blocks of many sizes much of it lies in gaps that nothing
fits into, and a process grows although it uses no more than before.
"""

import ctypes
import functools
import sys
from collections.abc import Callable
from typing import Any

_M_ARENA_MAX = -8


class _Mallinfo2(ctypes.Structure):
    """mallinfo(3): bytes in use are `uordblks`, free ones that are held `fordblks`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


@functools.cache
def _glibc() -> tuple[Callable[[int], int], Callable[[], Any]] | None:
    """`malloc_trim` and `mallinfo2`, None on systems without them (other C libraries, glibc before 2.33)."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)  # calls give Python's lock up meanwhile
    try:
        trim, info = library.malloc_trim, library.mallinfo2
    except AttributeError:
        return None
    trim.argtypes, trim.restype = (ctypes.c_size_t,), ctypes.c_int
    info.argtypes, info.restype = (), _Mallinfo2
    return trim, info


def held_free_bytes() -> int:
    """Bytes that were freed and that the process still holds; 0 where that can't be known."""
    found = _glibc()
    return 0 if found is None else int(found[1]().fordblks)


def release_free_memory(more_than: int = 0) -> bool:
    """Give freed memory back to the system, if it is more than so many bytes; whether it was. From any thread."""
    found = _glibc()
    if found is None or held_free_bytes() <= more_than:
        return False
    found[0](0)
    return True


def limit_arenas(most: int) -> None:
    """Have threads share so many arenas, mallopt(3); without it each keeps what it freed to itself.

    Before threads are started; nothing where the C library has no arenas.
    """
    if _glibc() is not None:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, most)
