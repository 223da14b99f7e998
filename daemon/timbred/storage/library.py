"""The library: a record of every take, found by its id, its path, its words or its similarity to another take."""

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
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from timbred.audio import Recipe, SampleRate, Seconds
from timbred.errors import BadRequest, ForbiddenPath, Internal, TimbredError
from timbred.filenames import printable
from timbred.storage.database import NewerSchema, copy_read_only, open_database, open_in_memory, translate_error
from timbred.storage.search import (
    INDEX,
    cosine_similarities,
    has_full_text,
    like_pattern,
    match_expression,
    rank_by_similarity,
    read_query,
    update_index,
)

ID_LETTERS = "bcdfghjkmnpqrstvwxz23456789"
"""Letters of ids: no vowels, so that no id is a word, and none that resembles another (l and 1, o and 0, y and v)."""

ID_LENGTH = 9
"""Random characters of an id after its first, a `t`: about 43 bits."""

MAX_COMPARED_TAKES = 5_000
"""The number of newest takes that are searched for similar ones."""

MAX_UNSTORED = 10_000
"""Takes that are kept in memory while the library can't be written."""

Arguments = ParamSpec("Arguments")
T = TypeVar("T")

log = logging.getLogger(__name__)


def new_take_id() -> str:
    """Return a new id such as `tk3w9mz2qd`. It begins with a letter, so that no host parses it as a number."""
    return "t" + "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))


@dataclass(frozen=True, kw_only=True)
class StoredTake:
    """One take.

    Attributes:
        take_id: from `new_take_id`.
        path: of the file; None when it was only sent inline or played.
        created: unix time.
        prompt: the text.
        model: the model's name.
        seed: of this take.
        seconds: length of the sound as delivered.
        rate: in Hz, as delivered.
        channels: as delivered.
        score: similarity to the prompt, where the model ranks.
        index: rank among its request's takes, from 0, the best first.
        request_id: the client's own name for the request.
        recipe: see `timbred.storage.recipe`.
        starred: True if a user marked it as one to keep.
        tempo: measured beats per minute; None if unknown.
        key: name of the measured key; empty if unknown.
        downbeat: measured seconds to the first beat of a bar; None if unknown.
        fit: how closely tempo and key keep to what was asked, 0 to 1; None if that wasn't asked.
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
    tempo: float | None = None
    key: str = ""
    downbeat: float | None = None
    fit: float | None = None

    @property
    def missing(self) -> bool:
        """True if it had a file that doesn't exist any more."""
        return self.path is not None and not self.path.is_file()


_COLUMNS = (
    "take_id, path, created, prompt, model, seed, seconds, rate, channels, score, place, request_id, recipe, starred, "
    "tempo, musical_key, downbeat, fit"
)
_NEWEST_FIRST = "ORDER BY created DESC, number DESC"


