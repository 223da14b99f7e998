"""The folder that finished takes are written to: numbered names, atomic publication, writing through to the disk.

File names are `SLUG-NUMBER.EXTENSION`. The library keeps the last number of every name, so that a number isn't given
twice, even after its file was deleted. When the library can't be written, or is kept in memory only, numbers come
from this process's memory and from the files in the folder; a deleted file's number may then be given again by a later
process. A file is never overwritten in any case.
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
from urllib.parse import quote

from timbred.disk import means_damage, rename_exclusively, set_aside
from timbred.errors import DiskFull, ForbiddenPath, Internal, TimbredError, from_foreign
from timbred.filenames import PathLimit, comparison_key, is_utf8, path_limit_here, printable
from timbred.storage.created_files import Created, sweep
from timbred.storage.library import Library
from timbred.storage.paths import AllowedFolders, Disk, check_length, folder_inside, slug

OLD_COUNTER_NAME = ".timbred-names.sqlite"
"""The hidden SQLite file in the takes folder in which earlier versions kept the numbers."""

LOCK_TIMEOUT_S = 1.0
"""Seconds to wait for another process that uses the old counter file."""

RETRY_AFTER_S = 60.0
"""Seconds after a failure during which the library isn't asked for numbers, so that not every take waits for it."""

NOT_STORED = "file numbers can't be stored (%s); a number may be given again after its file was deleted"

log = logging.getLogger(__name__)


class FileNumbers:
    """Numbers for the file names of one takes folder. Safe for threads, and for processes that share a library.

    Args:
        root: the takes folder.
        library: keeps the last numbers; None to count in memory and from the files in the folder.
    """

    def __init__(self, root: Path, library: Library | None = None) -> None:
        self._root = root
        self._library = library
        self._lock = threading.Lock()
        self._last_given: dict[tuple[str, str], int] = {}
        self._retry_at = 0.0
        self._is_old_counter_read = False

    def next_number(self, folder: Path, slug: str, *, look: bool = False) -> int:
        """Give a number, from 1, that no file `slug-NUMBER` in `folder` has or had.

        The files in the folder are listed when the name is new, or with `look`, after a number was found in use.

        Raises:
            OSError: the folder can't be read.
        """
        key = (comparison_key(folder.relative_to(self._root).as_posix()), slug)
        with self._lock:
            number = self._number_from_library(folder, key, look)
            if number is None:
                number = max(self._last_given.get(key, 0), _highest_there(folder, slug)) + 1
            self._last_given[key] = number
            return number

    def _number_from_library(self, folder: Path, key: tuple[str, str], look: bool) -> int | None:
        """Return the library's next number; None if the library can't be used now."""
        library = self._library
        if library is None or time.monotonic() < self._retry_at:
            return None
        try:
            self._read_old_counter(library)
            last = max(library.file_number(*key), self._last_given.get(key, 0))
            if last == 0 or look:
                last = max(last, _highest_there(folder, key[1]))
            return library.next_file_number(*key, above=last)
        except (TimbredError, sqlite3.Error, OSError) as error:
            self._retry_at = time.monotonic() + RETRY_AFTER_S
            log.warning(NOT_STORED, error)
            return None

    def _read_old_counter(self, library: Library) -> None:
        """Move the numbers of an earlier version's counter file into the library, and delete that file.

        Only a regular file that holds exactly that version's table is deleted, and only if the library is stored. A
        damaged file is renamed and kept; any other file is left as it is.
        """
        if self._is_old_counter_read:
            return
        if not library.is_stored:
            log.warning(NOT_STORED, "the library is in memory only")
        path = self._root / OLD_COUNTER_NAME
        try:
            if path.is_symlink() or not path.is_file():
                self._is_old_counter_read = True
                return
            rows = _old_counter_rows(path)
        except OSError as error:
            log.warning("file numbers: %s can't be read: %s", path, error.strerror)
        except sqlite3.DatabaseError as error:
            if not means_damage(error):
                raise
            aside = set_aside(path)
            log.warning("file numbers: %s is damaged (%s); it was renamed to %s", path, error, aside.name)
        else:
            if rows is None:
                log.warning("file numbers: %s isn't timbred's, and is left as it is", path)
            else:
                library.raise_file_numbers(rows)
                if library.is_stored:
                    _delete_old_counter(path)
        self._is_old_counter_read = True


OLD_COUNTER_COLUMNS = [("folder", "TEXT"), ("slug", "TEXT"), ("number", "INTEGER")]
"""The one table, `names`, of the old counter file."""


def _old_counter_rows(path: Path) -> list[tuple[str, str, int]] | None:
    """Return the rows of the old counter file; None if the database isn't one.

    Raises:
        sqlite3.Error: the file is damaged, or locked.
    """
    address = f"file:{quote(os.fsencode(path))}?mode=rw"
    with closing(sqlite3.connect(address, uri=True, timeout=LOCK_TIMEOUT_S)) as database:
        tables = [str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [(row[1], row[2]) for row in database.execute("PRAGMA table_info(names)")]
        if (tables, columns) != (["names"], OLD_COUNTER_COLUMNS):
            return None
        rows = database.execute("SELECT folder, slug, number FROM names").fetchall()
    return [(str(folder), str(slug), int(number)) for folder, slug, number in rows]


def _delete_old_counter(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # its numbers are read once more at the next start, which changes nothing
        log.warning("file numbers: %s is no longer used and can't be deleted: %s", path, error.strerror)


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
    """The folder that finished sounds are written to. Safe for threads, and for several processes.

    Args:
        root: the folder; it need not exist yet.
        library: keeps the numbers of file names; see `FileNumbers`.
        limit: the longest path that the system allows; by default that of this computer.
    """

    def __init__(self, root: Path, library: Library | None = None, limit: PathLimit | None = None) -> None:
        self._limit = limit or path_limit_here()
        self.root = Path(root).expanduser().absolute()
        self._names = FileNumbers(self.root, library)
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
        self._settling.add((final, inside))
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
