"""Tiny checkpoints, made once for all tests of the engine."""

from pathlib import Path

import pytest

from tests import checkpoints
from timbred.engine.adapters.loading import quiet_libraries


@pytest.fixture(scope="session")
def audioldm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet_libraries()
    return checkpoints.audioldm2(tmp_path_factory.mktemp("audioldm2"))


@pytest.fixture(scope="session")
def audioldm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet_libraries()
    return checkpoints.audioldm(tmp_path_factory.mktemp("audioldm"))
