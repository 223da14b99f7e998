"""Files of embeddings, and the tensors of a pipeline's inputs that they may hold; checked without torch.

Each family declares these tensors, by the names of its pipeline's `__call__`. Numbers of the pipeline that have no key
of `generate` are tensors of no axes. A file has the safetensors format (https://github.com/huggingface/safetensors#format).
Nothing in it is trusted: its header is checked before anything else is read, and its values are checked before the
engine gets them.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from timbred.errors import BadRequest, MissingWeights

Axis = int | str
"""Size of an axis, or a name: axes of one name have the same size."""


@dataclass(frozen=True)
class TensorInput:
    """A tensor that a file may hold.

    Attributes:
        axes: Size or name of each axis.
        kind: `values` are any finite numbers, those that are `falling` one after the other, a `mask` holds 0 and 1,
            `whole` numbers have no fractions, a `text` has the bytes of UTF-8.
        low: Least value.
        high: Largest value.
        needs: Names of the tensors that it is useless without.
        usual: Size of its second axis that the encoders give the tensor of the other prompt; None if any size fits.
    """

    axes: tuple[Axis, ...]
    kind: Literal["values", "falling", "mask", "whole", "text"] = "values"
    needs: tuple[str, ...] = ()
    usual: int | None = None
    low: float = -math.inf
    high: float = math.inf


TensorInputs = Mapping[str, TensorInput]
"""The tensors that a file may hold for one model and length, by name."""

ReadTensorInputs = Callable[[Callable[[str], dict[str, Any]], float], TensorInputs]
"""Returns the tensors for a length in seconds; the first argument reads the configuration of a component."""

TOKENS, VECTORS = "tokens", "vectors"
"""Names of axes: tokens of both prompts, and vectors that a language model generates."""

STEPS, BYTES = "steps", "bytes"
"""Names of axes: steps of a schedule, and bytes of a text."""


def _number(low: float, high: float) -> TensorInput:
    """Return a number within a range, a tensor of no axes."""
    return TensorInput((), low=low, high=high)


def _mel_latents(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInput:
    """Return the starting noise of a UNet over mel spectrograms: (1, channels, rows, bands)."""
    vocoder, vae = config("vocoder"), config("vae")
    hop = math.prod(int(factor) for factor in vocoder["upsample_rates"])
    frames_per_row = 2 ** (len(vae["block_out_channels"]) - 1)
    frames = max(frames_per_row, int(seconds * int(vocoder["sampling_rate"]) / hop))
    bands = int(vocoder["model_in_dim"]) // frames_per_row
    return TensorInput((1, int(config("unet")["in_channels"]), math.ceil(frames / frames_per_row), bands))


def no_inputs(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInputs:
    """Return none: the model encodes prompts and draws noise by itself only."""
    del config, seconds
    return {}


def clap_vector_inputs(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInputs:
    """Return the tensors of AudioLDM and MusicLDM: one vector for each prompt, and the starting noise."""
    vector = TensorInput((1, int(config("unet")["projection_class_embeddings_input_dim"])))
    return {"prompt_embeds": vector, "negative_prompt_embeds": vector, "latents": _mel_latents(config, seconds)}


def audioldm2_inputs(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInputs:
    """Return the tensors of AudioLDM 2: states with masks, generated vectors, and the starting noise."""
    projection = config("projection_model")
    states, generated = int(projection["text_encoder_1_dim"]), int(projection["langauge_model_dim"])
    usual = int(config("language_model").get("max_new_tokens") or 8)
    inputs: dict[str, TensorInput] = {}
    for prefix in ("", "negative_"):
        embeds, vectors = f"{prefix}prompt_embeds", f"{prefix}generated_prompt_embeds"
        inputs[embeds] = TensorInput((1, TOKENS, states), needs=(vectors,))
        inputs[vectors] = TensorInput((1, VECTORS, generated), needs=(embeds,), usual=usual)
        inputs[f"{prefix}attention_mask"] = TensorInput((1, TOKENS), "mask", (embeds,))
    return {**inputs, "latents": _mel_latents(config, seconds)}


def _text_states(mask_name: str, dimensions: int) -> dict[str, TensorInput]:
    """Return the states of the tokens of both prompts with their masks."""
    inputs: dict[str, TensorInput] = {}
    for prefix in ("", "negative_"):
        embeds = f"{prefix}prompt_embeds"
        inputs[embeds] = TensorInput((1, TOKENS, dimensions))
        inputs[prefix + mask_name] = TensorInput((1, TOKENS), "mask", (embeds,))
    return inputs


def stable_audio_inputs(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInputs:
    """Return the tensors of Stable Audio, whose latents have one length for all sounds."""
    transformer, vae = config("transformer"), config("vae")
    rows = int(transformer["sample_size"])
    hop = math.prod(int(ratio) for ratio in vae["downsampling_ratios"])
    longest = rows * hop / int(vae["sampling_rate"])
    return {
        **_text_states("attention_mask", int(config("projection_model")["text_encoder_dim"])),
        "latents": TensorInput((1, int(transformer["in_channels"]), rows)),
        "audio_start_in_s": _number(0.0, max(0.0, longest - seconds)),
    }


def _wave_rows(seconds: float, rate: int, samples_per_row: int) -> int:
    """Return the rows of latents of a waveform."""
    return max(1, math.ceil(seconds * rate / samples_per_row))


def stable_audio_3_inputs(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInputs:
    """Return the tensors of Stable Audio 3."""
    vae = config("vae")
    hop = int(vae["patch_size"]) * math.prod(int(stride) for stride in vae["encoder_strides"])
    rows = _wave_rows(seconds, int(vae["sampling_rate"]), hop)
    dimensions = int(config("transformer")["cond_token_dim"])
    return {
        **_text_states("encoder_attention_mask", dimensions),
        "latents": TensorInput((1, int(vae["latent_dim"]), rows)),
        "silence_padding_duration": _number(0.0, MAX_PADDING_S),
        "logsnr_min": _number(-20.0, 0.0),
        "logsnr_max": _number(0.0, 20.0),
    }


MAX_PADDING_S = 60.0
"""Seconds of room after the sound at most."""


def ace_step_inputs(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInputs:
    """Return the tensors of ACE-Step, whose pipeline takes its starting noise with the rows first."""
    vae = config("vae")
    hop = math.prod(int(ratio) for ratio in vae["downsampling_ratios"])
    rows = _wave_rows(seconds, int(vae["sampling_rate"]), hop)
    return {
        "latents": TensorInput((1, rows, int(config("transformer")["audio_acoustic_hidden_dim"]))),
        "shift": _number(0.1, 20.0),
        "timesteps": TensorInput((STEPS,), "falling", low=1e-3, high=1.0),
        "cfg_interval_start": _number(0.0, 1.0),
        "cfg_interval_end": _number(0.0, 1.0),
        "max_text_length": TensorInput((), "whole", low=1, high=MAX_ENCODED_TOKENS),
        "max_lyric_length": TensorInput((), "whole", low=1, high=MAX_ENCODED_TOKENS),
        "instruction": TensorInput((BYTES,), "text"),
        "audio_codes": _audio_codes(config, rows),
    }


MAX_ENCODED_TOKENS = 8192
"""Tokens of a prompt or of lyrics at most."""

USUAL_CODE_LEVELS = (8, 8, 8, 5, 5, 5)
"""Levels of the quantizer of a tokenizer that names none."""


USUAL_ROWS_PER_CODE = 5
"""Rows of latents of a code, where a detokenizer names no number."""


def _audio_codes(config: Callable[[str], dict[str, Any]], rows: int) -> TensorInput:
    """Return the codes of ACE-Step's audio tokenizer; a checkpoint may lack it, and then the engine refuses them."""
    try:
        levels = config("audio_tokenizer").get("fsq_input_levels") or USUAL_CODE_LEVELS
        rows_per_code = int(config("audio_token_detokenizer").get("pool_window_size") or USUAL_ROWS_PER_CODE)
    except MissingWeights:
        levels, rows_per_code = USUAL_CODE_LEVELS, USUAL_ROWS_PER_CODE
    count = math.ceil(rows / _at_least_one(rows_per_code))
    return TensorInput((count,), "whole", low=0, high=math.prod(int(level) for level in levels) - 1)


