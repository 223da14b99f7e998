"""OSC packets on a byte stream: SLIP as OSC 1.1 asks, or sizes before packets as OSC 1.0 programs send.

scsynth's clients and liblo (oscsend) put an int32 size before each packet. Such a stream begins with a NUL,
which no SLIP frame of OSC does, so the first five bytes tell which it is; answers use the same.
"""

import struct

from timbred.errors import BadRequest
from timbred.protocol import slip

_SIZE = struct.Struct(">i")
_KNOWN_FROM = 5


class SizeDecoder:
    """Packets with their size before them (OSC 1.0, "a stream-based protocol"). Does no I/O.

    A size that can't be is refused once; nothing after it can be told apart, so the rest is ignored.

    >>> SizeDecoder().feed(bytes([0, 0, 0, 4]) + b"/a")
    []
    """

    def __init__(self, limit: int = slip.LONGEST_FRAME) -> None:
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

    def __init__(self, limit: int = slip.LONGEST_FRAME) -> None:
        self._limit = limit
        self._first = b""
        self._decoder: slip.SlipDecoder | SizeDecoder | None = None

    def feed(self, data: bytes) -> list[bytes | BadRequest]:
        """The packets that these bytes complete, in order; what can't be read is a BadRequest."""
        if self._decoder is None:
            data = self._first = self._first + data
            if data[:1] in (b"", b"\x00") and len(data) < _KNOWN_FROM:
                return []
            self._decoder = SizeDecoder(self._limit) if self._has_sizes() else slip.SlipDecoder(self._limit)
            self._first = b""
        return self._decoder.feed(data)

    def _has_sizes(self) -> bool:
        return self._first[:1] == b"\x00" and self._first[4:5] in (b"/", b"#")

    def encode(self, packet: bytes) -> bytes:
        """A packet framed as the other side frames its own."""
        if isinstance(self._decoder, SizeDecoder):
            return _SIZE.pack(len(packet)) + packet
        return slip.encode(packet)
