"""What a folder must be to be loaded, and what is refused."""

import contextlib
import json
import math
import os
import pickle
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import checkpoints
from timbred.engine.families import component_loader
from timbred.engine.model_manager import make_resident
from timbred.errors import MissingWeights, ModelError
from timbred.models import checkpoint

REMEDY = "do this"


@pytest.fixture
def copy(audioldm2: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(audioldm2, tmp_path / "copy"))


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_checkpoint_accepts_the_published_form(audioldm2: Path, audioldm: Path):
    found = checkpoint.inspect(audioldm2, "m", REMEDY)
    assert (found.family.name, found.sound.rate, found.pickled) == ("audioldm2", 16000, ())
    assert found.classes["language_model"] == "GPT2Model"
    assert found.weight_bytes > 0
    assert checkpoint.inspect(audioldm, "m", REMEDY).family.name == "audioldm"


@pytest.mark.parametrize(
    "lost",
    [
        "model_index.json",
        "vocoder/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder_2/model.safetensors",
        "language_model/model.safetensors",
    ],
)
def test_checkpoint_names_a_missing_file_with_its_remedy(copy: Path, lost: str):
    (copy / lost).unlink()
    with pytest.raises(MissingWeights) as refusal:
        checkpoint.inspect(copy, "m", REMEDY)
    assert str(copy / lost.partition("/")[0]) in str(refusal.value)
    assert REMEDY in str(refusal.value)


def test_checkpoint_refuses_a_pipeline_of_another_kind(copy: Path):
    rewrite(copy / "model_index.json", lambda index: index.update(_class_name="StableDiffusionPipeline"))
    with pytest.raises(ModelError, match="StableDiffusionPipeline"):
        checkpoint.inspect(copy, "m", REMEDY)


@pytest.mark.parametrize(
    "entry", [["os", "system"], ["mine", "SpeechT5HifiGan"], ["transformers", "AutoModel"], "x", None]
)
def test_checkpoint_refuses_a_component_of_another_class(copy: Path, entry: object):
    rewrite(copy / "model_index.json", lambda index: index.update(vocoder=entry))
    with pytest.raises((ModelError, MissingWeights)):
        checkpoint.inspect(copy, "m", REMEDY)


def test_checkpoint_refuses_code_of_a_models_own(copy: Path):
    rewrite(copy / "text_encoder" / "config.json", lambda config: config.update(auto_map={"AutoModel": "x.Y"}))
    with pytest.raises(ModelError, match="no code from a model"):
        checkpoint.inspect(copy, "m", REMEDY)


def test_checkpoint_refuses_a_shard_outside_its_folder(copy: Path):
    folder = copy / "unet"
    (folder / "diffusion_pytorch_model.safetensors").rename(copy / "elsewhere.safetensors")
    index = {"weight_map": {"x": "../elsewhere.safetensors"}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(MissingWeights):
        checkpoint.inspect(copy, "m", REMEDY)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=200), file=st.sampled_from(["model_index.json", "unet/config.json", "vae/config.json"])
)
def test_checkpoint_reports_damaged_files_with_a_code(copy: Path, content: bytes, file: str):
    before = (copy / file).read_bytes()
    try:
        (copy / file).write_bytes(content)
        with pytest.raises((MissingWeights, ModelError)):
            checkpoint.inspect(copy, "m", REMEDY)
    finally:
        (copy / file).write_bytes(before)


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    entry=st.sampled_from(
        [
            ("model_index.json", "_class_name"),
            ("model_index.json", "vae"),
            ("model_index.json", "scheduler"),
            ("vocoder/config.json", "sampling_rate"),
            ("vocoder/config.json", "upsample_rates"),
            ("vae/config.json", "block_out_channels"),
            ("unet/config.json", "sample_size"),
            ("unet/diffusion_pytorch_model.safetensors.index.json", "weight_map"),
        ]
    ),
    value=odd,
)
def test_checkpoint_reports_odd_entries_with_a_code_or_ignores_them(copy: Path, entry: tuple[str, str], value: object):
    path = copy / entry[0]
    before = path.read_bytes() if path.exists() else None
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    content = json.loads(before) if before is not None else {}
    try:
        if before is None:
            weights.rename(copy / "aside")
        path.write_text(json.dumps({**content, entry[1]: value}))
        with contextlib.suppress(MissingWeights, ModelError):
            found = checkpoint.inspect(copy, "m", REMEDY)
            assert found.sound.rate > 0 and math.isfinite(found.sound.max_seconds) and found.sound.default_seconds > 0
            assert before is not None, "weights were found where there are none"
    finally:
        if before is not None:
            path.write_bytes(before)
        else:
            path.unlink()
            (copy / "aside").rename(weights)


