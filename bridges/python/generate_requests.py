"""Generation of `timbred/client/requests.py`: the client's methods with their types and help, from the declarations.

python bridges/python/generate_requests.py > daemon/timbred/client/requests.py
"""

import sys
import textwrap
from collections.abc import Iterable

from msgspec import inspect

from timbred.protocol import messages as m
from timbred.protocol.coercion import fields_of
from timbred.protocol.describe import Key, keys_of
from timbred.protocol.keys import PlaybackKeys, Recipe
from timbred.protocol.schema import EVENTS, REQUESTS, RequestEntry

WITHOUT_METHOD = ("hello", "notify", "cancel", "sync")
"""Requests that the client sends itself or offers through another interface (`listen`)."""

LISTS = {"models": "m.Model", "words": "m.KnownGroup", "engines": "m.Engine", "takes": "m.Take"}
"""Requests that are answered by several events, and the type of each."""

FILLED_IN = ("id", "port", "inline")
"""Fields that the client fills in."""

MAX_LINE_CHARACTERS = 120


def generate() -> str:
    """Return the text of the whole file."""
    entries = [entry for entry in REQUESTS if entry.name not in WITHOUT_METHOD]
    parts = [
        _HEAD,
        _typed_dict("KeysOfPlaying", "TypedDict, total=False", _own(PlaybackKeys, m.Request), "Keys of playback."),
        _typed_dict("KeysOfSound", "KeysOfPlaying, total=False", _of_sound(), "Keys of a generation."),
        *(_keys_class(entry) for entry in entries if _keys(entry)),
        _ASYNC_HEAD,
        "\n".join(_async_method(entry) for entry in entries),
        _SYNC_HEAD,
        "\n".join(_sync_method(entry) for entry in entries),
    ]
    return "\n".join(part for part in parts if part)


def _of_sound() -> list[Key]:
    return [key for key in _own(Recipe, PlaybackKeys) if key.name not in (*FILLED_IN, "voice")]


def _own(kind: type[m.Message], base: type[m.Message]) -> list[Key]:
    inherited = fields_of(base)
    return [key for key in keys_of(kind) if key.name not in inherited]


def _positional(entry: RequestEntry) -> list[str]:
    named = [name for name in (entry.family, *entry.positional, entry.rest) if name]
    return [name for name in named if name not in FILLED_IN]


def _keys(entry: RequestEntry) -> list[Key]:
    return [key for key in keys_of(entry.kind) if key.name not in (*FILLED_IN, *_positional(entry))]


def _class_name(entry: RequestEntry) -> str:
    return entry.name.capitalize() + "Keys"


def _keys_class(entry: RequestEntry) -> str:
    base, inherited = "TypedDict", set[str]()
    if issubclass(entry.kind, Recipe):
        base, inherited = "KeysOfSound", {key.name for key in (*_own(PlaybackKeys, m.Request), *_of_sound())}
    elif issubclass(entry.kind, PlaybackKeys):
        base, inherited = "KeysOfPlaying", {key.name for key in _own(PlaybackKeys, m.Request)}
    own = [key for key in _keys(entry) if key.name not in inherited]
    return _typed_dict(_class_name(entry), f"{base}, total=False", own, f"Keys of `{entry.name}`.", entry.kind)


def _typed_dict(name: str, bases: str, keys: Iterable[Key], about: str, kind: type[m.Message] = m.Generate) -> str:
    lines = [f"class {name}({bases}):", f'    """{about}"""', ""]
    for key in keys:
        lines += _wrapped(f"    {key.name}: {type_of(fields_of(kind)[key.name].type)}")
        lines += _docstring(_help(key), "    ")
    return "\n".join(lines).rstrip() + "\n\n"


def _wrapped(annotation: str) -> list[str]:
    """Return the lines of a key's annotation; a long `Literal` has a line for each value."""
    if len(annotation) <= MAX_LINE_CHARACTERS:
        return [annotation]
    head, _, values = annotation.removesuffix("]").partition("[")
    return [f"{head}[", *(f"        {value}," for value in values.split(", ")), "    ]"]


def _help(key: Key) -> str:
    default = f"; default {key.default}" if key.default else ""
    allowed = f"{key.allowed}{default}"
    return f"{key.about} ({allowed})." if key.about else f"{allowed}."


def _docstring(text: str, indent: str) -> list[str]:
    """Return the lines of a docstring: one line, or the first sentence and the rest."""
    if len(indent) + len(text) + 6 <= MAX_LINE_CHARACTERS:
        return [f'{indent}"""{text}"""']
    summary, _, details = text.partition(". ")
    if not details:
        wrapped = textwrap.wrap(text, MAX_LINE_CHARACTERS - len(indent) - 3)
        return [f'{indent}"""{wrapped[0]}', *(indent + line for line in wrapped[1:]), f'{indent}"""']
    wrapped = textwrap.wrap(details, MAX_LINE_CHARACTERS - len(indent))
    return [f'{indent}"""{summary}.', "", *(indent + line for line in wrapped), f'{indent}"""']


