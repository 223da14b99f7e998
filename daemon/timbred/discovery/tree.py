"""The OSC address space as OSCQuery tells it, derived from the vocabulary and the settings. Does no I/O.

Source: the OSCQuery proposal (Vidvox): nodes as JSON objects, their attributes one by one, and HOST_INFO.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import inspect

from timbred.config import SETTINGS, Setting, Value
from timbred.protocol.decode import fields_of
from timbred.protocol.describe import Key, keys_of, tag_of
from timbred.protocol.vocabulary import EVENTS, REQUESTS, ROOT, EventEntry, RequestEntry

READ, WRITE = 1, 2
"""Bits of ACCESS."""

ATTRIBUTES = ("FULL_PATH", "CONTENTS", "TYPE", "ACCESS", "RANGE", "DESCRIPTION", "VALUE", "KEYS")
"""What may be asked of one node. KEYS is our own: the `@key value` pairs that may follow the arguments."""

OK, NO_CONTENT, BAD_REQUEST, NOT_FOUND = 200, 204, 400, 404

Values = list[str | int | float]
Read = Callable[[], Values | None]
"""A node's values now; None when there are none yet."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """An address that takes messages, sends them, or both. `ranges` has one entry for each type tag."""

    path: str
    tags: str
    access: int
    description: str
    ranges: tuple[Json | None, ...] = ()
    keys: tuple[Json, ...] = ()
    read: Read | None = None

    def attributes(self) -> Json:
        """The node's JSON object."""
        found: Json = {
            "FULL_PATH": self.path,
            "DESCRIPTION": self.description,
            "ACCESS": self.access,
            "TYPE": self.tags,
        }
        if any(self.ranges):
            found["RANGE"] = self.ranges
        if self.keys:
            found["KEYS"] = self.keys
        values = self.read() if self.read else None
        if values is not None:
            found["VALUE"] = values
        return found


@dataclass(frozen=True)
class Container:
    """An address with others below it."""

    path: str
    description: str
    children: Mapping[str, "Container | Method"]

    def attributes(self) -> Json:
        """The node's JSON object, with all that is below it."""
        return {
            "FULL_PATH": self.path,
            "DESCRIPTION": self.description,
            "ACCESS": 0,
            "CONTENTS": {name: child.attributes() for name, child in self.children.items()},
        }


Node = Container | Method


