"""Words of prompts of the family pocket, encoded without a vocabulary, and what they name.

A word has hashed pieces, and exact notes, chord roots and numbers.
"""

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BUCKET_COUNT = 6144
MAX_WORD_PIECES = 12
"""Hashed pieces of a word: the word itself, then groups of three characters."""
MAX_WORDS = 40
FEATURE_COUNT = 12 + 11 + 1 + 12 + 1
"""Pitch class, octave, flag of a note; sines and cosines of a number, flag of a number."""

PITCH_CLASSES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_ACCIDENTALS = {"": 0, "#": 1, "s": 1, "♯": 1, "b": -1, "♭": -1}
_NOTE = re.compile(r"([a-g])(#|b|s|♯|♭)?(-?\d)$")
_ROOT = re.compile(r"([a-g])(#|♯|b|♭)?$")
_CHORD = re.compile(r"([a-g])(#|b|♯|♭)?(maj7|min7|maj|min|m7|m9|m|dim|aug|sus2|sus4|7|5|9)$")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)(bpm)?$")
_WORD = re.compile(r"[a-z0-9#♯♭.'+&-]+")
_AFTER_ROOT = (
    *(
        "major",
        "minor",
        "maj",
        "min",
        "sharp",
        "flat",
        "chord",
        "dim",
        "diminished",
        "aug",
        "augmented",
        "sus2",
        "sus4",
    ),
    *("suspended", "power", "fifth", "dominant", "seventh", "7", "pentatonic", "blues", "scale"),
)
"""Words before which "a" is a chord root and not an article."""
_MODELS = ("303", "808", "909", "12", "8", "7")
"""Numbers that are also names."""


@dataclass(frozen=True)
class PromptWord:
    """One word with its text, pitch and number.

    Attributes:
        text: lower case.
        pitch_class: 0 (c) to 11, or None.
        octave: -1 to 9, or None.
        number: a positive number, or None.
    """

    text: str
    pitch_class: int | None = None
    octave: int | None = None
    number: float | None = None

    @property
    def note(self) -> int | None:
        """MIDI note, 0 to 127; None for a word that names none."""
        if self.pitch_class is None or self.octave is None:
            return None
        return min(max(12 * (self.octave + 1) + self.pitch_class, 0), 127)


def _split(prompt: str) -> list[str]:
    words: list[str] = []
    for match in _WORD.findall(prompt.lower()):
        word = match.strip(".'-+&")
        if word:
            words.append(word)
    return words


def count_words(prompt: str) -> int:
    """Return the number of words of a prompt, also beyond those that are read."""
    return len(_all_words(prompt))


def read_words(prompt: str) -> list[PromptWord]:
    """Split a prompt into words: "C sharp 4" is one note, "cm7" a root and a chord, "97bpm" a number and a word."""
    return _all_words(prompt)[:MAX_WORDS]


def _all_words(prompt: str) -> list[PromptWord]:
    parts = _split(prompt)
    words: list[PromptWord] = []
    index = 0
    while index < len(parts):
        part = parts[index]
        following = parts[index + 1] if index + 1 < len(parts) else ""
        index += 1
        if part in PITCH_CLASSES and following in ("sharp", "flat"):
            part += "#" if following == "sharp" else "b"
            index += 1
            following = parts[index] if index < len(parts) else ""
            if re.fullmatch(r"\d", following):
                part += following
                index += 1
            else:
                words.append(_root(part))
                continue
        words += _words_of(part, following)
    return words


def _root(part: str) -> PromptWord:
    match = _ROOT.match(part)
    assert match is not None
    pitch_class = (PITCH_CLASSES[match[1]] + _ACCIDENTALS[match[2] or ""]) % 12
    return PromptWord("root", pitch_class)


