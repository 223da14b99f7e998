"""The daemons of the conversations, for the patches to talk to."""

from tests.integration.conftest import client, daemon, hollow, other, start_daemon

__all__ = ["client", "daemon", "hollow", "other", "start_daemon"]
