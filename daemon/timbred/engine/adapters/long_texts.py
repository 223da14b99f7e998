"""Texts longer than a text encoder's window: divided into parts that fit, encoded apart, and joined.

An encoder drops the tokens beyond its window. States of tokens are concatenated, for cross attention takes any number
of them. Vectors that summarise a whole text are averaged, weighted by the parts' tokens.
"""

import bisect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

MAX_WINDOW_TOKENS = 4096
"""A tokenizer that names more has no window."""

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Window:
    """Number of tokens that an encoder takes, the special ones among them."""

    tokenizer: Any
    tokens: int

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer(text).input_ids)

    def fits(self, text: str) -> bool:
        """Tell whether the encoder takes all of a text."""
        return self.count(text) <= self.tokens


@dataclass(frozen=True)
class Part:
    """A part of a text, and its share of the whole's tokens."""

    text: str
    share: float


@dataclass(frozen=True)
class LongText:
    """A text that is longer than a window: its key, its characters, how many of them are read, in how many parts."""

    key: str
    characters: int
    read: int
    parts: int


def windows_of(tokenizers: Sequence[Any]) -> tuple[Window, ...]:
    """The windows of tokenizers; one without a limit has none."""
    sizes = [(tokenizer, int(min(tokenizer.model_max_length, 1 << 40))) for tokenizer in tokenizers]
    return tuple(Window(tokenizer, size) for tokenizer, size in sizes if size <= MAX_WINDOW_TOKENS)


def divide(text: str, windows: Sequence[Window]) -> list[Part]:
    """Parts that every window takes whole, divided between words; a word that is too long is divided inside.

    A text that fits is one part, as it is.
    """

    def fits(part: str) -> bool:
        return all(window.fits(part) for window in windows)

    if fits(text):
        return [Part(text, 1.0)]
    texts: list[str] = []
    rest = text.strip()
    while rest:
        ends = [word.end() for word in _WORD.finditer(rest)]
        end = _longest(rest, ends, fits) or _longest(rest, range(1, ends[0] + 1), fits)
        if not end:  # not even one character fits: no encoder is so narrow, and nothing could be done
            break
        texts.append(rest[:end])
        rest = rest[end:].strip()
    counts = [windows[0].count(part) for part in texts]
    return [Part(part, count / sum(counts)) for part, count in zip(texts, counts, strict=True)]


def _longest(text: str, ends: Sequence[int], fits: Callable[[str], bool]) -> int:
    """The largest of these ends, in rising order, up to which the text fits; 0 if none does."""
    index = bisect.bisect_left(ends, True, key=lambda end: not fits(text[:end]))
    return ends[index - 1] if index else 0


def average(vectors: Sequence[torch.Tensor], parts: Sequence[Part]) -> torch.Tensor:
    """The mean of the parts' vectors, weighted by their shares."""
    if len(vectors) == 1:
        return vectors[0]
    total = sum(vector.float() * part.share for vector, part in zip(vectors, parts, strict=True))
    assert isinstance(total, torch.Tensor)
    return total.to(vectors[0].dtype)
