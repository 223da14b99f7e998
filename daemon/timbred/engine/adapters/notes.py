"""The note that a prompt names."""

import re

from timbred.engine.wire import Words

SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
SIGNS = {"#": 1, "♯": 1, "b": -1, "♭": -1, "": 0}

LOWEST, HIGHEST = 24, 96
"""MIDI notes from which and up to which a named one is played: c1 to c7."""

_NAMED = re.compile(r"(?<![\w#♯♭])([a-g])([#♯b♭]?)(\d)(?![\w#♯♭])", re.IGNORECASE)
_MOVING = re.compile(
    r"\b(falling|falls|rising|rises|sliding|slides|gliding|glides|going (up|down)|sweep\w*|siren)\b", re.I
)


def named_hertz(words: Words) -> float | None:
    """The frequency of the note that a request names; between two prompts, the one that both name, or that only one
    does, or the pitch between both."""
    if not words.prompt2:
        return note_hertz(words.prompt)
    first, second = note_hertz(words.prompt), note_hertz(words.prompt2)
    if first is None or second is None:
        return first or second
    return first * (second / first) ** words.mix


def note_hertz(prompt: str) -> float | None:
    """The frequency of the note that a prompt names, a4 = 440 Hz; None where it names none, or several, or one that
    isn't to stay as it is.

    >>> note_hertz("a warm organ on A3")
    220.0
    >>> note_hertz("a kick drum") is note_hertz("bass c2 to e2") is note_hertz("bass c2, falling") is None
    True
    """
    found = {_midi(*groups) for groups in _NAMED.findall(prompt)}
    if len(found) != 1 or _MOVING.search(prompt):
        return None
    (note,) = found
    return 440.0 * 2.0 ** ((note - 69) / 12) if LOWEST <= note <= HIGHEST else None


def _midi(letter: str, sign: str, octave: str) -> int:
    return SEMITONES[letter.lower()] + SIGNS[sign.lower()] + 12 * (int(octave) + 1)
