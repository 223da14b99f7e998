"""What tests of the player's side share."""

from collections.abc import Generator

import pytest

from tests.host_programs import require_program
from tests.player.player_stage import JackServer, jack_server


@pytest.fixture(scope="module")
def jack() -> Generator[JackServer]:
    """A sound server without a card, for all tests of a file."""
    with jack_server(require_program) as server:
        yield server
