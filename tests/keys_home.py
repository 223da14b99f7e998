"""A configuration folder with keys, and an address of this machine that isn't loopback."""

import socket
from pathlib import Path

import pytest

from timbred.access.keys import KeyPair, make_key_pair, write_own_key, write_token

TOKEN = "a-token-for-the-tests-0123456789"
"""The token in the folder of keys."""

BEYOND = ("host=0.0.0.0", "access.allow=127.0.0.1")
"""Settings of a daemon that can be reached from other machines, and takes OSC from none of them."""


def make_home(folder: Path, patch: pytest.MonkeyPatch) -> "KeysHome":
    """Let this process, and those that it starts, use the keys in a folder."""
    patch.setenv("XDG_CONFIG_HOME", str(folder))
    return KeysHome(folder)


class KeysHome:
    """A user with a key pair and a token. `folder` is the folder of keys, `config` the one around it."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.folder = config / "timbred" / "keys"
        self.own: KeyPair = make_key_pair()
        write_own_key(self.folder, self.own)
        write_token(self.folder, TOKEN)


def own_address() -> str:
    """An IPv4 address of this machine other than loopback; the test is skipped if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no network, so that it has no address beyond loopback")
        return str(probe.getsockname()[0])