def test_checkpoint_reports_unlimited_nesting_as_damage(copy: Path):
    (copy / "vae" / "config.json").write_text("[" * 200_000)
    with pytest.raises(MissingWeights, match="damaged"):
        checkpoint.inspect(copy, "m", REMEDY)


@pytest.mark.parametrize("place", ["unet/config.json", "tokenizer/tokenizer.json", "unet/another"])
def test_checkpoint_refuses_a_pipe_without_waiting(copy: Path, place: str):
    (copy / place).unlink(missing_ok=True)
    os.mkfifo(copy / place)
    with pytest.raises(ModelError, match="isn't a regular file"):
        checkpoint.inspect(copy, "m", REMEDY)


def test_checkpoint_refuses_a_pipe_as_index_without_waiting(copy: Path):
    (copy / "model_index.json").unlink()
    os.mkfifo(copy / "model_index.json")
    with pytest.raises(ModelError, match="isn't a regular file"):
        checkpoint.inspect(copy, "m", REMEDY)


def test_checkpoint_does_not_read_a_configuration_of_gigabytes(copy: Path):
    with (copy / "vae" / "config.json").open("wb") as file:
        file.truncate(8_000_000_000)  # takes no room on the disk
    with pytest.raises(ModelError, match="8000 MB"):
        checkpoint.inspect(copy, "m", REMEDY)


def load(folder: Path) -> None:
    make_resident(checkpoint.inspect(folder, "m", REMEDY), "m", torch.device("cpu"), torch.float32, lambda _: None)


def test_component_loader_names_the_component_of_damaged_weights(copy: Path):
    (copy / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="vae"):
        load(copy)


def test_component_loader_reads_and_converts_pickled_weights_once(tmp_path: Path):
    folder = checkpoints.pickle_weights(checkpoints.audioldm(tmp_path / "bin"))
    found = checkpoint.inspect(folder, "m", REMEDY)
    assert set(found.pickled) == {"vae", "unet", "vocoder", "text_encoder"}
    load(folder)
    for part in found.pickled:
        written = component_loader.convert_component(found, part, "m")
        assert written.suffix == ".safetensors"
    assert checkpoint.inspect(folder, "m", REMEDY).pickled == ()
    load(folder)


def plain_pickle(evil: "Evil", path: Path) -> None:
    path.write_bytes(pickle.dumps(evil))


class Evil:
    """What a pickled file can do to its reader."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("writer", [torch.save, plain_pickle])
def test_component_loader_refuses_weights_that_are_more_than_tensors(
    tmp_path: Path, writer: Callable[[Evil, Path], object]
):
    folder = checkpoints.pickle_weights(checkpoints.audioldm(tmp_path / "bin"))
    mark = tmp_path / "was-run"
    writer(Evil(mark), folder / "vae" / "diffusion_pytorch_model.bin")
    found = checkpoint.inspect(folder, "m", REMEDY)
    with pytest.raises(ModelError):
        load(folder)
    with pytest.raises(ModelError, match="more than tensors"):
        component_loader.convert_component(found, "vae", "m")
    assert not mark.exists()


def test_component_loader_as_a_program_names_weights_that_are_more_than_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = checkpoints.pickle_weights(checkpoints.audioldm(tmp_path / "bin"))
    mark = tmp_path / "was-run"
    plain_pickle(Evil(mark), folder / "vae" / "diffusion_pytorch_model.bin")
    monkeypatch.setattr(sys, "argv", ["component_loader", "m", str(folder)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(component_loader.__file__), run_name="__main__")
    assert ended.value.code == 1
    assert "contain more than tensors" in capsys.readouterr().err
    assert not mark.exists()
