"""The note that a prompt names."""

import re
from dataclasses import dataclass

from timbred.engine.wire import Words

SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
SIGNS = {"#": 1, "♯": 1, "b": -1, "♭": -1, "": 0}

LOWEST, HIGHEST = 24, 96
"""MIDI notes from which and up to which a named one is played: c1 to c7."""

_NAMED = re.compile(r"(?<![\w#♯♭])([a-g])([#♯b♭]?)(\d)(?![\w#♯♭])", re.IGNORECASE)
_MOVING = re.compile(
    r"\b(falling|falls|rising|rises|sliding|slides|gliding|glides|going (up|down)|sweep\w*|siren)\b", re.I
)


@dataclass(frozen=True)
class NamedNote:
    """The pitch that words name in hertz, and how much of the sound has it, 0..1."""

    hertz: float
    share: float = 1.0


def named_note(words: Words) -> NamedNote | None:
    """The note that a request names. Between two prompts that both name one it is the pitch between both; where only
    one does, it has as much of the sound as that prompt: at either end the sound is that of the plain prompt.
    """
    share = words.mix if words.prompt2 else 0.0
    first, second = note_hertz(words.prompt), note_hertz(words.prompt2) if words.prompt2 else None
    if first is not None and second is not None:
        return NamedNote(first * (second / first) ** share)
    if first is not None and share < 1.0:
        return NamedNote(first, 1.0 - share)
    return NamedNote(second, share) if second is not None and share > 0.0 else None


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
