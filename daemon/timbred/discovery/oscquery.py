"""OSCQuery's view of the OSC address space, derived from the declared messages and settings. Does no I/O.

Source: the OSCQuery proposal (Vidvox): nodes as JSON objects, their attributes one by one, and HOST_INFO.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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

READ_ACCESS, WRITE_ACCESS = 1, 2
"""Bits of ACCESS."""

ATTRIBUTES = ("FULL_PATH", "CONTENTS", "TYPE", "ACCESS", "RANGE", "DESCRIPTION", "VALUE", "KEYS")
"""Attributes of a node. KEYS is an extension of timbred: the `@key value` pairs that may follow the arguments."""

OK, NO_CONTENT, BAD_REQUEST, NOT_FOUND = 200, 204, 400, 404

Values = list[str | int | float]
Read = Callable[[], Values | None]
"""Returns a node's current values; None if there are none yet."""

Json = dict[str, Any]


@dataclass(frozen=True)
class AddressMethod:
    """An address that accepts messages, sends them, or both. `ranges` has one entry for each type tag."""

    path: str
    tags: str
    access: int
    description: str
    ranges: tuple[Json | None, ...] = ()
    keys: tuple[Json, ...] = ()
    read: Read | None = None

    def attributes(self) -> Json:
        """Return the node's JSON object."""
        node: Json = {
            "FULL_PATH": self.path,
            "DESCRIPTION": self.description,
            "ACCESS": self.access,
            "TYPE": self.tags,
        }
        if any(self.ranges):
            node["RANGE"] = self.ranges
        if self.keys:
            node["KEYS"] = self.keys
        values = self.read() if self.read else None
        if values is not None:
            node["VALUE"] = values
        return node


@dataclass(frozen=True)
class AddressContainer:
    """An address with others below it."""

    path: str
    description: str
    children: Mapping[str, "AddressContainer | AddressMethod"]

    def attributes(self) -> Json:
        """Return the node's JSON object, with all nodes below it."""
        return {
            "FULL_PATH": self.path,
            "DESCRIPTION": self.description,
            "ACCESS": 0,
            "CONTENTS": {name: child.attributes() for name, child in self.children.items()},
        }


Node = AddressContainer | AddressMethod


