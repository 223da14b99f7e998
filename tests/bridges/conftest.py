"""Daemons for the bridges: those of the conversations, and one with a tiny stereo model."""

from collections.abc import Iterator

import pytest

from tests.integration.conftest import daemon, hollow, start_daemon
from tests.integration.daemons import DaemonProcess, start_real_engine, write_checkpoints

__all__ = ["daemon", "hollow", "start_daemon"]


@pytest.fixture(scope="session")
def stereo_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with the real engine and tiny random weights of Stable Audio 3, which is stereo."""
    models = write_checkpoints(tmp_path_factory.mktemp("models"), three="stable_audio_3")
    started = start_real_engine(tmp_path_factory.mktemp("stereo"), {"three": models / "three"})
    yield started
    started.stop()
