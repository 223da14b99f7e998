"""Numbers for file names, each given once, remembered after the file is gone.

A small hidden SQLite file in the takes folder keeps the last number of every name. It is safe for threads
and for several processes, and nothing waits for the disk: a process that ends has lost nothing, but when the power
fails the file may be damaged, and is set aside. Where it can't be kept (a share without locks, a full disk), numbers
come from this process's memory and from the files that are there; then a name of an earlier run can come back after
its file was deleted.
"""

import errno
import logging
import os
import re
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from timbred.disk import means_damage, rename_exclusively, set_aside
from timbred.errors import DiskFull, ForbiddenPath, Internal, TimbredError, from_foreign
from timbred.filenames import PathLimit, comparison_key, is_utf8, path_limit_here, printable
from timbred.storage.created_files import Created, sweep
from timbred.storage.paths import AllowedFolders, Disk, check_length, folder_inside, slug

MEMORY = ".timbred-names.sqlite"
"""The hidden file in the takes folder."""

LOCK_PATIENCE_S = 1.0
"""Seconds to wait for another process that takes a number."""

RETRY_AFTER_S = 60.0
"""Seconds after a failure during which the file isn't tried again, so that not every take waits for it."""

log = logging.getLogger(__name__)


class FileNumbers:
    """The numbers of one takes folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._given: dict[tuple[str, str], int] = {}
        self._retry_at = 0.0

    def next_number(self, folder: Path, slug: str, *, look: bool = False) -> int:
        """A number, from 1, that no file `slug-NUMBER` in `folder` has or ever had.

        The files there are looked at when a name is new, or with `look`, after a number was found taken.

        Raises:
            OSError: the folder can't be read.
        """
        key = (comparison_key(folder.relative_to(self._root).as_posix()), slug)
        with self._lock:
            number = self._stored(folder, key, look)
            if number is None:
                number = max(self._given.get(key, 0), _highest_there(folder, slug)) + 1
            self._given[key] = number
            return number

    @property
    def _memory(self) -> Path:
        return self._root / MEMORY

    def _stored(self, folder: Path, key: tuple[str, str], look: bool) -> int | None:
        """The next number by the file; None where the file can't be used now."""
        if time.monotonic() < self._retry_at:
            return None
        try:
            return self._counted(folder, key, look)
        except (sqlite3.Error, OSError) as error:
            self._retry_at = time.monotonic() + RETRY_AFTER_S
            log.warning("names: %s can't be kept (%s); deleted names may come back", self._memory, error)
            return None

    def _counted(self, folder: Path, key: tuple[str, str], look: bool) -> int:
        try:
            return self._counted_in_file(folder, key, look)
        except sqlite3.DatabaseError as error:
            if not means_damage(error):
                raise
            aside = set_aside(self._memory)
            log.warning("names: %s is damaged (%s); it was set aside as %s", self._memory, error, aside.name)
            return self._counted_in_file(folder, key, look)

    def _counted_in_file(self, folder: Path, key: tuple[str, str], look: bool) -> int:
        with closing(sqlite3.connect(self._memory, timeout=LOCK_PATIENCE_S, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = OFF")  # see `delivery.settling`
            database.execute("BEGIN IMMEDIATE")
            database.execute(
                "CREATE TABLE IF NOT EXISTS names"
                " (folder TEXT, slug TEXT, number INTEGER NOT NULL, PRIMARY KEY (folder, slug))"
            )
            row = database.execute("SELECT number FROM names WHERE folder = ? AND slug = ?", key).fetchone()
            known = max(0 if row is None else int(row[0]), self._given.get(key, 0))
            if row is None or look:
                known = max(known, _highest_there(folder, key[1]))
            database.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (*key, known + 1))
            database.execute("COMMIT")
        return known + 1


def _highest_there(folder: Path, slug: str) -> int:
    pattern = re.compile(re.escape(slug) + r"-(\d{1,15})\.", re.IGNORECASE | re.ASCII)
    numbers = (pattern.match(path.name) for path in folder.iterdir())
    return max((int(found[1]) for found in numbers if found), default=0)


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


LATER = sys.platform != "win32"
"""Whether files can be brought to the disk after they have their name. On Windows nobody can move or delete an open
file, and folders can't be written out; there a file is brought to the disk before."""


class DiskSync:
    """Brings files and folders to the disk, one after the other, in a thread. Safe for threads.

    What is published is in the system's hands: it outlives this process, however that ends. Only when the power fails
    before it is settled can it be lost.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="settling")

    def add(self, paths: Iterable[Path]) -> None:
        """Bring these to the disk, in this order, after all that was added before. What is gone by then is let go."""
        if LATER:
            self._thread.submit(_settle, tuple(paths))

    def wait(self) -> None:
        """Until all that was added is on the disk, as far as the disk takes it."""
        self._thread.submit(lambda: None).result()


def _settle(paths: tuple[Path, ...]) -> None:
    for path in paths:
        try:
            _synchronize(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            # some file systems have no way to write a folder out; all others mean trouble with the disk
            level = logging.DEBUG if error.errno == errno.EINVAL else logging.WARNING
            log.log(level, "%s would be lost if the power failed now: %s", path, error.strerror)
        except Exception:  # nobody waits for the result, so it is told here
            log.exception("%s would be lost if the power failed now", path)


def _synchronize(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
        self._names = FileNumbers(self.root)
        self._settling = DiskSync()
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
