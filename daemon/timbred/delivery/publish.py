"""A file's last step: from its hidden name to its own, at once, and never over another file."""

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

NO_LINKS = frozenset(
    getattr(errno, name)
    for name in ("EPERM", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EMLINK", "EINVAL", "EACCES", "EXDEV")
    if hasattr(errno, name)
)
"""What systems answer where a file system has no hard links (FAT, exFAT, some network folders)."""


def publish(hidden: Path, final: Path) -> None:
    """Give the finished file its name.

    Windows renames only to a free name. Elsewhere a hard link is made, which fails if the name is taken;
    without hard links the name is first taken by an empty file of our own, and that one replaced.

    Raises:
        FileExistsError: the name is taken; the hidden file is still there.
        OSError: from the file system.
    """
    if sys.platform == "win32":
        hidden.rename(final)
        return
    try:
        final.hardlink_to(hidden)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _replace_own(hidden, final)
    else:
        hidden.unlink()


def _replace_own(hidden: Path, final: Path) -> None:
    os.close(os.open(final, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        hidden.replace(final)
    except OSError:
        with suppress(OSError):
            final.unlink()
        raise
