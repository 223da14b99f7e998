"""A daemon for the client to find."""

from tests.integration.conftest import daemon, hollow, start_daemon

__all__ = ["daemon", "hollow", "start_daemon"]
