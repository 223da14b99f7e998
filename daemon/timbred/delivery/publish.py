"""A file's last step: from its hidden name to its final one, at once, and never over another file."""

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from timbred.renaming import rename_exclusively

NO_LINKS = frozenset(
    getattr(errno, name)
    for name in ("EPERM", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EMLINK", "EINVAL", "EACCES", "EXDEV")
    if hasattr(errno, name)
)
"""Errors of file systems that have no hard links (FAT, exFAT, some network folders), or no exclusive renames."""


def publish(hidden: Path, final: Path, placeholder: Callable[[Path, os.stat_result | None], None]) -> None:
    """Rename the finished file.

    Windows renames only to a free name. Elsewhere a hard link is made, which fails if the name is taken. Without hard
    links the system's exclusive rename is used; without that the name is first taken by an empty file of our own,
    which is then replaced. `placeholder` is called with that file's path and status, for the record, and with None
    when it is gone.

    Raises:
        FileExistsError: the name is taken; the hidden file is still there.
        OSError: from the file system.
    """
    if sys.platform == "win32":
        hidden.rename(final)
        return
    for attempt in (_link, rename_exclusively):
        try:
            attempt(hidden, final)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        else:
            return
    _replace_own(hidden, final, placeholder)


def _link(hidden: Path, final: Path) -> None:
    final.hardlink_to(hidden)
    hidden.unlink()


def _replace_own(hidden: Path, final: Path, placeholder: Callable[[Path, os.stat_result | None], None]) -> None:
    handle = os.open(final, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    try:
        placeholder(final, own := os.fstat(handle))
        try:
            now = final.lstat()
            if not os.path.samestat(now, own) or now.st_size:  # another program took the name meanwhile
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
            _replace(hidden, final, handle)
        except OSError as error:
            if not isinstance(error, FileExistsError):
                _remove_own(final, own)
            raise
        finally:
            placeholder(final, None)
    finally:
        os.close(handle)


def _replace(hidden: Path, final: Path, handle: int) -> None:
    try:
        hidden.replace(final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # one folder on several disks (a union file system): the content is copied into our own file
        with hidden.open("rb") as source, os.fdopen(os.dup(handle), "wb") as target:
            shutil.copyfileobj(source, target)


def _remove_own(path: Path, own: os.stat_result) -> None:
    """Remove the empty file, or what was copied into it; not a file that took its place."""
    try:
        if os.path.samestat(path.lstat(), own):
            path.unlink()
    except FileNotFoundError:
        return