def _words_of(part: str, following: str) -> list[PromptWord]:
    if match := _NOTE.match(part):
        semitones = PITCH_CLASSES[match[1]] + _ACCIDENTALS[match[2] or ""]
        return [PromptWord("note", semitones % 12, int(match[3]) + semitones // 12)]
    if match := _CHORD.match(part):
        return [_root(match[1] + (match[2] or "")), PromptWord(match[3])]
    if _ROOT.match(part) and (len(part) > 1 or part not in ("a",) or following in _AFTER_ROOT):
        return [_root(part)]
    if match := _NUMBER.match(part):
        text = match[1] if match[1] in _MODELS else "number"
        number = PromptWord(text, number=max(0.01, float(match[1])))
        return [number, PromptWord("bpm")] if match[2] else [number]
    return [PromptWord(part)]


def _hash(text: str) -> int:
    return 1 + zlib.crc32(text.encode()) % (BUCKET_COUNT - 1)


def pieces_of(text: str) -> list[int]:
    """Return the buckets of a word and of its groups of three characters; 0 is unused."""
    marked = f"<{text}>"
    groups = [marked[start : start + 3] for start in range(len(marked) - 2)] if len(text) > 2 else []
    return [_hash(f"word {text}"), *map(_hash, groups)][:MAX_WORD_PIECES]


def features_of(word: PromptWord) -> NDArray[np.float32]:
    """Return the features of a word's pitch and number."""
    features = np.zeros(FEATURE_COUNT, np.float32)
    if word.pitch_class is not None:
        features[word.pitch_class] = 1
        features[23] = 1
    if word.octave is not None:
        features[12 + min(max(word.octave, -1), 9) + 1] = 1
    if word.number is not None:
        octaves = float(np.log2(word.number))
        angles = 2 * np.pi * octaves * np.array([0.125, 0.25, 0.5, 1, 2, 4])
        features[24:36] = np.concatenate((np.sin(angles), np.cos(angles)))
        features[36] = 1
    return features


@dataclass
class EncodedWords:
    """Encoded words of several prompts, padded.

    Attributes:
        pieces: (prompts, words, MAX_WORD_PIECES) int64.
        features: (prompts, words, FEATURE_COUNT) float32.
        mask: (prompts, words) bool, True for words.
    """

    pieces: NDArray[np.int64]
    features: NDArray[np.float32]
    mask: NDArray[np.bool_]


def encode_words(prompts: Sequence[str]) -> EncodedWords:
    """Encode prompts; a prompt without words has one empty word."""
    listed = [read_words(prompt) or [PromptWord("")] for prompt in prompts]
    longest = max(map(len, listed))
    pieces = np.zeros((len(listed), longest, MAX_WORD_PIECES), np.int64)
    features = np.zeros((len(listed), longest, FEATURE_COUNT), np.float32)
    mask = np.zeros((len(listed), longest), np.bool_)
    for row, words in enumerate(listed):
        mask[row, : len(words)] = True
        for column, word in enumerate(words):
            buckets = pieces_of(word.text)
            pieces[row, column, : len(buckets)] = buckets
            features[row, column] = features_of(word)
    return EncodedWords(pieces, features, mask)


def plural_of(word: str) -> str:
    """Return the plural of a noun.

    >>> [plural_of(word) for word in ("bubble", "scratch")]
    ['bubbles', 'scratches']
    """
    return f"{word}es" if word.endswith(("s", "x", "ch", "sh")) else f"{word}s"


class Names:
    """Finds what a prompt names, by phrases for it and their plurals."""

    def __init__(self, phrases: Iterable[tuple[str, Sequence[str]]]) -> None:
        self._kinds: dict[tuple[str, ...], set[str]] = {}
        for kind, names in phrases:
            for name in names:
                self._kinds.setdefault(_texts(read_words(name)), set()).add(kind)
        self._max_words = max(map(len, self._kinds), default=0)
        for name in tuple(self._kinds):
            if name and name[-1] and not name[-1].endswith("s"):
                self._kinds.setdefault((*name[:-1], plural_of(name[-1])), self._kinds[name])

    def find(self, words: Sequence[PromptWord]) -> dict[str, int]:
        """Return what is named, with the number of words of the name; names within longer ones don't count.

        "A warm steel drum" names a steel drum, not a drum.
        """
        texts = _texts(words)
        spans = [
            (first, first + count)
            for count in range(self._max_words, 0, -1)
            for first in range(len(texts) - count + 1)
            if texts[first : first + count] in self._kinds
        ]
        named: dict[str, int] = {}
        for first, last in spans:
            if any(other != (first, last) and other[0] <= first and last <= other[1] for other in spans):
                continue
            for kind in self._kinds[texts[first:last]]:
                named[kind] = max(named.get(kind, 0), last - first)
        return named


def _texts(words: Sequence[PromptWord]) -> tuple[str, ...]:
    return tuple(word.text for word in words)
