"""The library's tables, as named migrations: each is applied once, in order, and remembered by its name."""

import errno
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from timbred.config import DEFAULT_LIBRARY_NAME
from timbred.disk import Damaged, locks_work, means_damage, set_aside
from timbred.errors import DiskFull, ForbiddenPath, Internal, TimbredError
from timbred.filenames import printable


class Migration(NamedTuple):
    """One change of the tables. Never edited once published: a later one changes what it made."""

    name: str
    statements: tuple[str, ...]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "takes",
        (
            """
            CREATE TABLE takes (
                number INTEGER PRIMARY KEY,
                take_id TEXT NOT NULL UNIQUE,
                path TEXT,
                created REAL NOT NULL,
                prompt TEXT NOT NULL,
                model TEXT NOT NULL,
                seed INTEGER NOT NULL,
                seconds REAL NOT NULL,
                rate INTEGER NOT NULL,
                channels INTEGER NOT NULL,
                score REAL,
                place INTEGER NOT NULL,
                request_id TEXT NOT NULL,
                recipe TEXT NOT NULL
            )
            """,
            "CREATE INDEX takes_by_time ON takes (created DESC, number DESC)",
            "CREATE INDEX takes_by_path ON takes (path)",
        ),
    ),
    Migration(
        "stars",
        (
            "ALTER TABLE takes ADD COLUMN starred INTEGER NOT NULL DEFAULT 0",
            "CREATE INDEX takes_starred ON takes (created DESC, number DESC) WHERE starred = 1",
        ),
    ),
    Migration(
        "hearings",
        ("CREATE TABLE hearings (take_id TEXT PRIMARY KEY, ear TEXT NOT NULL, vector BLOB NOT NULL) WITHOUT ROWID",),
    ),
    Migration(
        "file_numbers",
        (
            """
            CREATE TABLE file_numbers (
                folder TEXT NOT NULL,
                slug TEXT NOT NULL,
                number INTEGER NOT NULL,
                PRIMARY KEY (folder, slug)
            ) WITHOUT ROWID
            """,
        ),
    ),
)


class NewerSchema(Internal):
    """The library was written by a later timbred."""


def migrate(database: sqlite3.Connection, migrations: tuple[Migration, ...] = MIGRATIONS) -> list[str]:
    """Bring the tables up to date, all or nothing; the names of the migrations that were applied now.

    `database` is in autocommit mode (`isolation_level=None`).

    Raises:
        NewerLibrary: it has migrations that this version doesn't know.
        sqlite3.Error: from the database.
    """
    database.execute("BEGIN IMMEDIATE")
    try:
        applied = _apply(database, migrations)
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
    return applied


def _apply(database: sqlite3.Connection, migrations: tuple[Migration, ...]) -> list[str]:
    database.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied TEXT NOT NULL)")
    known = {str(name) for (name,) in database.execute("SELECT name FROM migrations")}
    newer = sorted(known - {migration.name for migration in migrations})
    if newer:
        raise NewerSchema(
            f"the library was written by a newer timbred (it has {', '.join(newer)}): update timbred,"
            " or choose another folder for the library"
        )
    missing = [migration for migration in migrations if migration.name not in known]
    for migration in missing:
        for statement in migration.statements:
            database.execute(statement)
        database.execute("INSERT INTO migrations VALUES (?, datetime('now'))", (migration.name,))
    return [migration.name for migration in missing]


LOCK_PATIENCE_S = 2.0
"""Seconds to wait for another process that writes."""

APPLICATION_ID = 0x54_4D_42_44
"""Identifies timbred's libraries in SQLite's header ("TMBD")."""

log = logging.getLogger(__name__)


