"""OSC 1.0 packets as bytes: reading of messages and bundles, writing of messages.

Source: The Open Sound Control 1.0 Specification. Reading never waits, recurses or raises, whatever the packet holds,
and its time is linear in the packet's length. Other readers raise on malformed packets or recurse into bundles.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

MAX_BUNDLE_DEPTH = 8
"""Levels of bundles inside bundles that are read."""

MAX_MESSAGES_PER_PACKET = 4096
"""Messages that are read from one packet."""

MAX_BUNDLES_PER_PACKET = 4096
"""Bundles that are read from one packet."""

_BUNDLE = b"#bundle\x00"
_BUNDLE_HEADER_BYTES = 16
_NTP_TO_UNIX = 2_208_988_800
_IMMEDIATELY = 1
_INT32 = struct.Struct(">i")
_TIME_TAG = struct.Struct(">Q")
_FLOAT32 = struct.Struct(">f")
_NUMBERS = {"i": _INT32, "f": _FLOAT32, "h": struct.Struct(">q"), "d": struct.Struct(">d")}
_FLAGS = {"T": True, "F": False}
_UNSUPPORTED = {"m": "a MIDI message", "r": "a colour", "c": "a character", "t": "a time tag"}
_UNSUPPORTED_BYTES = {"m": 4, "r": 4, "c": 4, "t": 8}
_UNSUPPORTED_EMPTY = {"N": "nil", "I": "an impulse"}


@dataclass(frozen=True, slots=True)
class UnsupportedArgument:
    """An argument of a type that no request takes, with its description: `a blob of 12 bytes`."""

    description: str


Argument = int | float | str | bool | UnsupportedArgument


@dataclass(slots=True)
class OscMessage:
    """One message.

    Attributes:
        address: Empty if it can't be read.
        arguments: Those that can be read, in order.
        fault: The reason why the arguments after those can't be read.
        time: The bundle's time tag as UNIX time in seconds; None means immediately.
    """

    address: str
    arguments: list[Argument] = field(default_factory=list[Argument])
    fault: str | None = None
    time: float | None = None


class _Broken(Exception):
    """The bytes aren't valid OSC."""


def read_packet(packet: bytes) -> list[OscMessage]:
    """Return the messages of a packet in order; an unreadable one has a fault."""
    return list(walk_packet(packet))


def walk_packet(packet: bytes) -> Iterator[OscMessage]:
    """Yield the messages of a packet in order, each read when it is requested."""
    count = bundles = 0
    # unread elements, last first: start, end, depth, time
    unread: list[tuple[int, int, int, float | None]] = [(0, len(packet), 0, None)]
    while unread:
        start, end, depth, time = unread.pop()
        if count == MAX_MESSAGES_PER_PACKET:
            yield OscMessage("", fault=f"a packet may hold {MAX_MESSAGES_PER_PACKET} messages, this has more")
            return
        if not packet.startswith(_BUNDLE, start, end):
            count += 1
            yield read_message(packet[start:end], time)
            continue
        bundles += 1
        if bundles > MAX_BUNDLES_PER_PACKET:
            yield OscMessage("", fault=f"a packet may hold {MAX_BUNDLES_PER_PACKET} bundles, this has more")
            return
        try:
            if depth == MAX_BUNDLE_DEPTH:
                raise _Broken(f"bundles may be {MAX_BUNDLE_DEPTH} deep, these are deeper")
            elements, time = _read_bundle(packet, start, end, time)
        except _Broken as broken:
            count += 1
            yield OscMessage("", fault=str(broken))
            continue
        unread.extend((first, last, depth + 1, time) for first, last in reversed(elements))


def _read_bundle(
    packet: bytes, start: int, end: int, outer: float | None
) -> tuple[list[tuple[int, int]], float | None]:
    """Return the elements' positions and the bundle's time, which is never before the outer bundle's."""
    if end - start < _BUNDLE_HEADER_BYTES:
        raise _Broken("a bundle ends before its time tag does")
    time = _unix_time(_TIME_TAG.unpack_from(packet, start + len(_BUNDLE))[0])
    if outer is not None:
        time = outer if time is None else max(time, outer)
    elements: list[tuple[int, int]] = []
    at = start + _BUNDLE_HEADER_BYTES
    while at < end and len(elements) <= MAX_MESSAGES_PER_PACKET:
        if end - at < 4:
            raise _Broken("a bundle ends inside an element's size")
        size = _INT32.unpack_from(packet, at)[0]
        at += 4
        if size <= 0 or size % 4 or size > end - at:
            raise _Broken(f"a bundle's element claims {size} bytes where {end - at} are left")
        elements.append((at, at + size))
        at += size
    return elements, time


