"""Tensors of a safetensors file copied into others: renamed, divided and joined along the first axis, as bytes."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from timbred.models.checkpoint import read_tensor_header

COPIED_BYTES = 1 << 24
"""Bytes that are copied at once."""


@dataclass(frozen=True)
class SourceTensor:
    """A tensor of the weights: type, shape, and its first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def rows(self, first: int, last: int) -> "SourceTensor":
        """Return the rows [first, last) of the first axis."""
        row = self.size // self.shape[0]
        return SourceTensor(self.dtype, (last - first, *self.shape[1:]), self.start + first * row, (last - first) * row)

    def chunks(self, count: int) -> "list[SourceTensor]":
        """Return equal parts of the first axis."""
        rows, rest = divmod(self.shape[0], count)
        if rest or not rows:
            raise ValueError(f"{self.shape[0]} rows where a multiple of {count} is needed")
        return [self.rows(part * rows, (part + 1) * rows) for part in range(count)]

    def reshaped(self, *shape: int) -> "SourceTensor":
        """Return the same values in another shape."""
        return SourceTensor(self.dtype, shape, self.start, self.size)


@dataclass(frozen=True)
class CopiedTensor:
    """A tensor to write: the tensors of the weights whose rows it has, or its bytes."""

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[SourceTensor, ...] = ()
    content: bytes = b""


def copy_of(*parts: SourceTensor) -> CopiedTensor:
    """Return a tensor with the rows of others."""
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:]) if parts[0].shape else ()
    return CopiedTensor(parts[0].dtype, shape, parts)


def read_tensors(weights: Path) -> dict[str, SourceTensor]:
    """Return the tensors of a safetensors file by name."""
    header, data = read_tensor_header(weights)
    return {
        key: SourceTensor(entry["dtype"], tuple(entry["shape"]), data + start, end - start)
        for key, entry in header.items()
        if key != "__metadata__"
        for start, end in [entry["data_offsets"]]
    }


def write_tensors(path: Path, tensors: Mapping[str, CopiedTensor], weights: Path) -> None:
    """Write a safetensors file with rows of the tensors of another; it gets its name when it is complete.

    Raises:
        OSError: A file can't be read or written.
        ValueError: The weights end before their header says.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for key, target in tensors.items():
        size = len(target.content) or sum(part.size for part in target.parts)
        header[key] = {"dtype": target.dtype, "shape": target.shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_name(f"{path.name}.part")
    with weights.open("rb") as content, part.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for target in tensors.values():
            out.write(target.content)
            _copy_parts(content, out, target.parts)
    part.replace(path)


def _copy_parts(content: IO[bytes], out: IO[bytes], parts: Sequence[SourceTensor]) -> None:
    for part in parts:
        content.seek(part.start)
        left = part.size
        while left:
            block = content.read(min(left, COPIED_BYTES))
            if not block:
                raise ValueError("the weights end before their header says")
            out.write(block)
            left -= len(block)
