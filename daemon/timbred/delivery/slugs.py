"""File names from prompts: short, plain ASCII, and allowed on every system."""

# ruff: noqa: RUF001  the tables are there for letters that look alike

import re
import unicodedata

from timbred.filenames import RESERVED

LONGEST = 40
"""Characters of a slug."""

NAMELESS = "sound"
"""The slug of a prompt that leaves no letter (one in a script without a table here, or none at all)."""

_CYRILLIC = (
    "а:a б:b в:v г:g ґ:g д:d е:e є:ie ж:zh з:z и:i і:i к:k л:l м:m н:n о:o п:p р:r с:s т:t у:u ф:f х:kh ц:ts "
    "ч:ch ш:sh щ:shch ъ: ы:y ь: э:e ю:yu я:ya ђ:dj ј:j љ:lj њ:nj ћ:c џ:dz"
)
_GREEK = "α:a β:v γ:g δ:d ε:e ζ:z η:i θ:th ι:i κ:k λ:l μ:m ν:n ξ:x ο:o π:p ρ:r σ:s ς:s τ:t υ:y φ:f χ:ch ψ:ps ω:o"
_LATIN = "ß:ss æ:ae œ:oe ø:o ł:l đ:d ð:d þ:th ı:i ŋ:ng ħ:h #:-sharp-"

_LETTERS = str.maketrans({pair[0]: pair[2:] for table in (_CYRILLIC, _GREEK, _LATIN) for pair in table.split(" ")})


def slug(text: str) -> str:
    """A file name's first part, of the letters a-z, digits and single hyphens, 1 to 40 characters.

    Accents are dropped, Cyrillic and Greek letters are spelled in Latin ones.

    >>> slug("Rain on Tin!")
    'rain-on-tin'
    >>> slug("Дождь über Äcker")
    'dozhd-uber-acker'
    >>> slug("雨")
    'sound'
    """
    lowered = unicodedata.normalize("NFKC", text[: LONGEST * 8]).casefold()
    spelled = lowered.translate(_LETTERS)
    plain = unicodedata.normalize("NFKD", spelled).translate(_LETTERS).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", plain.replace("'", "")).strip("-")
    short = _shortened(words) or NAMELESS
    return f"{short}-{NAMELESS}" if short in RESERVED else short


def _shortened(words: str) -> str:
    """Cut at a hyphen where there is one, rather than inside a word."""
    if len(words) <= LONGEST:
        return words
    cut = words[: LONGEST + 1].rpartition("-")[0]
    return cut or words[:LONGEST]
