"""The library's tables, as named migrations: each is applied once, in order, and remembered by its name."""

import sqlite3
from typing import NamedTuple

from timbred.errors import Internal


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
)


class NewerLibrary(Internal):
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
        raise NewerLibrary(
            f"the library was written by a newer timbred (it has {', '.join(newer)}): update timbred,"
            " or choose another folder for the library"
        )
    missing = [migration for migration in migrations if migration.name not in known]
    for migration in missing:
        for statement in migration.statements:
            database.execute(statement)
        database.execute("INSERT INTO migrations VALUES (?, datetime('now'))", (migration.name,))
    return [migration.name for migration in missing]
