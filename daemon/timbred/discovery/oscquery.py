"""The OSC address space as OSCQuery tells it, derived from the vocabulary and the settings. Does no I/O.

Source: the OSCQuery proposal (Vidvox): nodes as JSON objects, their attributes one by one, and HOST_INFO.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast
from urllib.parse import unquote

import msgspec
from msgspec import inspect

from timbred.config import SETTINGS, SettingSpec, Value
from timbred.errors import BadRequest
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId
from timbred.protocol.coercion import fields_of, shown
from timbred.protocol.describe import Key, keys_of, tag_of
from timbred.protocol.osc import arguments_of, encode_event
from timbred.protocol.osc_packets import write_message
from timbred.protocol.schema import EVENT_OF, EVENTS, REQUESTS, ROOT, EventEntry, RequestEntry

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
class AddressMethod:
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
class AddressContainer:
    """An address with others below it."""

    path: str
    description: str
    children: Mapping[str, "AddressContainer | AddressMethod"]

    def attributes(self) -> Json:
        """The node's JSON object, with all that is below it."""
        return {
            "FULL_PATH": self.path,
            "DESCRIPTION": self.description,
            "ACCESS": 0,
            "CONTENTS": {name: child.attributes() for name, child in self.children.items()},
        }


Node = AddressContainer | AddressMethod


class AddressTree:
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
    def root(self) -> AddressContainer:
        """The node `/`."""
        children: dict[str, Node] = {}
        for method in (*self._requests(), *self._events()):
            children.setdefault(method.path.removeprefix(ROOT), method)
        settings = {setting.name: self._of_setting(setting) for setting in SETTINGS}
        children["settings"] = AddressContainer(ROOT + "settings", "settings, by name", settings)
        timbred = AddressContainer(ROOT.rstrip("/"), "sounds from words", dict(sorted(children.items())))
        return AddressContainer("/", "timbred", {"timbred": timbred})

    def node(self, path: str) -> Node | None:
        """The node at a path, which may end with a slash; None when there is none."""
        found: Node = self.root
        for name in filter(None, path.split("/")):
            if not isinstance(found, AddressContainer) or name not in found.children:
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

    def _requests(self) -> Iterator[AddressMethod]:
        for entry in REQUESTS:
            if not entry.family:
                yield self._of_request(entry)

    def _of_request(self, entry: RequestEntry) -> AddressMethod:
        fields = fields_of(entry.kind)
        named = [name for name in (*entry.positional, entry.rest) if name]
        setting = next((one for one in SETTINGS if one.name == entry.name and one.live), None)
        return AddressMethod(
            path=entry.address,
            tags="".join(_tag(fields[name].type) for name in named),
            access=WRITE if setting is None else READ | WRITE,
            description=_words(entry.kind.__doc__),
            ranges=tuple(_range(fields[name].type) for name in named),
            keys=tuple(_key(key, fields[key.name].type) for key in keys_of(entry.kind) if key.name not in named),
            read=None if setting is None else self._reader(setting),
        )

    def _events(self) -> Iterator[AddressMethod]:
        for entry in EVENTS:
            if not entry.family:
                yield self._of_event(entry)

    def _of_event(self, entry: EventEntry) -> AddressMethod:
        fields = fields_of(entry.kind)
        sent = [field for name, field in fields.items() if name not in entry.kind.json_only]
        return AddressMethod(
            path=entry.address,
            tags="".join(_tag(field.type) for field in sent),
            access=READ,
            description=f"event: {_words(entry.kind.__doc__)} Arguments: {' '.join(field.name for field in sent)}",
            read=lambda: self._last_heard(entry.address),
        )

    def _of_setting(self, setting: SettingSpec) -> AddressMethod:
        later = "" if setting.live else " Set at the start."
        return AddressMethod(
            path=ROOT + "settings/" + setting.name,
            tags=_tag_of_value(setting.default),
            access=READ | WRITE if setting.live else READ,
            description=setting.help + later,
            ranges=(self._range_of(setting),),
            read=self._reader(setting),
        )

    def _reader(self, setting: SettingSpec) -> Read:
        return lambda: [as_argument(self._setting(setting.name))]

    def _range_of(self, setting: SettingSpec) -> Json | None:
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


def methods(node: Node) -> Iterator[AddressMethod]:
    """All methods at and below a node."""
    if isinstance(node, AddressMethod):
        yield node
    else:
        for child in node.children.values():
            yield from methods(child)


