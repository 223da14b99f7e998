"""LoRAs (arXiv 2106.09685): low-rank additions to a model's denoiser, added, listed and checked without torch.

Each LoRA is one safetensors file in the LoRA folder. It holds two matrices for each layer that it changes,
`LAYER.lora_A.weight` and `LAYER.lora_B.weight`, named as in diffusers, and in its header, under `timbred`, the facts of
`LoraFacts`. Pickles are refused: loading one can run code.
"""

import hashlib
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import isfinite, sqrt
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from timbred.disk import rename_to_free_name
from timbred.errors import BadRequest, TimbredError
from timbred.filenames import comparison_key, name_fault
from timbred.models.checkpoint import Checkpoint, TensorPart, read_lora_header, read_tensor_header, weight_files
from timbred.models.registry import Entry, Registry
from timbred.process_memory import RecentDict

SUFFIX = ".safetensors"
FACTS_KEY = "timbred"
"""Key of the facts in the header's metadata."""

MAX_CACHED_FILES = 256
MAX_RANK = 1024
"""Highest rank: beyond it, an addition is no smaller than the layers that it changes."""

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
"""Endings of the two matrices of a layer: to the low rank, and back."""

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
REMOVING_WORDS = ("", "none")
"""Values of `lora` that name no LoRA."""

CONFIG_NAME = "adapter_config.json"
"""Name of peft's configuration, beside its weights."""

WEIGHT_NAMES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
"""Names of a LoRA's file in a folder as peft and diffusers write it."""

MAX_CONFIG_BYTES = 1_000_000

_PREFIXES = ("base_model.model.", "transformer.", "unet.")
_ENDINGS = {
    ".lora_A.weight": DOWN,
    ".lora_B.weight": UP,
    ".lora_A.default.weight": DOWN,
    ".lora_B.default.weight": UP,
    ".lora.down.weight": DOWN,
    ".lora.up.weight": UP,
    ".lora_down.weight": DOWN,
    ".lora_up.weight": UP,
}
_CHUNK_BYTES = 1 << 24

LoraState = Literal["available", "missing", "invalid"]
"""`missing`: its model isn't installed; `invalid`: it can't be used."""

Shape = tuple[int, ...]


class LoraFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that timbred records in a LoRA's file.

    Attributes:
        model: Name of the model that it was made for.
        licence: Its licence.
        hash: SHA-256 of the tensors' bytes.
        scales: Factor of each layer's addition: alpha divided by the rank.
    """

    model: str
    licence: str
    hash: str
    scales: dict[str, float]


@dataclass(frozen=True)
class LoraFile:
    """An inspected file of the LoRA folder.

    Attributes:
        name: Its name in requests.
        path: Its path.
        facts: What timbred recorded in it.
        shapes: Shapes of all tensors by name.
    """

    name: str
    path: Path
    facts: LoraFacts
    shapes: dict[str, Shape]

    @property
    def rank(self) -> int:
        """The highest rank of its layers."""
        return max(shape[0] for name, shape in self.shapes.items() if name.endswith(DOWN))


@dataclass(frozen=True)
class LoraEntry:
    """A file of the LoRA folder as it is listed; `remark` says why it can't be used."""

    name: str
    model: str
    rank: int
    licence: str
    state: LoraState
    path: Path
    remark: str = ""


FileIdentity = tuple[str, int, int, int]


def _identity(path: Path) -> FileIdentity:
    status = path.stat()
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns


@dataclass
class LoraRegistry:
    """All LoRAs of a folder, which is read at each request: files may be added while the daemon runs.

    Attributes:
        folder: The LoRA folder.
        models: The models.
    """

    folder: Path
    models: Registry
    _files: RecentDict[FileIdentity, LoraFile] = field(
        default_factory=lambda: RecentDict[FileIdentity, LoraFile](MAX_CACHED_FILES)
    )
    _fitting: RecentDict[tuple[object, ...], bool] = field(
        default_factory=lambda: RecentDict[tuple[object, ...], bool](MAX_CACHED_FILES)
    )
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def paths(self) -> dict[str, Path]:
        """Return the files by name, in alphabetical order."""
        try:
            paths = sorted(self.folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        names = {path.name.removesuffix(SUFFIX): path for path in paths if path.suffix == SUFFIX}
        return {name: path for name, path in names.items() if NAME_PATTERN.fullmatch(name)}

    def find(self, name: str) -> LoraFile:
        """Return a LoRA.

        Raises:
            BadRequest: None has this name, or its file can't be used.
        """
        paths = self.paths()
        if name not in paths:
            known = ", ".join(paths) or "none; add one with: timbred loras pull NAME --from FILE"
            raise BadRequest(f"lora: there is no LoRA {name!r}; there are {known}")
        path = paths[name]
        try:
            key = _identity(path)
            with self._lock:
                lora = self._files.get(key)
                if lora is None:
                    lora = self._files[key] = inspect_lora(path)
        except OSError as error:
            raise BadRequest(f"lora: {path} can't be read ({error.strerror})") from error
        return lora

    def check_model(self, lora: LoraFile, entry: Entry) -> None:
        """Check that a LoRA was made for a model, and fits it.

        Raises:
            BadRequest: It was made for another model, or a shape differs.
            MissingWeights, ModelError: The model's files can't be read.
        """
        other = self.models.entries.get(lora.facts.model)
        if lora.facts.model != entry.card.name and (other is None or other.folder != entry.folder):
            raise BadRequest(
                f"lora: {lora.name} was made for the model {lora.facts.model}, not {entry.card.name}; "
                f"use it with @model {lora.facts.model}"
            )
        checkpoint = entry.checkpoint()
        files = denoiser_files(checkpoint, entry)
        if any(file.suffix != SUFFIX for file in files):
            return  # shapes of pickled weights are known once they are loaded; the engine checks them
        key = (_identity(lora.path), tuple(map(_identity, files)))
        with self._lock:
            if key not in self._fitting:
                check_fit(lora.shapes, denoiser_shapes(checkpoint, entry), lora.name, entry.card.name)
                self._fitting[key] = True

    def entries(self) -> list[LoraEntry]:
        """List all files of the folder, each with its state."""
        return [self._entry(name, path) for name, path in self.paths().items()]

    def _entry(self, name: str, path: Path) -> LoraEntry:
        try:
            lora = self.find(name)
        except BadRequest as error:
            return LoraEntry(name, "", 0, "unknown", "invalid", path, _without_key(error))
        state, remark = self._state(lora)
        return LoraEntry(name, lora.facts.model, lora.rank, lora.facts.licence, state, path, remark)

    def _state(self, lora: LoraFile) -> tuple[LoraState, str]:
        """Return a LoRA's state, and the reason why it can't be used."""
        entry = self.models.entries.get(lora.facts.model)
        if entry is None:
            return "missing", f"there is no model {lora.facts.model}"
        try:
            self.check_model(lora, entry)
        except BadRequest as error:
            return "invalid", _without_key(error)
        except TimbredError as error:
            return "missing", str(error)
        return "available", ""


def _without_key(error: TimbredError) -> str:
    return str(error).removeprefix("lora: ")


def inspect_lora(path: Path) -> LoraFile:
    """Inspect a file of the LoRA folder by its header.

    Raises:
        BadRequest: It isn't a LoRA that timbred added.
        OSError: It can't be read.
    """
    name = path.name.removesuffix(SUFFIX)
    header, _ = read_lora_header(path)
    raw = header.metadata.get(FACTS_KEY)
    if raw is None:
        raise BadRequest(f"lora: {path} wasn't added by timbred; add it with: timbred loras pull {name} --from {path}")
    try:
        facts = msgspec.json.decode(raw, type=LoraFacts)
    except msgspec.DecodeError as error:
        raise BadRequest(f"lora: {path} is damaged ({error}); add it again") from error
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    layers = check_pairs(shapes, path)
    if set(facts.scales) != set(layers) or not all(map(isfinite, facts.scales.values())):
        raise BadRequest(f"lora: {path} is damaged (its scales aren't those of its layers); add it again")
    return LoraFile(name, path, facts, shapes)


def denoiser_files(checkpoint: Checkpoint, entry: Entry) -> list[Path]:
    """Return the weight files of a model's denoiser."""
    part = checkpoint.family.stage_parts("denoiser")[0]
    return weight_files(checkpoint.folder / part, entry.card.name, entry.remedy)


def denoiser_shapes(checkpoint: Checkpoint, entry: Entry) -> dict[str, Shape]:
    """Return the shapes of a denoiser's tensors by name.

    Raises:
        BadRequest: Its weights are pickled, so that they can't be read without running code.
        ModelError: A file is damaged.
    """
    shapes: dict[str, Shape] = {}
    for file in denoiser_files(checkpoint, entry):
        if file.suffix != SUFFIX:
            name = entry.card.name
            raise BadRequest(f"{name} has .bin weights; convert them once: timbred models convert {name}")
        header, _ = read_tensor_header(file)
        shapes.update({name: tuple(map(int, tensor["shape"])) for name, tensor in header.items()
                       if name != "__metadata__"})  # fmt: skip
    return shapes


def check_fit(shapes: Mapping[str, Shape], weights: Mapping[str, Shape], name: str, model: str) -> None:
    """Check that each matrix of a LoRA fits the layer that it changes.

    Args:
        shapes: Shapes of the LoRA's tensors.
        weights: Shapes of the denoiser's tensors.
        name: The LoRA's name.
        model: The model's name.

    Raises:
        BadRequest: The model has no such layer, or another one.
    """
    for layer in (tensor.removesuffix(DOWN) for tensor in shapes if tensor.endswith(DOWN)):
        weight = weights.get(f"{layer}.weight")
        if weight is None:
            raise BadRequest(f"lora: {name} doesn't fit {model}, which has no layer {layer!r}")
        down, up = shapes[layer + DOWN], shapes[layer + UP]
        if len(weight) < 2 or down[1:] != weight[1:] or up != (weight[0], down[0], *(1,) * (len(weight) - 2)):
            raise BadRequest(
                f"lora: {name} doesn't fit {model}: for the layer {layer}, of shape {_shown(weight)}, it has matrices "
                f"of {_shown(down)} and {_shown(up)}"
            )


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape))


