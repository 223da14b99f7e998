"""Daemons for the bridges: those of the conversations."""

from tests.integration.conftest import daemon, hollow, start_daemon

__all__ = ["daemon", "hollow", "start_daemon"]
