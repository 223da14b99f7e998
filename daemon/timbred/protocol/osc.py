"""OSC packets to requests, and events to OSC messages.

The layout is the one that `vocabulary` declares: `/timbred/NAME`, positional arguments, then `@key value...`.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from timbred.config import SETTINGS
from timbred.errors import BadRequest
from timbred.protocol import coercion, inline_keys
from timbred.protocol import messages as m
from timbred.protocol.address_patterns import is_pattern, parse
from timbred.protocol.boundary import Incoming, id_place
from timbred.protocol.coercion import build, entry_named, fields_of, is_key
from timbred.protocol.osc_packets import Argument, OscMessage, UnreadablePacket, walk_packet, write_message
from timbred.protocol.schema import EVENT_NAMES, REQUEST_NAMED, REQUESTS, ROOT, RequestEntry, find_request, name_of

LONGEST_DATAGRAM = 8000
"""Bytes that an answer has at most."""

FARTHEST = 1.0
"""Seconds that a time tag may lie ahead."""

_UNREADABLE = "osc"
_log = logging.getLogger(__name__)

_ADDRESSES = tuple(
    address
    for entry in REQUESTS
    for address in (
        [f"{ROOT}{entry.name}/{setting.name}" for setting in SETTINGS] if entry.kind is m.Setting else [entry.address]
    )
)
"""Every address that an address pattern can name."""

_TOLERANT = frozenset(
    entry.name
    for entry in REQUESTS
    if not entry.positional and entry.rest is None and set(fields_of(entry.kind)) == set(fields_of(m.Request))
)
"""Requests that take nothing: arguments before the keys are passed over, for some hosts send one with every message."""

MOST_EXPANDED = 512
"""Addresses that the patterns of one packet may name."""


def read_datagram(packet: bytes, now: float | None = None) -> list[Incoming]:
    """The requests and refusals that a packet holds, in order. Never raises.

    Args:
        packet: a datagram, or one frame of a stream: a message or a bundle.
        now: the UNIX time in seconds that time tags are measured against; the clock's when None.
    """
    return list(iterate_datagram(packet, now))


def iterate_datagram(packet: bytes, now: float | None = None) -> Iterator[Incoming]:
    """As `read_datagram`, one after the other: a packet may hold thousands, and other clients must not wait for all."""
    expanded = 0
    for message in walk_packet(packet):
        if not is_pattern(message.address):
            incoming = _read(message, now)
            if incoming is not None:
                yield incoming
            continue
        addresses = _matched(message)
        if isinstance(addresses, Incoming):
            yield addresses
            continue
        expanded += len(addresses)
        if expanded > MOST_EXPANDED:
            refusal = BadRequest(f"the patterns of one packet may name {MOST_EXPANDED} addresses, these name more")
            yield Incoming(refusal, id_place(message.address))
            return
        for address in addresses:
            incoming = _read_matched(message, address, now)
            if incoming is not None:
                yield incoming


def _matched(message: OscMessage) -> list[str] | Incoming:
    """The addresses of requests that a pattern matches, in the order of the reference."""
    place = id_place(message.address.removeprefix(ROOT))
    port = _port(_divided(None, message.arguments).keys)
    try:
        pattern = parse(message.address)
    except BadRequest as refusal:
        return Incoming(refusal, place, port)
    found = [address for address in _ADDRESSES if pattern.matches(address)]
    if not found:
        known = ", ".join(entry.address.removeprefix(ROOT) for entry in REQUESTS)
        refusal = BadRequest(
            f"no address matches the pattern {coercion.shown(message.address)}; there is {ROOT}NAME: {known}"
        )
        return Incoming(refusal, place, port)
    return found


def _read_matched(message: OscMessage, address: str, now: float | None) -> Incoming | None:
    """One of the addresses that a pattern matches. Requests with an id are refused: the id would be used twice."""
    found = find_request(address.removeprefix(ROOT))
    if found is not None and "id" in found[0].positional:
        entry = found[0]
        refusal = BadRequest(
            f"{entry.name}: it takes an id, so the pattern {coercion.shown(message.address)} can't ask for it; "
            f"send it to {entry.address} itself"
        )
        return Incoming(refusal, entry.name, _port(_divided(entry, message.arguments).keys))
    return _read(replace(message, address=address), now)


def _read(message: OscMessage, now: float | None) -> Incoming | None:
    name = message.address.removeprefix(ROOT)
    if name in EVENT_NAMES and name not in REQUEST_NAMED:
        # an answer to an answer could go back and forth between two daemons for ever
        _log.debug("%s is what timbred says itself: not answered", message.address)
        return None
    found = find_request(name) if message.address.startswith(ROOT) else None
    if found is None:
        return _unknown(message, name)
    entry, said = found
    divided = _divided(entry, message.arguments)
    raw: dict[str, Any] = dict(said)
    port = _port(divided.keys)
    try:
        _lay_out(entry, divided, raw)
        if message.fault is not None:
            raise BadRequest(f"{entry.name}: {message.fault}")
        due = _due(message.time, now)
        request = build(entry, raw)
    except BadRequest as refusal:
        return Incoming(refusal, _id(entry, name, raw), port)
    return Incoming(request, _id(entry, name, raw), port, due)


def _unknown(message: OscMessage, name: str) -> Incoming:
    keys = _divided(None, message.arguments).keys
    if not message.address:
        return Incoming(BadRequest(message.fault or "this is no OSC"), _UNREADABLE)
    if message.address.startswith(ROOT):
        try:
            entry_named(name)
        except BadRequest as refusal:
            return Incoming(refusal, id_place(name), _port(keys))
    known = ", ".join(entry.name for entry in REQUESTS)
    refusal = BadRequest(f"there is no address {coercion.shown(message.address)}; there is {ROOT}NAME: {known}")
    return Incoming(refusal, id_place(message.address), _port(keys))


def _divided(entry: RequestEntry | None, arguments: Sequence[Argument]) -> inline_keys.Grouped:
    """The arguments before the first `@key`, and each key with the arguments up to the next."""
    if entry is None:
        return inline_keys.group(arguments, {"port"}.__contains__, lambda index: "")
    names = (*entry.positional, entry.rest or "")
    return inline_keys.group(
        arguments,
        lambda name: is_key(entry, name),
        lambda index: names[min(index, len(names) - 1)],
        opaque=1 if entry.positional[:1] == ("id",) else 0,
    )


def _lay_out(entry: RequestEntry, divided: inline_keys.Grouped, raw: dict[str, Any]) -> None:
    """Put each argument under its name in `raw`.

    Raises:
        BadRequest: too many arguments, an unknown key, a key without a value or given twice, an argument that is no
            value.
    """
    positional = divided.positional
    named = len(entry.positional)
    for name, argument in zip(entry.positional, positional, strict=False):
        raw[name] = _value(entry, name, [argument])
    rest = [] if entry.name in _TOLERANT else positional[named:]
    if divided.refusal is not None:
        raise divided.refusal
    if rest and entry.rest is None:
        wanted = " ".join(entry.positional) or "none"
        raise BadRequest(
            f"{entry.name}: {coercion.shown(_shown(rest[0]))} is one argument too many; "
            f"it takes {wanted}, then @key value"
        )
    if rest and entry.rest is not None:
        raw[entry.rest] = _value(entry, entry.rest, rest)
    for key, atoms in divided.keys:
        if not is_key(entry, key):
            raise BadRequest(
                f"{key or '@'}: {entry.name} has no such key; it has {', '.join(fields_of(entry.kind))}; "
                f'an @ that is part of the words goes into double quotes, as in "dinner @{key or " eight"}"'
            )
        if key in raw:
            raise BadRequest(f"{key}: given twice; give it once")
        raw[key] = _value(entry, key, atoms)


def _value(entry: RequestEntry, name: str, atoms: list[Argument]) -> object:
    """One argument as it came, several as words with single spaces between."""
    for atom in atoms:
        if isinstance(atom, UnreadablePacket) or (isinstance(atom, bool) and len(atoms) > 1):
            raise BadRequest(f"{name}: got {_shown(atom)}, allowed is {_allowed(entry, name)}")
    if not atoms:
        raise BadRequest(f"{name}: no value after @{name}; allowed is {_allowed(entry, name)}")
    return atoms[0] if len(atoms) == 1 else " ".join(map(coercion.atom, atoms))


def _shown(argument: Argument) -> str:
    return argument.what if isinstance(argument, UnreadablePacket) else coercion.atom(argument)


def _allowed(entry: RequestEntry, name: str) -> str:
    name = dict(entry.spellings).get(name, name)
    fields = fields_of(entry.kind)
    if name not in fields:
        return f"none: {entry.name} has no such key; it has {', '.join(fields)}"
    return coercion.describe_type(fields[name].type)


def _id(entry: RequestEntry, name: str, raw: dict[str, Any]) -> m.Id:
    return id_place(raw["id"]) if entry.has_id and "id" in raw else name


def _port(keys: Sequence[tuple[str, list[Argument]]]) -> int | None:
    """Where answers go, found before anything else so that a refusal gets there too."""
    for key, atoms in keys:
        if key == "port" and len(atoms) == 1:
            try:
                return coercion.coerce("port", fields_of(m.Ping)["port"].type, atoms[0])
            except BadRequest:
                return None
    return None


def _due(when: float | None, now: float | None) -> float | None:
    if when is None:
        return None
    ahead = when - (time.time() if now is None else now)
    if ahead > FARTHEST:
        raise BadRequest(
            f"time tag: {ahead:.1f} s ahead, allowed is {FARTHEST:g} s; "
            "send it later, or with the time tag `immediately`"
        )
    return when if ahead > 0 else None


def encode_event(event: m.Event) -> bytes:
    """An event as one OSC message of i, f and s, of at most 8,000 bytes."""
    arguments = arguments_of(event)
    address = ROOT + name_of(event)
    encoded = write_message(address, arguments)
    if len(encoded) > LONGEST_DATAGRAM:
        return write_message(address, _shortened(arguments, len(encoded) - LONGEST_DATAGRAM))
    return encoded


def arguments_of(event: m.Event) -> list[str | int | float]:
    """An event's arguments as OSC carries them."""
    return [_argument(getattr(event, name)) for name in event.__struct_fields__ if name not in event.json_only]


def _argument(value: object) -> str | int | float:
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, str | int | float) else ""


def _shortened(arguments: list[str | int | float], excess: int) -> list[str | int | float]:
    """The longest text cut at a character's end: only the message of a `fail` is ever so long."""
    longest = max(
        (index for index, argument in enumerate(arguments) if isinstance(argument, str)),
        key=lambda index: len(str(arguments[index]).encode("utf-8", "replace")),
    )
    raw = str(arguments[longest]).encode("utf-8", "replace")
    ellipsis = "…"
    kept = raw[: max(0, len(raw) - excess - len(ellipsis.encode()) - 4)].decode("utf-8", "ignore")
    return [*arguments[:longest], kept + ellipsis, *arguments[longest + 1 :]]