ANYWHERE = ("0.0.0.0", "::", "")
"""Values of `host` that name no address which a client could use: it then takes the one that it reached us by."""

MOST_LISTENED = 1000
"""Addresses that one client may listen to."""

EXTENSIONS = ("ACCESS", "RANGE", "DESCRIPTION", "VALUE", "KEYS", "LISTEN", "IGNORE", "OSC_STREAMING")
"""What HOST_INFO says of this server. OSC_STREAMING: OSC packets are taken over the WebSocket too."""


class OscQuery:
    """The address space as HTTP and WebSocket clients see it.

    `push` sends an OSC packet to a client; whoever serves the WebSocket puts its own in that place.
    """

    def __init__(
        self, name: str, setting: Callable[[str], Value], choices: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        """`setting` gives the value in force of a setting by its name."""
        self.push: Callable[[ClientId, bytes], None] = lambda _client, _packet: None
        self.tree = AddressTree(setting, self._last_heard, choices)
        self._name = name
        self._setting = setting
        self._heard: dict[str, m.Event] = {}
        self._listening: dict[ClientId, set[str]] = {}

    def answer(self, path: str, query: str) -> tuple[int, bytes]:
        """The HTTP status and the JSON for a path and what follows its `?`."""
        status, found = self.tree.answer(path, query, self.host_info())
        return status, encode(found)

    def host_info(self) -> Json:
        """Who this is, and where OSC and the WebSocket are."""
        host = str(self._setting("host"))
        found: Json = {
            "NAME": self._name,
            "OSC_PORT": self._setting("osc.port"),
            "OSC_TRANSPORT": "UDP",
            "WS_PORT": self._setting("http.port"),
            "EXTENSIONS": dict.fromkeys(EXTENSIONS, True),
        }
        if host not in ANYWHERE:
            found |= {"OSC_IP": host, "WS_IP": host}
        return found

    def command(self, client: ClientId, text: str) -> None:
        """Begin or end to push an address's values to a client.

        Raises:
            BadRequest: it is no command, or there is nothing to hear at the address.
        """
        command, path = _read_command(text)
        listening = self._listening.setdefault(client, set())
        if command == "IGNORE":
            listening.discard(path)
            return
        if len(listening) >= MOST_LISTENED:
            raise BadRequest(f"LISTEN: {MOST_LISTENED} addresses are listened to already; IGNORE some")
        listening.add(self._heard_at(path).path)

    def forget(self, client: ClientId) -> None:
        """The client has gone."""
        self._listening.pop(client, None)

    def publish(self, client: ClientId, event: m.Event) -> None:
        """Push an event to those who listen to its address; whom it answers has it already."""
        entry = EVENT_OF[type(event)]
        if entry.family:
            return
        self._heard[entry.address] = event
        for listener in self._listeners(entry.address):
            if listener != client:
                self.push(listener, encode_event(event))

    def setting_changed(self, name: str, value: Value) -> None:
        """Push a setting's new value to those who listen to it."""
        for address in self.tree.addresses_of(name):
            for listener in self._listeners(address):
                self.push(listener, write_message(address, [as_argument(value)]))

    def _listeners(self, address: str) -> list[ClientId]:
        return [client for client, listening in self._listening.items() if address in listening]

    def _last_heard(self, address: str) -> Values | None:
        event = self._heard.get(address)
        return None if event is None else arguments_of(event)

    def _heard_at(self, path: str) -> AddressMethod:
        node = self.tree.node(path)
        if node is None:
            raise BadRequest(f"LISTEN: there is no address {shown(path)}; GET / lists those there are")
        if isinstance(node, AddressContainer) or not node.access & READ:
            raise BadRequest(
                f"LISTEN: {shown(path)} has no value to be heard; its ACCESS is {node.attributes()['ACCESS']}"
            )
        return node


def _read_command(text: str) -> tuple[str, str]:
    """LISTEN or IGNORE, and the path.

    Raises:
        BadRequest: the text is something else.
    """
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise BadRequest(f"this is no JSON: {error}; commands look like {_EXAMPLE}") from error
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    command, path = fields.get("COMMAND"), fields.get("DATA")
    if command not in ("LISTEN", "IGNORE") or not isinstance(path, str):
        raise BadRequest(f"COMMAND: got {shown(text)}, allowed are LISTEN and IGNORE, as in {_EXAMPLE}")
    return command, path


_EXAMPLE = '{"COMMAND": "LISTEN", "DATA": "/timbred/tempo"}'
