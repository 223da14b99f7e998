"""Inspection of a checkpoint folder in diffusers' format, without loading it: is it complete, and may it be loaded?

Only the JSON files are read. Tensors are loaded only from weight files, and only the classes listed here: a folder that
brings its own code is refused.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from stat import S_ISREG
from typing import Any

from timbred.errors import MissingWeights, ModelError

INDEX = "model_index.json"

MAX_HEADER_BYTES = 100_000_000
"""Largest header of a safetensors file, as in its own library."""

MAX_CONFIGURATION_BYTES = 32_000_000
"""Largest JSON file that is read: indices of sharded weights are the largest, far below it."""

MAX_RATE_HZ = 1_000_000
"""Highest sample rate of a vocoder."""

FAMILIES: dict[str, str] = {"AudioLDM2Pipeline": "audioldm2", "AudioLDMPipeline": "audioldm"}
"""The pipelines that timbred runs, and its names for their families."""

VOCODER = "timbred.engine.codecs.spectral_vocoder"
"""The library name of timbred's own vocoder in an index."""

COMPONENTS_BY_FAMILY: dict[str, tuple[str, ...]] = {
    "audioldm2": (
        "vae", "text_encoder", "text_encoder_2", "projection_model", "language_model", "tokenizer", "tokenizer_2",
        "feature_extractor", "unet", "scheduler", "vocoder",
    ),
    "audioldm": ("vae", "text_encoder", "tokenizer", "unet", "scheduler", "vocoder"),
}  # fmt: skip
"""The components of each family's pipeline."""

CLASSES: dict[str, tuple[str, ...]] = {
    "vae": ("AutoencoderKL",),
    "text_encoder": ("ClapModel", "ClapTextModelWithProjection"),
    "text_encoder_2": ("T5EncoderModel", "VitsModel"),
    "projection_model": ("AudioLDM2ProjectionModel",),
    "language_model": ("GPT2Model", "GPT2LMHeadModel"),
    "tokenizer": ("RobertaTokenizer", "RobertaTokenizerFast", "PreTrainedTokenizerFast"),
    "tokenizer_2": ("T5Tokenizer", "T5TokenizerFast", "VitsTokenizer", "PreTrainedTokenizerFast"),
    "feature_extractor": ("ClapFeatureExtractor",),
    "unet": ("AudioLDM2UNet2DConditionModel", "UNet2DConditionModel"),
    "vocoder": ("SpeechT5HifiGan", "SpectralVocoder"),
}
"""The classes that each component may have. Any scheduler is accepted, as its class isn't used."""

COMPONENTS_WITH_WEIGHTS = (
    "vae",
    "text_encoder",
    "text_encoder_2",
    "projection_model",
    "language_model",
    "unet",
    "vocoder",
)
"""The components that have weights."""
_WEIGHT_NAMES = ("diffusion_pytorch_model", "model", "pytorch_model")


@dataclass(frozen=True)
class Checkpoint:
    """A folder that can be loaded.

    Attributes:
        folder: its path.
        family: timbred's name for the pipeline.
        classes: the class of each component.
        pickled: the components whose weights are `.bin` files.
        native_rate: in Hz.
        trained_seconds: the length that the denoiser was trained for.
        weight_bytes: bytes of all weights on disk.
        speaks: True if it renders a transcription as speech.
    """

    folder: Path
    family: str
    classes: dict[str, str]
    pickled: tuple[str, ...]
    native_rate: int
    trained_seconds: float
    weight_bytes: int
    speaks: bool


def inspect(folder: Path, name: str, remedy: str) -> Checkpoint:
    """Inspect a checkpoint folder; `remedy` says how its files can be obtained.

    Raises:
        MissingWeights: a file is missing.
        ModelError: timbred doesn't run the pipeline, or the folder asks for its own code.
    """
    index = read_json(folder / INDEX, name, remedy)
    family = FAMILIES.get(str(index.get("_class_name")))
    if family is None:
        raise ModelError(f"{name}: {folder} is a {index.get('_class_name')!r}; timbred runs {' and '.join(FAMILIES)}")
    classes = {part: class_of(index, part, name, remedy) for part in COMPONENTS_BY_FAMILY[family]}
    for part in COMPONENTS_BY_FAMILY[family]:
        _check_component_files(folder / part, name, remedy)
        _refuse_code(folder / part, name, remedy)
    weights = {
        part: weight_files(folder / part, name, remedy)
        for part in COMPONENTS_BY_FAMILY[family]
        if part in COMPONENTS_WITH_WEIGHTS
    }
    rate, trained = _lengths(folder, name, remedy)
    return Checkpoint(
        folder=folder,
        family=family,
        classes=classes,
        pickled=tuple(part for part, files in weights.items() if files[0].suffix == ".bin"),
        native_rate=rate,
        trained_seconds=trained,
        weight_bytes=sum(file.stat().st_size for files in weights.values() for file in files),
        speaks=classes.get("text_encoder_2") == "VitsModel",
    )


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


def _check_component_files(folder: Path, name: str, remedy: str) -> None:
    """Refuse pipes and devices in a component's folder, which libraries would open and wait for."""
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
        ModelError: the class isn't one of `CLASSES`.
    """
    match index.get(part):
        case [str(library), str(kind)]:
            pass
        case _:
            raise MissingWeights(f"{name}: {INDEX} names no {part}; {remedy}")
    if part == "scheduler":
        return kind
    libraries = ("diffusers", "transformers", "audioldm2", VOCODER)
    if kind not in CLASSES[part] or library not in libraries:
        raise ModelError(
            f"{name}: its {part} is {library}.{kind}; only {', '.join(CLASSES[part])} are loaded, "
            "never code from a model"
        )
    return kind


def _refuse_code(folder: Path, name: str, remedy: str) -> None:
    for config in ("config.json", "tokenizer_config.json"):
        path = folder / config
        if path.exists() and "auto_map" in read_json(path, name, remedy):
            raise ModelError(f"{name}: {path} asks for its own code (auto_map); timbred runs no code from a model")


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
    try:
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"its header is said to be {length} bytes long")
            header = json.loads(content.read(length))
        entries = (entry for name, entry in header.items() if name != "__metadata__")
        return sum(prod(map(int, entry["shape"])) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} is damaged ({error}); install the model again") from error


def _shards(index: Path, name: str, remedy: str) -> list[Path]:
    weight_map = read_json(index, name, remedy).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MissingWeights(f"{name}: {index} is damaged (it names no weights); {remedy}")
    paths = [index.parent / file for file in sorted({str(file) for file in weight_map.values()})]
    for path in paths:
        if path.parent != index.parent or not path.is_file():
            raise MissingWeights(f"{name}: {path} is missing; {remedy}")
    return paths


def _lengths(folder: Path, name: str, remedy: str) -> tuple[int, float]:
    """Return the native rate in Hz, and the length that the UNet was trained for in seconds."""
    vocoder = read_json(folder / "vocoder" / "config.json", name, remedy)
    vae = read_json(folder / "vae" / "config.json", name, remedy)
    unet = read_json(folder / "unet" / "config.json", name, remedy)
    try:
        rate = int(vocoder["sampling_rate"])
        hop = 1
        for factor in vocoder["upsample_rates"]:
            hop *= int(factor)
        rows = int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
        if min(rate, hop, rows) < 1 or rate > MAX_RATE_HZ:
            raise ValueError(f"a sound of {rate} Hz in steps of {hop} samples")
        return rate, rows * hop / rate
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise MissingWeights(f"{name}: the configurations in {folder} are damaged ({error!r}); {remedy}") from error
