"""OSC 1.0 packets as bytes: messages, and bundles walked without recursion.

Source: The Open Sound Control 1.0 Specification. Nothing here waits, recurses or raises on what a sender
may send; the time taken grows in step with the packet's length, which is why these few lines stand here in
place of a library's reader.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

DEEPEST = 8
"""Bundles inside bundles that are followed."""

MOST_MESSAGES = 4096
"""Messages taken from one packet."""

MOST_BUNDLES = 4096
"""Bundles that are looked into in one packet."""

_BUNDLE = b"#bundle\x00"
_BUNDLE_HEAD = 16
_NTP_TO_UNIX = 2_208_988_800
_IMMEDIATELY = 1
_INT32 = struct.Struct(">i")
_TIME_TAG = struct.Struct(">Q")
_NUMBERS = {"i": _INT32, "f": struct.Struct(">f"), "h": struct.Struct(">q"), "d": struct.Struct(">d")}
_FLAGS = {"T": True, "F": False}
_UNFIT = {"m": "a MIDI message", "r": "a colour", "c": "a character", "t": "a time tag"}
_UNFIT_SIZE = {"m": 4, "r": 4, "c": 4, "t": 8}
_EMPTY = {"N": "nil", "I": "an impulse"}


@dataclass(frozen=True, slots=True)
class UnreadablePacket:
    """An argument of a kind that no request takes, in words: `a blob of 12 bytes`."""

    what: str


Argument = int | float | str | bool | UnreadablePacket


@dataclass(slots=True)
class OscMessage:
    """One message. `address` is empty when not even that could be read.

    `fault` says why the arguments after those in `arguments` couldn't be read. `time` is the bundle's time
    tag as UNIX time in seconds; None is at once.
    """

    address: str
    arguments: list[Argument] = field(default_factory=list[Argument])
    fault: str | None = None
    time: float | None = None


class _Broken(Exception):
    """The bytes aren't what OSC says."""


def read_packet(packet: bytes) -> list[OscMessage]:
    """The messages of a packet, in order; what can't be read is a Message with a fault."""
    return list(walk_packet(packet))


def walk_packet(packet: bytes) -> Iterator[OscMessage]:
    """As `read_packet`, each message read only when it is asked for."""
    count = bundles = 0
    # what is still to be read, last first: start, end, bundles around it, time
    waiting: list[tuple[int, int, int, float | None]] = [(0, len(packet), 0, None)]
    while waiting:
        start, end, depth, time = waiting.pop()
        if count == MOST_MESSAGES:
            yield OscMessage("", fault=f"a packet may hold {MOST_MESSAGES} messages, this has more")
            return
        if not packet.startswith(_BUNDLE, start, end):
            count += 1
            yield read_message(packet[start:end], time)
            continue
        bundles += 1
        if bundles > MOST_BUNDLES:
            yield OscMessage("", fault=f"a packet may hold {MOST_BUNDLES} bundles, this has more")
            return
        try:
            if depth == DEEPEST:
                raise _Broken(f"bundles may be {DEEPEST} deep, these are deeper")
            elements, time = _bundle(packet, start, end, time)
        except _Broken as broken:
            count += 1
            yield OscMessage("", fault=str(broken))
            continue
        waiting.extend((first, last, depth + 1, time) for first, last in reversed(elements))


def _bundle(packet: bytes, start: int, end: int, outer: float | None) -> tuple[list[tuple[int, int]], float | None]:
    """Where each element lies, and when the bundle is due: never before the one around it."""
    if end - start < _BUNDLE_HEAD:
        raise _Broken("a bundle ends before its time tag does")
    time = _unix_time(_TIME_TAG.unpack_from(packet, start + len(_BUNDLE))[0])
    if outer is not None:
        time = outer if time is None else max(time, outer)
    elements: list[tuple[int, int]] = []
    at = start + _BUNDLE_HEAD
    while at < end and len(elements) <= MOST_MESSAGES:
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
    """One message; its `fault` says what couldn't be read."""
    try:
        raw, at = _string(data, 0)
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


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """The bytes of an OSC-string and where the next argument starts."""
    end = data.find(b"\x00", at)
    after = (end | 3) + 1
    if end < 0 or after > len(data):
        raise _Broken("the message is cut off inside a text")
    return data[at:end], after


