"""Locks on open files, held for as long as the file is open."""

import errno
import os
import sys
from typing import IO, Any

LOCKED_BYTE_OFFSET = 1 << 30
"""Offset of the byte that is locked on Windows, where a locked range can't be read: far behind any content."""

NO_LOCKS = frozenset(
    getattr(errno, name)
    for name in ("ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EINVAL", "EPERM")
    if hasattr(errno, name)
)
"""Errors of file systems that have no locks."""


def try_lock(file: IO[Any]) -> bool:
    """Lock the file for as long as it is open; False where the file system has no locks.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    try:
        _lock(file.fileno())
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise BlockingIOError(error.errno, error.strerror) from error
    return True


def _lock(number: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        at = os.lseek(number, 0, os.SEEK_CUR)
        os.lseek(number, LOCKED_BYTE_OFFSET, os.SEEK_SET)
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(number, at, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
