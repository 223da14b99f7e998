"""Numbers for file names, each given once, remembered after the file is gone.

A small hidden SQLite file in the takes folder keeps the last number of every name. It is safe for threads
and for several processes, and nothing waits for the disk: a process that ends has lost nothing, but when the power
fails the file may be damaged, and is begun anew. Where it can't be kept (a network folder without locks), or was
damaged, numbers come from the files that are there, and a name can come back after its file was deleted.
"""

import logging
import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

MEMORY = ".timbred-names.sqlite"
"""The hidden file in the takes folder."""

WAIT = 10.0
"""Seconds to wait for another process that takes a number."""

log = logging.getLogger(__name__)


class Names:
    """The numbers of one takes folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()

    def next_number(self, folder: Path, slug: str, *, look: bool = False) -> int:
        """A number, from 1, that no file `slug-NUMBER` in `folder` has or ever had.

        The files there are looked at when a name is new, or with `look`, after a number was found taken.
        """
        with self._lock:
            try:
                return self._remembered_or_begun(folder, slug, look)
            except (sqlite3.Error, OSError) as error:
                log.warning("names: %s can't be kept (%s); deleted names may come back", self._memory, error)
                return _highest_there(folder, slug) + 1

    @property
    def _memory(self) -> Path:
        return self._root / MEMORY

    def _remembered_or_begun(self, folder: Path, slug: str, look: bool) -> int:
        try:
            return self._remembered(folder, slug, look)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            log.warning("names: %s is damaged (%s) and begun anew", self._memory, error)
            self._memory.unlink(missing_ok=True)
            return self._remembered(folder, slug, look)

    def _remembered(self, folder: Path, slug: str, look: bool) -> int:
        key = (folder.relative_to(self._root).as_posix().casefold(), slug)
        with closing(sqlite3.connect(self._memory, timeout=WAIT, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = OFF")  # see `delivery.settling`
            database.execute("BEGIN IMMEDIATE")
            database.execute(
                "CREATE TABLE IF NOT EXISTS names"
                " (folder TEXT, slug TEXT, number INTEGER NOT NULL, PRIMARY KEY (folder, slug))"
            )
            row = database.execute("SELECT number FROM names WHERE folder = ? AND slug = ?", key).fetchone()
            known = 0 if row is None else int(row[0])
            if row is None or look:
                known = max(known, _highest_there(folder, slug))
            database.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (*key, known + 1))
            database.execute("COMMIT")
        return known + 1


def _highest_there(folder: Path, slug: str) -> int:
    pattern = re.compile(re.escape(slug) + r"-(\d{1,15})\.", re.IGNORECASE | re.ASCII)
    numbers = (pattern.match(path.name) for path in folder.iterdir())
    return max((int(found[1]) for found in numbers if found), default=0)
