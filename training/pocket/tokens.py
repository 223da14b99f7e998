"""Words of a prompt as numbers: no vocabulary, any spelling, with notes, chord roots and numbers read exactly."""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BUCKETS = 6144
PIECES = 12
"""Hashed pieces of a word: the word itself, then groups of three characters."""
MAX_WORDS = 40
FEATURES = 12 + 11 + 1 + 12 + 1
"""Pitch class, octave, is a note; number as a point on circles, is a number."""

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
"""After one of these an "a" was no article."""
_MODELS = ("303", "808", "909", "12", "8", "7")
"""Numbers that are names as well."""


@dataclass(frozen=True)
class Word:
    """One word: its text, and what it says of pitch or number.

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


def _split(prompt: str) -> list[str]:
    found: list[str] = []
    for match in _WORD.findall(prompt.lower()):
        word = match.strip(".'-+&")
        if word:
            found.append(word)
    return found


def read_words(prompt: str) -> list[Word]:
    """Words of a prompt: "C sharp 4" is one note, "cm7" a root and a chord, "97bpm" a number and a word."""
    parts = _split(prompt)
    found: list[Word] = []
    index = 0
    while index < len(parts) and len(found) < MAX_WORDS:
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
                found.append(_root(part))
                continue
        found += _words_of(part, following)
    return found[:MAX_WORDS]


def _root(part: str) -> Word:
    match = _ROOT.match(part)
    assert match is not None
    pitch_class = (PITCH_CLASSES[match[1]] + _ACCIDENTALS[match[2] or ""]) % 12
    return Word("root", pitch_class)


def _words_of(part: str, following: str) -> list[Word]:
    if match := _NOTE.match(part):
        semitones = PITCH_CLASSES[match[1]] + _ACCIDENTALS[match[2] or ""]
        return [Word("note", semitones % 12, int(match[3]) + semitones // 12)]
    if match := _CHORD.match(part):
        return [_root(match[1] + (match[2] or "")), Word(match[3])]
    if _ROOT.match(part) and (len(part) > 1 or part not in ("a",) or following in _AFTER_ROOT):
        return [_root(part)]
    if match := _NUMBER.match(part):
        text = match[1] if match[1] in _MODELS else "number"
        number = Word(text, number=max(0.01, float(match[1])))
        return [number, Word("bpm")] if match[2] else [number]
    return [Word(part)]


def _hash(text: str) -> int:
    return 1 + zlib.crc32(text.encode()) % (BUCKETS - 1)


def pieces_of(text: str) -> list[int]:
    """Buckets of a word and its groups of three characters; 0 is no piece."""
    marked = f"<{text}>"
    groups = [marked[start : start + 3] for start in range(len(marked) - 2)] if len(text) > 2 else []
    return [_hash(f"word {text}"), *map(_hash, groups)][:PIECES]


def features_of(word: Word) -> NDArray[np.float32]:
    """What a word says of pitch and number."""
    found = np.zeros(FEATURES, np.float32)
    if word.pitch_class is not None:
        found[word.pitch_class] = 1
        found[23] = 1
    if word.octave is not None:
        found[12 + min(max(word.octave, -1), 9) + 1] = 1
    if word.number is not None:
        octaves = float(np.log2(word.number))
        angles = 2 * np.pi * octaves * np.array([0.125, 0.25, 0.5, 1, 2, 4])
        found[24:36] = np.concatenate((np.sin(angles), np.cos(angles)))
        found[36] = 1
    return found


@dataclass
class Encoded:
    """Words of several prompts, padded.

    Attributes:
        pieces: (prompts, words, PIECES) int64.
        features: (prompts, words, FEATURES) float32.
        mask: (prompts, words) bool, true for words.
    """

    pieces: NDArray[np.int64]
    features: NDArray[np.float32]
    mask: NDArray[np.bool_]


def encode(prompts: Sequence[str]) -> Encoded:
    """Numbers for prompts; a prompt without words has one empty word."""
    listed = [read_words(prompt) or [Word("")] for prompt in prompts]
    longest = max(map(len, listed))
    pieces = np.zeros((len(listed), longest, PIECES), np.int64)
    features = np.zeros((len(listed), longest, FEATURES), np.float32)
    mask = np.zeros((len(listed), longest), np.bool_)
    for row, words in enumerate(listed):
        mask[row, : len(words)] = True
        for column, word in enumerate(words):
            found = pieces_of(word.text)
            pieces[row, column, : len(found)] = found
            features[row, column] = features_of(word)
    return Encoded(pieces, features, mask)