def check_pairs(shapes: Mapping[str, Shape], path: Path) -> list[str]:
    """Return the layers of a LoRA in canonical names.

    Raises:
        BadRequest: A tensor belongs to no pair, or the two of a pair don't fit each other.
    """
    layers = [name.removesuffix(DOWN) for name in shapes if name.endswith(DOWN)]
    odd = next((name for name in shapes if not name.endswith((DOWN, UP))), None)
    missing = next((layer for layer in layers if layer + UP not in shapes), None)
    if odd is not None or missing is not None or not layers or len(shapes) != 2 * len(layers):
        problem = repr(odd) if odd is not None else f"the pair of {missing!r}" if missing else "no pair of matrices"
        raise BadRequest(f"lora: {path} isn't a LoRA that timbred reads: {problem}")
    for layer in layers:
        down, up = shapes[layer + DOWN], shapes[layer + UP]
        if len(down) < 2 or len(up) != len(down) or up[1] != down[0] or not 1 <= down[0] <= MAX_RANK:
            raise BadRequest(
                f"lora: {path}: the matrices of {layer} have the shapes {_shown(down)} and {_shown(up)}; the first "
                f"dimension of one and the second of the other must be the rank, 1 to {MAX_RANK}"
            )
    return layers


def check_lora_name(name: str, registry: LoraRegistry) -> None:
    """Check that a new LoRA may have a name.

    Raises:
        BadRequest: It can't be a file's name, or another LoRA has it.
    """
    if not NAME_PATTERN.fullmatch(name) or name in REMOVING_WORDS:
        raise BadRequest(f"{name!r} isn't a valid name of a LoRA: use 1 to 100 letters, digits, dots and dashes")
    if fault := name_fault(name):
        raise BadRequest(f"{fault}: choose another name for the LoRA")
    for other in registry.paths():
        if other != name and comparison_key(other) == comparison_key(name):
            raise BadRequest(f"{name!r} is the same file as {other!r} on some systems: choose another name")


