"""CLAP (arXiv 2211.06687) as a component of its own, without torch: its folder, and the checks of its files.

It compares sounds with words and with other sounds, and renders none. The folder is laid out as the published one: the
configuration and the weights of transformers' `ClapModel`, its feature extractor's configuration, and its tokenizer.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timbred.errors import BadRequest, MissingWeights, ModelError, TimbredError
from timbred.models.checkpoint import read_json, read_tensor_header, refuse_special_files, weight_files

CLAP_NAME = "clap"
"""Name of the component; no model can have it."""

CLAP_SOURCE = "laion/clap-htsat-unfused"
CLAP_LICENCE = "Apache-2.0"
CLAP_TASK = "component: ranks takes and finds similar ones"

ADD_CLAP = f"add it with: timbred models pull {CLAP_NAME}"
"""Remedy for requests that need the component."""

CONFIG_NAME = "config.json"
EXTRACTOR_NAMES = ("preprocessor_config.json", "processor_config.json")
"""Files with the feature extractor's configuration: of its own, or of the processor, which has it as an object."""

TOKENIZER_NAMES = ("tokenizer.json", "vocab.json")

DEFAULT_TEXT_SIZES = {"vocab_size": 50265, "hidden_size": 768}
DEFAULT_AUDIO_SIZES = {"hidden_size": 768, "num_mel_bins": 64}
DEFAULT_DIMENSIONS = 512
"""Sizes that transformers assumes where a configuration names none."""

MAX_SIZE = 1_000_000
"""Largest size in a configuration: that of a vocabulary, of which the published ones have a twentieth."""

RATE_RANGE_HZ = (8_000, 192_000)
MAX_WINDOW_SECONDS = 60.0
"""Longest sound that is encoded at once; published ones have 10 s."""


@dataclass(frozen=True)
class ClapFolder:
    """A folder that can be loaded.

    Attributes:
        folder: Its path.
        files: The configuration and the weight files.
        rate: Sample rate of the sounds that it encodes, in Hz.
        weight_bytes: Bytes of the weights on disk.
    """

    folder: Path
    files: tuple[Path, ...]
    rate: int
    weight_bytes: int


def is_clap(folder: Path) -> bool:
    """Tell if a folder's configuration is a CLAP's."""
    try:
        return read_json(folder / CONFIG_NAME, CLAP_NAME, "").get("model_type") == "clap"
    except TimbredError:
        return False


def inspect(folder: Path, remedy: str) -> ClapFolder:
    """Inspect a folder without loading it; `remedy` says how its files can be obtained.

    Raises:
        MissingWeights: A file is missing or damaged.
        ModelError: It isn't a CLAP that can be run, or requires its own code, or its weights don't fit.
    """
    config = read_json(folder / CONFIG_NAME, CLAP_NAME, remedy)
    if config.get("model_type") != "clap":
        raise ModelError(
            f"{CLAP_NAME}: {folder} is a {config.get('model_type')!r}; a CLAP as {CLAP_SOURCE} is needed; {remedy}"
        )
    refuse_special_files(folder, CLAP_NAME, remedy)
    text, audio = _object(config, "text_config", remedy), _object(config, "audio_config", remedy)
    for part in (config, text, audio):
        _refuse_code(part, folder / CONFIG_NAME)
    if audio.get("enable_fusion"):
        raise ModelError(
            f"{CLAP_NAME}: {folder} is a fused CLAP (enable_fusion); only an unfused one is run, as {CLAP_SOURCE}"
        )
    shapes = _expected_shapes(config, text, audio, remedy)
    bands = shapes["audio_model.audio_encoder.batch_norm.weight"][0]
    rate = _check_extractor(_extractor(folder, remedy), bands, folder, remedy)
    _check_tokenizer(folder, remedy)
    weights = _safetensors(folder, remedy)
    _check_shapes(weights, shapes, folder, remedy)
    size = sum(file.stat().st_size for file in weights)
    return ClapFolder(folder, (folder / CONFIG_NAME, *weights), rate, size)


def _object(config: dict[str, Any], key: str, remedy: str) -> dict[str, Any]:
    part = config.get(key, {})
    if not isinstance(part, dict):
        raise MissingWeights(f"{CLAP_NAME}: the {key} in {CONFIG_NAME} is damaged (no object); {remedy}")
    return part


def _refuse_code(config: dict[str, Any], path: Path) -> None:
    if "auto_map" in config:
        raise ModelError(f"{CLAP_NAME}: {path} requires its own code (auto_map); timbred runs no code from a model")


def _size(config: dict[str, Any], key: str, default: int, remedy: str) -> int:
    size = config.get(key, default)
    if not isinstance(size, int) or not 0 < size <= MAX_SIZE:
        raise MissingWeights(f"{CLAP_NAME}: {key} in {CONFIG_NAME} is {size!r}, it should be 1 to {MAX_SIZE}; {remedy}")
    return size