def type_of(kind: inspect.Type) -> str:  # noqa: PLR0911  one return for each kind of value
    """Return a field's type as an annotation, without None.

    >>> type_of(fields_of(m.Generate)["seed"].type)
    'int'
    """
    match kind:
        case inspect.Metadata(type=inner):
            return type_of(inner)
        case inspect.UnionType(types=types):
            return " | ".join(
                dict.fromkeys(type_of(member) for member in types if not isinstance(member, inspect.NoneType))
            )
        case inspect.BoolType():
            return "bool"
        case inspect.IntType():
            return "int"
        case inspect.FloatType():
            return "float"
        case inspect.LiteralType(values=values):
            return f"Literal[{', '.join(map(_quoted, values))}]"
        case inspect.StrType():
            return "str"
        case _:
            raise TypeError(f"no annotation for {kind}")


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _def(start: str, entry: RequestEntry, answer: str) -> list[str]:
    """Return the `def` line, in three lines if it is too long."""
    arguments = _signature(entry)
    whole = f"    {start}({arguments}) -> {answer}:"
    return (
        [whole]
        if len(whole) <= MAX_LINE_CHARACTERS
        else [f"    {start}(", f"        {arguments}", f"    ) -> {answer}:"]
    )


def _signature(entry: RequestEntry) -> str:
    fields = fields_of(entry.kind)
    parts = ["self"]
    for name in _positional(entry):
        value = "str | int | float | bool" if name == "value" else type_of(fields[name].type)
        parts.append(f"{name}: {value}" if fields[name].required else f"{name}: {value} | None = None")
    return ", ".join([*parts, *([f"**keys: Unpack[{_class_name(entry)}]"] if _keys(entry) else [])])


def _call(entry: RequestEntry, prefix: str = "") -> str:
    arguments = [f"{name}={name}" for name in _positional(entry) if name != entry.family]
    name = f'f"{entry.name}/{{{entry.family}}}"' if entry.family else f'"{entry.name}"'
    return ", ".join([prefix + name, *arguments, *(["**keys"] if _keys(entry) else [])])


def _forwarded(entry: RequestEntry) -> str:
    return ", ".join([*_positional(entry), *(["**keys"] if _keys(entry) else [])])


def _answer(entry: RequestEntry) -> str:
    """Return the return type of a request's method."""
    if entry.has_id:
        return "Sound"
    if entry.name in LISTS:
        return f"list[{LISTS[entry.name]}]"
    kinds = [event.kind for name in entry.answers if name != "fail" for event in EVENTS if event.name == name]
    types = ["None" if kind is m.Acknowledged else f"m.{kind.__name__}" for kind in kinds if kind is not m.Done]
    first = types[:1] if entry.name in ("play", "flow") else types
    return " | ".join(first)


def _method_name(entry: RequestEntry) -> str:
    return "setting" if entry.family else entry.name


def _about(entry: RequestEntry) -> list[str]:
    return _docstring(" ".join((entry.kind.__doc__ or "").split()), " " * 8)


def _async_method(entry: RequestEntry) -> str:
    way = "_sound" if entry.has_id else "_list" if entry.name in LISTS else "_one"
    lines = [
        *_def(f"async def {_method_name(entry)}", entry, _answer(entry)),
        *_about(entry),
        f"        return await self.{way}(self.request({_call(entry)}))",
        "",
    ]
    if entry.has_id:
        lines += [
            *_def(f"def {entry.name}_events", entry, "AsyncGenerator[m.Event | Sound]"),
            f'        """Yield the events of `{entry.name}`. Leaving before the end cancels it."""',
            f"        return self.ask(self.request({_call(entry)}))",
            "",
        ]
    return "\n".join(lines)


def _sync_method(entry: RequestEntry) -> str:
    name = _method_name(entry)
    lines = [
        *_def(f"def {name}", entry, _answer(entry)),
        *_about(entry),
        f"        return self._run(self.timbred.{name}({_forwarded(entry)}))",
        "",
    ]
    if entry.has_id:
        lines += [
            *_def(f"def {name}_events", entry, "Generator[m.Event | Sound]"),
            f'        """Yield the events of `{name}`. Leaving before the end cancels it."""',
            f"        return self._each(self.timbred.{name}_events({_forwarded(entry)}))",
            "",
        ]
    return "\n".join(lines)


_HEAD = '''"""Every request as a method, with its keys as typed keyword arguments.

Generated by `python bridges/python/generate_requests.py` from the protocol's declarations; don't edit it.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, Literal, TypedDict, TypeVar, Unpack

from timbred.client.connection import Sound
from timbred.protocol import messages as m

Result = TypeVar("Result")

'''

_ASYNC_HEAD = '''class AsyncRequests(ABC):
    """Methods for all requests, for asyncio."""

    @abstractmethod
    def request(self, name: str, /, **values: Any) -> m.Request:
        """Build a request from its name on the wire and its keys."""

    @abstractmethod
    def ask(self, request: m.Request) -> AsyncGenerator[m.Event | Sound]:
        """Send a request and yield its events."""

    @abstractmethod
    async def _one(self, request: m.Request) -> Any: ...

    @abstractmethod
    async def _list(self, request: m.Request) -> list[Any]: ...

    @abstractmethod
    async def _sound(self, request: m.Request) -> Sound: ...
'''

_SYNC_HEAD = '''
class PlainRequests(ABC):
    """Methods for all requests; each call blocks until it is answered."""

    @property
    @abstractmethod
    def timbred(self) -> AsyncRequests:
        """The asynchronous client."""

    @abstractmethod
    def _run(self, work: Coroutine[Any, Any, Result]) -> Result: ...

    @abstractmethod
    def _each(self, events: AsyncGenerator[Result]) -> Generator[Result]: ...
'''


if __name__ == "__main__":
    sys.stdout.write(generate())
