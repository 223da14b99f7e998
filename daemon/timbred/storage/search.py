"""Search for takes by the words of their prompts: SQLite's full-text index FTS5, or LIKE without it; and ranking.

User input is never interpreted as search syntax: every word is quoted.
"""

import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from timbred.music import MODES, find_key, measured_name

MAX_WORDS = 16
"""Words of a search that are used."""
MAX_WORD_CHARACTERS = 100
"""Characters of a word that are used."""

INDEX = "takes_words"
"""The FTS5 table; its rowid is the take's `number`."""


def has_full_text(database: sqlite3.Connection) -> bool:
    """Return whether this SQLite was built with FTS5."""
    try:
        database.execute("CREATE VIRTUAL TABLE temp.timbred_probe USING fts5(word)")
        database.execute("DROP TABLE temp.timbred_probe")
    except sqlite3.OperationalError:
        return False
    return True


def update_index(database: sqlite3.Connection) -> None:
    """Create the index, or rebuild it if takes were added by a program without FTS5."""
    database.execute(
        f"CREATE VIRTUAL TABLE IF NOT EXISTS {INDEX} USING fts5(prompt, tokenize = 'unicode61 remove_diacritics 2')"
    )
    takes = database.execute("SELECT count(*), max(number) FROM takes").fetchone()
    indexed = database.execute(f"SELECT count(*), max(rowid) FROM {INDEX}").fetchone()
    if takes != indexed:
        database.execute(f"DELETE FROM {INDEX}")
        database.execute(f"INSERT INTO {INDEX} (rowid, prompt) SELECT number, prompt FROM takes")


def split_words(text: str) -> list[str]:
    """Split a search into words at white space; parts without a letter or digit are dropped.

    >>> split_words('warm "pad" --')
    ['warm', '"pad"']
    """
    words = [word[:MAX_WORD_CHARACTERS] for word in text.replace("\0", " ").split()]
    return [word for word in words if any(c.isalnum() for c in word)][:MAX_WORDS]


TEMPO_TOLERANCE_BPM = 0.5
"""Deviation of a tempo that a search by one number still finds."""

_TEMPO_TERM = re.compile(r"bpm:(\d{1,4}(?:\.\d+)?)(?:-(\d{1,4}(?:\.\d+)?))?", re.IGNORECASE)
_KEY_TERM = re.compile(r"key:(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class Query:
    """A search: words of prompts, tempos and keys.

    Attributes:
        words: Words that the prompt has, those of a named key included.
        tempos: Ranges that the measured tempo is in.
        keys: Names of the measured key, from `key:` terms.
        named_key: The key that two of the words name; empty for none.
        other_words: The words without those two.
    """

    words: list[str]
    tempos: tuple[tuple[float, float], ...] = ()
    keys: tuple[str, ...] = ()
    named_key: str = ""
    other_words: list[str] = field(default_factory=list[str])

    def matches(self, prompt: str, tempo: float | None, key: str) -> bool:
        """Tell if a take is found."""

        def has(words: list[str]) -> bool:
            return all(word.casefold() in prompt.casefold() for word in words)

        return (
            (has(self.words) or bool(self.named_key and key == self.named_key and has(self.other_words)))
            and all(tempo is not None and low <= tempo <= high for low, high in self.tempos)
            and all(key == wanted for wanted in self.keys)
        )


def read_query(text: str) -> Query | None:
    """Read a search; None for text of only punctuation, which finds nothing.

    >>> read_query("pad bpm:97 key:Cm")
    Query(words=['pad'], tempos=((96.5, 97.5),), keys=('C minor',), named_key='', other_words=[])
    """
    words: list[str] = []
    tempos: list[tuple[float, float]] = []
    keys: list[str] = []
    terms = split_words(text)
    if text.strip() and not terms:
        return None
    while terms:
        term = terms.pop(0)
        tempo, key = _TEMPO_TERM.fullmatch(term), _KEY_TERM.fullmatch(term)
        if tempo is not None:
            low = float(tempo[1])
            tempos.append(
                (low, float(tempo[2])) if tempo[2] else (low - TEMPO_TOLERANCE_BPM, low + TEMPO_TOLERANCE_BPM)
            )
        elif key is not None and (name := _key_and_mode(key[1], terms)):
            keys.append(name)
        else:
            words.append(term)
    for place in range(len(words) - 1):
        named = find_key(f"{words[place]} {words[place + 1]}") if words[place + 1].lower() in MODES else None
        if named is not None:
            others = words[:place] + words[place + 2 :]
            return Query(words, tuple(tempos), tuple(keys), measured_name(named), others)
    return Query(words, tuple(tempos), tuple(keys))


def _key_and_mode(text: str, following: list[str]) -> str:
    """Return the name of the key of a `key:` term, with the mode from the next term if it is one; empty for none."""
    if following and following[0].lower() in MODES and (key := find_key(f"{text} {following[0]}")) is not None:
        following.pop(0)
        return measured_name(key)
    key = find_key(text.replace("_", " ").replace("-", " "))
    return "" if key is None else measured_name(key)


def match_expression(words: list[str]) -> str:
    """Return the FTS5 query for prompts that have all the words, each matching as a prefix.

    >>> match_expression(['warm', 'p"d'])
    '"warm"* AND "p""d"*'
    """
    return " AND ".join(f'"{_plain(word)}"*' for word in words)


def like_pattern(word: str) -> str:
    """Return the LIKE pattern (escape character `!`) for prompts that contain the word.

    >>> like_pattern('100%')
    '%100!%%'
    """
    return "%" + re.sub(r"([!%_])", r"!\1", word) + "%"


def word_similarity(prompt: str, other: str) -> float:
    """Return the similarity of two prompts: shared words over all words of both, 0 to 1.

    >>> word_similarity("warm analog pad", "cold analog pad")
    0.5
    """
    first, second = _word_set(prompt), _word_set(other)
    return len(first & second) / len(first | second) if first | second else 0.0


def _word_set(text: str) -> set[str]:
    folded = unicodedata.normalize("NFKD", text.casefold())
    return set(re.findall(r"\w+", "".join(c for c in folded if not unicodedata.combining(c))))


def _plain(word: str) -> str:
    return word.encode("utf-8", "replace").decode().replace('"', '""')


class HasPrompt(Protocol):
    """An object with an id and a prompt."""

    @property
    def take_id(self) -> str:
        """The take's id."""
        ...

    @property
    def prompt(self) -> str:
        """The take's prompt."""
        ...


HasPromptT = TypeVar("HasPromptT", bound=HasPrompt)


def cosine_similarities(vector: bytes, others: Mapping[str, bytes]) -> dict[str, float]:
    """Return the cosine similarity of other vectors, by name, to `vector`, -1 to 1. All are float32, of length 1."""
    if not others:
        return {}
    similarities = np.stack([np.frombuffer(other, "<f4") for other in others.values()]) @ np.frombuffer(vector, "<f4")
    return dict(zip(others, similarities.tolist(), strict=True))


def rank_by_similarity(
    prompt: str, takes: Iterable[HasPromptT], sound_similarities: Mapping[str, float]
) -> list[HasPromptT]:
    """Sort takes by similarity: those in `sound_similarities` by their sound, then the others by their prompts.

    Takes without a common word are left out. The order of equal ones is kept.
    """
    rated = [
        (
            take.take_id in sound_similarities,
            sound_similarities.get(take.take_id, word_similarity(prompt, take.prompt)),
            take,
        )
        for take in takes
    ]
    similar = [entry for entry in rated if entry[0] or entry[1] > 0]
    return [take for _, _, take in sorted(similar, key=lambda entry: entry[:2], reverse=True)]
