"""Files of embeddings from outside: every fault is refused with the tensor and what is expected."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from timbred.errors import BadRequest
from timbred.models import embeddings
from timbred.models.embeddings import MAX_FILE_BYTES, MAX_HEADER_BYTES, TensorInput, read_embeddings, read_header

INPUTS = {
    "prompt_embeds": TensorInput((1, "tokens", 4), needs=("generated_prompt_embeds",)),
    "generated_prompt_embeds": TensorInput((1, "vectors", 3), needs=("prompt_embeds",), usual=2),
    "attention_mask": TensorInput((1, "tokens"), "mask", ("prompt_embeds",)),
    "latents": TensorInput((1, 2, 5)),
}
NUMBERS = {
    "shift": TensorInput((), low=0.1, high=20.0),
    "timesteps": TensorInput(("steps",), "falling", low=1e-3, high=1.0),
    "audio_codes": TensorInput((3,), "whole", low=0, high=63),
    "instruction": TensorInput(("bytes",), "text"),
}
LATENTS = np.arange(10, dtype=np.float32).reshape(1, 2, 5)
PROMPT = {
    "prompt_embeds": np.ones((1, 6, 4), np.float16),
    "generated_prompt_embeds": np.full((1, 2, 3), 0.5, np.float64),
    "attention_mask": np.array([[1, 1, 1, 1, 0, 0]], np.int64),
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, np.ndarray]], Path]:
    """Return a function that writes a file of tensors."""

    def save(tensors: dict[str, np.ndarray]) -> Path:
        save_file(tensors, tmp_path / "given.safetensors")
        return tmp_path / "given.safetensors"

    return save


def raw_file(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str = "F32", shape: object = (1, 2, 5), offsets: object = (0, 40)) -> dict[str, object]:
    return {"latents": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def test_read_embeddings_returns_float32_values_and_the_digest(write: Callable[..., Path]):
    path = write({"latents": LATENTS, **PROMPT})
    found = read_embeddings(path, INPUTS, "tiny", guided=True)
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(found.values) == set(INPUTS)
    for name, expected in {"latents": LATENTS, **PROMPT}.items():
        assert found.values[name].dtype == np.float32
        np.testing.assert_array_equal(found.values[name], expected.astype(np.float32))


def test_read_embeddings_reads_bfloat16(tmp_path: Path):
    halves = (LATENTS.view("<u4") >> 16).astype("<u2")
    path = raw_file(tmp_path / "b.safetensors", entry("BF16", offsets=(0, 20)), halves.tobytes())
    np.testing.assert_array_equal(read_embeddings(path, INPUTS, "tiny", guided=False).values["latents"], LATENTS)


def test_read_embeddings_returns_numbers_and_text(write: Callable[..., Path]):
    tensors = {
        "shift": np.array(1.5),
        "timesteps": np.array([1.0, 0.5, 0.1], np.float32),
        "audio_codes": np.array([0, 63, 7], np.int64),
        "instruction": np.frombuffer("Sing: é".encode(), np.uint8),
    }
    found = read_embeddings(write(tensors), NUMBERS, "tiny", guided=True).values
    assert {name: value.tolist() for name, value in found.items()} == {
        "shift": 1.5,
        "timesteps": [1.0, 0.5, np.float32(0.1)],
        "audio_codes": [0, 63, 7],
        "instruction": list("Sing: é".encode()),
    }


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("shift", np.array(0.0), "values from 0 to 0; allowed are 0.1 to 20"),
        ("shift", np.array(np.nan), "NaN"),
        ("shift", np.array([1.5]), "has the shape (1); expected is ()"),
        ("timesteps", np.array([0.5, 0.5]), "isn't below the one before it"),
        ("timesteps", np.array([1.5, 0.5]), "allowed are 0.001 to 1"),
        ("audio_codes", np.array([0, 64, 1]), "allowed are 0 to 63"),
        ("audio_codes", np.array([0, 0.5, 1]), "aren't whole numbers"),
        ("instruction", np.array([255, 254], np.uint8), "isn't text in UTF-8"),
        ("instruction", np.array([1.0]), "allowed is U8"),
    ],
)
def test_read_embeddings_refuses_numbers_out_of_range(
    write: Callable[..., Path], name: str, value: np.ndarray, named: str
):
    with pytest.raises(BadRequest) as refusal:
        read_embeddings(write({name: value}), NUMBERS, "tiny", guided=True)
    assert str(refusal.value).startswith(f"embeddings: {name} ")
    assert named in str(refusal.value)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def latents_with(value: float, kind: type[np.floating]) -> np.ndarray:
    return np.where(LATENTS == 3, value, LATENTS).astype(kind)


NOT_FINITE = "latents has NaN or infinite values"
FAULTS: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "nothing": ({}, "has no tensors; tiny takes prompt_embeds"),
    "unknown name": ({"image_embeds": LATENTS}, "unknown tensor 'image_embeds'; tiny takes prompt_embeds"),
    "other size": ({"latents": zeros(1, 2, 6)}, r"has the shape \(1, 2, 6\); expected is \(1, 2, 5\)"),
    "other axes": ({"latents": zeros(2, 5)}, r"latents has the shape \(2, 5\); expected is \(1, 2, 5\)"),
    "no tokens": ({**PROMPT, "prompt_embeds": zeros(1, 0, 4)}, r"expected is \(1, tokens, 4\), with 1 to 4096"),
    "two lengths": ({**PROMPT, "attention_mask": np.ones((1, 5), np.int64)}, "6 tokens, but attention_mask has 5"),
    "NaN": ({"latents": latents_with(np.nan, np.float32)}, NOT_FINITE),
    "infinity": ({"latents": latents_with(np.inf, np.float16)}, NOT_FINITE),
    "beyond float32": ({"latents": np.full((1, 2, 5), 1e300)}, NOT_FINITE),
    "integers": ({"latents": LATENTS.astype(np.int64)}, "latents is of type 'I64'; allowed is F32"),
    "mask of 2": ({**PROMPT, "attention_mask": np.full((1, 6), 2)}, "attention_mask has values other than 0 and 1"),
    "half a pair": ({"prompt_embeds": PROMPT["prompt_embeds"]}, "generated_prompt_embeds, which the file lacks"),
    "other number": (
        {**PROMPT, "generated_prompt_embeds": zeros(1, 3, 3)},
        "3 vectors, but the text encoders make 2; add negative_generated_prompt_embeds",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_read_embeddings_refuses_every_fault_with_its_tensor(write: Callable[..., Path], fault: str):
    tensors, message = FAULTS[fault]
    path = write(tensors)
    with pytest.raises(BadRequest, match=f"^embeddings: .*{message}"):
        read_embeddings(path, INPUTS, "tiny", guided=True)


def test_read_embeddings_without_guidance_takes_any_number_of_vectors(write: Callable[..., Path]):
    path = write({**PROMPT, "generated_prompt_embeds": zeros(1, 3, 3)})
    assert read_embeddings(path, INPUTS, "tiny", guided=False).values["generated_prompt_embeds"].shape == (1, 3, 3)


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        (b"", b"", None),
        (b"{}", b"", 1),
        (b"not json", b"", None),
        (b"[" * 5000, b"", None),
        (b'{"latents": 5}', b"", None),
        (b'\xff\xfe{"a": 1}', b"", None),
        ([1, 2], b"", None),
        (entry(), b"", None),
        (entry(), bytes(41), None),
        (entry(offsets=(4, 44)), bytes(44), None),
        (entry(offsets=(40, 0)), b"", None),
        (entry(offsets=(0, 40, 1)), bytes(40), None),
        (entry(offsets=(0.0, 40)), bytes(40), None),
        (entry(shape=(1, -2, -5)), bytes(40), None),
        (entry(shape=(1, True, 10)), bytes(40), None),
        (entry(dtype="F16"), bytes(40), None),
        (b"{}", b"", 10**18),
    ],
    ids=lambda value: str(value)[:30],
)
def test_read_header_refuses_damaged_files(tmp_path: Path, header: object, data: bytes, length: int | None):
    path = raw_file(tmp_path / "damaged.safetensors", header, data, length)
    message = r"^embeddings: .*damaged\.safetensors isn't a safetensors file"
    with pytest.raises(BadRequest, match=message):
        read_header(path)
    with pytest.raises(BadRequest, match=message):
        read_embeddings(path, INPUTS, "tiny", guided=False)


def test_read_header_refuses_pickles(tmp_path: Path):
    path = tmp_path / "given.safetensors"
    path.write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94.")
    with pytest.raises(BadRequest, match="isn't a safetensors file"):
        read_header(path)


def test_read_header_refuses_files_of_absurd_size(tmp_path: Path):
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(BadRequest, match=r"at most 64 MB are read"):
        read_header(path)
    header = b"{" + b" " * MAX_HEADER_BYTES + b"}"
    with pytest.raises(BadRequest, match=f"at most {MAX_HEADER_BYTES} are read"):
        read_header(raw_file(path, header))


def test_read_header_refuses_missing_files(tmp_path: Path):
    with pytest.raises(BadRequest, match="can't be read"):
        read_header(tmp_path / "none.safetensors")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(content=st.binary(max_size=200), place=st.integers(0, 400), whole=st.booleans())
def test_read_embeddings_of_any_bytes_reads_or_refuses(tmp_path: Path, content: bytes, place: int, whole: bool):
    path = tmp_path / "any.safetensors"
    save_file({"latents": LATENTS, **PROMPT}, path)
    original = path.read_bytes()
    path.write_bytes(content if whole else original[:place] + content + original[place + len(content) :])
    try:
        found = read_embeddings(path, INPUTS, "tiny", guided=False)
    except BadRequest as error:
        assert str(error).startswith("embeddings: ")
    else:
        assert all(np.isfinite(value).all() for value in found.values.values())


@given(st.text(max_size=300), st.text("0123456789abcdef", min_size=64, max_size=64))
def test_embeddings_split_digest_divides_what_join_digest_joined(path: str, digest: str):
    if path:
        assert embeddings.split_digest(embeddings.join_digest(path, digest)) == (path, digest)
