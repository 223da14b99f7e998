"""Addresses of the daemon's sockets for its child processes."""

import itertools
import logging
import sys

import zmq
import zmq.asyncio

from timbred.processes.scratch import ScratchFolder, make_folder

log = logging.getLogger(__name__)

TRIES = 2
"""Times that a socket file is tried: the second time in a new folder, since the first one may have been deleted."""

LONGEST_NUMBER = 9_999_999


class Addresses:
    """Addresses for the lives of one child process.

    Each is a socket file in a private folder. Where no such folder can be made, and on Windows, it is a loopback port.
    Others could connect to that one, so whoever connects has to show the token.
    """

    def __init__(self, name: str) -> None:
        """`name` is the child's, the first part of each socket file's name."""
        self._name = name
        self._numbers = itertools.count(1)
        self._folder: ScratchFolder | None = None
        self._warned = False

    def bind(self, socket: zmq.asyncio.Socket) -> str:
        """Bind a socket to a new address.

        Raises:
            zmq.ZMQError: Not even a loopback port is to be had.
        """
        if sys.platform != "win32":
            try:
                return self._bind_file(socket)
            except (OSError, zmq.ZMQError) as error:
                if not self._warned:
                    log.warning("the %s is spoken to over a loopback port: %s", self._name, error)
                self._warned = True
        return f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"

    def remove(self) -> None:
        """Remove the folder."""
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.remove()

    def _bind_file(self, socket: zmq.asyncio.Socket) -> str:
        if self._folder is not None and not self._folder.is_there:
            self.remove()
        for tries_left in reversed(range(TRIES)):
            if self._folder is None:
                self._folder = make_folder([f"{self._name}-*"], longest_name=f"{self._name}-{LONGEST_NUMBER}")
            address = f"ipc://{self._folder.path / f'{self._name}-{next(self._numbers)}'}"
            try:
                socket.bind(address)
            except zmq.ZMQError:
                self.remove()
                if not tries_left:
                    raise
            else:
                return address
        raise AssertionError("every try returns or raises")
