"""Words that count more or less than the others."""

import re
from collections.abc import Sequence

import torch
from msgspec.structs import replace

from timbred.engine.adapters.conditioning import Conditioned, Tensors
from timbred.engine.wire import Words


def without(prompt: str, word: str) -> str:
    """The prompt with a word left out.

    >>> without("a bright bell, bright", "bright")
    'a bell,'
    """
    return " ".join(re.sub(_pattern(word), " ", prompt, flags=re.IGNORECASE).split()).replace(" ,", ",")


def places(prompt: str, word: str) -> list[tuple[int, int]]:
    """Where a word stands in the prompt: first character, and one after the last."""
    return [found.span() for found in re.finditer(_pattern(word), prompt, re.IGNORECASE)]


def _pattern(word: str) -> str:
    return rf"(?<!\w){re.escape(word)}(?!\w)"


def lean(whole: torch.Tensor, lacking: torch.Tensor, weight: float) -> torch.Tensor:
    """A vector moved along what a word adds to it: weight 1 leaves it, 0 takes the word away, 2 adds it once more."""
    return whole + (weight - 1.0) * (whole - lacking)


def leaning(words: Words, guided: bool, encode: Conditioned, summaries: Sequence[str]) -> Tensors:
    """The conditioning with some words counting more or less: those of its tensors that are one summary of the whole
    prompt, by their names, lean towards these words or away from them."""
    plain = replace(words, weights=())
    whole = encode(plain, guided)
    found = dict(whole)
    for word, weight in words.weights:
        lacking = encode(replace(plain, prompt=without(words.prompt, word)), guided)
        for name in summaries:
            found[name] = found[name] + (lean(whole[name], lacking[name], weight) - whole[name])
    return found


def token_factors(offsets: list[tuple[int, int]], prompt: str, weights: tuple[tuple[str, float], ...]) -> torch.Tensor:
    """A factor for each token, from the characters that it stands for; tokens of no word keep 1."""
    factors = torch.ones(len(offsets))
    for word, weight in weights:
        for start, end in places(prompt, word):
            for index, (first, last) in enumerate(offsets):
                if first < last and first < end and last > start:
                    factors[index] = weight
    return factors
