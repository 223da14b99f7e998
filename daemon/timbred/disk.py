"""Renames that never replace a file, file locks, damaged databases, and the user's folders."""

import ctypes
import errno
import itertools
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

import platformdirs

from timbred.errors import BadRequest
from timbred.filenames import printable

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1  # Linux
_RENAME_EXCL = 4  # macOS
_UNSUPPORTED_CALL_ERRORS = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP})


def rename_exclusively(source: Path, target: Path) -> None:
    """Rename a file or folder without replacing an existing one.

    Raises:
        FileExistsError: The target exists.
        OSError: The file system's error; ENOSYS or EINVAL if it has no such call.
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
    """Return the C library's rename that fails if the target exists: renameat2 on Linux, renamex_np on macOS."""
    library: Any = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        call = getattr(library, "renamex_np", None)
        return None if call is None else lambda source, target: call(source, target, _RENAME_EXCL)
    call = getattr(library, "renameat2", None)
    if call is None:
        return None
    return lambda source, target: call(_AT_FDCWD, source, _AT_FDCWD, target, _RENAME_NOREPLACE)


def rename_to_free_name(source: Path, target: Path) -> None:
    """Rename a file or folder to an unused name.

    On systems without an exclusive rename, the target is checked before the rename.

    Raises:
        FileExistsError: The target exists.
        OSError: The file system's error.
    """
    try:
        rename_exclusively(source, target)
    except OSError as error:
        if error.errno not in _UNSUPPORTED_CALL_ERRORS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        source.rename(target)


LOCKED_BYTE_OFFSET = 1 << 30
"""Offset of the byte that is locked on Windows, where a locked range can't be read: far beyond any content."""

UNSUPPORTED_LOCK_ERRORS = frozenset(
    getattr(errno, name)
    for name in ("ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EINVAL", "EPERM")
    if hasattr(errno, name)
)
"""Errors of file systems without locks."""


def try_lock(file: IO[Any]) -> bool:
    """Lock a file until it is closed; return False if the file system has no locks.

    Raises:
        BlockingIOError: Another process has locked it.
    """
    try:
        _lock(file.fileno())
    except OSError as error:
        if error.errno in UNSUPPORTED_LOCK_ERRORS:
            return False
        raise BlockingIOError(error.errno, error.strerror) from error
    return True


def _lock(number: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        previous_offset = os.lseek(number, 0, os.SEEK_CUR)
        os.lseek(number, LOCKED_BYTE_OFFSET, os.SEEK_SET)
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(number, previous_offset, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Damaged(sqlite3.DatabaseError):
    """SQLite's integrity check found a fault."""


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Return True if the error means that the file isn't an intact database."""
    name = getattr(error, "sqlite_errorname", "") or ""
    return isinstance(error, Damaged) or name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT"))


def set_aside(path: Path) -> Path:
    """Rename a damaged database and its journal files to the first free `NAME.damaged-N`.

    Raises:
        OSError: The file system's error.
    """
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
    endings = ("-wal", "-shm", "-journal", "")
    aside = next(
        name for name in names if not any(os.path.lexists(name.with_name(name.name + ending)) for ending in endings)
    )
    for ending in endings:
        part = path.with_name(path.name + ending)
        if part.exists():
            rename_to_free_name(part, aside.with_name(aside.name + ending))
    return aside


def locks_work(folder: Path) -> bool:
    """Return True if byte ranges of files in this folder can be locked; tested with a new file.

    Raises:
        OSError: The folder isn't writable.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


Kind = Literal["config", "data", "cache", "music"]

_FOLDER_VARIABLES: dict[Kind, str] = {
    "config": "XDG_CONFIG_HOME",
    "data": "XDG_DATA_HOME",
    "cache": "XDG_CACHE_HOME",
    "music": "XDG_MUSIC_DIR",
}


def user_folder(kind: Kind) -> Path | None:
    """Return the absolute path of timbred's folder of this kind; None if the user has no home folder."""
    try:
        if kind == "music":
            folder = platformdirs.user_music_path() / "timbred"
        else:
            folder = Path(getattr(platformdirs, f"user_{kind}_path")("timbred", appauthor=False))
    except RuntimeError:  # there is no home folder; other versions of the library return a relative path
        return None
    # an empty HOME would put everything into the root folder
    is_rootless = (
        sys.platform != "win32" and os.environ.get("HOME") == "" and not os.environ.get(_FOLDER_VARIABLES[kind])
    )
    return folder if folder.is_absolute() and not is_rootless else None


def expand_user(path: Path) -> Path:
    """Return the path with `~` expanded.

    Raises:
        BadRequest: There is no such home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise BadRequest(f"{printable(str(path))}: there is no such home folder; use an absolute path") from None


def describe_user() -> str:
    """Return the user for error messages: by number, if the system has one."""
    return f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
