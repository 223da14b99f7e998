"""Tiny checkpoints, made once for all tests of the engine."""

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


@pytest.fixture(scope="session")
def audioldm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet_libraries()
    return checkpoints.audioldm2(tmp_path_factory.mktemp("audioldm2"))


@pytest.fixture(scope="session")
def audioldm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet_libraries()
    return checkpoints.audioldm(tmp_path_factory.mktemp("audioldm"))


@pytest.fixture(scope="session")
def audioldm2_speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet_libraries()
    return checkpoints.audioldm2_speech(tmp_path_factory.mktemp("audioldm2_speech"))


@pytest.fixture(scope="session")
def stable_audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet_libraries()
    return checkpoints.stable_audio(tmp_path_factory.mktemp("stable_audio"))


@pytest.fixture(scope="session")
def stable_audio_3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet_libraries()
    return checkpoints.stable_audio_3(tmp_path_factory.mktemp("stable_audio_3"))


@pytest.fixture(scope="session")
def musicldm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet_libraries()
    return checkpoints.musicldm(tmp_path_factory.mktemp("musicldm"))


@pytest.fixture(scope="session")
def ace_step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet_libraries()
    return checkpoints.ace_step(tmp_path_factory.mktemp("ace_step"))
