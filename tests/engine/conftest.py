"""Tiny checkpoints, made once for all tests of the engine."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import checkpoints
from tests.processes import python_path
from timbred.engine.families.component_loader import quiet_libraries

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def children_import_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let engines that the tests replace be found: child processes don't import from the working folder."""
    monkeypatch.setenv("PYTHONPATH", python_path(ROOT))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Compute on one thread: tiny models gain nothing from more, and the workers share the cores."""
    torch.set_num_threads(1)


def checkpoint_fixture(name: str) -> Callable[..., Path]:
    """Return a fixture of this name: the folder of the tiny checkpoint that `tests.checkpoints` writes."""

    @pytest.fixture(scope="session", name=name)
    def write(tmp_path_factory: pytest.TempPathFactory) -> Path:
        quiet_libraries()
        return getattr(checkpoints, name)(tmp_path_factory.mktemp(name))

    return write


audioldm2 = checkpoint_fixture("audioldm2")
audioldm = checkpoint_fixture("audioldm")
audioldm2_speech = checkpoint_fixture("audioldm2_speech")
stable_audio = checkpoint_fixture("stable_audio")
stable_audio_3 = checkpoint_fixture("stable_audio_3")
musicldm = checkpoint_fixture("musicldm")
ace_step = checkpoint_fixture("ace_step")
clap = checkpoint_fixture("clap")


@pytest.fixture(scope="session")
def loud_audioldm(audioldm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny AudioLDM with a louder vocoder."""
    return checkpoints.louden(shutil.copytree(audioldm, tmp_path_factory.mktemp("loud") / "loud"))
