"""A daemon for the client to find."""

import pytest

from tests.integration.conftest import daemon, hollow, idle, start_daemon
from tests.patience import TIMEOUT_S
from timbred.client import async_client

__all__ = ["daemon", "hollow", "idle", "start_daemon"]


@pytest.fixture(autouse=True)
def found_in_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is there is found, however busy the machine is."""
    monkeypatch.setattr(async_client, "DISCOVERY_TIMEOUT_S", TIMEOUT_S)
