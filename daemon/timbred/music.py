"""Musical keys and time signatures: reading what a request names, and the words for a prompt."""

import re
from typing import NamedTuple

from timbred.errors import BadRequest

_NATURALS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
"""Pitch class of each letter."""

_ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}
"""Semitones of each accidental."""

MODES = ("major", "minor", "dorian", "phrygian", "lydian", "mixolydian", "aeolian", "locrian", "ionian")
"""Modes that a key may name."""

_MODE_SPELLINGS = {
    **{mode: mode for mode in MODES},
    **{"": "major", "M": "major", "maj": "major", "m": "minor", "min": "minor"},
}

MAJOR_TONICS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
"""Usual spelling of the tonic of each major key, by pitch class."""

MINOR_TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")
"""Usual spelling of the tonic of each minor key, by pitch class."""

ALLOWED_KEYS = f"a tonic from A to G, with # or b, and one of {', '.join(MODES)}, as in: @key Bb minor"
"""Allowed keys, for messages."""

NOTE_VALUES = (1, 2, 4, 8, 16, 32)
"""Allowed denominators of a time signature."""

MAX_NUMERATOR = 32
"""Largest numerator of a time signature."""

MIN_BEATS_PER_BAR, MAX_BEATS_PER_BAR = 1.0, 32.0
"""Range of the beats of a bar."""

_KEY = re.compile(r"([A-Ga-g])\s*([#♯♭]|b(?![a-z]))?\s*([A-Za-z]*)")
_SIGNATURE = re.compile(r"([0-9]{1,2})\s*/\s*([0-9]{1,2})")


class MusicalKey(NamedTuple):
    """A musical key.

    Attributes:
        tonic: Name of the tonic, such as `F#`.
        mode: One of `MODES`.
    """

    tonic: str
    mode: str

    @property
    def pitch_class(self) -> int:
        """Pitch class of the tonic; 0 is C, 11 is B."""
        return (_NATURALS[self.tonic[0].lower()] + _ACCIDENTALS[self.tonic[1:]]) % 12

    def __str__(self) -> str:
        """Return the name as `key` takes it."""
        return f"{self.tonic} {self.mode}"


class TimeSignature(NamedTuple):
    """A time signature: `numerator` notes of the value 1/`denominator` make a bar."""

    numerator: int
    denominator: int

    @property
    def beats_per_bar(self) -> float:
        """Beats of a bar; a beat is a quarter note, as in Ableton Link and in DAWs."""
        return self.numerator * 4 / self.denominator

    def __str__(self) -> str:
        """Return the signature as `signature` takes it."""
        return f"{self.numerator}/{self.denominator}"


def find_key(text: str) -> MusicalKey | None:
    """Return the key that a text names; None if it names none.

    >>> find_key("c minor"), find_key("F#m"), find_key("H minor")
    (MusicalKey(tonic='C', mode='minor'), MusicalKey(tonic='F#', mode='minor'), None)
    """
    match = _KEY.fullmatch(text.strip())
    if match is None:
        return None
    letter, accidental, mode_text = match.groups(default="")
    mode = _MODE_SPELLINGS.get(mode_text) or _MODE_SPELLINGS.get(mode_text.lower())
    if mode is None:
        return None
    sign = {"♯": "#", "♭": "b"}.get(accidental, accidental)
    return MusicalKey(letter.upper() + sign, mode)


def read_key(text: str) -> MusicalKey:
    """Read the value of `key`.

    Raises:
        BadRequest: It isn't a key; names the allowed ones.
    """
    key = find_key(text)
    if key is None:
        raise BadRequest(f"key: got {text[:60]!r}, allowed is {ALLOWED_KEYS}")
    return key


def read_signature(text: str) -> TimeSignature:
    """Read the value of `signature`.

    >>> str(read_signature("6/8")), read_signature("6/8").beats_per_bar
    ('6/8', 3.0)

    Raises:
        BadRequest: It isn't a time signature; names the allowed ones.
    """
    match = _SIGNATURE.fullmatch(text.strip())
    signature = None if match is None else TimeSignature(int(match[1]), int(match[2]))
    if (
        signature is None
        or not 1 <= signature.numerator <= MAX_NUMERATOR
        or signature.denominator not in NOTE_VALUES
        or not MIN_BEATS_PER_BAR <= signature.beats_per_bar <= MAX_BEATS_PER_BAR
    ):
        raise BadRequest(
            f"signature: got {text[:60]!r}, allowed is a number from 1 to {MAX_NUMERATOR}, a slash and one of "
            f"{', '.join(map(str, NOTE_VALUES))}, with bars of {MIN_BEATS_PER_BAR:g} to {MAX_BEATS_PER_BAR:g} "
            "quarter notes, as in: @signature 6/8"
        )
    return signature


def key_name(pitch_class: int, mode: str) -> str:
    """Return the usual name of a major or minor key.

    >>> key_name(1, "minor"), key_name(1, "major")
    ('C# minor', 'Db major')
    """
    return f"{(MINOR_TONICS if mode == 'minor' else MAJOR_TONICS)[pitch_class % 12]} {mode}"


def measured_name(key: MusicalKey) -> str:
    """Return a key in the spelling in which measured keys are named: `Gb major` is `F# major`.

    Keys of other modes than major and minor keep their names.
    """
    mode = {"ionian": "major", "aeolian": "minor"}.get(key.mode, key.mode)
    return key_name(key.pitch_class, mode) if mode in ("major", "minor") else str(key)


def musical_words(key: str, bpm: float | None, signature: str) -> str:
    """Return key, tempo and time signature in words for a prompt; empty for none.

    >>> musical_words("C minor", 97.0, "6/8")
    'C minor, 97 bpm, 6/8 time'
    """
    parts = (key, "" if bpm is None else f"{bpm:.7g} bpm", f"{signature} time" if signature else "")
    return ", ".join(part for part in parts if part)
