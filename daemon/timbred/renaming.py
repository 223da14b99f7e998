"""Renaming files and folders without ever replacing another one."""

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1  # Linux
_RENAME_EXCL = 4  # macOS
_NO_SUCH_CALL = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP})


def rename_exclusively(source: Path, target: Path) -> None:
    """Rename a file or folder; never over another.

    Raises:
        FileExistsError: the name is taken.
        OSError: from the file system; ENOSYS or EINVAL where it has no such call.
    """
    if sys.platform == "win32":
        source.rename(target)
        return
    call = _exclusive_rename()
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(target))
    if call(os.fsencode(source), os.fsencode(target)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


@lru_cache(maxsize=1)
def _exclusive_rename() -> Callable[[bytes, bytes], int] | None:
    """The C library's rename that fails if the target exists: renameat2 on Linux, renamex_np on macOS."""
    library: Any = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        call = getattr(library, "renamex_np", None)
        return None if call is None else lambda source, target: call(source, target, _RENAME_EXCL)
    call = getattr(library, "renameat2", None)
    if call is None:
        return None
    return lambda source, target: call(_AT_FDCWD, source, _AT_FDCWD, target, _RENAME_NOREPLACE)


def rename_to_free_name(source: Path, target: Path) -> None:
    """Rename a file or folder to a name that nothing has. Where the system can't do both at once, look before.

    Raises:
        FileExistsError: the name is taken.
        OSError: from the file system.
    """
    try:
        rename_exclusively(source, target)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        source.rename(target)
