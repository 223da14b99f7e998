"""The time limit of waits in tests, and the product's own timeouts during them."""

from collections.abc import Generator
from contextlib import contextmanager

import pytest

TIMEOUT_S = 500.0
"""Seconds after which a test gives up waiting: a guard against a test that hangs, never the thing that is tested."""

LONG_TIMEOUT_SETTINGS = (f"player.patience={TIMEOUT_S:g}", f"engine.patience={TIMEOUT_S:g}")
"""Settings of a daemon whose processes may be silent for long, as on a machine that does much else."""

PRODUCT_TIMEOUTS = (
    "timbred.ipc.supervisor.HANDSHAKE_TIMEOUT_S",
    "timbred.player.session.OPEN_TIMEOUT_S",
    "timbred.requests.prompt_texts.COUNTED_WITHIN_S",
    "timbred.server.PLAYER_QUIT_TIMEOUT_S",
)
"""Timeouts of a daemon in this process after which it goes on without an answer that a slow machine gives late."""


@contextmanager
def patient() -> Generator[None]:
    """Within the block, the product's timeouts in this process are `TIMEOUT_S`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in PRODUCT_TIMEOUTS:
            patch.setattr(name, TIMEOUT_S)
        yield