def _read_arguments(data: bytes, at: int, into: list[Argument]) -> None:
    if at == len(data):
        return  # OSC 1.0: older senders leave out the type tags of a message without arguments
    raw_tags, at = _string(data, at)
    if not raw_tags.startswith(b","):
        raise _Broken("the message has no type tags: they begin with a comma")
    arrays = 0
    for tag in raw_tags[1:].decode("latin-1"):
        if tag in "[]":
            arrays += 1 if tag == "[" else -1
            if arrays < 0:
                raise _Broken("an array is closed that was never opened")
            if tag == "[" and arrays == 1:
                into.append(UnreadablePacket("an array"))
            continue
        value, at = _argument(data, at, tag)
        if not arrays:
            into.append(value)
    if arrays:
        raise _Broken("an array is opened and never closed")


def _argument(data: bytes, at: int, tag: str) -> tuple[Argument, int]:
    if tag in "sS":
        raw, after = _string(data, at)
        return _text(raw), after
    number = _NUMBERS.get(tag)
    if number is not None:
        after = at + number.size
        if after > len(data):
            raise _Broken("the message is cut off inside a number")
        return number.unpack_from(data, at)[0], after
    if tag in _FLAGS:
        return _FLAGS[tag], at
    return _unfit(data, at, tag)


def _text(raw: bytes) -> Argument:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return UnreadablePacket("text that isn't UTF-8")


def _unfit(data: bytes, at: int, tag: str) -> tuple[UnreadablePacket, int]:
    """An argument that no request takes: read all the same, to find those after it."""
    if tag in _EMPTY:
        return UnreadablePacket(_EMPTY[tag]), at
    if tag in _UNFIT:
        return UnreadablePacket(_UNFIT[tag]), _within(data, at + _UNFIT_SIZE[tag])
    if tag == "b":
        body = _within(data, at + 4)
        size = _INT32.unpack_from(data, at)[0]
        if size < 0:
            raise _Broken(f"a blob claims {size} bytes")
        return UnreadablePacket(f"a blob of {size} bytes"), _within(data, body + size + -size % 4)
    raise _Broken(f"an argument has the type tag {tag!r}; allowed are i f h d s T F")


def _within(data: bytes, after: int) -> int:
    if after > len(data):
        raise _Broken("the message is cut off inside an argument")
    return after


def write_message(address: str, arguments: Sequence[str | int | float]) -> bytes:
    """A message of i, f and s alone; whole numbers beyond 32 bits go as text.

    >>> write_message("/timbred/synced", [1])
    b'/timbred/synced\\x00,i\\x00\\x00\\x00\\x00\\x00\\x01'
    """
    tags = bytearray(b",")
    body = bytearray()
    for argument in arguments:
        if isinstance(argument, float):
            tags += b"f"
            body += _float32(argument)
        elif isinstance(argument, int) and -(2**31) <= argument < 2**31:
            tags += b"i"
            body += _INT32.pack(argument)
        else:
            tags += b"s"
            body += padded(str(argument).encode("utf-8", "replace"))
    return padded(address.encode("utf-8", "replace")) + padded(bytes(tags)) + bytes(body)


def _float32(value: float) -> bytes:
    try:
        return _NUMBERS["f"].pack(value)
    except OverflowError:
        return _NUMBERS["f"].pack(math.copysign(math.inf, value))


def padded(raw: bytes) -> bytes:
    """An OSC-string: without NUL inside, then NULs up to a multiple of four bytes."""
    if b"\x00" in raw:
        raw = raw.replace(b"\x00", b"")
    return raw + b"\x00" * (4 - len(raw) % 4)
