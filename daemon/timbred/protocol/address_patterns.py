"""Address patterns of The Open Sound Control 1.0 Specification: `?`, `*`, `[a-c]`, `[!a-c]`, `{one,other}`.

A pattern is matched part by part: no element matches a `/`. The time taken grows with the pattern's length times the
address's, whatever the pattern is.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from timbred.errors import BadRequest

MAX_PATTERN_CHARACTERS = 256
"""Maximum length of an address pattern."""

_MARKS = frozenset("?*[]{}")

_Element = Callable[[str, int], Iterable[int]]
"""Returns the positions in a text at which an element that begins at a position may end."""


def is_pattern(address: str) -> bool:
    """Tell whether an address has characters that only patterns have."""
    return not _MARKS.isdisjoint(address)


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern.

    >>> pattern = parse("/timbred/{ping,status}")
    >>> pattern.matches("/timbred/status"), pattern.matches("/timbred/ping/")
    (True, False)
    """

    parts: tuple[tuple[_Element, ...], ...]

    def matches(self, address: str) -> bool:
        """Tell whether the pattern matches all of an address."""
        parts = address.split("/")
        return len(parts) == len(self.parts) and all(map(_matches, self.parts, parts))


def parse(text: str) -> Pattern:
    """Read a pattern.

    Raises:
        BadRequest: The pattern is too long, or its brackets don't match.
    """
    if len(text) > MAX_PATTERN_CHARACTERS:
        raise BadRequest(
            f"the address pattern has {len(text)} characters; at most {MAX_PATTERN_CHARACTERS} are allowed"
        )
    return Pattern(tuple(tuple(_elements(part, text)) for part in text.split("/")))


def _matches(elements: tuple[_Element, ...], text: str) -> bool:
    reached = {0}
    for element in elements:
        reached = {end for start in reached for end in element(text, start)}
        if not reached:
            return False
    return len(text) in reached


def _elements(part: str, whole: str) -> Iterable[_Element]:
    at = 0
    while at < len(part):
        mark = part[at]
        at += 1
        if mark == "*":
            yield _any_text
        elif mark == "?":
            yield _any_character
        elif mark in "[{":
            closing = part.find("]" if mark == "[" else "}", at)
            if closing < 0:
                raise BadRequest(f"address pattern {whole!r}: {mark} isn't closed")
            inside = part[at:closing]
            yield _one_of(inside) if mark == "[" else _alternatives(inside)
            at = closing + 1
        elif mark in "]}":
            raise BadRequest(f"address pattern {whole!r}: {mark} has no opening bracket")
        else:
            yield _literal(mark)


def _any_text(text: str, start: int) -> Iterable[int]:
    return range(start, len(text) + 1)


def _any_character(text: str, start: int) -> Iterable[int]:
    return (start + 1,) if start < len(text) else ()


def _literal(character: str) -> _Element:
    return lambda text, start: (start + 1,) if text.startswith(character, start) else ()


def _alternatives(listed: str) -> _Element:
    words = tuple(dict.fromkeys(listed.split(",")))
    return lambda text, start: (start + len(word) for word in words if text.startswith(word, start))


def _one_of(listed: str) -> _Element:
    negated = listed.startswith("!")
    ranges = _ranges(listed[1:] if negated else listed)

    def match_element(text: str, start: int) -> Iterable[int]:
        if start >= len(text):
            return ()
        inside = any(low <= text[start] <= high for low, high in ranges)
        return (start + 1,) if inside != negated else ()

    return match_element


def _ranges(listed: str) -> list[tuple[str, str]]:
    """Return the inclusive ranges of a character class; a `-` at its end stands for itself."""
    ranges: list[tuple[str, str]] = []
    at = 0
    while at < len(listed):
        if listed[at + 1 : at + 2] == "-" and at + 2 < len(listed):
            ranges.append((listed[at], listed[at + 2]))
            at += 3
        else:
            ranges.append((listed[at], listed[at]))
            at += 1
    return ranges
