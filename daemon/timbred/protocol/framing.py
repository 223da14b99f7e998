"""SLIP framing of a byte stream, as OSC 1.1 asks of TCP.

Source: RFC 1055; "Features and Future of Open Sound Control version 1.1 for NIME" (an END before and after
each frame).
"""

import re
import struct

from timbred.errors import BadRequest

END = b"\xc0"
_ESC = b"\xdb"
_ESCAPED_END = b"\xdb\xdc"
_ESCAPED_ESC = b"\xdb\xdd"
_BAD_ESCAPE = re.compile(rb"\xdb(?![\xdc\xdd])")

LONGEST_FRAME = 1 << 20
"""Bytes that one frame may take on the wire."""


class SlipDecoder:
    """Takes bytes as they arrive and gives back whole frames. Does no I/O.

    A frame with a bad escape, or longer than `limit` bytes on the wire, comes back as a BadRequest; the
    stream goes on with the next END.

    >>> SlipDecoder().feed(encode(b"/a") + b"/b" + END)
    [b'/a', b'/b']
    """

    def __init__(self, limit: int = LONGEST_FRAME) -> None:
        self._limit = limit
        self._held = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes | BadRequest]:
        """The frames that these bytes complete, in order; empty ones are left out."""
        found: list[bytes | BadRequest] = []
        *ended, rest = data.split(END)
        for piece in ended:
            self._hold(piece, found)
            if self._held:
                found.append(_unescaped(bytes(self._held)))
            self._held.clear()
            self._skipping = False
        self._hold(rest, found)
        return found

    def _hold(self, piece: bytes, found: list[bytes | BadRequest]) -> None:
        if self._skipping:
            return
        if len(self._held) + len(piece) > self._limit:
            self._held.clear()
            self._skipping = True
            found.append(BadRequest(f"this frame is over {self._limit} bytes; send shorter ones"))
            return
        self._held += piece


def _unescaped(frame: bytes) -> bytes | BadRequest:
    if _ESC not in frame:
        return frame
    if _BAD_ESCAPE.search(frame):
        return BadRequest("this frame has a byte DB (hex) that isn't followed by DC or DD; see RFC 1055 (SLIP)")
    # in this order: an escaped ESC before a plain DC must not become an END
    return frame.replace(_ESCAPED_END, END).replace(_ESCAPED_ESC, _ESC)


def encode(frame: bytes) -> bytes:
    """A frame between two ENDs.

    >>> encode(bytes([1, 0xC0, 2])).hex()
    'c001dbdc02c0'
    """
    return END + frame.replace(_ESC, _ESCAPED_ESC).replace(END, _ESCAPED_END) + END


_SIZE = struct.Struct(">i")
_KNOWN_FROM = 5


class SizeDecoder:
    """Packets with their size before them (OSC 1.0, "a stream-based protocol"). Does no I/O.

    A size that can't be is refused once; nothing after it can be told apart, so the rest is ignored.

    >>> SizeDecoder().feed(bytes([0, 0, 0, 4]) + b"/a")
    []
    """

    def __init__(self, limit: int = LONGEST_FRAME) -> None:
        self._limit = limit
        self._held = bytearray()
        self._lost = False

    def feed(self, data: bytes) -> list[bytes | BadRequest]:
        """The packets that these bytes complete, in order."""
        found: list[bytes | BadRequest] = []
        if self._lost:
            return found
        self._held += data
        at = 0
        while len(self._held) - at >= _SIZE.size:
            size = _SIZE.unpack_from(self._held, at)[0]
            if not 0 < size <= self._limit:
                self._lost = True
                self._held.clear()
                found.append(BadRequest(f"a packet claims {size} bytes, allowed are {self._limit}; connect again"))
                return found
            if len(self._held) - at < _SIZE.size + size:
                break
            at += _SIZE.size
            found.append(bytes(self._held[at : at + size]))
            at += size
        del self._held[:at]
        return found


class StreamDecoder:
    """Packets of a stream whose framing its first bytes tell. Does no I/O."""

    def __init__(self, limit: int = LONGEST_FRAME) -> None:
        self._limit = limit
        self._first = b""
        self._decoder: SlipDecoder | SizeDecoder | None = None

    def feed(self, data: bytes) -> list[bytes | BadRequest]:
        """The packets that these bytes complete, in order; what can't be read is a BadRequest."""
        if self._decoder is None:
            data = self._first = self._first + data
            if data[:1] in (b"", b"\x00") and len(data) < _KNOWN_FROM:
                return []
            self._decoder = SizeDecoder(self._limit) if self._has_sizes() else SlipDecoder(self._limit)
            self._first = b""
        return self._decoder.feed(data)

    def _has_sizes(self) -> bool:
        return self._first[:1] == b"\x00" and self._first[4:5] in (b"/", b"#")

    def encode(self, packet: bytes) -> bytes:
        """A packet framed as the other side frames its own."""
        if isinstance(self._decoder, SizeDecoder):
            return _SIZE.pack(len(packet)) + packet
        return encode(packet)