@dataclass(frozen=True)
class ForeignLora:
    """A file in the layout of peft, diffusers or timbred, in canonical names.

    Attributes:
        path: Its path.
        data_start: Offset of the data.
        tensors: Its matrices.
        scales: Factor of each layer's addition.
        base: The model that it names: timbred's name, or a hub id; empty if it names none.
        facts: timbred's own record, if it has one.
    """

    path: Path
    data_start: int
    tensors: tuple[TensorPart, ...]
    scales: dict[str, float]
    base: str
    facts: LoraFacts | None

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shapes of all tensors by name."""
        return {tensor.name: tensor.shape for tensor in self.tensors}


def read_foreign(source: Path) -> ForeignLora:
    """Read the header of a LoRA to be added: a file, or a folder as peft and diffusers write it.

    Raises:
        BadRequest: It isn't a LoRA that timbred reads.
        OSError: It can't be read.
    """
    path = next((source / name for name in WEIGHT_NAMES if (source / name).is_file()), source)
    if path.is_dir():
        raise BadRequest(f"lora: {path} is a folder without {' or '.join(WEIGHT_NAMES)}")
    header, data_start = read_lora_header(path)
    tensors = _canonical(header.tensors, path)
    layers = check_pairs({tensor.name: tensor.shape for tensor in tensors}, path)
    raw_facts = header.metadata.get(FACTS_KEY)
    if raw_facts is not None:
        facts = inspect_lora(path).facts
        return ForeignLora(path, data_start, tensors, facts.scales, facts.model, facts)
    config = _adapter_config(header.metadata, path)
    ranks = {tensor.name.removesuffix(DOWN): tensor.shape[0] for tensor in tensors if tensor.name.endswith(DOWN)}
    scales = {layer: _scale(config, layer, ranks[layer], path) for layer in layers}
    return ForeignLora(path, data_start, tensors, scales, str(config.get("base_model_name_or_path") or ""), None)


def _canonical(tensors: Sequence[TensorPart], path: Path) -> tuple[TensorPart, ...]:
    """Rename tensors to `LAYER.lora_A.weight` and `LAYER.lora_B.weight`."""
    renamed: dict[str, TensorPart] = {}
    for tensor in tensors:
        ending = next((ending for ending in _ENDINGS if tensor.name.endswith(ending)), None)
        if ending is None:
            raise BadRequest(f"lora: {path} isn't a LoRA that timbred reads: it has a tensor {tensor.name[:120]!r}")
        layer = tensor.name.removesuffix(ending)
        for prefix in _PREFIXES:
            layer = layer.removeprefix(prefix)
        name = layer + _ENDINGS[ending]
        if name in renamed:
            raise BadRequest(f"lora: {path} has two tensors for {name}")
        renamed[name] = replace(tensor, name=name)
    return tuple(renamed.values())


def _adapter_config(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return peft's configuration: from the file beside it, or from the metadata, where diffusers puts it."""
    beside = path.with_name(CONFIG_NAME)
    embedded = metadata.get("lora_adapter_metadata")
    try:
        if embedded is not None:
            nested = json.loads(embedded)
            config: Any = {key.rpartition("transformer.")[2].rpartition("unet.")[2]: value
                           for key, value in nested.items()}  # fmt: skip
        elif beside.is_file():
            if beside.stat().st_size > MAX_CONFIG_BYTES:
                raise ValueError(f"it has more than {MAX_CONFIG_BYTES} bytes")
            config = json.loads(beside.read_text("utf-8"))
        else:
            return {}
        if not isinstance(config, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError, AttributeError) as error:
        raise BadRequest(f"lora: the configuration of {path} can't be read ({error})") from error
    kind = config.get("peft_type", "LORA")
    for key in ("use_dora", "modules_to_save", "layer_replication"):
        if config.get(key):
            raise BadRequest(f"lora: {path} uses {key} of peft; timbred adds plain LoRAs only")
    if kind != "LORA" or config.get("bias", "none") != "none":
        raise BadRequest(f"lora: {path} is a {kind} with bias {config.get('bias')}; timbred adds plain LoRAs only")
    return config


def _scale(config: Mapping[str, Any], layer: str, rank: int, path: Path) -> float:
    """Return the factor of a layer's addition, 1 without a configuration."""
    try:
        patterns = dict(config.get("alpha_pattern") or {})
        alpha = next((value for key, value in patterns.items() if layer == key or layer.endswith(f".{key}")), None)
        alpha = float(config.get("lora_alpha", rank) if alpha is None else alpha)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"lora: the configuration of {path} can't be read ({error})") from error
    if not isfinite(alpha):
        raise BadRequest(f"lora: the configuration of {path} has the alpha {alpha}")
    return alpha / (sqrt(rank) if config.get("use_rslora") else rank)


def add(source: Path, name: str, registry: LoraRegistry, model: str = "", licence: str = "") -> LoraFile:
    """Copy a LoRA into the folder.

    Args:
        source: Its file, or a folder as peft and diffusers write it.
        name: Its name in requests.
        registry: The LoRA folder and the models.
        model: The model that it was made for; empty for the one that it names or the only one that it fits.
        licence: Its licence; empty for the recorded one.

    Raises:
        BadRequest: It can't be used, or another LoRA has this name.
        UnknownModel: There is no such model.
        OSError: It can't be read or written.
    """
    check_lora_name(name, registry)
    foreign = read_foreign(source)
    entry = _model_of(foreign, name, registry.models, model)
    check_fit(foreign.shapes, denoiser_shapes(entry.checkpoint(), entry), name, entry.card.name)
    with foreign.path.open("rb") as content:
        digest = _check_values(foreign, content)
        before = foreign.facts
        facts = LoraFacts(
            model=entry.card.name,
            licence=licence or (before.licence if before else "unknown"),
            hash=digest,
            scales=foreign.scales,
        )
        target = registry.folder / f"{name}{SUFFIX}"
        registry.folder.mkdir(parents=True, exist_ok=True)
        partial = registry.folder / f".{name}.partial"
        try:
            _write_copy(partial, foreign, facts, content)
        except OSError as error:
            partial.unlink(missing_ok=True)
            error.filename = error.filename or str(target)
            raise
    install_lora(partial, target)
    return registry.find(name)


