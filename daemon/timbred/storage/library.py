"""The library: every take that was made, found again by its id, its path, its words or its likeness."""

import hashlib
import json
import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from timbred.audio import Recipe, SampleRate, Seconds
from timbred.errors import BadRequest, ForbiddenPath, Internal, TimbredError
from timbred.filenames import printable
from timbred.storage.database import NewerSchema, copy_read_only, open_database, open_in_memory, translated
from timbred.storage.search import (
    INDEX,
    cosines,
    has_full_text,
    keep_index,
    like_pattern,
    match_expression,
    most_alike,
    words_in,
)

ID_LETTERS = "bcdfghjkmnpqrstvwxz23456789"
"""No vowels, so that no id is a word; nothing that looks like something else (l and 1, o and 0, y and v)."""

ID_LENGTH = 9
"""Random characters of an id after its first, a `t`: about 43 bits."""

COMPARED = 5_000
"""The newest takes among which likeness is looked for."""

MAX_UNSTORED = 10_000
"""Takes that are kept in memory while the library can't be written."""

T = TypeVar("T")

log = logging.getLogger(__name__)


def new_take_id() -> str:
    """A new id such as `tk3w9mz2qd`: it begins with a letter, so that no host reads it as a number."""
    return "t" + "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))


@dataclass(frozen=True, kw_only=True)
class StoredTake:
    """One take.

    Attributes:
        take_id: from `new_take_id`.
        path: of the file; None when it was only sent inline or played.
        created: unix time.
        prompt, model, seed: what it was made from.
        seconds, rate, channels: of the sound as delivered.
        score: likeness to the prompt, where the model ranks.
        index: place among its request's takes, from 0, the best first.
        request_id: the client's own name for the request.
        recipe: see `timbred.storage.recipe`.
        starred: whether somebody marked it as one to keep.
    """

    take_id: str
    path: Path | None
    created: float
    prompt: str
    model: str
    seed: int
    seconds: Seconds
    rate: SampleRate
    channels: int
    score: float | None
    index: int
    request_id: str
    recipe: Recipe
    starred: bool = False

    @property
    def missing(self) -> bool:
        """Whether its file was there once and is gone now."""
        return self.path is not None and not self.path.is_file()


_COLUMNS = (
    "take_id, path, created, prompt, model, seed, seconds, rate, channels, score, place, request_id, recipe, starred"
)
_NEWEST_FIRST = "ORDER BY created DESC, number DESC"


