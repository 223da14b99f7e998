"""OSC as bytes: packets (messages and bundles), their framing in a byte stream, and address patterns.

Reading of packets never waits, recurses or raises, whatever the packet holds, and its time is linear in the packet's
length. Other readers raise on malformed packets or recurse into bundles.
Packets in a byte stream are framed by SLIP (OSC 1.1) or by size prefixes (OSC 1.0).
Address patterns (`?`, `*`, `[a-c]`, `[!a-c]`, `{one,other}`) are matched part by part: no element matches a `/`. The
time taken grows with the pattern's length times the address's, whatever the pattern is.
Source: The Open Sound Control 1.0 Specification; RFC 1055; "Features and Future of Open Sound Control version 1.1 for
NIME" (an END before and after each frame).
"""

import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from timbred.errors import BadRequest

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


SLIP_END = b"\xc0"
_ESC = b"\xdb"
_ESCAPED_END = b"\xdb\xdc"
_ESCAPED_ESC = b"\xdb\xdd"
_BAD_ESCAPE = re.compile(rb"\xdb(?![\xdc\xdd])")

MAX_FRAME_BYTES = 1 << 20
"""Maximum size of one frame on the wire, escapes included."""


class SlipDecoder:
    """Incremental decoder of SLIP frames. Does no I/O.

    A frame with an invalid escape, or of more than `limit` bytes on the wire, is returned as a BadRequest; decoding
    continues after the next END.

    >>> SlipDecoder().feed(encode_slip(b"/a") + b"/b" + SLIP_END)
    [b'/a', b'/b']
    """

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes | BadRequest]:
        """Return the frames that these bytes complete, in order; empty frames are dropped."""
        frames: list[bytes | BadRequest] = []
        *completed, rest = data.split(SLIP_END)
        for piece in completed:
            self._append(piece, frames)
            if self._buffer:
                frames.append(_unescape(bytes(self._buffer)))
            self._buffer.clear()
            self._skipping = False
        self._append(rest, frames)
        return frames

    def _append(self, piece: bytes, frames: list[bytes | BadRequest]) -> None:
        if self._skipping:
            return
        if len(self._buffer) + len(piece) > self._limit:
            self._buffer.clear()
            self._skipping = True
            frames.append(BadRequest(f"the frame is over {self._limit} bytes; send shorter frames"))
            return
        self._buffer += piece


def _unescape(frame: bytes) -> bytes | BadRequest:
    if _ESC not in frame:
        return frame
    if _BAD_ESCAPE.search(frame):
        return BadRequest(
            "the frame has a byte DB (hex) that isn't followed by DC or DD; encode it as in RFC 1055 (SLIP)"
        )
    # in this order: an escaped ESC before a plain DC must not become an END
    return frame.replace(_ESCAPED_END, SLIP_END).replace(_ESCAPED_ESC, _ESC)


def encode_slip(frame: bytes) -> bytes:
    """Encode a frame between two END bytes.

    >>> encode_slip(bytes([1, 0xC0, 2])).hex()
    'c001dbdc02c0'
    """
    return SLIP_END + frame.replace(_ESC, _ESCAPED_ESC).replace(SLIP_END, _ESCAPED_END) + SLIP_END


_SIZE = struct.Struct(">i")
_DETECTION_BYTES = 5


class SizeDecoder:
    """Incremental decoder of packets with an int32 size before each, as OSC 1.0 has for streams. Does no I/O.

    An invalid size is returned as a BadRequest once; the boundaries of later packets are unknown, so the rest of the
    stream is ignored.

    >>> SizeDecoder().feed(bytes([0, 0, 0, 4]) + b"/a")
    []
    """

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._lost = False

    def feed(self, data: bytes) -> list[bytes | BadRequest]:
        """Return the packets that these bytes complete, in order."""
        packets: list[bytes | BadRequest] = []
        if self._lost:
            return packets
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= _SIZE.size:
            size = _SIZE.unpack_from(self._buffer, at)[0]
            if not 0 < size <= self._limit:
                self._lost = True
                self._buffer.clear()
                packets.append(BadRequest(f"a packet size is {size} bytes, allowed are 1 to {self._limit}; reconnect"))
                return packets
            if len(self._buffer) - at < _SIZE.size + size:
                break
            at += _SIZE.size
            packets.append(bytes(self._buffer[at : at + size]))
            at += size
        del self._buffer[:at]
        return packets


