"""Checkpoint folders in diffusers' format, inspected without loading them, and the tensors of their weight files.

An inspection says if a folder is complete, and if it may be loaded. Only the JSON files and the headers of safetensors
files are read. Tensors are loaded only from weight files, and only the classes listed here: a folder that brings its
own code is refused. Tensors are copied between weight files as bytes: renamed, divided and joined along the first axis.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any

from timbred.errors import BadRequest, MissingWeights, ModelError, TimbredError
from timbred.models.embeddings import TensorInputs
from timbred.models.families import (
    FAMILIES,
    MAX_RATE_HZ,
    POCKET,
    Family,
    ReadConfig,
    SoundFacts,
    family_of,
    pocket_sound,
)
from timbred.models.pocket import MAX_WEIGHTS_BYTES, WEIGHTS_NAME, is_pocket, read_card

INDEX_NAME = "model_index.json"

MAX_HEADER_BYTES = 100_000_000
"""Largest header of a safetensors file, as in its own library."""

MAX_CONFIGURATION_BYTES = 32_000_000
"""Largest JSON file that is read: indices of sharded weights are the largest, far below it."""

MAX_LORA_BYTES = 4_000_000_000

PICKLE_BEGINNINGS = (b"\x80", b"PK\x03\x04")
"""Bytes at the beginning of pickles and of torch's archives of them; the header of a safetensors file begins with `{`
after a length of 8 bytes."""

VALUE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
"""Types of tensors that are read, with the bytes of a value."""

_WEIGHT_NAMES = ("diffusion_pytorch_model", "model", "pytorch_model")


@dataclass(frozen=True)
class Checkpoint:
    """A folder that can be loaded.

    Attributes:
        folder: its path.
        family: the declaration of its family.
        classes: the class of each component.
        pickled: the components whose weights are `.bin` files.
        sound: the sounds that it makes, and the defaults for making them.
        weight_bytes: bytes of all weights on disk.
        speaks: True if it renders a transcription as speech.
    """

    folder: Path
    family: Family
    classes: dict[str, str]
    pickled: tuple[str, ...]
    sound: SoundFacts
    weight_bytes: int
    speaks: bool


def inspect(folder: Path, name: str, remedy: str) -> Checkpoint:
    """Inspect a checkpoint folder; `remedy` says how its files can be obtained.

    Raises:
        MissingWeights: a file is missing.
        ModelError: timbred doesn't run the pipeline, or the folder requires its own code.
    """
    if is_pocket(folder):
        return _inspect_pocket(folder, name, remedy)
    index = read_json(folder / INDEX_NAME, name, remedy)
    family = family_in(index, folder, name)
    parts = [part for part, component in family.components.items() if not component.is_optional or _has(index, part)]
    classes = {part: class_of(index, part, name, remedy) for part in parts}
    for part in parts:
        refuse_special_files(folder / part, name, remedy)
        _refuse_code(folder / part, name, remedy)
    weights = {part: weight_files(folder / part, name, remedy) for part in family.weighted if part in classes}
    return Checkpoint(
        folder=folder,
        family=family,
        classes=classes,
        pickled=tuple(part for part, files in weights.items() if files[0].suffix == ".bin"),
        sound=_sound(family, folder, name, remedy),
        weight_bytes=sum(file.stat().st_size for files in weights.values() for file in files),
        speaks=not family.speaking.isdisjoint(classes.values()),
    )


def _inspect_pocket(folder: Path, name: str, remedy: str) -> Checkpoint:
    """Inspect a folder of the family pocket."""
    card, weights = read_card(folder, name, remedy), folder / WEIGHTS_NAME
    if not weights.is_file():
        raise MissingWeights(f"{name}: {weights} is missing; {remedy}")
    size = weights.stat().st_size
    if size > MAX_WEIGHTS_BYTES:
        raise ModelError(
            f"{name}: {weights} has {size / 1e6:.4g} MB, and it may have {MAX_WEIGHTS_BYTES / 1e6:.4g}; {remedy}"
        )
    read_tensor_header(weights)
    return Checkpoint(
        folder=folder,
        family=POCKET,
        classes={
            part: component.classes[0]
            for part, component in POCKET.components.items()
            if not component.is_optional or card.sizes.ear is not None
        },
        pickled=(),
        sound=pocket_sound(vars(card)),
        weight_bytes=size,
        speaks=False,
    )


def _has(index: dict[str, Any], part: str) -> bool:
    """Tell if an index names a class for a component; diffusers writes nulls for one that is left out."""
    return index.get(part) not in (None, [None, None])


def family_in(index: dict[str, Any], folder: Path, name: str) -> Family:
    """Return the family that an index names.

    Raises:
        ModelError: timbred doesn't run it.
    """
    pipeline = index.get("_class_name")
    family = family_of(pipeline)
    if family is None:
        known = " and ".join(family.pipelines[0] for family in FAMILIES)
        raise ModelError(f"{name}: {folder} is a {pipeline!r}; timbred runs {known}")
    return family


def read_json(path: Path, name: str, remedy: str) -> dict[str, Any]:
    """Read a JSON object of bounded size.

    Raises:
        MissingWeights: it is missing or damaged.
        ModelError: it isn't a regular file, or too large.
    """
    try:
        check_regular_file(path, name)
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise MissingWeights(f"{name}: {path} can't be read ({error.strerror}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise MissingWeights(f"{name}: {path} is damaged ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise MissingWeights(f"{name}: {path} is damaged (no object); {remedy}")
    return content


def check_regular_file(path: Path, name: str) -> None:
    """Refuse anything but a regular file of bounded size: reading a pipe or a device would not end.

    Raises:
        ModelError: it is something else, or too large.
    """
    status = path.stat()
    if not S_ISREG(status.st_mode):
        raise ModelError(f"{name}: {path} isn't a regular file; install the model again")
    if status.st_size > MAX_CONFIGURATION_BYTES:
        raise ModelError(
            f"{name}: {path} has {status.st_size / 1e6:.4g} MB, and a configuration may have "
            f"{MAX_CONFIGURATION_BYTES / 1e6:.4g}; install the model again"
        )


def refuse_special_files(folder: Path, name: str, remedy: str) -> None:
    """Refuse pipes and devices in a component's folder, which libraries would open and wait for.

    Raises:
        MissingWeights: the folder can't be read.
        ModelError: it has one.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise MissingWeights(f"{name}: {folder} can't be read ({error.strerror}); {remedy}") from error
    for path in paths:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelError(f"{name}: {path} isn't a regular file; install the model again")