class Library:
    """The stored takes, in one SQLite file. Any thread may call it.

    A take whose file is gone stays: its recipe makes it again (`vary`). It says so by `missing`.

    A take that can't be stored (no room, a disk that went away) is kept in memory, found as the others are, and stored
    with the next one that can be. A library file that was deleted or replaced is noticed at the next take.

    Raises, from every method:
        DiskFull, ForbiddenPath, Internal: the database failed, translated.
    """

    def __init__(self, path: Path, *, in_memory: bool = False) -> None:
        """Open the library, or begin one. See `timbred.storage.database` for damaged and newer files.

        `in_memory`: nothing is written; it begins with what can be read at the path.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        self._in_memory = in_memory
        self._database = open_in_memory(self.path) if in_memory else open_database(self.path)
        self._opened = _file_id(self.path)
        self._unstored: dict[str, StoredTake] = {}
        self._adding = threading.Lock()
        self._full_text = self._safely(has_full_text)
        if self._full_text:
            self._safely(keep_index)

    def close(self) -> None:
        """Write everything out. Closing twice does no harm."""
        with self._adding:
            if self._unstored and not self._store_waiting():
                log.error("library: %d takes aren't remembered; their files hold their recipes", len(self._unstored))
                self._unstored.clear()
        with self._lock:
            self._database.close()

    def add(self, take: StoredTake) -> None:
        """Store a take; in memory, if the file can't be written now.

        Raises:
            Internal: its id is stored already, or the library is closed.
        """
        with self._adding:
            self._add(take)

    def _add(self, take: StoredTake) -> None:
        if take.take_id in self._unstored:
            raise Internal(f"the library {self.path}: the take {take.take_id} is there already")
        self._follow_file()
        try:
            self._safely(lambda database: self._insert(database, (*self._unstored.values(), take)))
        except TimbredError as error:
            if isinstance(error.__cause__, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            if not self._unstored:
                log.error("%s. Takes are kept in memory until they can be stored", error)
            if len(self._unstored) >= MAX_UNSTORED:
                self._unstored.pop(next(iter(self._unstored)))
            self._unstored[take.take_id] = take
        else:
            self._unstored.clear()

    def take_over(self, other: Path) -> None:
        """Store the takes of another library that aren't stored here, and its file numbers that are higher."""

        def copy(database: sqlite3.Connection) -> None:
            names = f"{_COLUMNS}"
            database.execute(f"INSERT OR IGNORE INTO takes ({names}) SELECT {names} FROM spare.takes ORDER BY number")
            database.execute("INSERT OR IGNORE INTO hearings SELECT * FROM spare.hearings")
            if database.execute("SELECT 1 FROM spare.sqlite_master WHERE name = 'file_numbers'").fetchone():
                _raise_file_numbers(database, database.execute("SELECT folder, slug, number FROM spare.file_numbers"))
            if self._full_text:
                keep_index(database)

        with self._lock:
            try:
                self._database.execute("ATTACH ? AS spare", (os.fsencode(other).decode("utf-8", "replace"),))
            except sqlite3.Error as error:
                raise translated(error, other) from error
        try:
            self._safely(copy)
        finally:
            with self._lock:
                self._database.execute("DETACH spare")

    def _insert(self, database: sqlite3.Connection, takes: tuple[StoredTake, ...]) -> None:
        for take in takes:
            values = _row(take)
            marks = ", ".join("?" * len(values))
            number = database.execute(f"INSERT INTO takes ({_COLUMNS}) VALUES ({marks})", values).lastrowid
            if self._full_text:
                database.execute(f"INSERT INTO {INDEX} (rowid, prompt) VALUES (?, ?)", (number, values[3]))

    def _store_waiting(self) -> bool:
        try:
            self._safely(lambda database: self._insert(database, tuple(self._unstored.values())))
        except TimbredError:
            return False
        self._unstored.clear()
        return True

    def _follow_file(self) -> None:
        """Open the file again if another one is at its path, and write it again if none is."""
        now = _file_id(self.path)
        if self._in_memory or now == self._opened or not self.path.parent.is_dir():
            return
        with self._lock:
            try:
                if now is None:
                    with closing(sqlite3.connect(self.path)) as copy:
                        self._database.backup(copy)
                    log.warning("library: %s was deleted, and is written again", self.path)
                database = open_database(self.path)
            except (sqlite3.Error, OSError, TimbredError) as error:
                log.warning("library: %s can't be opened again: %s", self.path, error)
                return
            self._database.close()
            self._database = database
            self._opened = _file_id(self.path)
            if self._full_text:
                keep_index(self._database)

    def get(self, take_id: str) -> StoredTake | None:
        """The take with this id, if there is one."""
        return self._unstored.get(take_id) or self._one("take_id = ?", take_id)

    def find_by_path(self, path: Path) -> StoredTake | None:
        """The newest take that was delivered to this path, if there is one."""
        unstored = (take for take in reversed(list(self._unstored.values())) if take.path == path)
        return next(unstored, None) or self._one("path = ?", _path_text(path))

    def search(self, words: str = "", limit: int = 20, like: str | None = None) -> list[StoredTake]:
        """Takes whose prompts have all the words, or words that begin so; the newest first.

        Without words: the newest of all. `like` names a take: the answer is then ordered by likeness to it, and that
        take itself left out. First those which the same ear heard (`hear`), by how alike they sound; then the others,
        by how many words their prompts share with its own, those that share none left out.

        Raises:
            BadRequest: `limit` isn't 1..1000, or no take has the id `like`.
        """
        if not 1 <= limit <= 1000:
            raise BadRequest(f"limit: got {limit}, allowed is a whole number from 1 to 1000")
        if like is None:
            return [*self._unstored_matching(words), *self._matching(words, limit)][:limit]
        model = self.get(like)
        if model is None:
            raise BadRequest(f"like: no take has the id {like[:64]!r}; `takes` lists those there are")
        others = [take for take in self._matching(words, COMPARED) if take.take_id != like]
        return most_alike(model.prompt, others, self._heard_like(like))[:limit]

    def hear(self, take_id: str, ear: str, vector: bytes) -> None:
        """Remember what a take sounds like: a direction of length 1, float32, in the space of this ear."""
        query = "INSERT OR REPLACE INTO hearings VALUES (?, ?, ?)"
        self._safely(lambda database: database.execute(query, (take_id, ear, vector)))

    def _heard_like(self, take_id: str) -> dict[str, float]:
        """How alike a take others sound that the same ear heard, -1 to 1, by their ids; that take is among them."""
        query = """
            SELECT other.take_id, other.vector FROM hearings AS one JOIN hearings AS other ON other.ear = one.ear
            JOIN takes ON takes.take_id = other.take_id WHERE one.take_id = ?
            ORDER BY takes.created DESC, takes.number DESC LIMIT ?
        """
        own = "SELECT vector FROM hearings WHERE take_id = ?"
        rows, found = self._safely(
            lambda database: (
                database.execute(query, (take_id, COMPARED)).fetchall(),
                database.execute(own, (take_id,)).fetchone(),
            )
        )
        return {} if found is None else cosines(found[0], dict(rows))

    def browse(self, words: str, limit: int, before: str | None = None, starred: bool = False) -> list[StoredTake]:
        """One page of what `search` finds by words: at most `limit` takes older than the take `before`.

        Without `before` the newest; of a take that isn't stored nothing is older. `starred`: only starred ones.
        """
        unstored = self._unstored_matching(words, starred) if before is None else []
        if before in self._unstored:
            before = None
        stored = self._many(_all_of(self._having(words), _starred(starred), _older_than(before)), limit)
        return [*unstored, *stored][:limit]

    def count(self, words: str = "", starred: bool = False) -> int:
        """How many takes `browse` goes through."""
        condition = _all_of(self._having(words), _starred(starred))
        query = f"SELECT count(*) FROM takes WHERE {condition.text}"
        stored = int(self._safely(lambda database: database.execute(query, condition.values).fetchone())[0])
        return stored + len(self._unstored_matching(words, starred))

    def star(self, take_id: str, on: bool) -> bool:
        """Mark a take, or take its mark away; whether there is such a take."""
        if take_id in self._unstored:
            self._unstored[take_id] = replace(self._unstored[take_id], starred=on)
            return True
        query = "UPDATE takes SET starred = ? WHERE take_id = ?"
        return self._safely(lambda database: database.execute(query, (int(on), take_id)).rowcount) > 0

    def file_number(self, folder: str, slug: str) -> int:
        """Return the last number given to a file `slug-NUMBER` in a folder inside the takes folder; 0 for none."""
        query = "SELECT number FROM file_numbers WHERE folder = ? AND slug = ?"
        row = self._safely(lambda database: database.execute(query, (folder, slug)).fetchone())
        return 0 if row is None else int(row[0])

    def next_file_number(self, folder: str, slug: str, above: int = 0) -> int:
        """Give and store a number for a file `slug-NUMBER`: above the last one and above `above`.

        Safe for threads, and for several processes that use the library.
        """

        def count(database: sqlite3.Connection) -> int:
            key = (folder, slug)
            # the write comes first: a transaction that begins by reading may fail to become a writing one
            _raise_file_numbers(database, [(*key, above)])
            database.execute("UPDATE file_numbers SET number = number + 1 WHERE folder = ? AND slug = ?", key)
            row = database.execute("SELECT number FROM file_numbers WHERE folder = ? AND slug = ?", key).fetchone()
            return int(row[0])

        with self._adding:
            self._follow_file()
        return self._safely(count)

    def raise_file_numbers(self, numbers: Iterable[tuple[str, str, int]]) -> None:
        """Store last numbers of files, rows of folder, slug and number, where they are higher than those stored."""
        rows = list(numbers)
        self._safely(lambda database: _raise_file_numbers(database, rows))

    @property
    def is_stored(self) -> bool:
        """Whether the library is kept in its file, rather than in memory only."""
        return not self._in_memory

    def _matching(self, words: str, limit: int) -> list[StoredTake]:
        return self._many(self._having(words), limit)

    def _unstored_matching(self, words: str, starred: bool = False) -> list[StoredTake]:
        """The takes in memory that have all the words, the newest first."""
        wanted = [word.casefold() for word in words_in(words)]
        if words.strip() and not wanted:
            return []
        return [
            take
            for take in reversed(list(self._unstored.values()))
            if (take.starred or not starred) and all(word in take.prompt.casefold() for word in wanted)
        ]

    def _having(self, words: str) -> "_Condition":
        wanted = words_in(words)
        if not wanted:
            # Only punctuation matches nothing, rather than everything.
            return _Condition("0" if words.strip() else "1")
        if self._full_text:
            text = f"number IN (SELECT rowid FROM {INDEX} WHERE {INDEX} MATCH ?)"
            return _Condition(text, (match_expression(wanted),))
        text = " AND ".join("prompt LIKE ? ESCAPE '!'" for _ in wanted)
        return _Condition(text, tuple(like_pattern(word) for word in wanted))

    def _one(self, condition: str, value: str) -> StoredTake | None:
        found = self._many(_Condition(condition, (value,)), 1)
        return found[0] if found else None

    def _many(self, condition: "_Condition", limit: int) -> list[StoredTake]:
        query = f"SELECT {_COLUMNS} FROM takes WHERE {condition.text} {_NEWEST_FIRST} LIMIT ?"
        rows = self._safely(lambda database: database.execute(query, (*condition.values, limit)).fetchall())
        return [_take(row) for row in rows]

    def _safely(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do it in one transaction, one thread at a time, and translate what fails."""
        with self._lock:
            try:
                self._database.execute("BEGIN")
                try:
                    result = work(self._database)
                except BaseException:
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                raise translated(error, self.path) from error
            return result


def _raise_file_numbers(database: sqlite3.Connection, rows: Iterable[tuple[str, str, int]]) -> None:
    """Store each number, or leave the stored one if that is higher."""
    database.executemany(
        "INSERT INTO file_numbers VALUES (?, ?, ?)"
        " ON CONFLICT (folder, slug) DO UPDATE SET number = max(number, excluded.number)",
        list(rows),
    )


def _file_id(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one at the same path; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Condition(NamedTuple):
    """What stands after WHERE, and the values of its question marks."""

    text: str
    values: tuple[str, ...] = ()


def _all_of(*conditions: _Condition) -> _Condition:
    return _Condition(
        " AND ".join(f"({condition.text})" for condition in conditions),
        tuple(value for condition in conditions for value in condition.values),
    )


def _starred(only: bool) -> _Condition:
    return _Condition("starred = 1" if only else "1")


def _older_than(take_id: str | None) -> _Condition:
    if take_id is None:
        return _Condition("1")
    return _Condition("(created, number) < (SELECT created, number FROM takes WHERE take_id = ?)", (take_id,))


def _row(take: StoredTake) -> tuple[Any, ...]:
    return (
        take.take_id,
        None if take.path is None else _path_text(take.path),
        take.created,
        _storable(take.prompt),
        take.model,
        take.seed,
        take.seconds,
        take.rate,
        take.channels,
        take.score,
        take.index,
        _storable(take.request_id),
        json.dumps(take.recipe),
        int(take.starred),
    )


def _take(row: tuple[Any, ...]) -> StoredTake:
    take_id, path, created, prompt, model, seed, seconds, rate, channels, score, index, request_id, *rest = row
    recipe, starred = rest
    return StoredTake(
        take_id=take_id,
        path=None if path is None else Path(path),
        created=created,
        prompt=prompt,
        model=model,
        seed=seed,
        seconds=seconds,
        rate=rate,
        channels=channels,
        score=score,
        index=index,
        request_id=request_id,
        recipe=json.loads(recipe),
        starred=bool(starred),
    )


def _path_text(path: Path) -> str:
    return _storable(str(path.absolute()))


def _storable(text: str) -> str:
    """Text as SQLite takes it: halves of surrogate pairs become question marks."""
    return text.encode("utf-8", "replace").decode()


def spare_file(folder: Path, library: Path) -> Path:
    """The spare of a library, in `folder`."""
    digest = hashlib.blake2b(os.fsencode(library.absolute()), digest_size=8).hexdigest()
    return folder / f"library-{digest}.sqlite"


def open_library(file: Path, spare_folder: Path | None) -> Library:
    """Open the library, or its spare in `spare_folder` where the library itself can't be used; the log says so.

    Raises:
        TimbredError: neither can be used; says why the library can't.
    """
    spare = spare_file(spare_folder, file) if spare_folder is not None else None
    try:
        library = Library(file)
    except NewerSchema:
        raise
    except TimbredError as error:
        if spare is None:
            raise
        opened = _spare(file, spare, error)
        log.warning("%s. Until then takes are remembered in %s", error, printable(str(spare)))
        return opened
    if spare is not None and spare.is_file():
        try:
            library.take_over(spare)
        except TimbredError as error:
            log.warning("takes in %s can't be taken over: %s", printable(str(spare)), error)
    return library


def _spare(file: Path, spare: Path, error: TimbredError) -> Library:
    try:
        spare.parent.mkdir(parents=True, exist_ok=True)
        if not spare.exists():
            with closing(sqlite3.connect(spare)) as copy:
                copy_read_only(file, copy)
        return Library(spare)
    except (TimbredError, OSError, sqlite3.Error) as another:
        log.debug("the spare library can't be used: %s", another)
        raise error from (another if isinstance(another, ForbiddenPath) else None)