class Library:
    """The stored takes, in one SQLite file. Any thread may call it.

    A take whose file was deleted stays in the library, with `missing` true: its recipe can render it again (`vary`).

    A take that can't be stored (a full or removed disk) is kept in memory, found as the others are, and
    stored with the next one that can be. Each new take checks if the library's file was deleted or replaced.

    Every method can raise DiskFull, ForbiddenPath or Internal if the database fails.

    Args:
        path: of the file; it is created if it doesn't exist. See `open_database` for damaged and newer files.
        in_memory: True to write nothing; the library starts with what can be read at the path.
    """

    def __init__(self, path: Path, *, in_memory: bool = False) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._in_memory = in_memory
        self._database = open_in_memory(self.path) if in_memory else open_database(self.path)
        self._opened = _file_id(self.path)
        self._unstored: dict[str, StoredTake] = {}
        self._adding = threading.Lock()
        self._full_text = self._run_transaction(has_full_text)
        if self._full_text:
            self._run_transaction(update_index)

    def close(self) -> None:
        """Write everything to the file, and close it. Closing twice has no effect."""
        with self._adding:
            if self._unstored and not self._store_waiting():
                log.error("library: %d takes couldn't be stored; their files hold their recipes", len(self._unstored))
                self._unstored.clear()
        with self._lock:
            self._database.close()

    def add(self, take: StoredTake) -> None:
        """Store a take; in memory if the file can't be written now.

        Raises:
            Internal: its id is stored already, or the library is closed.
        """
        with self._adding:
            if take.take_id in self._unstored:
                raise Internal(f"the library {self.path}: the take {take.take_id} is stored already")
            self._follow_file()
            try:
                self._run_transaction(self._insert, (*self._unstored.values(), take))
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
            # a spare of an older version has fewer columns
            known = {str(row[1]) for row in database.execute("PRAGMA spare.table_info(takes)")}
            names = ", ".join(name for name in _COLUMNS.split(", ") if name in known)
            database.execute(f"INSERT OR IGNORE INTO takes ({names}) SELECT {names} FROM spare.takes ORDER BY number")
            database.execute("INSERT OR IGNORE INTO hearings SELECT * FROM spare.hearings")
            if database.execute("SELECT 1 FROM spare.sqlite_master WHERE name = 'file_numbers'").fetchone():
                _raise_file_numbers(database, database.execute("SELECT folder, slug, number FROM spare.file_numbers"))
            if self._full_text:
                update_index(database)

        with self._lock:
            try:
                self._database.execute("ATTACH ? AS spare", (os.fsencode(other).decode("utf-8", "replace"),))
            except sqlite3.Error as error:
                raise translate_error(error, other) from error
        try:
            self._run_transaction(copy)
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
            self._run_transaction(self._insert, tuple(self._unstored.values()))
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
                update_index(self._database)

    def get(self, take_id: str) -> StoredTake | None:
        """Return the take with this id; None if there is none."""
        return self._unstored.get(take_id) or self._find_first("take_id = ?", take_id)

    def find_by_path(self, path: Path) -> StoredTake | None:
        """Return the newest take that was delivered to this path; None if there is none."""
        unstored = (take for take in reversed(list(self._unstored.values())) if take.path == path)
        return next(unstored, None) or self._find_first("path = ?", _storable(str(path.absolute())))

    def search(self, words: str = "", limit: int = 20, like: str | None = None) -> list[StoredTake]:
        """Return the takes whose prompts have all the words, or words that begin with them; the newest first.

        `bpm:97`, `bpm:90-100` and `key:Cm` find takes by their measured tempo and key. The name of a key, `C minor`,
        finds takes in that key and those with both words.

        Without words: the newest of all. If `like` is the id of a take, the result is ordered by similarity to it,
        without that take. The takes with an embedding by the same model (`store_embedding`) are first, ordered by the
        similarity of the sounds. The others follow, ordered by the share of words that their prompts have in common
        with its own; those without any are left out.

        Raises:
            BadRequest: `limit` isn't 1..1000, or no take has the id `like`.
        """
        if not 1 <= limit <= 1000:
            raise BadRequest(f"limit: got {limit}, allowed is a whole number from 1 to 1000")
        if like is None:
            return [*self._unstored_matching(words), *self._matching(words, limit)][:limit]
        take = self.get(like)
        if take is None:
            raise BadRequest(f"like: no take has the id {like[:64]!r}; `takes` lists those there are")
        others = [other for other in self._matching(words, MAX_COMPARED_TAKES) if other.take_id != like]
        return rank_by_similarity(take.prompt, others, self._similar_sounding(like))[:limit]

    def store_embedding(self, take_id: str, model: str, vector: bytes) -> None:
        """Store the embedding of a take: a vector of length 1, float32, of the embedding model `model`."""
        query = "INSERT OR REPLACE INTO hearings VALUES (?, ?, ?)"
        self._run_transaction(lambda database: database.execute(query, (take_id, model, vector)))

    def _similar_sounding(self, take_id: str) -> dict[str, float]:
        """Return the cosine similarity, -1 to 1, of all takes with an embedding by the same model, by id."""
        query = """
            SELECT other.take_id, other.vector FROM hearings AS one JOIN hearings AS other ON other.ear = one.ear
            JOIN takes ON takes.take_id = other.take_id WHERE one.take_id = ?
            ORDER BY takes.created DESC, takes.number DESC LIMIT ?
        """
        own = "SELECT vector FROM hearings WHERE take_id = ?"
        rows, vector_row = self._run_transaction(
            lambda database: (
                database.execute(query, (take_id, MAX_COMPARED_TAKES)).fetchall(),
                database.execute(own, (take_id,)).fetchone(),
            )
        )
        return {} if vector_row is None else cosine_similarities(vector_row[0], dict(rows))

    def browse(self, words: str, limit: int, before: str | None = None, starred: bool = False) -> list[StoredTake]:
        """Return one page of the takes found by words: at most `limit` takes older than the take `before`.

        Without `before` the newest; if it isn't stored, none. `starred`: only starred ones.
        """
        unstored = self._unstored_matching(words, starred) if before is None else []
        if before in self._unstored:
            before = None
        stored = self._find(_all_of(self._has_words(words), _starred(starred), _older_than(before)), limit)
        return [*unstored, *stored][:limit]

    def count(self, words: str = "", starred: bool = False) -> int:
        """Return the number of takes that `browse` goes through."""
        condition = _all_of(self._has_words(words), _starred(starred))
        query = f"SELECT count(*) FROM takes WHERE {condition.text}"
        stored = int(self._run_transaction(lambda database: database.execute(query, condition.values).fetchone())[0])
        return stored + len(self._unstored_matching(words, starred))

    def star(self, take_id: str, on: bool) -> bool:
        """Mark a take, or remove its mark; return whether there is such a take."""
        if take_id in self._unstored:
            self._unstored[take_id] = replace(self._unstored[take_id], starred=on)
            return True
        query = "UPDATE takes SET starred = ? WHERE take_id = ?"
        return self._run_transaction(lambda database: database.execute(query, (int(on), take_id)).rowcount) > 0

    def file_number(self, folder: str, slug: str) -> int:
        """Return the last number given to a file `slug-NUMBER` in a folder inside the takes folder; 0 for none."""
        query = "SELECT number FROM file_numbers WHERE folder = ? AND slug = ?"
        row = self._run_transaction(lambda database: database.execute(query, (folder, slug)).fetchone())
        return 0 if row is None else int(row[0])

    def next_file_number(self, folder: str, slug: str, above: int = 0) -> int:
        """Give and store a number for a file `slug-NUMBER`: above the last one and above `above`.

        Safe for threads, and for several processes that use the library.
        """
        with self._adding:
            self._follow_file()
        return self._run_transaction(_count_up, folder, slug, above)

    def raise_file_numbers(self, numbers: Iterable[tuple[str, str, int]]) -> None:
        """Store last numbers of files, rows of folder, slug and number, where they are higher than those stored."""
        self._run_transaction(_raise_file_numbers, list(numbers))

    @property
    def is_stored(self) -> bool:
        """True if the library is kept in its file; False if only in memory."""
        return not self._in_memory

    def _matching(self, words: str, limit: int) -> list[StoredTake]:
        return self._find(self._has_words(words), limit)

    def _unstored_matching(self, words: str, starred: bool = False) -> list[StoredTake]:
        """Return the takes in memory that have all the words, the newest first."""
        query = read_query(words)
        if query is None:
            return []
        return [
            take
            for take in reversed(list(self._unstored.values()))
            if (take.starred or not starred) and query.matches(take.prompt, take.tempo, take.key)
        ]

    def _has_words(self, words: str) -> "_Condition":
        query = read_query(words)
        if query is None:
            # text of only punctuation matches nothing, rather than everything
            return _Condition("0")
        conditions = [self._has_prompt_words(query.words)]
        if query.named_key:
            in_key = _all_of(
                self._has_prompt_words(query.other_words), _Condition("musical_key = ?", (query.named_key,))
            )
            conditions = [
                _Condition(f"({conditions[0].text}) OR ({in_key.text})", conditions[0].values + in_key.values)
            ]
        conditions += [_Condition("tempo BETWEEN ? AND ?", span) for span in query.tempos]
        conditions += [_Condition("musical_key = ?", (key,)) for key in query.keys]
        return _all_of(*conditions)

    def _has_prompt_words(self, search_words: list[str]) -> "_Condition":
        if not search_words:
            return _Condition("1")
        if self._full_text:
            text = f"number IN (SELECT rowid FROM {INDEX} WHERE {INDEX} MATCH ?)"
            return _Condition(text, (match_expression(search_words),))
        text = " AND ".join("prompt LIKE ? ESCAPE '!'" for _ in search_words)
        return _Condition(text, tuple(like_pattern(word) for word in search_words))

    def _find_first(self, condition: str, value: str) -> StoredTake | None:
        takes = self._find(_Condition(condition, (value,)), 1)
        return takes[0] if takes else None

    def _find(self, condition: "_Condition", limit: int) -> list[StoredTake]:
        query = f"SELECT {_COLUMNS} FROM takes WHERE {condition.text} {_NEWEST_FIRST} LIMIT ?"
        rows = self._run_transaction(lambda database: database.execute(query, (*condition.values, limit)).fetchall())
        return [_take(row) for row in rows]

    def _run_transaction(
        self,
        work: Callable[Concatenate[sqlite3.Connection, Arguments], T],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> T:
        """Run `work` with the database in one transaction, one thread at a time, and translate errors."""
        with self._lock:
            try:
                self._database.execute("BEGIN")
                try:
                    result = work(self._database, *args, **kwargs)
                except BaseException:
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                raise translate_error(error, self.path) from error
            return result


def _count_up(database: sqlite3.Connection, folder: str, slug: str, above: int) -> int:
    # the write comes first: a transaction that begins by reading may fail to become a writing one
    database.execute(
        "INSERT INTO file_numbers VALUES (?, ?, ?)"
        " ON CONFLICT (folder, slug) DO UPDATE SET number = max(number + 1, excluded.number)",
        (folder, slug, above + 1),
    )
    row = database.execute("SELECT number FROM file_numbers WHERE folder = ? AND slug = ?", (folder, slug)).fetchone()
    return int(row[0])


def _raise_file_numbers(database: sqlite3.Connection, rows: Iterable[tuple[str, str, int]]) -> None:
    """Store each number, or leave the stored one if that is higher."""
    database.executemany(
        "INSERT INTO file_numbers VALUES (?, ?, ?)"
        " ON CONFLICT (folder, slug) DO UPDATE SET number = max(number, excluded.number)",
        list(rows),
    )


def _file_id(path: Path) -> tuple[int, int] | None:
    """Return what distinguishes a file from another one at the same path; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Condition(NamedTuple):
    """The text after WHERE, and the values of its placeholders."""

    text: str
    values: tuple[str | float, ...] = ()


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
        None if take.path is None else _storable(str(take.path.absolute())),
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
        take.tempo,
        take.key,
        take.downbeat,
        take.fit,
    )


def _take(row: tuple[Any, ...]) -> StoredTake:
    take_id, path, created, prompt, model, seed, seconds, rate, channels, score, index, request_id, *rest = row
    recipe, starred, tempo, key, downbeat, fit = rest
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
        tempo=tempo,
        key=key,
        downbeat=downbeat,
        fit=fit,
    )


def _storable(text: str) -> str:
    """Return text without lone surrogates, which SQLite doesn't accept: they become question marks."""
    return text.encode("utf-8", "replace").decode()


def spare_file(folder: Path, library: Path) -> Path:
    """Return the path of a library's spare in `folder`."""
    digest = hashlib.blake2b(os.fsencode(library.absolute()), digest_size=8).hexdigest()
    return folder / f"library-{digest}.sqlite"


def open_library(file: Path, spare_folder: Path | None) -> Library:
    """Open the library, or its spare in `spare_folder` if the library can't be used, which is logged.

    Raises:
        TimbredError: neither can be used; the message says why the library can't.
    """
    spare = spare_file(spare_folder, file) if spare_folder is not None else None
    try:
        library = Library(file)
    except NewerSchema:
        raise
    except TimbredError as error:
        if spare is None:
            raise
        opened = _open_spare(file, spare, error)
        log.warning("%s. Until then takes are stored in %s", error, printable(str(spare)))
        return opened
    if spare is not None and spare.is_file():
        try:
            library.take_over(spare)
        except TimbredError as error:
            log.warning("takes in %s can't be taken over: %s", printable(str(spare)), error)
    return library


def _open_spare(file: Path, spare: Path, error: TimbredError) -> Library:
    try:
        spare.parent.mkdir(parents=True, exist_ok=True)
        if not spare.exists():
            with closing(sqlite3.connect(spare)) as copy:
                copy_read_only(file, copy)
        return Library(spare)
    except (TimbredError, OSError, sqlite3.Error) as another:
        log.debug("the spare library can't be used: %s", another)
        raise error from (another if isinstance(another, ForbiddenPath) else None)
