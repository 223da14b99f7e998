"""Texts longer than a text encoder's window, divided into parts that fit. Used by the daemon and the engine.

An encoder drops the tokens beyond its window, so the engine encodes the parts separately and joins the results.
"""

import bisect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_WINDOW_TOKENS = 4096
"""A tokenizer that names a larger window counts as unlimited."""

_WORD_PATTERN = re.compile(r"\S+")


@dataclass(frozen=True)
class Window:
    """The number of tokens that an encoder accepts, special ones included, and the function that counts a text's."""

    count: Callable[[str], int]
    tokens: int

    def fits(self, text: str) -> bool:
        """Return whether the encoder accepts all of a text."""
        return self.count(text) <= self.tokens


@dataclass(frozen=True)
class Windows:
    """The windows of a model: those of the encoders for prompts, and of the one for transcriptions."""

    prompt: tuple[Window, ...] = ()
    transcription: tuple[Window, ...] = ()


@dataclass(frozen=True)
class Part:
    """A part of a text, and its share of the whole text's tokens."""

    text: str
    share: float


@dataclass(frozen=True)
class LongText:
    """A text that is longer than a window: its key, its characters, the number of them that are read, and of parts."""

    key: str
    characters: int
    read: int
    parts: int


def window_tokens(model_max_length: float) -> int | None:
    """Return the tokens of the window that a tokenizer names; None if it names no limit.

    >>> window_tokens(64), window_tokens(1e30)
    (64, None)
    """
    return int(model_max_length) if model_max_length <= MAX_WINDOW_TOKENS else None


def windows_of(tokenizers: Sequence[Any]) -> tuple[Window, ...]:
    """Return the windows of transformers' tokenizers; those without a limit have none."""
    sizes = [(tokenizer, window_tokens(tokenizer.model_max_length)) for tokenizer in tokenizers]
    return tuple(Window(_counter(tokenizer), size) for tokenizer, size in sizes if size is not None)


def _counter(tokenizer: Any) -> Callable[[str], int]:
    return lambda text: len(tokenizer(text).input_ids)


def divide(text: str, windows: Sequence[Window]) -> list[Part]:
    """Divide a text between words into parts that fit into every window; a word that is too long is divided inside.

    A text that fits is returned as one part, unchanged.
    """

    def fits(part: str) -> bool:
        return all(window.fits(part) for window in windows)

    if fits(text):
        return [Part(text, 1.0)]
    texts: list[str] = []
    rest = text.strip()
    while rest:
        ends = [word.end() for word in _WORD_PATTERN.finditer(rest)]
        end = _longest(rest, ends, fits) or _longest(rest, range(1, ends[0] + 1), fits)
        if not end:  # not even one character fits, which no encoder's window is narrow enough for
            break
        texts.append(rest[:end])
        rest = rest[end:].strip()
    counts = [windows[0].count(part) for part in texts]
    return [Part(part, count / sum(counts)) for part, count in zip(texts, counts, strict=True)]


def _longest(text: str, ends: Sequence[int], fits: Callable[[str], bool]) -> int:
    """Return the largest of these ends, in rising order, up to which the text fits; 0 if none does."""
    index = bisect.bisect_left(ends, True, key=lambda end: not fits(text[:end]))
    return ends[index - 1] if index else 0


def long_texts(texts: Mapping[str, str], windows: Windows) -> list[LongText]:
    """Return the texts of a request, by their keys in `generate`, that are longer than a model's windows.

    A prompt is read in parts. A transcription can't be divided, as each part would be spoken as a separate text: it
    is cut after the first part.
    """
    results: list[LongText] = []
    for key, text in texts.items():
        is_cut = key == "transcription"
        parts = divide(text, windows.transcription if is_cut else windows.prompt)
        if len(parts) > 1:
            results.append(
                LongText(key, len(text), len(parts[0].text) if is_cut else len(text), 1 if is_cut else len(parts))
            )
    return results