def _at_least_one(number: int) -> int:
    return max(1, number)


MAX_FILE_BYTES = 64_000_000
"""Largest file: the tensors of the longest sound with two prompts of the most tokens have a quarter of it."""

MAX_HEADER_BYTES = 100_000
"""Largest header: a file has about ten tensors, each with 100 bytes."""

MAX_TOKENS = 4096
"""Tokens of an embedded text."""

LENGTH_BYTES = 8
"""Bytes at the beginning of a file that hold the length of its header."""

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "u1"}
"""Types of values that are read, with numpy's names for their bytes."""

FLOAT_DTYPES = ("F32", "F16", "BF16", "F64")
"""Types of values that aren't masks."""

MAX_SHOWN_NAMES = 8
"""Names that a message lists."""

_DIGEST = re.compile(r"(?P<path>.+)#sha256=(?P<digest>[0-9a-f]{64})", re.DOTALL)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's entry in the header: type of its values, shape, first byte of the data and one past the last."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class EmbeddingsContent:
    """The content of a file: float32 values by name, and the SHA-256 of the whole file in hexadecimal digits."""

    values: dict[str, NDArray[np.float32]]
    digest: str


def split_digest(text: str) -> tuple[str, str]:
    """Divide the value of `embeddings` into a path and the digest that a recipe adds to it; empty without one.

    >>> split_digest("voice.safetensors")
    ('voice.safetensors', '')
    """
    match = _DIGEST.fullmatch(text)
    return (match["path"], match["digest"]) if match else (text, "")


