import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from timbred.engine.families.pocket_networks import BandCodec
from timbred.models.pocket import CodecSizes
from training.pocket import carry, generator_training, latents, running
from training.pocket.generator import new_generator
from training.pocket.sounds import draw
from training.pocket.text import new_text_side

LATENT = CodecSizes().latent


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    for module in (carry, latents, running):
        monkeypatch.setattr(module, "RUNS", folder)
    return folder


def store(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    sounds = [draw(random) for _ in range(count)]
    rows = [random.standard_normal((int(random.integers(8, 30)), LATENT)).astype(np.float32) for _ in sounds]
    for name in ("training", "held-out"):
        scale, middle = torch.full((LATENT,), 2.0), torch.full((LATENT,), 0.5)
        latents.store(name, rows, [0.5 * row for row in rows], sounds, scale, middle, 77)
    return rows


def save_networks() -> None:
    running.save_checkpoint("text", average=new_text_side().state_dict())
    running.save_checkpoint("codec", average=BandCodec().state_dict())


def test_carry_keeps_the_values_of_stored_latents(runs: Path) -> None:
    rows = store(5)
    read = latents.Latents("training")
    assert read.encoder == 77
    assert read.tokens.tolist() == [len(row) for row in rows]
    restored = read.vectors(3) * read.scale + read.middle
    assert float((restored - torch.from_numpy(rows[3])).abs().max()) < 2 * 4 / 127


def test_carry_unpacks_what_was_packed(runs: Path, tmp_path: Path) -> None:
    store(8)
    before = latents.Latents("training")
    save_networks()
    size = carry.pack(tmp_path / "transfer", 100)
    assert size == sum(path.stat().st_size for path in (tmp_path / "transfer").iterdir())
    carry._unpack_latents(tmp_path / "transfer")  # pyright: ignore[reportPrivateUsage]
    after = latents.Latents("training")
    assert [sound.to_dict() for sound in after.sounds] == [sound.to_dict() for sound in before.sounds]
    for index in range(8):
        assert float((after.vectors(index) - before.vectors(index)).abs().max()) <= carry.STEP / 2 + 0.02
        assert float((after.sketch(index) - before.sketch(index)).abs().max()) <= carry.STEP / 2 + 0.02


def test_carry_writes_weights_to_files_of_limited_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carry, "PART_BYTES", 10_000)
    weights = {"matrix": torch.randn(100, 200), "vector": torch.randn(7)}
    carry._write(tmp_path / "some", weights)  # pyright: ignore[reportPrivateUsage]
    assert all(path.stat().st_size <= 10_000 for path in tmp_path.iterdir())
    restored = carry._read(tmp_path / "some")  # pyright: ignore[reportPrivateUsage]
    assert restored.keys() == weights.keys()
    assert all(torch.equal(restored[name], weights[name]) for name in weights)


def test_carry_returns_remote_training_as_checkpoints(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(12)
    save_networks()
    carry.pack(tmp_path / "transfer", 100)
    monkeypatch.setattr(carry, "PREPARED_CAPTIONS", 0)
    carry.train(tmp_path / "transfer", tmp_path / "out", 0.0, torch.device("cpu"), 64, False)
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert {"log.json", "generator.0"} <= set(files)
    trained = running.load_checkpoint("generator")
    assert trained is not None
    carry.unpack(tmp_path / "out")
    returned = running.load_checkpoint("generator")
    assert returned is not None
    assert returned["step"] == trained["step"] == 1
    assert (runs / "generator.before.pt").exists()
    new_generator().load_state_dict(returned["average"])
    assert json.loads((tmp_path / "out" / "log.json").read_text())["step"] == 1
    generator_training.train(0.0, torch.device("cpu"), 64)
    again = running.load_checkpoint("generator")
    assert again is not None
    assert again["step"] == 2
    save_networks()
    with pytest.raises(ValueError, match="a text encoder of another run"):
        generator_training.train(0.0, torch.device("cpu"), 64)


def test_carry_needs_only_torch_numpy_and_scipy_for_remote_training() -> None:
    missing = ("soundfile", "diffusers", "transformers", "matplotlib", "msgspec", "zmq", "soxr")
    program = f"import sys\nfor name in {missing}: sys.modules[name] = None\nimport training.pocket.carry"
    root = Path(carry.__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, timeout=300)
