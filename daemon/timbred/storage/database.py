"""The library's database: its tables as named migrations, each applied once in order, and opening it."""

import errno
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from timbred.config import DEFAULT_LIBRARY_NAME
from timbred.disk import Damaged, is_damage, locks_work, set_aside
from timbred.errors import DiskFull, ForbiddenPath, Internal, TimbredError
from timbred.filenames import printable


class Migration(NamedTuple):
    """One change of the tables. A published one is never edited; a later one changes its result."""

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
    Migration(
        "measurements",
        (
            "ALTER TABLE takes ADD COLUMN tempo REAL",
            "ALTER TABLE takes ADD COLUMN musical_key TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE takes ADD COLUMN downbeat REAL",
            "ALTER TABLE takes ADD COLUMN fit REAL",
            "CREATE INDEX takes_by_tempo ON takes (tempo) WHERE tempo IS NOT NULL",
        ),
    ),
)
"""All migrations, in order."""


class NewerSchema(Internal):
    """The library was written by a later version of timbred."""


def migrate(database: sqlite3.Connection, migrations: tuple[Migration, ...] = MIGRATIONS) -> list[str]:
    """Bring the tables up to date, all or nothing; return the names of the migrations that were applied.

    `database` is in autocommit mode (`isolation_level=None`).

    Raises:
        NewerSchema: the library has migrations that this version doesn't know.
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


LOCK_TIMEOUT_S = 2.0
"""Seconds to wait for another process that writes."""

APPLICATION_ID = 0x54_4D_42_44
"""Identifies timbred's libraries in SQLite's header ("TMBD")."""

log = logging.getLogger(__name__)


def open_database(path: Path) -> sqlite3.Connection:
    """Open the library in WAL mode with its tables up to date; for use from any thread, one at a time.

    A damaged library is renamed to `NAME.damaged-N`, and a new one is created: takes remain in their files, recipes
    included.

    Raises:
        NewerSchema: a later version of timbred wrote it.
        ForbiddenPath: it can't be opened or written to, is another program's file, or its disk has no locks.
        DiskFull: the disk is full.
    """
    shown = printable(str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_locks(path)
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise translate_error(error, path) from error
        if not _is_own(path):
            raise ForbiddenPath(
                f"{shown} isn't timbred's library ({error}); set library.file to another file"
            ) from error
        aside = set_aside(path)
        log.error("library: %s is damaged (%s); it was renamed to %s, and a new one is created", shown, error, aside)
    except OSError as error:
        folder = printable(str(path.parent))
        raise ForbiddenPath(f"the library's folder {folder} can't be used: {error.strerror}") from error
    try:
        return _connect(path)
    except sqlite3.Error as error:
        raise translate_error(error, path) from error


def check_database(path: Path) -> None:
    """Check that `open_database` would open the library. Nothing is written or renamed.

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
        with closing(sqlite3.connect(_read_only_uri(path), uri=True)) as database:
            _check_own(database, path)
            result = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except OSError as error:
        raise ForbiddenPath(f"the library's folder {path.parent} can't be used: {error.strerror}") from error
    except sqlite3.Error as error:
        result = str(error)
    if result != "ok":
        raise ForbiddenPath(f"the library {path} is damaged ({result}); the daemon renames it and creates a new one")


def _read_only_uri(path: Path) -> str:
    """Return the URI that opens a database without locks and without writing anything beside it."""
    return f"file:{quote(os.fsencode(path.absolute()))}?mode=ro&immutable=1"


def open_in_memory(copy_of: Path) -> sqlite3.Connection:
    """Create a library in memory with the content of the one at `copy_of`, as far as it can be read."""
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
    """Copy a library on a disk that can't be written or locked; return whether anything could be read.

    Raises:
        sqlite3.Error: the copy can't be written.
    """
    try:
        if not source.is_file() or source.stat().st_size == 0:
            return False
        database = sqlite3.connect(_read_only_uri(source), uri=True)
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


def translate_error(error: sqlite3.Error, path: Path) -> TimbredError:
    """Return a database's error as one with a wire code."""
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


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        _check_own(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        result = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if result != "ok":
            raise Damaged(str(result))
        migrate(database)
        if _application_id(database) != APPLICATION_ID:
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    except BaseException:
        database.close()
        raise
    return database


def _check_own(database: sqlite3.Connection, path: Path) -> None:
    """Check that the database is empty or timbred's.

    Raises:
        ForbiddenPath: it is another program's.
    """
    if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] and not _has_own_tables(database):
        raise ForbiddenPath(
            f"{printable(str(path))} is another program's database, and isn't changed: set library.file to another file"
        )


def _has_own_tables(database: sqlite3.Connection) -> bool:
    if _application_id(database) == APPLICATION_ID:
        return True
    tables = {str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return {"migrations", "takes"} <= tables


def _application_id(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA application_id").fetchone()[0])


def _is_own(path: Path) -> bool:
    """Return whether a damaged file is a library of timbred, by its header or its name."""
    with path.open("rb") as file:
        header = file.read(72)
    has_id = header[:16] == b"SQLite format 3\0" and header[68:72] == APPLICATION_ID.to_bytes(4, "big")
    return has_id or path.name == DEFAULT_LIBRARY_NAME


def _check_locks(path: Path) -> None:
    """Check that files can be locked on the library's disk; otherwise SQLite would wait for each lock.

    Raises:
        ForbiddenPath: they can't.
        OSError: The folder isn't writable.
    """
    if not locks_work(path.parent):
        raise ForbiddenPath(
            f"files can't be locked on the disk of the library {printable(str(path))} (a share without locks):"
            " set library.file to a file on this computer's own disk"
        )