class Tree:
    """All addresses.

    Args:
        setting: the value in force of a setting, by name.
        last_heard: the arguments of the last event with an address, if there was one.
        choices: settings whose values are one of these words, beyond those that `config` declares.
    """

    def __init__(
        self,
        setting: Callable[[str], Value],
        last_heard: Callable[[str], Values | None],
        choices: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._setting = setting
        self._last_heard = last_heard
        self._choices = choices or {}

    @cached_property
    def root(self) -> Container:
        """The node `/`."""
        children: dict[str, Node] = {}
        for method in (*self._requests(), *self._events()):
            children.setdefault(method.path.removeprefix(ROOT), method)
        settings = {setting.name: self._of_setting(setting) for setting in SETTINGS}
        children["settings"] = Container(ROOT + "settings", "settings, by name", settings)
        timbred = Container(ROOT.rstrip("/"), "sounds from words", dict(sorted(children.items())))
        return Container("/", "timbred", {"timbred": timbred})

    def node(self, path: str) -> Node | None:
        """The node at a path, which may end with a slash; None when there is none."""
        found: Node = self.root
        for name in filter(None, path.split("/")):
            if not isinstance(found, Container) or name not in found.children:
                return None
            found = found.children[name]
        return found

    def answer(self, path: str, query: str, host_info: Json) -> tuple[int, Json | None]:
        """The HTTP status and the JSON object for a path and what follows its `?`."""
        node = self.node(unquote(path))
        wanted = query.partition("=")[0]
        if node is None:
            return NOT_FOUND, None
        if not query:
            return OK, node.attributes()
        if wanted == "HOST_INFO":
            return OK, host_info
        if wanted not in ATTRIBUTES:
            return BAD_REQUEST, None
        attributes = node.attributes()
        return (OK, {wanted: attributes[wanted]}) if wanted in attributes else (NO_CONTENT, None)

    def addresses_of(self, setting: str) -> tuple[str, ...]:
        """The addresses at which a setting's value stands: `tempo` is a request too."""
        own = ROOT + "settings/" + setting
        return (own, *(entry.address for entry in REQUESTS if entry.name == setting))

    def _requests(self) -> Iterator[Method]:
        for entry in REQUESTS:
            if not entry.family:
                yield self._of_request(entry)

    def _of_request(self, entry: RequestEntry) -> Method:
        fields = fields_of(entry.kind)
        named = [name for name in (*entry.positional, entry.rest) if name]
        setting = next((one for one in SETTINGS if one.name == entry.name and one.live), None)
        return Method(
            path=entry.address,
            tags="".join(_tag(fields[name].type) for name in named),
            access=WRITE if setting is None else READ | WRITE,
            description=_words(entry.kind.__doc__),
            ranges=tuple(_range(fields[name].type) for name in named),
            keys=tuple(_key(key, fields[key.name].type) for key in keys_of(entry.kind) if key.name not in named),
            read=None if setting is None else self._reader(setting),
        )

    def _events(self) -> Iterator[Method]:
        for entry in EVENTS:
            if not entry.family:
                yield self._of_event(entry)

    def _of_event(self, entry: EventEntry) -> Method:
        fields = fields_of(entry.kind)
        sent = [field for name, field in fields.items() if name not in entry.kind.json_only]
        return Method(
            path=entry.address,
            tags="".join(_tag(field.type) for field in sent),
            access=READ,
            description=f"event: {_words(entry.kind.__doc__)} Arguments: {' '.join(field.name for field in sent)}",
            read=lambda: self._last_heard(entry.address),
        )

    def _of_setting(self, setting: Setting) -> Method:
        later = "" if setting.live else " Set at the start."
        return Method(
            path=ROOT + "settings/" + setting.name,
            tags=_tag_of_value(setting.default),
            access=READ | WRITE if setting.live else READ,
            description=setting.help + later,
            ranges=(self._range_of(setting),),
            read=self._reader(setting),
        )

    def _reader(self, setting: Setting) -> Read:
        return lambda: [as_argument(self._setting(setting.name))]

    def _range_of(self, setting: Setting) -> Json | None:
        choices = self._choices.get(setting.name, setting.choices)
        if choices:
            return {"VALS": list(choices)}
        if isinstance(setting.default, bool):
            return {"VALS": [0, 1]}
        if isinstance(setting.default, int | float):
            return {"MIN": setting.low, "MAX": setting.high}
        return None


def as_argument(value: Value) -> str | int | float:
    """A setting's value as OSC carries it: yes and no as 1 and 0."""
    return int(value) if isinstance(value, bool) else value


def encode(found: Json | None) -> bytes:
    """A node as JSON; nothing as no bytes."""
    return b"" if found is None else msgspec.json.encode(found)


def _words(docstring: str | None) -> str:
    return " ".join((docstring or "").split())


def _tag(kind: inspect.Type) -> str:
    """An id or a voice may be text or a number: text is always right."""
    return tag_of(kind).replace("?", "s")


def _tag_of_value(value: Value) -> str:
    return "s" if isinstance(value, str) else "f" if isinstance(value, float) else "i"


def _range(kind: inspect.Type) -> Json | None:
    match kind:
        case inspect.Metadata(type=inner):
            return _range(inner)
        case inspect.UnionType(types=types):
            return next(filter(None, map(_range, types)), None)
        case inspect.IntType(ge=low, le=high) | inspect.FloatType(ge=low, le=high) if low is not None:
            return {"MIN": low, "MAX": high}
        case inspect.BoolType():
            return {"VALS": [0, 1]}
        case inspect.LiteralType(values=values) if len(values) > 1:
            return {"VALS": list(values)}
        case _:
            return None


def _key(key: Key, kind: inspect.Type) -> Json:
    found: Json = {"NAME": "@" + key.name, "TYPE": _tag(kind), "DESCRIPTION": key.about}
    allowed = _range(kind)
    if allowed is not None:
        found["RANGE"] = allowed
    if key.default:
        found["DEFAULT"] = key.default
    return found


def methods(node: Node) -> Iterator[Method]:
    """All methods at and below a node."""
    if isinstance(node, Method):
        yield node
    else:
        for child in node.children.values():
            yield from methods(child)
