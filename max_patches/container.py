"""The file format of Max for Live devices, `.amxd`.

A chunk is a four-letter name, a length (u32, little-endian) and so many bytes. `ampf` holds the kind of device, `meta`
a number (0: not frozen), `ptch` the patcher's JSON and a NUL.
"""

import json
import struct
from typing import Any

KINDS = {"audio effect": b"aaaa", "instrument": b"iiii", "midi effect": b"mmmm"}
_NAMES = {code: name for name, code in KINDS.items()}


def pack(kind: str, patcher_json: str) -> bytes:
    """Return the content of a device's file. `kind` is one of `KINDS`."""
    patch = patcher_json.encode("utf-8") + b"\0"
    return _chunk(b"ampf", KINDS[kind]) + _chunk(b"meta", struct.pack("<I", 0)) + _chunk(b"ptch", patch)


def unpack(file: bytes) -> tuple[str, dict[str, Any]]:
    """Return a device's kind and its patcher.

    Raises:
        ValueError: what is wrong with the file.
    """
    chunks = _chunks(file)
    if [name for name, _ in chunks] != [b"ampf", b"meta", b"ptch"]:
        raise ValueError(f"no device: it has {[name for name, _ in chunks]}")
    (_, code), _, (_, patch) = chunks
    if code not in _NAMES:
        raise ValueError(f"no kind of device: {code!r}")
    if not patch.endswith(b"\0"):
        raise ValueError("the patch doesn't end with a NUL")
    return _NAMES[code], json.loads(patch[:-1])


def _chunk(name: bytes, payload: bytes) -> bytes:
    return name + struct.pack("<I", len(payload)) + payload


def _chunks(file: bytes) -> list[tuple[bytes, bytes]]:
    chunks: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(file):
        if at + 8 > len(file):
            raise ValueError("the file ends in the middle of a chunk's head")
        name, size = struct.unpack_from("<4sI", file, at)
        if at + 8 + size > len(file):
            raise ValueError(f"chunk {name!r} has the size {size}, but fewer bytes follow")
        chunks.append((name, file[at + 8 : at + 8 + size]))
        at += 8 + size
    return chunks
