"""Finding takes by the words of their prompts: SQLite's full-text index FTS5, or plain LIKE without it.

What a user types is never read as search syntax: every word is quoted.
"""

import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

import numpy as np

MOST_WORDS = 16
LONGEST_WORD = 100

INDEX = "takes_words"
"""The FTS5 table; its rowid is the take's `number`."""


def has_full_text(database: sqlite3.Connection) -> bool:
    """Whether this SQLite was built with FTS5."""
    try:
        database.execute("CREATE VIRTUAL TABLE temp.timbred_probe USING fts5(word)")
        database.execute("DROP TABLE temp.timbred_probe")
    except sqlite3.OperationalError:
        return False
    return True


def keep_index(database: sqlite3.Connection) -> None:
    """Make the index, or make it again if takes were added by a program without FTS5."""
    database.execute(
        f"CREATE VIRTUAL TABLE IF NOT EXISTS {INDEX} USING fts5(prompt, tokenize = 'unicode61 remove_diacritics 2')"
    )
    takes = database.execute("SELECT count(*), max(number) FROM takes").fetchone()
    indexed = database.execute(f"SELECT count(*), max(rowid) FROM {INDEX}").fetchone()
    if takes != indexed:
        database.execute(f"DELETE FROM {INDEX}")
        database.execute(f"INSERT INTO {INDEX} (rowid, prompt) SELECT number, prompt FROM takes")


def words_in(text: str) -> list[str]:
    """The words of a search: split at white space; what has no letter and no digit is no word.

    >>> words_in('warm "pad" --')
    ['warm', '"pad"']
    """
    words = [word[:LONGEST_WORD] for word in text.replace("\0", " ").split()]
    return [word for word in words if any(c.isalnum() for c in word)][:MOST_WORDS]


def match_expression(words: list[str]) -> str:
    """The FTS5 query for prompts that have all the words, each matching from its beginning.

    >>> match_expression(['warm', 'p"d'])
    '"warm"* AND "p""d"*'
    """
    return " AND ".join(f'"{_plain(word)}"*' for word in words)


def like_pattern(word: str) -> str:
    """The LIKE pattern (escape character `!`) for prompts that have the word anywhere.

    >>> like_pattern('100%')
    '%100!%%'
    """
    return "%" + re.sub(r"([!%_])", r"!\1", word) + "%"


def likeness(one: str, other: str) -> float:
    """How alike two prompts are: shared words over all words of both, 0 to 1.

    >>> likeness("warm analog pad", "cold analog pad")
    0.5
    """
    first, second = _bare(one), _bare(other)
    return len(first & second) / len(first | second) if first | second else 0.0


def _bare(text: str) -> set[str]:
    folded = unicodedata.normalize("NFKD", text.casefold())
    return set(re.findall(r"\w+", "".join(c for c in folded if not unicodedata.combining(c))))


def _plain(word: str) -> str:
    return word.encode("utf-8", "replace").decode().replace('"', '""')


class Spoken(Protocol):
    """What has an id and a prompt."""

    @property
    def take_id(self) -> str: ...
    @property
    def prompt(self) -> str: ...


SpokenT = TypeVar("SpokenT", bound=Spoken)


def cosines(one: bytes, others: Mapping[str, bytes]) -> dict[str, float]:
    """How near each direction lies to one, -1 to 1. All are float32 of length 1 and the same number of dimensions."""
    if not others:
        return {}
    found = np.stack([np.frombuffer(vector, "<f4") for vector in others.values()]) @ np.frombuffer(one, "<f4")
    return dict(zip(others, found.tolist(), strict=True))


def most_alike(prompt: str, takes: Iterable[SpokenT], heard: Mapping[str, float]) -> list[SpokenT]:
    """Takes by likeness: those in `heard` by their sound, then the others that share words with the prompt. The order
    of equals stays."""
    rated = [(take.take_id in heard, heard.get(take.take_id, likeness(prompt, take.prompt)), take) for take in takes]
    alike = [one for one in rated if one[0] or one[1] > 0]
    return [take for _, _, take in sorted(alike, key=lambda one: one[:2], reverse=True)]
