from pathlib import Path

import pytest
import torch

from training.pocket import running


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(running, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(running, "STAGES_FOLDER", tmp_path / "stages")
    return tmp_path


def test_running_restore_stage_creates_the_checkpoint_that_was_kept(folders: Path) -> None:
    weights = {"weight": torch.tensor([[0.5, -2.0]]), "count": torch.tensor([3])}
    running.save_checkpoint("codec", average=weights, codec=weights, step=9)
    kept = running.keep_stage("codec")
    assert kept.parent == folders / "stages"
    running.checkpoint_path("codec").unlink()
    assert running.restore_stage("codec")
    state = running.load_checkpoint("codec")
    assert state is not None
    assert all(torch.equal(state[part][name], weights[name]) for part in ("average", "codec") for name in weights)
    assert state["average"]["weight"].dtype == torch.float32


def test_running_restore_stage_replaces_no_checkpoint(folders: Path) -> None:
    running.save_checkpoint("text", average={"weight": torch.ones(1)}, step=5)
    running.keep_stage("text")
    running.save_checkpoint("text", average={"weight": torch.zeros(1)}, step=6)
    assert not running.restore_stage("text")
    assert not running.restore_stage("classifier"), "none is kept"
    state = running.load_checkpoint("text")
    assert state is not None
    assert state["step"] == 6


def test_running_keep_stage_of_an_untrained_stage_names_what_to_do(folders: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train the stage codec first"):
        running.keep_stage("codec")
