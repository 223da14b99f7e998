"""`weights`: how much single words of the prompt count. Pure."""

import math
import re

from timbred.errors import BadRequest

LEAST, MOST = 0.0, 3.0


def read_weights(text: str, prompt: str) -> tuple[tuple[str, float], ...]:
    """The weights of words, each a word of the prompt.

    >>> read_weights("bright:1.4 bell:0.6", "a bright bell")
    (('bright', 1.4), ('bell', 0.6))

    Raises:
        BadRequest: a word that the prompt doesn't have, or a weight that isn't a number from 0 to 3.
    """
    found = tuple(_one(pair, prompt) for pair in text.split())
    if not found:
        raise BadRequest("weights: got no words; write them as in: @weights bright:1.4 bell:0.6")
    words = [word for word, _ in found]
    for word in words:
        if words.count(word) > 1:
            raise BadRequest(f"weights: {word!r} has two weights; give it one")
    return found


def _one(pair: str, prompt: str) -> tuple[str, float]:
    word, colon, number = pair.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not colon or not word or not LEAST <= weight <= MOST:
        raise BadRequest(f"weights: got {pair!r}, allowed is word:weight with a weight from {LEAST:g} to {MOST:g}")
    if not has_word(prompt, word):
        raise BadRequest(f"weights: {word!r} isn't a word of the prompt {prompt[:80]!r}")
    return word, weight


def has_word(prompt: str, word: str) -> bool:
    """Whether a text has a word, as a whole and in any case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE) is not None
