"""Opening the library's file. A damaged one is set aside and kept, and a new one begun."""

import itertools
import logging
import sqlite3
from pathlib import Path

from timbred.errors import DiskFull, ForbiddenPath, Internal, TimbredError
from timbred.library.schema import migrate

WAIT = 10.0
"""Seconds to wait for another process that writes."""

log = logging.getLogger(__name__)


def open_database(path: Path) -> sqlite3.Connection:
    """A connection with its tables up to date, in WAL mode, usable from any thread (one at a time).

    A file that isn't a database, or a damaged one, is renamed to `NAME.damaged-N` beside it: its takes are
    still in their files, recipes included, and the musician goes on.

    Raises:
        NewerLibrary: a later timbred wrote it.
        ForbiddenPath: it can't be opened or written to.
        DiskFull: no room.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connected(path)
    except sqlite3.DatabaseError as error:
        if not _means_damage(error):
            raise translated(error, path) from error
        aside = _set_aside(path)
        log.error("library: %s is damaged (%s); it was set aside as %s, a new one is begun", path, error, aside)
    except OSError as error:
        raise ForbiddenPath(f"the library's folder {path.parent} can't be used: {error.strerror}") from error
    try:
        return _connected(path)
    except sqlite3.Error as error:
        raise translated(error, path) from error


def translated(error: sqlite3.Error, path: Path) -> TimbredError:
    """A database's error as one with a wire code."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return DiskFull(f"no room left on the disk of the library {path}: free some")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return ForbiddenPath(f"the library {path} can't be opened or written to ({error})")
    return Internal(f"the library {path}: {error}")


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise _Damaged(str(found))
        migrate(database)
    except BaseException:
        database.close()
        raise
    return database


class _Damaged(sqlite3.DatabaseError):
    """SQLite's own check found a fault."""


def _means_damage(error: sqlite3.DatabaseError) -> bool:
    name = getattr(error, "sqlite_errorname", "") or ""
    return isinstance(error, _Damaged) or name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT"))


def _set_aside(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    for ending in ("-wal", "-shm", ""):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(aside.with_name(aside.name + ending))
    return aside
