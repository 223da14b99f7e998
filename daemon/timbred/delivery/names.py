"""Numbers for file names, each given once, remembered after the file is gone.

A small hidden SQLite file in the takes folder keeps the last number of every name. It is safe for threads
and for several processes, and nothing waits for the disk: a process that ends has lost nothing, but when the power
fails the file may be damaged, and is set aside. Where it can't be kept (a share without locks, a full disk), numbers
come from this process's memory and from the files that are there; then a name of an earlier run can come back after
its file was deleted.
"""

import logging
import re
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

from timbred.databases import means_damage, set_aside
from timbred.filenames import comparison_key

MEMORY = ".timbred-names.sqlite"
"""The hidden file in the takes folder."""

LOCK_PATIENCE_S = 1.0
"""Seconds to wait for another process that takes a number."""

RETRY_AFTER_S = 60.0
"""Seconds after a failure during which the file isn't tried again, so that not every take waits for it."""

log = logging.getLogger(__name__)


class Names:
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
