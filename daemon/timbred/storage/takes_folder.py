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

from timbred.disk import is_damage, rename_exclusively, set_aside
from timbred.errors import DiskFull, ForbiddenPath, Internal, TimbredError, from_foreign
from timbred.filenames import PathLimit, comparison_key, is_utf8, path_limit_here, printable
from timbred.storage.created_files import Created, sweep
from timbred.storage.library import Library
from timbred.storage.paths import Disk, check_length, folder_inside, slug

OLD_COUNTER_NAME = ".timbred-names.sqlite"
"""The hidden SQLite file in the takes folder in which earlier versions kept the numbers."""

LOCK_TIMEOUT_S = 1.0
"""Seconds to wait for another process that uses the old counter file."""

RETRY_AFTER_S = 60.0
"""Seconds after a failure during which the library isn't asked for numbers, to avoid a delay for every take."""

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

    def next_number(self, folder: Path, slug: str, *, list_files: bool = False) -> int:
        """Give a number, from 1, that no file `slug-NUMBER` in `folder` has or had.

        The files in the folder are listed when the name is new, or with `list_files`, after a number was found in use.

        Raises:
            OSError: the folder can't be read.
        """
        key = (comparison_key(folder.relative_to(self._root).as_posix()), slug)
        with self._lock:
            number = self._number_from_library(folder, key, list_files)
            if number is None:
                number = max(self._last_given.get(key, 0), _highest_there(folder, slug)) + 1
            self._last_given[key] = number
            return number

    def _number_from_library(self, folder: Path, key: tuple[str, str], list_files: bool) -> int | None:
        """Return the library's next number; None if the library can't be used now."""
        library = self._library
        if library is None or time.monotonic() < self._retry_at:
            return None
        try:
            if not self._is_old_counter_read:
                self._read_old_counter(library)
            last = self._last_given.get(key) or library.file_number(*key)
            if last == 0 or list_files:
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
            if not is_damage(error):
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
    except OSError as error:  # its numbers are read again at the next start, which changes nothing
        log.warning("file numbers: %s is no longer used and can't be deleted: %s", path, error.strerror)


def _highest_there(folder: Path, slug: str) -> int:
    pattern = re.compile(re.escape(slug) + r"-(\d{1,15})\.", re.IGNORECASE | re.ASCII)
    matches = (pattern.match(path.name) for path in folder.iterdir())
    return max((int(match[1]) for match in matches if match), default=0)


NO_LINK_ERRORS = frozenset(
    getattr(errno, name)
    for name in ("EPERM", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EMLINK", "EINVAL", "EACCES", "EXDEV")
    if hasattr(errno, name)
)
"""Errors of file systems without hard links (FAT, exFAT, some network folders) or without exclusive renames."""


def publish(hidden: Path, final: Path, placeholder: Callable[[Path, os.stat_result | None], None]) -> None:
    """Rename the finished file; an existing file is never replaced.

    Windows renames only to a free name. Elsewhere a hard link is created, which fails if the name is taken. Without
    hard links the system's exclusive rename is used; without that the name is first taken by an empty file, which is
    then replaced. `placeholder` is called with that file's path and status, for the record, and with None when it is
    gone.

    Raises:
        FileExistsError: the name is taken; the hidden file still exists.
        OSError: The file system's error.
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
            if error.errno not in NO_LINK_ERRORS:
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
            if not os.path.samestat(now, own) or now.st_size:  # another program has used the name meanwhile
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
        # one folder on several disks (a union file system): the content is copied into the placeholder
        with hidden.open("rb") as source, os.fdopen(os.dup(handle), "wb") as target:
            shutil.copyfileobj(source, target)


def _remove_own(path: Path, own: os.stat_result) -> None:
    """Delete the empty file, or what was copied into it; not a file that replaced it."""
    try:
        if os.path.samestat(path.lstat(), own):
            path.unlink()
    except FileNotFoundError:
        return


SYNC_AFTER_PUBLICATION = sys.platform != "win32"
"""True if files are synced to the disk after they got their name.

On Windows no program can move or delete an open file, and folders can't be flushed; there a file is flushed before.
"""


class DiskSync:
    """Flushes files and folders to the disk, one after the other, in a thread. Thread-safe.

    A published file survives the end of this process. It can be lost only if the power fails before it is flushed.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk-sync")

    def add(self, paths: Iterable[Path]) -> None:
        """Flush these paths, in this order, after all that were added before. Missing ones are skipped."""
        if SYNC_AFTER_PUBLICATION:
            self._thread.submit(_sync_all, tuple(paths))

    def wait(self) -> None:
        """Wait until everything that was added is flushed."""
        self._thread.submit(lambda: None).result()


def _sync_all(paths: tuple[Path, ...]) -> None:
    for path in paths:
        try:
            _sync(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            # some file systems can't flush a folder; any other error is a fault of the disk
            level = logging.DEBUG if error.errno == errno.EINVAL else logging.WARNING
            log.log(level, "%s would be lost if the power failed now: %s", path, error.strerror)
        except Exception:  # no caller awaits the result, so it is logged here
            log.exception("%s would be lost if the power failed now", path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


Writer = Callable[[BinaryIO], None]
"""Writes one whole file to an open binary file, readable and writable, at its beginning."""

UNUSABLE_FOLDER_ERRORS = frozenset(
    getattr(errno, name)
    for name in ("EEXIST", "ELOOP", "EIO", "ENODEV", "ENXIO", "ESTALE", "ENOTCONN", "EHOSTDOWN", "ETIMEDOUT")
    if hasattr(errno, name)
)
"""Errors of folders that are no folders, and of disks and shares that were removed."""

MAX_NAME_ATTEMPTS = 100
"""Names tried when other programs take them between the choice and the publication."""


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
        self._numbers = FileNumbers(self.root, library)
        self._disk_sync = DiskSync()
        self._created = Created(self.root)
        self._disk = Disk(self.root)
        self._root_fault = self._find_root_fault()

    def check(self) -> None:
        """Create the folder if needed, and check that a file can be written there.

        Raises:
            ForbiddenPath: it can't be created or written to, or its path is too long or not UTF-8; the message says
                what to do.
            DiskFull: the disk is full.
        """
        if self._root_fault:
            raise ForbiddenPath(self._root_fault)
        try:
            self._disk.create(self.root)
            with self._created.part(self.root) as path:
                path.write_bytes(b"timbred")
        except OSError as error:
            raise self._translate_error(error, self.root) from error
        finally:
            self._created.close()

    def check_inside(self, folder: str) -> None:
        """Check that a folder, named as for `write`, is allowed; it need not exist.

        Raises:
            ForbiddenPath: it is outside the takes folder, has an invalid name, or leaves file names no room.
        """
        self._inside(folder)

    def sweep(self) -> list[Path]:
        """Delete the unfinished files and the previews of daemons that were killed; return their paths."""
        return sweep(self.root)

    def write(self, name_slug: str, folder: str, extension: str, writer: Writer, *, temporary: bool = False) -> Path:
        """Let `writer` write a file, and publish it as `FOLDER/SLUG-NUMBER.EXTENSION`.

        The file isn't visible before it is complete; after a failure nothing is left. It is flushed to the disk later.

        Args:
            name_slug: any text, also a prompt.
            folder: inside the takes folder; may be empty.
            extension: with or without the dot.
            writer: writes the content. Its errors are passed on.
            temporary: True for a file that `remove_temporary` deletes, unless it was changed since.

        Returns:
            The path of the file.

        Raises:
            ForbiddenPath: `folder` is outside the takes folder, or can't be written to.
            DiskFull: the disk is full.
        """
        suffix = extension.removeprefix(".").lower()
        if not (suffix.isascii() and suffix.isalnum() and len(suffix) <= 8):
            raise ForbiddenPath(f"extension: got {extension!r}, allowed are up to 8 letters and digits")
        inside = self._create_folder(folder)
        name = slug(name_slug)
        try:
            with self._created.part(inside) as hidden:
                status = _write_hidden(hidden, writer)
                final = self._publish_file(hidden, inside, name, suffix, status if temporary else None)
        except OSError as error:
            raise self._translate_error(error, inside) from error
        self._disk_sync.add((final, inside))
        return final

    def remove_temporary(self) -> list[Path]:
        """Delete the temporary files that are unchanged; return their paths."""
        return self._created.remove_files()

    def settle(self) -> None:
        """Wait until everything written is flushed to the disk."""
        self._disk_sync.wait()

    def close(self) -> None:
        """Remove the journal of created files, if nothing in it is left to be deleted."""
        self._created.close()

    def _create_folder(self, folder: str) -> Path:
        """Create a folder inside the takes folder, or the takes folder itself, and return its path."""
        if self._root_fault:
            raise ForbiddenPath(self._root_fault)
        try:
            self._disk.create(self._inside(folder) if folder else self.root)
        except OSError as error:
            raise self._translate_error(error, self.root) from error
        # read again, since links and other spellings may have been created meanwhile
        return folder_inside(self.root, folder) if folder else self.root

    def _inside(self, folder: str) -> Path:
        inside = folder_inside(self.root, folder)
        check_length(str(inside), self._limit)
        return inside

    def _publish_file(
        self, hidden: Path, inside: Path, name: str, suffix: str, temporary: os.stat_result | None
    ) -> Path:
        def record(path: Path, placeholder: os.stat_result | None) -> None:
            status = placeholder or temporary
            if status is None:
                self._created.forget(path)
            else:
                self._created.add(path, status)

        for attempt in range(MAX_NAME_ATTEMPTS):
            number = self._numbers.next_number(inside, name, list_files=attempt > 0)
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
        raise Internal(f"{inside}: no free name for {name} in {MAX_NAME_ATTEMPTS} attempts")

    def _find_root_fault(self) -> str:
        """Return why the takes folder can't be used because of its name; empty if it can."""
        try:
            check_length(str(self.root), self._limit)
        except ForbiddenPath as error:
            return error.message
        if is_utf8(str(self.root)):
            return ""
        return (
            f"takes.folder {printable(str(self.root))}: its name isn't UTF-8, so paths in it can't be sent to"
            " clients: rename the folder, or set takes.folder to another"
        )

    def _translate_error(self, error: OSError, folder: Path) -> TimbredError:
        known = from_foreign(error)
        reason = error.strerror or str(error)
        shown = printable(str(folder))
        if isinstance(known, DiskFull):
            return DiskFull(f"no room left on the disk of {shown}: free some, or set takes.folder to another disk")
        if error.errno == errno.ENAMETOOLONG:
            return ForbiddenPath(f"{shown}: the path is too long for its disk: set takes.folder to a shorter one")
        if isinstance(known, ForbiddenPath) or error.errno in UNUSABLE_FOLDER_ERRORS:
            return ForbiddenPath(
                f"{shown} can't be written to ({reason}): make it a folder that you may write to,"
                " or set takes.folder to another"
            )
        return Internal(f"{shown}: {reason}")


def _write_hidden(hidden: Path, writer: Writer) -> os.stat_result:
    """Write the file; return its status once it is closed."""
    with hidden.open("x+b") as file:
        writer(file)
        file.flush()
        if not SYNC_AFTER_PUBLICATION:
            os.fsync(file.fileno())
    return hidden.lstat()