def _write_copy(target: Path, foreign: ForeignLora, facts: LoraFacts, content: Any) -> None:
    """Write a LoRA with its facts; `content` is its own file, from which the matrices are copied."""
    with target.open("wb") as file:
        file.write(_encode_header(foreign.tensors, facts))
        for tensor in foreign.tensors:
            content.seek(foreign.data_start + tensor.start)
            remaining = tensor.end - tensor.start
            while chunk := content.read(min(remaining, _CHUNK_BYTES)):
                file.write(chunk)
                remaining -= len(chunk)


def install_lora(partial: Path, target: Path) -> None:
    """Rename a complete file to its final name; the same LoRA there already is fine.

    Raises:
        BadRequest: Another LoRA has this name.
        OSError: From the file system.
    """
    try:
        rename_to_free_name(partial, target)
    except FileExistsError:
        same = partial.read_bytes() == target.read_bytes()
        partial.unlink()
        if not same:
            name = target.name.removesuffix(SUFFIX)
            raise BadRequest(
                f"there is another LoRA {name} already, and recipes may name it; choose another name, or delete "
                f"{target}"
            ) from None


def _model_of(foreign: ForeignLora, name: str, models: Registry, wanted: str) -> Entry:
    """Return the model that a LoRA was made for."""
    if wanted:
        if "lora" not in models[wanted].card.capabilities:
            raise BadRequest(f"lora: {wanted} can't use LoRAs; name the model that {name} was made for with --model")
        return models[wanted]
    named = [entry for entry in models.entries.values() if foreign.base in (entry.card.name, entry.card.source or None)]
    if named:
        return named[0]
    fitting = [entry for entry in models.entries.values() if _fits(foreign, entry)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        first = next(iter(foreign.shapes)).removesuffix(DOWN).removesuffix(UP)
        raise BadRequest(
            f"lora: {name} fits none of the installed models (it changes {first}, ...); install its model first, or "
            "name it with --model to see the difference"
        )
    names = ", ".join(entry.card.name for entry in fitting)
    raise BadRequest(f"lora: {name} fits {names}; say which it was made for with --model")


def _fits(foreign: ForeignLora, entry: Entry) -> bool:
    try:
        check_fit(foreign.shapes, denoiser_shapes(entry.checkpoint(), entry), "", entry.card.name)
    except TimbredError:
        return False
    return True


def _check_values(foreign: ForeignLora, content: Any) -> str:
    """Return the hash of the tensors' bytes, in the order of the file that is written.

    Raises:
        BadRequest: A value isn't finite.
    """
    digest = hashlib.sha256()
    for tensor in foreign.tensors:
        content.seek(foreign.data_start + tensor.start)
        data = content.read(tensor.end - tensor.start)
        if not _is_finite(data, tensor.kind):
            raise BadRequest(f"lora: {foreign.path} has values in {tensor.name} that are not finite numbers")
        digest.update(data)
    return digest.hexdigest()


def _is_finite(data: bytes, kind: str) -> bool:
    """Tell if all values are finite: their exponents aren't all ones."""
    if kind == "BF16":
        return bool(np.all(np.frombuffer(data, "<u2") & 0x7F80 != 0x7F80))
    return bool(np.isfinite(np.frombuffer(data, "<f4" if kind == "F32" else "<f2")).all())


def _encode_header(tensors: Sequence[TensorPart], facts: LoraFacts) -> bytes:
    """Return the header of a file with these tensors in this order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", FACTS_KEY: msgspec.json.encode(facts).decode()}}
    offsets = [0]
    for tensor in tensors:
        offsets.append(offsets[-1] + tensor.end - tensor.start)
    for tensor, (start, end) in zip(tensors, pairwise(offsets), strict=True):
        header[tensor.name] = {"dtype": tensor.kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded
