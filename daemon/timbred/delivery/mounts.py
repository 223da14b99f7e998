"""A disk that was removed: the folder where it was mounted is still there, and must not be written to in its place."""

import errno
import os
from pathlib import Path


class Disk:
    """The mounted disk that a folder is on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mount: Path | None = None

    def remember(self) -> None:
        """Note where the disk of the folder, which exists, is mounted; once."""
        if self._mount is None:
            self._mount = _mount_point(self._folder)

    def check(self) -> None:
        """See that the folder, or where it would be made again, is on the mount that was noted, or on one below it.

        Raises:
            OSError: ENODEV, when that is no longer mounted.
        """
        if self._mount is not None and not _mount_point(self._folder).is_relative_to(self._mount):
            reason = f"the disk that was mounted at {self._mount} isn't there"
            raise OSError(errno.ENODEV, reason, str(self._folder))


def _mount_point(folder: Path) -> Path:
    """The mount point of the folder or, where it doesn't exist, of the nearest folder above it that does."""
    real = Path(os.path.realpath(folder))
    while not os.path.ismount(real) and real != real.parent:
        real = real.parent
    return real