def class_of(index: dict[str, Any], part: str, name: str, remedy: str) -> str:
    """Return the class of a component from the index.

    Raises:
        MissingWeights: the index doesn't name the component.
        ModelError: timbred doesn't run the pipeline, or the class isn't one that the family's component may have.
    """
    family = family_in(index, Path(INDEX_NAME), name)
    match index.get(part):
        case [str(library), str(kind)]:
            pass
        case _:
            raise MissingWeights(f"{name}: {INDEX_NAME} names no {part}; {remedy}")
    classes = family.components[part].classes
    if not classes:
        return kind
    if kind not in classes or library not in ("diffusers", "transformers", *family.libraries):
        raise ModelError(
            f"{name}: its {part} is {library}.{kind}; only {', '.join(classes)} are loaded, never code from a model"
        )
    return kind


def _refuse_code(folder: Path, name: str, remedy: str) -> None:
    for config in ("config.json", "tokenizer_config.json"):
        path = folder / config
        if path.exists() and "auto_map" in read_json(path, name, remedy):
            raise ModelError(f"{name}: {path} requires its own code (auto_map); timbred runs no code from a model")


def weight_files(folder: Path, name: str, remedy: str) -> list[Path]:
    """Return the files with a component's tensors: safetensors before pickled ones; all shards.

    Raises:
        MissingWeights: there are none, or a shard is missing.
    """
    for suffix in ("safetensors", "bin"):
        for stem in _WEIGHT_NAMES:
            single, shards = folder / f"{stem}.{suffix}", folder / f"{stem}.{suffix}.index.json"
            if single.is_file():
                return [single]
            if shards.is_file():
                return _shards(shards, name, remedy)
    raise MissingWeights(f"{name}: {folder} has no weights ({_WEIGHT_NAMES[0]}.safetensors or the like); {remedy}")