def _unix_time(tag: int) -> float | None:
    return None if tag == _IMMEDIATELY else tag / 2**32 - _NTP_TO_UNIX


def read_message(data: bytes, time: float | None = None) -> OscMessage:
    """Read one message; its `fault` says what can't be read."""
    try:
        raw, at = _read_string(data, 0)
        address = raw.decode("utf-8")
    except (_Broken, UnicodeDecodeError):
        return OscMessage("", fault="this is no OSC: it has no address that can be read", time=time)
    if not address.startswith("/"):
        return OscMessage("", fault="this is no OSC: an address begins with /", time=time)
    message = OscMessage(address, time=time)
    try:
        _read_arguments(data, at, message.arguments)
    except _Broken as broken:
        message.fault = str(broken)
    return message


def _read_string(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the bytes of an OSC-string and the position of the next argument."""
    end = data.find(b"\x00", at)
    after = (end | 3) + 1
    if end < 0 or after > len(data):
        raise _Broken("the message is cut off inside a text")
    return data[at:end], after


def _read_arguments(data: bytes, at: int, into: list[Argument]) -> None:
    if at == len(data):
        return  # OSC 1.0: older senders leave out the type tags of a message without arguments
    raw_tags, at = _read_string(data, at)
    if not raw_tags.startswith(b","):
        raise _Broken("the message has no type tags: they begin with a comma")
    arrays = 0
    for tag in raw_tags[1:].decode("latin-1"):
        if tag in "[]":
            arrays += 1 if tag == "[" else -1
            if arrays < 0:
                raise _Broken("an array is closed that was never opened")
            if tag == "[" and arrays == 1:
                into.append(UnsupportedArgument("an array"))
            continue
        value, at = _read_argument(data, at, tag)
        if not arrays:
            into.append(value)
    if arrays:
        raise _Broken("an array is opened and never closed")


def _read_argument(data: bytes, at: int, tag: str) -> tuple[Argument, int]:
    if tag in "sS":
        raw, after = _read_string(data, at)
        try:
            return raw.decode("utf-8"), after
        except UnicodeDecodeError:
            return UnsupportedArgument("text that isn't UTF-8"), after
    number = _NUMBERS.get(tag)
    if number is not None:
        after = at + number.size
        if after > len(data):
            raise _Broken("the message is cut off inside a number")
        return number.unpack_from(data, at)[0], after
    if tag in _FLAGS:
        return _FLAGS[tag], at
    return _skip_unsupported(data, at, tag)


def _skip_unsupported(data: bytes, at: int, tag: str) -> tuple[UnsupportedArgument, int]:
    """Skip an argument of a type that no request takes, to reach those after it."""
    if tag in _UNSUPPORTED_EMPTY:
        return UnsupportedArgument(_UNSUPPORTED_EMPTY[tag]), at
    if tag in _UNSUPPORTED:
        return UnsupportedArgument(_UNSUPPORTED[tag]), _check_end(data, at + _UNSUPPORTED_BYTES[tag])
    if tag == "b":
        body = _check_end(data, at + 4)
        size = _INT32.unpack_from(data, at)[0]
        if size < 0:
            raise _Broken(f"a blob claims {size} bytes")
        return UnsupportedArgument(f"a blob of {size} bytes"), _check_end(data, body + size + -size % 4)
    raise _Broken(f"an argument has the type tag {tag!r}; allowed are i f h d s T F")


def _check_end(data: bytes, after: int) -> int:
    if after > len(data):
        raise _Broken("the message is cut off inside an argument")
    return after


def write_message(address: str, arguments: Sequence[str | int | float]) -> bytes:
    r"""Encode a message with arguments of the types i, f and s only; integers beyond 32 bits are sent as text.

    >>> write_message("/timbred/synced", [1])
    b'/timbred/synced\x00,i\x00\x00\x00\x00\x00\x01'
    """
    tags = bytearray(b",")
    body = bytearray()
    for argument in arguments:
        if isinstance(argument, float):
            tags += b"f"
            try:
                body += _FLOAT32.pack(argument)
            except OverflowError:
                body += _FLOAT32.pack(math.copysign(math.inf, argument))
        elif isinstance(argument, int) and -(2**31) <= argument < 2**31:
            tags += b"i"
            body += _INT32.pack(argument)
        else:
            tags += b"s"
            body += pad_string(str(argument).encode("utf-8", "replace"))
    return pad_string(address.encode("utf-8", "replace")) + pad_string(bytes(tags)) + bytes(body)


def pad_string(raw: bytes) -> bytes:
    """Return an OSC-string: the bytes without NUL, then NULs up to a multiple of four bytes."""
    if b"\x00" in raw:
        raw = raw.replace(b"\x00", b"")
    return raw + b"\x00" * (4 - len(raw) % 4)
