"""OSC packets, written here from the OSC 1.0 specification: tests of a wire must not share its code."""

import struct
from dataclasses import dataclass

NUMBERS = {"i": ">i", "f": ">f", "h": ">q", "d": ">d"}

Value = str | int | float | bool | bytes


@dataclass(frozen=True)
class Tagged:
    """An argument of a type that Python's own doesn't tell: `Tagged("h", 5)`."""

    tag: str
    value: int | float


@dataclass(frozen=True)
class Reply:
    """A message that came back: its address after `/timbred/`, its type tags, its arguments."""

    name: str
    tags: str
    arguments: tuple[str | int | float, ...]

    @property
    def id(self) -> str | int | float:
        return self.arguments[0] if self.arguments else ""


def text(value: str | bytes) -> bytes:
    """An OSC-string: NULs up to a multiple of four."""
    raw = value.encode() if isinstance(value, str) else value
    return raw + b"\x00" * (4 - len(raw) % 4)


def message(address: str, *arguments: Value | Tagged) -> bytes:
    """A message; Python's int, float, str, bool and bytes become i, f, s, T or F, and b."""
    pairs = [argument(one) for one in arguments]
    return text(address) + text("," + "".join(tag for tag, _ in pairs)) + b"".join(body for _, body in pairs)


def argument(value: Value | Tagged) -> tuple[str, bytes]:
    """The type tag and the bytes of one argument."""
    match value:
        case Tagged(tag, number):
            return tag, struct.pack(NUMBERS[tag], number)
        case bool():
            return ("T" if value else "F"), b""
        case int():
            return "i", struct.pack(">i", value)
        case float():
            return "f", struct.pack(">f", value)
        case str():
            return "s", text(value)
        case bytes():
            return "b", struct.pack(">i", len(value)) + value + b"\x00" * (-len(value) % 4)


def bundle(*elements: bytes, time_tag: int = 1) -> bytes:
    """A bundle; the time tag 1 means at once."""
    sized = b"".join(struct.pack(">i", len(element)) + element for element in elements)
    return text("#bundle") + struct.pack(">Q", time_tag) + sized


def parse(packet: bytes) -> Reply:
    """The message in a packet. An answer that isn't i, f and s, or not padded, is a fault of timbred's."""
    address, at = _string(packet, 0)
    tags, at = _string(packet, at)
    assert tags.startswith(",") and set(tags) <= set(",ifs"), tags
    arguments: list[str | int | float] = []
    for tag in tags[1:]:
        if tag == "s":
            value, at = _string(packet, at)
        else:
            value, at = struct.unpack_from(NUMBERS[tag], packet, at)[0], at + 4
        arguments.append(value)
    assert at == len(packet), "bytes are left over after the arguments"
    assert address.startswith("/timbred/"), address
    return Reply(address.removeprefix("/timbred/"), tags[1:], tuple(arguments))


def _string(packet: bytes, at: int) -> tuple[str, int]:
    end = packet.index(b"\x00", at)
    after = (end | 3) + 1
    assert packet[end:after] == b"\x00" * (after - end), "an OSC-string is padded with NULs"
    return packet[at:end].decode(), after
