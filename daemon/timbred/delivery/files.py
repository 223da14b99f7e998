"""Files appear whole, under a name that was never used, inside the takes folder.

A file is written under a hidden name and renamed when it is whole (`delivery.publish`). Nothing is removed but what
timbred recorded that it created (`delivery.created`).
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from timbred.delivery.created import Created, sweep
from timbred.delivery.mounts import Disk
from timbred.delivery.names import MEMORY, Names
from timbred.delivery.paths import AllowedFolders, check_length, folder_inside
from timbred.delivery.publish import publish
from timbred.delivery.settling import LATER, Settling
from timbred.delivery.slugs import slug
from timbred.errors import DiskFull, ForbiddenPath, Internal, TimbredError, from_foreign
from timbred.filenames import PathLimit, is_utf8, path_limit_here, printable

__all__ = ["AllowedFolders", "TakesFolder", "Writer", "slug"]

Writer = Callable[[BinaryIO], None]
"""Writes one whole file to an open binary file, read and write, at its beginning."""

UNUSABLE = frozenset(
    getattr(errno, name)
    for name in ("EEXIST", "ELOOP", "EIO", "ENODEV", "ENXIO", "ESTALE", "ENOTCONN", "EHOSTDOWN", "ETIMEDOUT")
    if hasattr(errno, name)
)
"""Errors of folders that are no folders, and of disks and shares that went away."""

ATTEMPTS = 100
"""Names tried when other programs take ours between the choice and the publication."""


class TakesFolder:
    """The folder that finished sounds appear in. Safe for threads, and for several processes."""

    def __init__(self, root: Path, limit: PathLimit | None = None) -> None:
        """`limit` is the longest path that the system takes; by default this computer's."""
        self._limit = limit or path_limit_here()
        self.root = Path(root).expanduser().absolute()
        self._names = Names(self.root)
        self._settling = Settling()
        self._created = Created(self.root)
        self._disk = Disk(self.root)

    def check(self) -> None:
        """Create the folder if need be, and see that a file can be written there.

        Raises:
            ForbiddenPath: it can't be made, or written to, or its path is too long; naming it, and what to do.
            DiskFull: no room.
        """
        check_length(str(self.root), self._limit)
        try:
            self._disk.check()
            self.root.mkdir(parents=True, exist_ok=True)
            self._disk.remember()
            with self._created.part(self.root) as path:
                path.write_bytes(b"timbred")
        except OSError as error:
            raise self._translated(error, self.root) from error
        finally:
            self._created.close()
        self._check_encoding()

    def check_inside(self, folder: str) -> None:
        """See that a folder inside, named as `write` takes it, can be one; it need not exist.

        Raises:
            ForbiddenPath: it leaves the takes folder, has a name that no file may have, or leaves a file no room.
        """
        self._inside(folder)

    def sweep(self) -> list[Path]:
        """Remove the unfinished files and the previews of daemons that were killed; the paths removed."""
        return sweep(self.root)

    def write(self, name_slug: str, folder: str, extension: str, writer: Writer, *, temporary: bool = False) -> Path:
        """Let `writer` write a file, and publish it as `FOLDER/SLUG-NUMBER.EXTENSION`.

        `name_slug` may be any text, a prompt too; `folder` may be empty. The file isn't seen before it is
        whole; after any failure nothing is left. It reaches the disk itself soon after: see `Settling`. A temporary
        file is removed by `remove_temporary`, unless it was changed since.

        Raises:
            ForbiddenPath: `folder` leaves the takes folder, or can't be written to.
            DiskFull: no room.
            Whatever else `writer` raises.
        """
        self._check_encoding()
        inside = self._made(folder)
        name = slug(name_slug)
        suffix = _checked(extension)
        try:
            with self._created.part(inside) as hidden:
                status = _written(hidden, writer)
                final = self._published(hidden, inside, name, suffix, status if temporary else None)
        except OSError as error:
            raise self._translated(error, inside) from error
        self._settling.add((final, inside, self.root / MEMORY))
        return final

    def remove_temporary(self) -> list[Path]:
        """Remove the temporary files that nobody changed since; the paths removed."""
        return self._created.remove_files()

    def settle(self) -> None:
        """Wait until all that was written is on the disk."""
        self._settling.wait()

    def close(self) -> None:
        """Remove the record of what was created, if nothing of it is left to be removed."""
        self._created.close()

    def _made(self, folder: str) -> Path:
        try:
            self._disk.check()
            inside = self._inside(folder)
            inside.mkdir(parents=True, exist_ok=True)
            self._disk.remember()
        except OSError as error:
            raise self._translated(error, self.root) from error
        return folder_inside(self.root, folder)

    def _inside(self, folder: str) -> Path:
        inside = folder_inside(self.root, folder)
        check_length(str(inside), self._limit)
        return inside

    def _published(self, hidden: Path, inside: Path, name: str, suffix: str, temporary: os.stat_result | None) -> Path:
        def record(path: Path, placeholder: os.stat_result | None) -> None:
            status = placeholder or temporary
            if status is None:
                self._created.forget(path)
            else:
                self._created.add(path, status)

        for attempt in range(ATTEMPTS):
            number = self._names.next_number(inside, name, look=attempt > 0)
            final = inside / f"{name}-{number:04d}.{suffix}"
            if temporary is not None:
                self._created.add(final, temporary)
            try:
                publish(hidden, final, record)
            except OSError as error:
                self._created.forget(final)
                if isinstance(error, FileExistsError):
                    continue
                raise
            return final
        raise Internal(f"{inside}: no free name for {name} in {ATTEMPTS} attempts")

    def _check_encoding(self) -> None:
        """Paths are sent to clients as UTF-8.

        Raises:
            ForbiddenPath: the folder's path can't be.
        """
        if not is_utf8(str(self.root)):
            raise ForbiddenPath(
                f"takes.folder {printable(str(self.root))}: its name isn't UTF-8, so no client can be told a path in"
                " it: rename the folder, or set takes.folder to another"
            )

    def _translated(self, error: OSError, folder: Path) -> TimbredError:
        known = from_foreign(error)
        reason = error.strerror or str(error)
        shown = printable(str(folder))
        if isinstance(known, DiskFull):
            return DiskFull(f"no room left on the disk of {shown}: free some, or set takes.folder to another disk")
        if error.errno == errno.ENAMETOOLONG:
            return ForbiddenPath(f"{shown}: the path is too long for its disk: set takes.folder to a shorter one")
        if isinstance(known, ForbiddenPath) or error.errno in UNUSABLE:
            return ForbiddenPath(
                f"{shown} can't be written to ({reason}): make it a folder that you may write to,"
                " or set takes.folder to another"
            )
        return Internal(f"{shown}: {reason}")


def _written(hidden: Path, writer: Writer) -> os.stat_result:
    """Write the file; its status once it is closed."""
    with hidden.open("x+b") as file:
        writer(file)
        file.flush()
        if not LATER:
            os.fsync(file.fileno())
    return hidden.lstat()


def _checked(extension: str) -> str:
    plain = extension.removeprefix(".").lower()
    if not (plain.isascii() and plain.isalnum() and len(plain) <= 8):
        raise ForbiddenPath(f"extension: got {extension!r}, allowed are up to 8 letters and digits")
    return plain
