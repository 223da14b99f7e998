"""SQLite files: recognising damage, keeping a damaged file, and checking that a disk has locks."""

import itertools
import os
import sqlite3
import sys
import tempfile
from pathlib import Path

from timbred.renaming import rename_to_free_name


class Damaged(sqlite3.DatabaseError):
    """SQLite's own check found a fault."""


def means_damage(error: sqlite3.DatabaseError) -> bool:
    """Tell whether the error says that the file isn't a whole database."""
    name = getattr(error, "sqlite_errorname", "") or ""
    return isinstance(error, Damaged) or name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT"))


def set_aside(path: Path) -> Path:
    """Rename a damaged database and what belongs to it to the first free `NAME.damaged-N`.

    Raises:
        OSError: from the file system.
    """
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
    endings = ("-wal", "-shm", "-journal", "")
    aside = next(
        name for name in names if not any(os.path.lexists(name.with_name(name.name + ending)) for ending in endings)
    )
    for ending in endings:
        part = path.with_name(path.name + ending)
        if part.exists():
            rename_to_free_name(part, aside.with_name(aside.name + ending))
    return aside


def locks_work(folder: Path) -> bool:
    """Tell whether byte ranges of files in this folder can be locked, by locking a new file.

    Raises:
        OSError: the folder can't be written to.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True