def open_database(path: Path) -> sqlite3.Connection:
    """A connection with its tables up to date, in WAL mode, usable from any thread (one at a time).

    A damaged library is renamed to `NAME.damaged-N` beside it: its takes are still in their files, recipes
    included. A new one is begun.

    Raises:
        NewerLibrary: a later timbred wrote it.
        ForbiddenPath: it can't be opened or written to, is another program's file, or its disk has no locks.
        DiskFull: no room.
    """
    shown = printable(str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_locks(path)
        return _connected(path)
    except sqlite3.DatabaseError as error:
        if not means_damage(error):
            raise translated(error, path) from error
        if not _is_own(path):
            raise ForbiddenPath(
                f"{shown} isn't timbred's library ({error}); set library.file to another file"
            ) from error
        aside = set_aside(path)
        log.error("library: %s is damaged (%s); it was set aside as %s, a new one is begun", shown, error, aside)
    except OSError as error:
        folder = printable(str(path.parent))
        raise ForbiddenPath(f"the library's folder {folder} can't be used: {error.strerror}") from error
    try:
        return _connected(path)
    except sqlite3.Error as error:
        raise translated(error, path) from error


def check_database(path: Path) -> None:
    """See that `open_database` would open the library as it is. Nothing is written or renamed.

    Raises:
        ForbiddenPath: it can't be written to, its disk has no locks, it is damaged, or another program's file.
    """
    try:
        folder = next(parent for parent in path.parents if parent.exists())
        if path.parent == folder:
            _check_locks(path)
        elif not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        if not path.exists() or path.stat().st_size == 0:
            return
        with closing(sqlite3.connect(_read_only(path), uri=True)) as database:
            _check_own(database, path)
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except OSError as error:
        raise ForbiddenPath(f"the library's folder {path.parent} can't be used: {error.strerror}") from error
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise ForbiddenPath(f"the library {path} is damaged ({found}); the daemon sets a library of its own aside")


def _read_only(path: Path) -> str:
    """The URI that opens a database without locks and without writing anything beside it."""
    return f"file:{quote(os.fsencode(path.absolute()))}?mode=ro&immutable=1"


def open_in_memory(copy_of: Path) -> sqlite3.Connection:
    """A library that is gone when it is closed, with what can be read of the one at `copy_of`."""
    database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    copy_read_only(copy_of, database)
    try:
        migrate(database)
    except NewerSchema:
        database.close()
        database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        migrate(database)
    return database


def copy_read_only(source: Path, copy: sqlite3.Connection) -> bool:
    """Copy what can be read of a library on a disk that can't be written or locked; whether anything could.

    Raises:
        sqlite3.Error: the copy can't be written.
    """
    try:
        if not source.is_file() or source.stat().st_size == 0:
            return False
        database = sqlite3.connect(_read_only(source), uri=True)
    except (sqlite3.Error, OSError):
        return False
    with closing(database):
        try:
            if not _has_own_tables(database):
                return False
        except sqlite3.Error:
            return False
        database.backup(copy)
    return True


def translated(error: sqlite3.Error, path: Path) -> TimbredError:
    """A database's error as one with a wire code."""
    name = getattr(error, "sqlite_errorname", "") or ""
    shown = printable(str(path))
    if name.startswith("SQLITE_FULL"):
        return DiskFull(f"no room left on the disk of the library {shown}: free some")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return ForbiddenPath(f"the library {shown} can't be opened or written to ({error})")
    if name.startswith("SQLITE_BUSY"):
        return Internal(
            f"another program keeps the library {shown} locked: end it, or set library.file to another file"
        )
    return Internal(f"the library {shown}: {error}")


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=LOCK_PATIENCE_S, isolation_level=None, check_same_thread=False)
    try:
        _check_own(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise Damaged(str(found))
        migrate(database)
        if _application_id(database) != APPLICATION_ID:
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    except BaseException:
        database.close()
        raise
    return database


def _check_own(database: sqlite3.Connection, path: Path) -> None:
    """Raises:
    ForbiddenPath: the database is another program's.
    """
    if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] and not _has_own_tables(database):
        raise ForbiddenPath(
            f"{printable(str(path))} is another program's database, and is left as it is:"
            " set library.file to another file"
        )


def _has_own_tables(database: sqlite3.Connection) -> bool:
    if _application_id(database) == APPLICATION_ID:
        return True
    tables = {str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return {"migrations", "takes"} <= tables


def _application_id(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA application_id").fetchone()[0])


def _is_own(path: Path) -> bool:
    """Whether a damaged file is a library of ours, by its header or its name."""
    with path.open("rb") as file:
        header = file.read(72)
    has_id = header[:16] == b"SQLite format 3\0" and header[68:72] == APPLICATION_ID.to_bytes(4, "big")
    return has_id or path.name == DEFAULT_LIBRARY_NAME


def _check_locks(path: Path) -> None:
    """Raises:
    ForbiddenPath: files can't be locked on the library's disk, and SQLite would wait for each lock.
    OSError: the folder can't be written to.
    """
    if not locks_work(path.parent):
        raise ForbiddenPath(
            f"files can't be locked on the disk of the library {printable(str(path))} (a share without locks):"
            " set library.file to a file on this computer's own disk"
        )
