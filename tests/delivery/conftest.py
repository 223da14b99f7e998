"""What tests of the player's side share."""

from collections.abc import Generator

import pytest

from tests.delivery.player_stage import JackServer, jack_server
from tests.host_programs import require_program


@pytest.fixture(scope="module")
def jack() -> Generator[JackServer]:
    """A sound server without a card, for all tests of a file."""
    with jack_server(require_program) as server:
        yield server
