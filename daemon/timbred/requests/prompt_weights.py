"""Weights of words of a prompt (`weights`). Pure."""

import math
import re

from timbred.errors import BadRequest

MIN_WEIGHT, MAX_WEIGHT = 0.0, 3.0
"""Range of a word's weight."""


def read_weights(text: str, prompt: str) -> tuple[tuple[str, float], ...]:
    """Read the value of `weights`: words of the prompt and their weights.

    >>> read_weights("bright:1.4 bell:0.6", "a bright bell")
    (('bright', 1.4), ('bell', 0.6))

    Raises:
        BadRequest: The prompt doesn't have a word, or a weight isn't a number from 0 to 3.
    """
    weights = tuple(_read_weight(pair, prompt) for pair in text.split())
    if not weights:
        raise BadRequest("weights: got no words; write them as in: @weights bright:1.4 bell:0.6")
    words = [word for word, _ in weights]
    for word in words:
        if words.count(word) > 1:
            raise BadRequest(f"weights: {word!r} has two weights; give it one")
    return weights


def _read_weight(pair: str, prompt: str) -> tuple[str, float]:
    word, colon, number = pair.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not colon or not word or not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise BadRequest(
            f"weights: got {pair!r}, allowed is word:weight with a weight from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}"
        )
    if not has_word(prompt, word):
        raise BadRequest(f"weights: {word!r} isn't a word of the prompt {prompt[:80]!r}")
    return word, weight


def has_word(prompt: str, word: str) -> bool:
    """Return whether a text contains a word as a whole, in any case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE) is not None