def _expected_shapes(
    config: dict[str, Any], text: dict[str, Any], audio: dict[str, Any], remedy: str
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that the sizes in a configuration determine."""
    dimensions = _size(config, "projection_dim", DEFAULT_DIMENSIONS, remedy)
    words, width = (_size(text, key, default, remedy) for key, default in DEFAULT_TEXT_SIZES.items())
    audio_width, bands = (_size(audio, key, default, remedy) for key, default in DEFAULT_AUDIO_SIZES.items())
    return {
        "text_model.embeddings.word_embeddings.weight": (words, width),
        "text_projection.linear1.weight": (dimensions, width),
        "text_projection.linear2.weight": (dimensions, dimensions),
        "audio_projection.linear1.weight": (dimensions, audio_width),
        "audio_projection.linear2.weight": (dimensions, dimensions),
        "audio_model.audio_encoder.batch_norm.weight": (bands,),
    }


def _extractor(folder: Path, remedy: str) -> dict[str, Any]:
    """Return the configuration of the feature extractor."""
    own, shared = (folder / name for name in EXTRACTOR_NAMES)
    config = read_json(own, CLAP_NAME, remedy) if own.exists() or not shared.exists() else None
    if config is None:
        config = _object(read_json(shared, CLAP_NAME, remedy), "feature_extractor", remedy)
    _refuse_code(config, folder)
    return config


def _check_extractor(config: dict[str, Any], bands: int, folder: Path, remedy: str) -> int:
    """Check the configuration of the feature extractor; returns its sample rate."""
    kind, truncation = config.get("feature_extractor_type"), config.get("truncation")
    if kind != "ClapFeatureExtractor" or truncation != "rand_trunc":
        raise ModelError(
            f"{CLAP_NAME}: the feature extractor in {folder} is a {kind!r} with truncation {truncation!r}; "
            f"a ClapFeatureExtractor with 'rand_trunc' is needed, as in {CLAP_SOURCE}"
        )
    keys = ("sampling_rate", "feature_size", "nb_max_samples", "hop_length")
    numbers = {key: config.get(key) for key in keys}
    low, high = RATE_RANGE_HZ
    match tuple(numbers.values()):
        case int(rate), int(size), int(frames), int(hop):
            fits = low <= rate <= high and size == bands and 0 < hop <= frames <= MAX_WINDOW_SECONDS * rate
        case _:
            rate, fits = 0, False
    if not fits:
        raise MissingWeights(
            f"{CLAP_NAME}: the feature extractor in {folder} doesn't fit its {CONFIG_NAME} with {bands} bands "
            f"({', '.join(f'{key} {value!r}' for key, value in numbers.items())}); {remedy}"
        )
    return rate


def _check_tokenizer(folder: Path, remedy: str) -> None:
    if not any((folder / name).is_file() for name in TOKENIZER_NAMES):
        raise MissingWeights(f"{CLAP_NAME}: {folder} has no tokenizer ({' or '.join(TOKENIZER_NAMES)}); {remedy}")
    for name in TOKENIZER_NAMES:
        if (folder / name).exists():
            read_json(folder / name, CLAP_NAME, remedy)
    settings = folder / "tokenizer_config.json"
    if settings.exists():
        _refuse_code(read_json(settings, CLAP_NAME, remedy), settings)


def _safetensors(folder: Path, remedy: str) -> list[Path]:
    files = weight_files(folder, CLAP_NAME, remedy)
    if files[0].suffix != ".safetensors":
        raise ModelError(
            f"{CLAP_NAME}: {files[0]} is a pickle, which can run code; only safetensors are read. "
            f"Get a copy that has a model.safetensors, then: timbred models pull {CLAP_NAME} --from FOLDER"
        )
    return files


def _check_shapes(files: list[Path], shapes: dict[str, tuple[int, ...]], folder: Path, remedy: str) -> None:
    """Compare the shapes of tensors with those that the configuration determines."""
    tensors: dict[str, Any] = {}
    for file in files:
        tensors |= read_tensor_header(file)[0]
    for name, expected in shapes.items():
        entry = tensors.get(name)
        if not isinstance(entry, dict):
            raise MissingWeights(f"{CLAP_NAME}: the weights in {folder} have no {name}; {remedy}")
        if entry.get("shape") != list(expected):
            raise ModelError(
                f"{CLAP_NAME}: {name} in {folder} has the shape {entry.get('shape')}, "
                f"{CONFIG_NAME} says {list(expected)}; {remedy}"
            )


@dataclass(eq=False)
class ClapEntry:
    """The component as the registry has it; the folder may be missing.

    Attributes:
        folder: Its folder.
        source: A hub id or a folder.
        remedy: How its files can be obtained.
    """

    folder: Path
    source: str
    remedy: str
    _checked: tuple[object, bool] = field(default=(None, False), init=False, repr=False)

    def inspect(self) -> ClapFolder:
        """Inspect the folder as it is now.

        Raises:
            MissingWeights, ModelError: It can't be loaded; the message says why.
        """
        return inspect(self.folder, self.remedy)

    @property
    def is_installed(self) -> bool:
        """True if the folder can be loaded; it is inspected again once files were added to it or removed."""
        try:
            status = self.folder.stat()
        except OSError:
            return False
        state = (status.st_ino, status.st_mtime_ns)
        if self._checked[0] != state:
            self._checked = (state, self._is_valid())
        return self._checked[1]

    def _is_valid(self) -> bool:
        try:
            self.inspect()
        except (TimbredError, OSError):
            return False
        return True

    def refuse(self) -> BadRequest:
        """Return the error for a request that names it as its model."""
        return BadRequest(
            f"model: {CLAP_NAME} is a component that ranks takes and finds similar ones, it renders nothing; "
            "name a model (`timbred models` lists them)"
        )
