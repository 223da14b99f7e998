"""`@key value` inside texts, and the double quotes that escape a literal `@`.

Many senders can send only one string: `kick drum @seconds 0.3`. An `@` at the beginning of a word therefore begins a
key at any position. In `"dinner @ eight"` the `@` is part of the text, and the quotes are removed. Quotes around text
without an `@` stay in it. A quoted text may span several arguments, which is how Pd sends it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from timbred.errors import BadRequest
from timbred.protocol import coercion
from timbred.protocol.osc_packets import Argument

_WORD = re.compile(r"\S+")
_SEPARATOR = "@"
_QUOTE = '"'

IsKey = Callable[[str], bool]
"""Returns True if the request has a key of this name."""

PATH_KEYS = frozenset({"take", "init", "folder", "reference", "embeddings"})
"""Keys whose values are paths, in which ` @name` begins a key only if the request has one of that name."""


@dataclass(slots=True)
class Grouped:
    """The arguments before the first key, and each key with the arguments up to the next one.

    `refusal` is set if a quoted text could also be meant as a key.
    """

    positional: list[Argument] = field(default_factory=list[Argument])
    keys: list[tuple[str, list[Argument]]] = field(default_factory=list[tuple[str, list[Argument]]])
    refusal: BadRequest | None = None


@dataclass(slots=True)
class _Word:
    """A word of a text argument: the argument's index, and the word's range of characters in it."""

    argument: int
    start: int
    end: int
    text: str
    protected: bool = False
    drop_first: bool = False
    drop_last: bool = False


def group(arguments: Sequence[Argument], is_key: IsKey, slots: Sequence[str], opaque: int = 0) -> Grouped:
    """Divide arguments at their keys.

    Args:
        arguments: The arguments.
        is_key: Tells whether the request has a key.
        slots: Names of the positional arguments; all further ones belong to the last.
        opaque: Number of arguments at the beginning that are ids: they are divided only if they begin with `@`.

    >>> grouped = group(["kick drum @seconds 0.3"], {"seconds"}.__contains__, ["prompt"])
    >>> grouped.positional, grouped.keys
    (['kick drum'], [('seconds', ['0.3'])])
    """
    grouped = Grouped()
    if not any(isinstance(argument, str) and _SEPARATOR in argument for argument in arguments):
        grouped.positional = list(arguments)
        return grouped
    words = _split_words(arguments, opaque)
    grouped.refusal = _protect(words, is_key)
    by_argument: dict[int, list[_Word]] = {}
    for word in words:
        by_argument.setdefault(word.argument, []).append(word)
    into = grouped.positional
    for index, argument in enumerate(arguments):
        if not isinstance(argument, str) or index not in by_argument:
            into.append(argument)
            continue
        pending: list[_Word] = []
        whole = True
        for place, word in enumerate(by_argument[index]):
            slot = grouped.keys[-1][0] if grouped.keys else slots[min(len(grouped.positional), len(slots) - 1)]
            if not _begins_key(word, is_key, first=place == 0, path=slot in PATH_KEYS):
                pending.append(word)
                continue
            _append(into, argument, pending, whole=False)
            pending, whole, into = [], False, []
            grouped.keys.append((word.text[1:], into))
        _append(into, argument, pending, whole)
    return grouped


def read_words(name: str, text: str, is_key: IsKey) -> str:
    """Return a text of a JSON request without the quotes that escape an `@`.

    >>> read_words("prompt", 'play "@home now" @ noon', {"seconds"}.__contains__)
    'play @home now @ noon'

    Raises:
        BadRequest: The text contains a key, which is a separate field in JSON.
    """
    if _SEPARATOR not in text:
        return text
    words = _split_words([text], 0)
    refusal = _protect(words, is_key)
    if refusal is not None:
        raise refusal
    for word in words:
        if not word.protected and word.text.startswith(_SEPARATOR) and is_key(word.text[1:]):
            raise BadRequest(
                f"{name}: {word.text} inside the text is the name of a key; send it as a separate field, "
                f'"{word.text[1:]}": ..., or put the text in double quotes'
            )
    if not any(word.drop_first or word.drop_last for word in words):
        return text
    return _remove_quotes(text, words)


def protect(text: str, is_key: IsKey) -> str:
    """Quote a text if it needs it, so that `read_words` returns it unchanged.

    >>> protect("meet @seconds", {"seconds"}.__contains__)
    '"meet @seconds"'
    """
    candidates = (word for word in _WORD.findall(text) if word.startswith(_SEPARATOR))
    return f"{_QUOTE}{text}{_QUOTE}" if any(is_key(word[1:]) for word in candidates) else text


def _split_words(arguments: Sequence[Argument], opaque: int) -> list[_Word]:
    words: list[_Word] = []
    for index, argument in enumerate(arguments):
        if isinstance(argument, str) and (index >= opaque or argument.startswith(_SEPARATOR)):
            words.extend(_Word(index, *word.span(), word[0]) for word in _WORD.finditer(argument))
    return words


def _protect(words: list[_Word], is_key: IsKey) -> BadRequest | None:
    """Mark the words of quoted texts with an `@`; return a refusal if one could be meant as a key."""
    opened: int | None = None
    refusal: BadRequest | None = None
    for index, word in enumerate(words):
        begins, ends = word.text.startswith(_QUOTE), word.text.endswith(_QUOTE)
        alone = word.text == _QUOTE
        if begins and ends and not alone:
            refusal = _mark(words[index : index + 1], is_key) or refusal
            opened = None
        elif opened is not None and ends:
            refusal = _mark(words[opened : index + 1], is_key) or refusal
            opened = None
        elif begins:
            opened = index
    return refusal


def _mark(quoted: list[_Word], is_key: IsKey) -> BadRequest | None:
    texts = [word.text for word in quoted]
    texts[0] = texts[0].removeprefix(_QUOTE)
    texts[-1] = texts[-1].removesuffix(_QUOTE)
    if not any(text.startswith(_SEPARATOR) for text in texts):
        return None
    for word in quoted:
        word.protected = True
    quoted[0].drop_first = quoted[-1].drop_last = True
    key = texts[0].removeprefix(_SEPARATOR)
    if texts[0].startswith(_SEPARATOR) and is_key(key):
        return BadRequest(
            f"{key}: {coercion.shown(quoted[0].text)} is ambiguous: a key in quotes; send @{key} without quotes for "
            f'the key, or put a word before it for text: "at @{key}"'
        )
    return None


def _begins_key(word: _Word, is_key: IsKey, *, first: bool, path: bool) -> bool:
    if word.protected or not word.text.startswith(_SEPARATOR):
        return False
    return first or not path or is_key(word.text[1:])


def _append(into: list[Argument], argument: str, words: list[_Word], whole: bool) -> None:
    """Append words of an argument with the spaces between them, or the argument itself if nothing was removed."""
    if whole and not any(word.drop_first or word.drop_last for word in words):
        into.append(argument)
    elif words:
        into.append(_remove_quotes(argument, words))


def _remove_quotes(text: str, words: list[_Word]) -> str:
    parts: list[str] = []
    at = words[0].start
    for word in words:
        start = word.start + (1 if word.drop_first else 0)
        end = word.end - (1 if word.drop_last else 0)
        parts += text[at : word.start], text[start:end]
        at = word.end
    return "".join(parts)
