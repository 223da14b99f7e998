"""Decoding of OSC packets to requests, and encoding of events as OSC messages.

`schema` declares the layout: `/timbred/NAME`, positional arguments, then `@key value...`.
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
from timbred.protocol.boundary import Incoming, answer_id
from timbred.protocol.coercion import build, entry_named, fields_of, key_names
from timbred.protocol.osc_packets import (
    Argument,
    OscMessage,
    UnsupportedArgument,
    is_pattern,
    parse_pattern,
    walk_packet,
    write_message,
)
from timbred.protocol.schema import EVENT_NAMES, REQUEST_NAMED, REQUESTS, ROOT, RequestEntry, find_request, name_of

MAX_DATAGRAM_BYTES = 8000
"""Bytes of an answer."""

MAX_TIME_TAG_AHEAD_S = 1.0
"""Seconds that a time tag may be in the future."""

_UNREADABLE_ID = "osc"
_log = logging.getLogger(__name__)

_ADDRESSES = tuple(
    address
    for entry in REQUESTS
    for address in (
        [f"{ROOT}{entry.name}/{setting.name}" for setting in SETTINGS] if entry.kind is m.Setting else [entry.address]
    )
)
"""Every address that an address pattern can match."""

_WITHOUT_ARGUMENTS = frozenset(
    entry.name
    for entry in REQUESTS
    if not entry.positional and entry.rest is None and set(fields_of(entry.kind)) == set(fields_of(m.Request))
)
"""Requests without arguments. Arguments before the keys are ignored: some hosts send one with every message."""

MAX_PATTERN_ADDRESSES = 512
"""Addresses that the patterns of one packet may match."""


def read_datagram(packet: bytes, now: float | None = None) -> list[Incoming]:
    """Return the requests and refusals in a packet, in order. Never raises.

    Args:
        packet: A datagram, or one frame of a stream: a message or a bundle.
        now: UNIX time in seconds that time tags are compared with; None means the system's clock.
    """
    return list(iterate_datagram(packet, now))


def iterate_datagram(packet: bytes, now: float | None = None) -> Iterator[Incoming]:
    """Yield the requests and refusals in a packet one by one, so that other clients' requests can come in between."""
    expanded = 0
    for message in walk_packet(packet):
        if not is_pattern(message.address):
            incoming = _read(message, now)
            if incoming is not None:
                yield incoming
            continue
        addresses = _match_addresses(message)
        if isinstance(addresses, Incoming):
            yield addresses
            continue
        expanded += len(addresses)
        if expanded > MAX_PATTERN_ADDRESSES:
            refusal = BadRequest(
                f"the patterns of one packet may name {MAX_PATTERN_ADDRESSES} addresses, these name more"
            )
            yield Incoming(refusal, answer_id(message.address))
            return
        for address in addresses:
            incoming = _read_matching(message, address, now)
            if incoming is not None:
                yield incoming


def _match_addresses(message: OscMessage) -> list[str] | Incoming:
    """Return the addresses that a pattern matches, in the order of the reference, or the refusal."""
    identity = answer_id(message.address.removeprefix(ROOT))
    port = _port(_divide(None, message.arguments).keys)
    try:
        pattern = parse_pattern(message.address)
    except BadRequest as refusal:
        return Incoming(refusal, identity, port)
    matching = [address for address in _ADDRESSES if pattern.matches(address)]
    if not matching:
        known = ", ".join(entry.address.removeprefix(ROOT) for entry in REQUESTS)
        refusal = BadRequest(
            f"no address matches the pattern {coercion.shown(message.address)}; there is {ROOT}NAME: {known}"
        )
        return Incoming(refusal, identity, port)
    return matching


def _read_matching(message: OscMessage, address: str, now: float | None) -> Incoming | None:
    """Read a message for one address that its pattern matches.

    Requests with an id are refused: several addresses would use the same one.
    """
    declared = find_request(address.removeprefix(ROOT))
    if declared is not None and "id" in declared[0].positional:
        entry = declared[0]
        refusal = BadRequest(
            f"{entry.name}: it takes an id, so the pattern {coercion.shown(message.address)} can't address it; "
            f"send it to {entry.address}"
        )
        return Incoming(refusal, entry.name, _port(_divide(entry, message.arguments).keys))
    return _read(replace(message, address=address), now)


def _read(message: OscMessage, now: float | None) -> Incoming | None:
    name = message.address.removeprefix(ROOT)
    if name in EVENT_NAMES and name not in REQUEST_NAMED:
        # a refusal of an event could be sent back and forth between two daemons without end
        _log.debug("%s is the address of an event: not answered", message.address)
        return None
    declared = find_request(name) if message.address.startswith(ROOT) else None
    if declared is None:
        return _refuse_unknown(message, name)
    entry, family_key = declared
    divided = _divide(entry, message.arguments)
    raw: dict[str, Any] = dict(family_key)
    try:
        _assign_arguments(entry, divided, raw)
        if message.fault is not None:
            raise BadRequest(f"{entry.name}: {message.fault}")
        due = None if message.time is None else _check_time_tag(message.time, now)
        request = build(entry, raw)
    except BadRequest as refusal:
        identity = answer_id(raw["id"]) if entry.has_id and "id" in raw else name
        return Incoming(refusal, identity, _port(divided.keys))
    return Incoming(request, request.id if isinstance(request, m.Generate | m.Vary) else name, request.port, due)


def _refuse_unknown(message: OscMessage, name: str) -> Incoming:
    keys = _divide(None, message.arguments).keys
    if not message.address:
        return Incoming(BadRequest(message.fault or "this is no OSC"), _UNREADABLE_ID)
    if message.address.startswith(ROOT):
        try:
            entry_named(name)
        except BadRequest as refusal:
            return Incoming(refusal, answer_id(name), _port(keys))
    known = ", ".join(entry.name for entry in REQUESTS)
    refusal = BadRequest(f"there is no address {coercion.shown(message.address)}; there is {ROOT}NAME: {known}")
    return Incoming(refusal, answer_id(message.address), _port(keys))


