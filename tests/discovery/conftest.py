"""A daemon to be found."""

from tests.integration.conftest import client, daemon, hollow, other, start_daemon

__all__ = ["client", "daemon", "hollow", "other", "start_daemon"]
