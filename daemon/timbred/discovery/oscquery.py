"""OSCQuery: what is asked about addresses, and who wants to hear of which values. Opens no socket of its own.

Source: the OSCQuery proposal (Vidvox). The commands LISTEN and IGNORE come as JSON text; values are pushed as OSC
packets: a setting's whenever it changes, an event's whenever it happens.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from timbred.config import Value
from timbred.discovery.tree import READ, Container, Json, Method, Tree, Values, as_argument, encode
from timbred.errors import BadRequest
from timbred.protocol import messages as m
from timbred.protocol.exchange import ClientId
from timbred.protocol.osc import arguments_of, encode_event
from timbred.protocol.osc_bytes import write_message
from timbred.protocol.values import shown
from timbred.protocol.vocabulary import EVENT_OF

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
        self.tree = Tree(setting, self._last_heard, choices)
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

    def _heard_at(self, path: str) -> Method:
        node = self.tree.node(path)
        if node is None:
            raise BadRequest(f"LISTEN: there is no address {shown(path)}; GET / lists those there are")
        if isinstance(node, Container) or not node.access & READ:
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