def _divide(entry: RequestEntry | None, arguments: Sequence[Argument]) -> inline_keys.Grouped:
    """Divide arguments into those before the first `@key`, and each key with those up to the next."""
    if entry is None:
        return inline_keys.group(arguments, {"port"}.__contains__, [""])
    slots = (*entry.positional, entry.rest or "")
    ids = 1 if entry.positional[:1] == ("id",) else 0
    return inline_keys.group(arguments, key_names(entry).__contains__, slots, opaque=ids)


def _assign_arguments(entry: RequestEntry, divided: inline_keys.Grouped, raw: dict[str, Any]) -> None:
    """Assign each argument to its name in `raw`.

    Raises:
        BadRequest: Too many arguments, an unknown key, a key without a value or given twice, or an argument of an
            unsupported type.
    """
    positional = divided.positional
    named = len(entry.positional)
    for name, argument in zip(entry.positional, positional, strict=False):
        raw[name] = _join_value(entry, name, [argument])
    rest = [] if entry.name in _WITHOUT_ARGUMENTS else positional[named:]
    if divided.refusal is not None:
        raise divided.refusal
    if rest and entry.rest is None:
        expected = " ".join(entry.positional) or "none"
        raise BadRequest(
            f"{entry.name}: {coercion.shown(_describe_argument(rest[0]))} is one argument too many; "
            f"it takes {expected}, then @key value"
        )
    if rest and entry.rest is not None:
        raw[entry.rest] = _join_value(entry, entry.rest, rest)
    for key, atoms in divided.keys:
        if key not in key_names(entry):
            raise BadRequest(
                f"{key or '@'}: {entry.name} has no such key; it has {', '.join(fields_of(entry.kind))}; "
                f'an @ that is part of the words goes into double quotes, as in "dinner @{key or " eight"}"'
            )
        if key in raw:
            raise BadRequest(f"{key}: given twice; give it once")
        raw[key] = _join_value(entry, key, atoms)


def _join_value(entry: RequestEntry, name: str, atoms: list[Argument]) -> object:
    """Return one argument as it was sent, or several joined by single spaces."""
    for atom in atoms:
        if isinstance(atom, UnsupportedArgument) or (isinstance(atom, bool) and len(atoms) > 1):
            raise BadRequest(f"{name}: got {_describe_argument(atom)}, allowed is {_describe_allowed(entry, name)}")
    if not atoms:
        raise BadRequest(f"{name}: no value after @{name}; allowed is {_describe_allowed(entry, name)}")
    return atoms[0] if len(atoms) == 1 else " ".join(map(coercion.atom, atoms))


def _describe_argument(argument: Argument) -> str:
    return argument.description if isinstance(argument, UnsupportedArgument) else coercion.atom(argument)


def _describe_allowed(entry: RequestEntry, name: str) -> str:
    name = dict(entry.spellings).get(name, name)
    fields = fields_of(entry.kind)
    if name not in fields:
        return f"none: {entry.name} has no such key; it has {', '.join(fields)}"
    return coercion.describe_type(fields[name].type)


def _port(keys: Sequence[tuple[str, list[Argument]]]) -> int | None:
    """Return the port that the answer to a refused request goes to."""
    for key, atoms in keys:
        if key == "port" and len(atoms) == 1:
            try:
                return coercion.coerce("port", fields_of(m.Ping)["port"].type, atoms[0])
            except BadRequest:
                return None
    return None


def _check_time_tag(time_tag: float, now: float | None) -> float | None:
    """Return the moment at which a request is due; None if it isn't in the future."""
    ahead = time_tag - (time.time() if now is None else now)
    if ahead > MAX_TIME_TAG_AHEAD_S:
        raise BadRequest(
            f"time tag: {ahead:.1f} s ahead, allowed is {MAX_TIME_TAG_AHEAD_S:g} s; "
            "send it later, or with the time tag `immediately`"
        )
    return time_tag if ahead > 0 else None


def encode_event(event: m.Event) -> bytes:
    """Encode an event as one OSC message with arguments of the types i, f and s, of at most 8,000 bytes."""
    arguments = arguments_of(event)
    address = ROOT + name_of(event)
    encoded = write_message(address, arguments)
    if len(encoded) > MAX_DATAGRAM_BYTES:
        return write_message(address, _shorten(arguments, len(encoded) - MAX_DATAGRAM_BYTES))
    return encoded


def arguments_of(event: m.Event) -> list[str | int | float]:
    """Return an event's arguments as OSC sends them."""
    arguments: list[str | int | float] = []
    for name in event.__struct_fields__:
        if name not in event.json_only:
            value = getattr(event, name)
            if isinstance(value, bool):
                value = int(value)
            arguments.append(value if isinstance(value, str | int | float) else "")
    return arguments


def _shorten(arguments: list[str | int | float], excess: int) -> list[str | int | float]:
    """Cut the longest text at a character boundary. Only the message of a `fail` is long enough to need it."""
    longest = max(
        (index for index, argument in enumerate(arguments) if isinstance(argument, str)),
        key=lambda index: len(str(arguments[index]).encode("utf-8", "replace")),
    )
    raw = str(arguments[longest]).encode("utf-8", "replace")
    ellipsis = "…"
    kept = raw[: max(0, len(raw) - excess - len(ellipsis.encode()) - 4)].decode("utf-8", "ignore")
    return [*arguments[:longest], kept + ellipsis, *arguments[longest + 1 :]]