def join_digest(path: str, digest: str) -> str:
    """Return the value of `embeddings` for a recipe: it names the file's content too.

    >>> split_digest(join_digest("voice.safetensors", "a" * 64)) == ("voice.safetensors", "a" * 64)
    True
    """
    return f"{path}#sha256={digest}"


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Read the header of a file.

    Raises:
        BadRequest: The file is missing, too large, or no safetensors file.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            _check_size(path, size)
            beginning = file.read(LENGTH_BYTES)
            length = _header_length(path, beginning, size)
            return _parse_header(path, file.read(length), size - LENGTH_BYTES - length)
    except OSError as error:
        raise BadRequest(f"embeddings: {path} can't be read ({error.strerror})") from error


def check_tensors(stored: Mapping[str, StoredTensor], inputs: TensorInputs, model: str, guided: bool) -> None:
    """Check names, types and shapes of a file's tensors.

    Args:
        stored: The tensors in its header.
        inputs: The tensors that the model takes.
        model: The model's name.
        guided: True if the model is rendered with guidance.

    Raises:
        BadRequest: Names the tensor, what it is, and what is expected.
    """
    if not stored:
        raise BadRequest(f"embeddings: the file has no tensors; {model} takes {', '.join(inputs)}")
    sizes: dict[str, tuple[int, str]] = {}
    for name, tensor in stored.items():
        if name not in inputs:
            raise BadRequest(f"embeddings: unknown tensor {name[:60]!a}; {model} takes {', '.join(inputs)}")
        _check_dtype(name, tensor, inputs[name])
        _check_shape(name, tensor, inputs[name], sizes)
        for other in inputs[name].needs:
            if other not in stored:
                raise BadRequest(f"embeddings: {name} goes with {other}, which the file lacks; add it")
    _check_usual_sizes(stored, inputs, guided)