def count_values(files: list[Path]) -> int:
    """Return the number of values in these weight files by their headers; a pickled file counts as float32.

    The header: https://github.com/huggingface/safetensors#format.

    Raises:
        ModelError: a header can't be read.
    """
    return sum(file.stat().st_size // 4 if file.suffix == ".bin" else _count_header_values(file) for file in files)


def _count_header_values(file: Path) -> int:
    header, _ = read_tensor_header(file)
    try:
        entries = (entry for name, entry in header.items() if name != "__metadata__")
        return sum(prod(map(int, entry["shape"])) for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} is damaged ({error}); install the model again") from error


def read_tensor_header(file: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, and the offset of the data after it.

    Raises:
        ModelError: it can't be read.
    """
    try:
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"its header is said to be {length} bytes long")
            header = json.loads(content.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} is damaged ({error}); install the model again") from error
    return header, 8 + length


def _shards(index: Path, name: str, remedy: str) -> list[Path]:
    weight_map = read_json(index, name, remedy).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MissingWeights(f"{name}: {index} is damaged (it names no weights); {remedy}")
    paths = [index.parent / file for file in sorted({str(file) for file in weight_map.values()})]
    for path in paths:
        if path.parent != index.parent or not path.is_file():
            raise MissingWeights(f"{name}: {path} is missing; {remedy}")
    return paths


def read_tensor_inputs(checkpoint: Checkpoint, name: str, seconds: float) -> TensorInputs:
    """Return the tensors that a file of embeddings may hold for a checkpoint and a length in seconds.

    Raises:
        MissingWeights, ModelError: a configuration is missing or damaged.
    """
    remedy = "install the model again"
    try:
        return checkpoint.family.read_tensor_inputs(_config_reader(checkpoint.folder, name, remedy), seconds)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = f"the configurations in {checkpoint.folder} are damaged ({error!r})"
        raise MissingWeights(f"{name}: {reason}; {remedy}") from error


def _config_reader(folder: Path, name: str, remedy: str) -> ReadConfig:
    """Return a reader of the components' configurations."""

    def read(part: str) -> dict[str, Any]:
        file = "scheduler_config.json" if part == "scheduler" else "config.json"
        return read_json(folder / part / file, name, remedy)

    return read


def _sound(family: Family, folder: Path, name: str, remedy: str) -> SoundFacts:
    """Return the sounds that a checkpoint makes, from its components' configurations."""
    try:
        sound = family.read_sound(_config_reader(folder, name, remedy))
        if sound.rate > MAX_RATE_HZ:
            raise ValueError(f"a sound of {sound.rate} Hz")
        return sound
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise MissingWeights(f"{name}: the configurations in {folder} are damaged ({error!r}); {remedy}") from error


@dataclass(frozen=True)
class TensorPart:
    """A tensor of a file: its name, type, shape, and bytes `start` to `end` of the data."""

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class TensorHeader:
    """The header of a safetensors file."""

    metadata: dict[str, str]
    tensors: tuple[TensorPart, ...]


def read_lora_header(path: Path) -> tuple[TensorHeader, int]:
    """Read the header of a LoRA's file, and return it with the offset of the data.

    Raises:
        BadRequest: It isn't a safetensors file, is damaged, or has types that aren't read.
        OSError: It can't be read.
    """
    if not path.is_file():
        raise BadRequest(f"lora: {path} isn't a file" if path.exists() else f"lora: there is no file {path}")
    size = path.stat().st_size
    if size > MAX_LORA_BYTES:
        raise BadRequest(f"lora: {path} has {size / 1e6:.4g} MB, a LoRA may have {MAX_LORA_BYTES / 1e6:.4g}")
    with path.open("rb") as content:
        begin = content.read(9)
    if begin.startswith(PICKLE_BEGINNINGS) and not begin.endswith(b"{"):
        raise BadRequest(f"lora: {path} is a pickle, which can run code; only safetensors files are read")
    try:
        raw, data_start = read_tensor_header(path)
        metadata = raw.pop("__metadata__", {})
        tensors = tuple(sorted((_tensor_part(name, entry) for name, entry in raw.items()), key=lambda part: part.start))
        ends = [0, *(part.end for part in tensors)]
        if [part.start for part in tensors] != ends[:-1] or data_start + ends[-1] != size:
            raise ValueError("its tensors don't fill the file")
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata aren't texts")
    except (TimbredError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRequest(f"lora: {path} isn't a safetensors file, or it is damaged ({error})") from error
    return TensorHeader(metadata, tensors), data_start


def _tensor_part(name: str, entry: Any) -> TensorPart:
    kind, shape, (start, end) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
    if kind not in VALUE_BYTES:
        raise ValueError(f"{name} has the type {kind}, and {', '.join(VALUE_BYTES)} are read")
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, start, end)):
        raise ValueError(f"{name} has the shape {shape}")
    if end - start != VALUE_BYTES[kind] * prod(shape):
        raise ValueError(f"{name} has {end - start} bytes")
    return TensorPart(name, kind, shape, start, end)


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
