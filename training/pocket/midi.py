"""Writing of standard MIDI files with ticks of one millisecond."""

import struct
from dataclasses import dataclass, field
from pathlib import Path

TICKS_PER_QUARTER = 1000
MICROSECONDS_PER_QUARTER = 1_000_000
DRUM_CHANNEL = 9


def _variable_length(value: int) -> bytes:
    """Encode a number as a variable-length quantity."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | (value & 0x7F))
    return bytes(reversed(groups))


@dataclass
class Score:
    """MIDI events with their times, in any order."""

    events: list[tuple[int, int, bytes]] = field(default_factory=list)

    def _add(self, seconds: float, order: int, message: bytes) -> None:
        self.events.append((round(1000 * seconds), order, message))

    def program(self, seconds: float, channel: int, bank: int, program: int) -> None:
        """Add a change of a channel's program."""
        if channel != DRUM_CHANNEL:
            self._add(seconds, 1, bytes((0xB0 | channel, 0, bank)))
        self._add(seconds, 2, bytes((0xC0 | channel, program)))

    def silence(self, seconds: float, channel: int) -> None:
        """Add the end of all sounds of a channel, without release, and a reset of its controllers."""
        self._add(seconds, 0, bytes((0xB0 | channel, 120, 0)))
        self._add(seconds, 0, bytes((0xB0 | channel, 121, 0)))

    def note(self, seconds: float, length: float, channel: int, note: int, velocity: int) -> None:
        """Add a note."""
        self._add(seconds, 3, bytes((0x90 | channel, note, velocity)))
        self._add(seconds + max(length, 0.001), 0, bytes((0x80 | channel, note, 0)))

    def to_bytes(self, end_seconds: float) -> bytes:
        """Return the content of the file; its track ends at `end_seconds`."""
        tempo = struct.pack(">I", MICROSECONDS_PER_QUARTER)[1:]
        track = b"\0\xff\x51\x03" + tempo
        now = 0
        for tick, _, message in sorted(self.events, key=lambda event: event[:2]):
            track += _variable_length(tick - now) + message
            now = tick
        track += _variable_length(max(0, round(1000 * end_seconds) - now)) + b"\xff\x2f\0"
        header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS_PER_QUARTER)
        return header + b"MTrk" + struct.pack(">I", len(track)) + track

    def write(self, path: Path, end_seconds: float) -> None:
        """Write the file."""
        path.write_bytes(self.to_bytes(end_seconds))