def read_embeddings(path: Path, inputs: TensorInputs, model: str, guided: bool) -> EmbeddingsContent:
    """Read a file and check its content, the header included: it may have changed since it was checked alone.

    Raises:
        BadRequest: The file can't be read, a tensor isn't one that the model takes, or has NaN or infinity.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadRequest(f"embeddings: {path} can't be read ({error.strerror})") from error
    _check_size(path, len(content))
    length = _header_length(path, content[:LENGTH_BYTES], len(content))
    data = memoryview(content)[LENGTH_BYTES + length :]
    stored = _parse_header(path, content[LENGTH_BYTES : LENGTH_BYTES + length], len(data))
    check_tensors(stored, inputs, model, guided)
    values = {name: _values(name, tensor, inputs[name], data) for name, tensor in stored.items()}
    return EmbeddingsContent(values, hashlib.sha256(content).hexdigest())


def _check_size(path: Path, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise BadRequest(
            f"embeddings: {path} has {size / 1e6:.4g} MB or more; at most {MAX_FILE_BYTES / 1e6:g} MB are read"
        )


def _header_length(path: Path, beginning: bytes, size: int) -> int:
    length = int.from_bytes(beginning, "little")
    if len(beginning) < LENGTH_BYTES or not 2 <= length <= size - LENGTH_BYTES:
        raise BadRequest(f"embeddings: {path} isn't a safetensors file; save it with safetensors' save_file")
    if length > MAX_HEADER_BYTES:
        raise BadRequest(f"embeddings: {path} has a header of {length} bytes; at most {MAX_HEADER_BYTES} are read")
    return length


def _parse_header(path: Path, header: bytes, data_bytes: int) -> dict[str, StoredTensor]:
    try:
        entries = json.loads(header)
        stored = {name: _stored(entry) for name, entry in entries.items() if name != "__metadata__"}
        _check_places(stored, data_bytes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = printable_reason(error)
        raise BadRequest(f"embeddings: {path} isn't a safetensors file ({reason}); save it with save_file") from error
    return stored


def printable_reason(error: Exception) -> str:
    """Return an error's text, cut to a line of printable characters."""
    return ascii(str(error)[:120])[1:-1] or type(error).__name__


def _stored(entry: dict[str, Any]) -> StoredTensor:
    start, end = entry["data_offsets"]
    sizes = (*entry["shape"], start, end)
    if not isinstance(entry["dtype"], str) or not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError("an entry of its header has the wrong types")
    return StoredTensor(entry["dtype"], tuple(entry["shape"]), start, end)


def _check_places(stored: Mapping[str, StoredTensor], data_bytes: int) -> None:
    """Check that the tensors lie one after the other and fill the file.

    Raises:
        ValueError: They don't.
    """
    place = 0
    for tensor in sorted(stored.values(), key=lambda tensor: (tensor.start, tensor.end)):
        size = np.dtype(DTYPES[tensor.dtype]).itemsize if tensor.dtype in DTYPES else None
        is_whole = size is None or tensor.end - tensor.start == size * math.prod(tensor.shape)
        if tensor.start != place or tensor.end < tensor.start or not is_whole:
            raise ValueError("its tensors don't lie where its header says")
        place = tensor.end
    if place != data_bytes:
        raise ValueError(f"its header describes {place} bytes of tensors, it has {data_bytes}")


def _check_dtype(name: str, tensor: StoredTensor, wanted: TensorInput) -> None:
    allowed = {"values": FLOAT_DTYPES, "falling": FLOAT_DTYPES, "text": ("U8",)}.get(wanted.kind, tuple(DTYPES))
    if tensor.dtype not in allowed:
        raise BadRequest(f"embeddings: {name} is of type {tensor.dtype[:20]!a}; allowed is {', '.join(allowed)}")


