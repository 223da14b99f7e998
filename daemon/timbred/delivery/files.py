"""Files appear whole, under a name that was never used, inside the takes folder."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from timbred.delivery.leftovers import hidden_file, sweep
from timbred.delivery.names import MEMORY, Names
from timbred.delivery.paths import AllowedFolders, folder_inside
from timbred.delivery.publish import publish
from timbred.delivery.settling import LATER, Settling
from timbred.delivery.slugs import slug
from timbred.errors import DiskFull, ForbiddenPath, Internal, TimbredError, from_foreign

__all__ = ["AllowedFolders", "TakesFolder", "Writer", "slug"]

Writer = Callable[[BinaryIO], None]
"""Writes one whole file to an open binary file, read and write, at its beginning."""

ATTEMPTS = 100
"""Names tried when other programs take ours between the choice and the publication."""


class TakesFolder:
    """The folder that finished sounds appear in. Safe for threads, and for several processes."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser().absolute()
        self._names = Names(self.root)
        self._settling = Settling()

    def check(self) -> None:
        """Create the folder if need be, and see that a file can be written there.

        Raises:
            ForbiddenPath: it can't be made, or written to; naming it, and what to do.
            DiskFull: no room.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with hidden_file(self.root) as path:
                path.write_bytes(b"timbred")
        except OSError as error:
            raise self._translated(error, self.root) from error

    def sweep(self) -> list[Path]:
        """Remove the unfinished files that a crash left behind; the paths removed."""
        return sweep(self.root)

    def write(self, name_slug: str, folder: str, extension: str, writer: Writer) -> Path:
        """Let `writer` write a file, and publish it as `FOLDER/SLUG-NUMBER.EXTENSION`.

        `name_slug` may be any text, a prompt too; `folder` may be empty. The file isn't seen before it is
        whole; after any failure nothing is left. It reaches the disk itself soon after: see `Settling`.

        Raises:
            ForbiddenPath: `folder` leaves the takes folder, or can't be written to.
            DiskFull: no room.
            Whatever else `writer` raises.
        """
        inside = self._made(folder)
        name = slug(name_slug)
        suffix = _checked(extension)
        with hidden_file(inside) as hidden:
            try:
                _written(hidden, writer)
                final = self._published(hidden, inside, name, suffix)
            except OSError as error:
                raise self._translated(error, inside) from error
        self._settling.add((final, inside, self.root / MEMORY))
        return final

    def settle(self) -> None:
        """Wait until all that was written is on the disk."""
        self._settling.wait()

    def _made(self, folder: str) -> Path:
        inside = folder_inside(self.root, folder)
        try:
            inside.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._translated(error, inside) from error
        return folder_inside(self.root, folder)

    def _published(self, hidden: Path, inside: Path, name: str, suffix: str) -> Path:
        for attempt in range(ATTEMPTS):
            number = self._names.next_number(inside, name, look=attempt > 0)
            final = inside / f"{name}-{number:04d}.{suffix}"
            try:
                publish(hidden, final)
            except FileExistsError:
                continue
            return final
        raise Internal(f"{inside}: no free name for {name} in {ATTEMPTS} attempts")

    def _translated(self, error: OSError, folder: Path) -> TimbredError:
        known = from_foreign(error)
        reason = error.strerror or str(error)
        if isinstance(known, DiskFull):
            return DiskFull(f"no room left on the disk of {folder}: free some, or set takes.folder to another disk")
        if isinstance(known, ForbiddenPath) or error.errno == errno.EEXIST:
            return ForbiddenPath(
                f"{folder} can't be written to ({reason}): make it a folder that you may write to,"
                " or set takes.folder to another"
            )
        return Internal(f"{folder}: {reason}")


def _written(hidden: Path, writer: Writer) -> None:
    with hidden.open("x+b") as file:
        writer(file)
        file.flush()
        if not LATER:
            os.fsync(file.fileno())


def _checked(extension: str) -> str:
    plain = extension.removeprefix(".").lower()
    if not (plain.isascii() and plain.isalnum() and len(plain) <= 8):
        raise ForbiddenPath(f"extension: got {extension!r}, allowed are up to 8 letters and digits")
    return plain