class StreamDecoder:
    """Incremental decoder that detects the framing from a stream's first bytes. Does no I/O."""

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self._limit = limit
        self._first = b""
        self._decoder: SlipDecoder | SizeDecoder | None = None

    def feed(self, data: bytes) -> list[bytes | BadRequest]:
        """Return the packets that these bytes complete, in order; an unreadable one is a BadRequest."""
        if self._decoder is None:
            data = self._first = self._first + data
            if data[:1] in (b"", b"\x00") and len(data) < _DETECTION_BYTES:
                return []
            self._decoder = SizeDecoder(self._limit) if self._has_sizes() else SlipDecoder(self._limit)
            self._first = b""
        return self._decoder.feed(data)

    def _has_sizes(self) -> bool:
        return self._first[:1] == b"\x00" and self._first[4:5] in (b"/", b"#")

    def encode(self, packet: bytes) -> bytes:
        """Encode a packet with the framing that the peer uses."""
        if isinstance(self._decoder, SizeDecoder):
            return _SIZE.pack(len(packet)) + packet
        return encode_slip(packet)


MAX_PATTERN_CHARACTERS = 256
"""Maximum length of an address pattern."""

_MARKS = frozenset("?*[]{}")

_Element = Callable[[str, int], Iterable[int]]
"""Returns the positions in a text at which an element that begins at a position may end."""


def is_pattern(address: str) -> bool:
    """Tell whether an address has characters that only patterns have."""
    return not _MARKS.isdisjoint(address)


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern.

    >>> pattern = parse_pattern("/timbred/{ping,status}")
    >>> pattern.matches("/timbred/status"), pattern.matches("/timbred/ping/")
    (True, False)
    """

    parts: tuple[tuple[_Element, ...], ...]

    def matches(self, address: str) -> bool:
        """Tell whether the pattern matches all of an address."""
        parts = address.split("/")
        return len(parts) == len(self.parts) and all(map(_matches, self.parts, parts))


def parse_pattern(text: str) -> Pattern:
    """Read a pattern.

    Raises:
        BadRequest: The pattern is too long, or its brackets don't match.
    """
    if len(text) > MAX_PATTERN_CHARACTERS:
        raise BadRequest(
            f"the address pattern has {len(text)} characters; at most {MAX_PATTERN_CHARACTERS} are allowed"
        )
    return Pattern(tuple(tuple(_elements(part, text)) for part in text.split("/")))


def _matches(elements: tuple[_Element, ...], text: str) -> bool:
    reached = {0}
    for element in elements:
        reached = {end for start in reached for end in element(text, start)}
        if not reached:
            return False
    return len(text) in reached


def _elements(part: str, whole: str) -> Iterable[_Element]:
    at = 0
    while at < len(part):
        mark = part[at]
        at += 1
        if mark == "*":
            yield _any_text
        elif mark == "?":
            yield _any_character
        elif mark in "[{":
            closing = part.find("]" if mark == "[" else "}", at)
            if closing < 0:
                raise BadRequest(f"address pattern {whole!r}: {mark} isn't closed")
            inside = part[at:closing]
            yield _one_of(inside) if mark == "[" else _alternatives(inside)
            at = closing + 1
        elif mark in "]}":
            raise BadRequest(f"address pattern {whole!r}: {mark} has no opening bracket")
        else:
            yield _literal(mark)


def _any_text(text: str, start: int) -> Iterable[int]:
    return range(start, len(text) + 1)


def _any_character(text: str, start: int) -> Iterable[int]:
    return (start + 1,) if start < len(text) else ()


def _literal(character: str) -> _Element:
    return lambda text, start: (start + 1,) if text.startswith(character, start) else ()


def _alternatives(listed: str) -> _Element:
    words = tuple(dict.fromkeys(listed.split(",")))
    return lambda text, start: (start + len(word) for word in words if text.startswith(word, start))


def _one_of(listed: str) -> _Element:
    negated = listed.startswith("!")
    ranges = _ranges(listed[1:] if negated else listed)

    def match_element(text: str, start: int) -> Iterable[int]:
        if start >= len(text):
            return ()
        inside = any(low <= text[start] <= high for low, high in ranges)
        return (start + 1,) if inside != negated else ()

    return match_element


def _ranges(listed: str) -> list[tuple[str, str]]:
    """Return the inclusive ranges of a character class; a `-` at its end is literal."""
    ranges: list[tuple[str, str]] = []
    at = 0
    while at < len(listed):
        if listed[at + 1 : at + 2] == "-" and at + 2 < len(listed):
            ranges.append((listed[at], listed[at + 2]))
            at += 3
        else:
            ranges.append((listed[at], listed[at]))
            at += 1
    return ranges