def _check_shape(name: str, tensor: StoredTensor, wanted: TensorInput, sizes: dict[str, tuple[int, str]]) -> None:
    """Check a shape; `sizes` holds the size of each named axis so far, and the tensor that it is of."""
    expected = _shape_text(wanted.axes)
    if len(tensor.shape) != len(wanted.axes):
        raise BadRequest(f"embeddings: {name} has the shape {_shape_text(tensor.shape)}; expected is {expected}")
    for size, axis in zip(tensor.shape, wanted.axes, strict=True):
        if isinstance(axis, int):
            fits = size == axis
        else:
            fits = 1 <= size <= MAX_TOKENS
            before, other = sizes.setdefault(axis, (size, name))
            if fits and size != before:
                raise BadRequest(f"embeddings: {name} has {size} {axis}, but {other} has {before}; give both as many")
        if not fits:
            limit = "" if isinstance(axis, int) else f", with 1 to {MAX_TOKENS} {axis}"
            raise BadRequest(
                f"embeddings: {name} has the shape {_shape_text(tensor.shape)}; expected is {expected}{limit}"
            )


def _check_usual_sizes(stored: Mapping[str, StoredTensor], inputs: TensorInputs, guided: bool) -> None:
    """Check that a tensor of one prompt fits the one that the encoders make of the other."""
    for name, tensor in stored.items():
        usual, partner = inputs[name].usual, _partner(name)
        if usual is None or not guided or partner in stored or usual in tensor.shape[1:2]:
            continue
        raise BadRequest(
            f"embeddings: {name} has {tensor.shape[1]} vectors, but the text encoders make {usual}; add {partner}"
        )


def _partner(name: str) -> str:
    """Return the name of the tensor for the other prompt.

    >>> _partner("prompt_embeds"), _partner("negative_prompt_embeds")
    ('negative_prompt_embeds', 'prompt_embeds')
    """
    prefix = "negative_"
    return name.removeprefix(prefix) if name.startswith(prefix) else prefix + name


def _shape_text(axes: tuple[Axis, ...]) -> str:
    return f"({', '.join(map(str, axes))})"


def _values(name: str, tensor: StoredTensor, wanted: TensorInput, data: memoryview) -> NDArray[np.float32]:
    """Return a tensor's values.

    Raises:
        BadRequest: They have NaN or infinity, or a mask has values other than 0 and 1.
    """
    raw = np.frombuffer(data[tensor.start : tensor.end], dtype=DTYPES[tensor.dtype])
    if tensor.dtype == "BF16":
        raw = (raw.astype("<u4") << 16).view("<f4")
    with np.errstate(over="ignore", invalid="ignore"):
        values = raw.astype("<f4").reshape(tensor.shape)
    if not np.isfinite(values).all():
        raise BadRequest(f"embeddings: {name} has NaN or infinite values; make the tensors again")
    if wanted.kind == "mask" and not np.isin(values, (0.0, 1.0)).all():
        raise BadRequest(f"embeddings: {name} has values other than 0 and 1, which a mask may have")
    if wanted.kind == "falling" and (np.diff(values) >= 0).any():
        raise BadRequest(
            f"embeddings: {name} has a value that isn't below the one before it; sort them from high to low"
        )
    if wanted.kind == "whole" and (values != np.floor(values)).any():
        raise BadRequest(f"embeddings: {name} has values that aren't whole numbers; allowed are whole numbers")
    if values.size and not (wanted.low <= values.min() and values.max() <= wanted.high):
        raise BadRequest(
            f"embeddings: {name} has values from {values.min():g} to {values.max():g}; allowed are {wanted.low:g} to "
            f"{wanted.high:g}"
        )
    if wanted.kind == "text":
        _check_text(name, raw.tobytes())
    return values


def _check_text(name: str, content: bytes) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"embeddings: {name} isn't text in UTF-8 ({error.reason}); encode it as UTF-8") from error
