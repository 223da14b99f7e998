"""Ports for programs that bind a given number themselves, or that nobody is to listen on."""

import random
import socket
import sys

PORTS = range(20_000, 32_000)
"""Below the ports that systems give to sockets without a number of their own."""

_random = random.SystemRandom()
_names: list[socket.socket] = []
"""Sockets whose names keep a port for this process as long as it runs."""


def _is_kept(port: int) -> bool:
    """Keep a port for this process; False if another test process has it."""
    if sys.platform != "linux":  # elsewhere sockets have no names outside the file system
        return True
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0timbred-test-port-{port}")
    except OSError:
        name.close()
        return False
    _names.append(name)
    return True


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def free_port() -> int:
    """Return a free TCP and UDP port that no other test process uses."""
    while not (_is_kept(port := _random.choice(PORTS)) and _is_free(port)):
        pass
    return port
