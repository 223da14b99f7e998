"""Framing of OSC packets in a byte stream: SLIP (OSC 1.1) and size prefixes (OSC 1.0).

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

MAX_FRAME_BYTES = 1 << 20
"""Maximum size of one frame on the wire, escapes included."""


class SlipDecoder:
    """Incremental decoder of SLIP frames. Does no I/O.

    A frame with an invalid escape, or of more than `limit` bytes on the wire, is returned as a BadRequest; decoding
    continues after the next END.

    >>> SlipDecoder().feed(encode(b"/a") + b"/b" + END)
    [b'/a', b'/b']
    """

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes | BadRequest]:
        """Return the frames that these bytes complete, in order; empty frames are dropped."""
        frames: list[bytes | BadRequest] = []
        *completed, rest = data.split(END)
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
    return frame.replace(_ESCAPED_END, END).replace(_ESCAPED_ESC, _ESC)


def encode(frame: bytes) -> bytes:
    """Encode a frame between two END bytes.

    >>> encode(bytes([1, 0xC0, 2])).hex()
    'c001dbdc02c0'
    """
    return END + frame.replace(_ESC, _ESCAPED_ESC).replace(END, _ESCAPED_END) + END


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
        return encode(packet)