class AddressTree:
    """The tree of all addresses.

    Args:
        setting: Returns the current value of a setting by its name.
        last_event: Returns the arguments of the last event with an address; None if there was none.
        choices: Allowed values of settings by name, in addition to those that `config` declares.
    """

    def __init__(
        self,
        setting: Callable[[str], Value],
        last_event: Callable[[str], Values | None],
        choices: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._setting = setting
        self._last_event = last_event
        self._choices = choices or {}

    @cached_property
    def root(self) -> AddressContainer:
        """The node `/`."""
        children: dict[str, Node] = {}
        for method in (*self._requests(), *self._events()):
            children.setdefault(method.path.removeprefix(ROOT), method)
        settings = {setting.name: self._of_setting(setting) for setting in SETTINGS}
        children["settings"] = AddressContainer(ROOT + "settings", "settings, by name", settings)
        timbred = AddressContainer(ROOT.rstrip("/"), "audio from text", dict(sorted(children.items())))
        return AddressContainer("/", "timbred", {"timbred": timbred})

    def node(self, path: str) -> Node | None:
        """Return the node at a path, which may end with a slash; None if there is none."""
        node: Node = self.root
        for name in filter(None, path.split("/")):
            if not isinstance(node, AddressContainer) or name not in node.children:
                return None
            node = node.children[name]
        return node

    def answer(self, path: str, query: str, host_info: Json) -> tuple[int, Json | None]:
        """Return the HTTP status and the JSON object for a path and its query string."""
        node = self.node(unquote(path))
        attribute = query.partition("=")[0]
        if node is None:
            return NOT_FOUND, None
        if not query:
            return OK, node.attributes()
        if attribute == "HOST_INFO":
            return OK, host_info
        if attribute not in ATTRIBUTES:
            return BAD_REQUEST, None
        attributes = node.attributes()
        return (OK, {attribute: attributes[attribute]}) if attribute in attributes else (NO_CONTENT, None)

    def addresses_of(self, setting: str) -> tuple[str, ...]:
        """Return the addresses that have a setting's value: `tempo` is a request too."""
        own = ROOT + "settings/" + setting
        return (own, *(entry.address for entry in REQUESTS if entry.name == setting))

    def _requests(self) -> Iterator[AddressMethod]:
        for entry in REQUESTS:
            if not entry.family:
                yield self._of_request(entry)

    def _of_request(self, entry: RequestEntry) -> AddressMethod:
        fields = fields_of(entry.kind)
        named = [name for name in (*entry.positional, entry.rest) if name]
        setting = next((spec for spec in SETTINGS if spec.name == entry.name and spec.live), None)
        return AddressMethod(
            path=entry.address,
            tags="".join(_tag(fields[name].type) for name in named),
            access=WRITE_ACCESS if setting is None else READ_ACCESS | WRITE_ACCESS,
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
            access=READ_ACCESS,
            description=f"event: {_words(entry.kind.__doc__)} Arguments: {' '.join(field.name for field in sent)}",
            read=lambda: self._last_event(entry.address),
        )

    def _of_setting(self, setting: SettingSpec) -> AddressMethod:
        later = "" if setting.live else " Set it before the start."
        return AddressMethod(
            path=ROOT + "settings/" + setting.name,
            tags=_tag_of_value(setting.default),
            access=READ_ACCESS | WRITE_ACCESS if setting.live else READ_ACCESS,
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
    """Return a setting's value as an OSC argument: True and False as 1 and 0."""
    return int(value) if isinstance(value, bool) else value


def encode(node: Json | None) -> bytes:
    """Encode a node as JSON; None as no bytes."""
    return b"" if node is None else msgspec.json.encode(node)


def _words(docstring: str | None) -> str:
    return " ".join((docstring or "").split())


def _tag(kind: inspect.Type) -> str:
    """Return a field's type tag. An id or a voice may be text or a number; text is always accepted."""
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
    description: Json = {"NAME": "@" + key.name, "TYPE": _tag(kind), "DESCRIPTION": key.about}
    allowed = _range(kind)
    if allowed is not None:
        description["RANGE"] = allowed
    if key.default:
        description["DEFAULT"] = key.default
    return description


def methods(node: Node) -> Iterator[AddressMethod]:
    """Yield all methods at and below a node."""
    if isinstance(node, AddressMethod):
        yield node
    else:
        for child in node.children.values():
            yield from methods(child)


UNSPECIFIED_ADDRESSES = ("0.0.0.0", "::", "")
"""Values of `host` that aren't an address to connect to; the client then uses the one that it connected to."""

MAX_LISTENED_ADDRESSES = 1000
"""Addresses that one client may listen to."""

SUPPORTED_EXTENSIONS = ("ACCESS", "RANGE", "DESCRIPTION", "VALUE", "KEYS", "LISTEN", "IGNORE", "OSC_STREAMING")
"""Features in HOST_INFO. OSC_STREAMING: OSC packets are accepted over the WebSocket too."""


@dataclass
class _Listener:
    """The addresses that a client listens to, and the function that sends it an OSC packet."""

    push: Callable[[bytes], None]
    addresses: set[str] = field(default_factory=set[str])


class OscQuery:
    """The OSCQuery server's state: the address space, the last events, and the addresses that clients listen to.

    `setting` returns the current value of a setting by its name.
    """

    def __init__(
        self, name: str, setting: Callable[[str], Value], choices: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        self.tree = AddressTree(setting, self._last_event, choices)
        self._name = name
        self._setting = setting
        self._last_events: dict[str, m.Event] = {}
        self._listening: dict[ClientId, _Listener] = {}

    def answer(self, path: str, query: str) -> tuple[int, bytes]:
        """Return the HTTP status and the JSON for a path and its query string."""
        status, node = self.tree.answer(path, query, self.host_info())
        return status, encode(node)

    def host_info(self) -> Json:
        """Return HOST_INFO: the daemon's name, and the addresses of OSC and of the WebSocket."""
        host = str(self._setting("host"))
        info: Json = {
            "NAME": self._name,
            "OSC_PORT": self._setting("osc.port"),
            "OSC_TRANSPORT": "UDP",
            "WS_PORT": self._setting("http.port"),
            "EXTENSIONS": dict.fromkeys(SUPPORTED_EXTENSIONS, True),
        }
        if host not in UNSPECIFIED_ADDRESSES:
            info |= {"OSC_IP": host, "WS_IP": host}
        return info

    def command(self, client: ClientId, text: str, push: Callable[[bytes], None]) -> None:
        """Start or stop sending an address's values to a client, as OSC packets by `push`.

        Raises:
            BadRequest: The text isn't a command, or the address has no value.
        """
        command, path = _read_command(text)
        listening = self._listening.setdefault(client, _Listener(push)).addresses
        if command == "IGNORE":
            listening.discard(path)
            return
        if len(listening) >= MAX_LISTENED_ADDRESSES:
            raise BadRequest(
                f"LISTEN: {MAX_LISTENED_ADDRESSES} addresses is the maximum for one client; send IGNORE for some first"
            )
        listening.add(self._readable_node(path).path)

    def forget(self, client: ClientId) -> None:
        """Remove what is stored of a client that has disconnected."""
        self._listening.pop(client, None)

    def publish(self, client: ClientId, event: m.Event) -> None:
        """Push an event to the clients that listen to its address, except the one that it answers."""
        entry = EVENT_OF[type(event)]
        if entry.family:
            return
        self._last_events[entry.address] = event
        for listener, push in self._listeners(entry.address):
            if listener != client:
                push(encode_event(event))

    def setting_changed(self, name: str, value: Value) -> None:
        """Push a setting's new value to the clients that listen to it."""
        for address in self.tree.addresses_of(name):
            for _, push in self._listeners(address):
                push(write_message(address, [as_argument(value)]))

    def _listeners(self, address: str) -> list[tuple[ClientId, Callable[[bytes], None]]]:
        return [(client, each.push) for client, each in self._listening.items() if address in each.addresses]

    def _last_event(self, address: str) -> Values | None:
        event = self._last_events.get(address)
        return None if event is None else arguments_of(event)

    def _readable_node(self, path: str) -> AddressMethod:
        node = self.tree.node(path)
        if node is None:
            raise BadRequest(f"LISTEN: there is no address {shown(path)}; GET / lists all addresses")
        if isinstance(node, AddressContainer) or not node.access & READ_ACCESS:
            raise BadRequest(
                f"LISTEN: {shown(path)} has no value to listen to; its ACCESS is {node.attributes()['ACCESS']}"
            )
        return node


def _read_command(text: str) -> tuple[str, str]:
    """Read a command, LISTEN or IGNORE, and its path.

    Raises:
        BadRequest: The text is neither.
    """
    try:
        decoded = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise BadRequest(f"the command isn't valid JSON: {error}; send one such as {_EXAMPLE}") from error
    fields = cast("dict[str, Any]", decoded) if isinstance(decoded, dict) else {}
    command, path = fields.get("COMMAND"), fields.get("DATA")
    if command not in ("LISTEN", "IGNORE") or not isinstance(path, str):
        raise BadRequest(f"COMMAND: got {shown(text)}, allowed are LISTEN and IGNORE, as in {_EXAMPLE}")
    return command, path


_EXAMPLE = '{"COMMAND": "LISTEN", "DATA": "/timbred/tempo"}'
