"""A daemon's place taken by a socket: says how old it is, and nothing else."""

import contextlib
import socket
import threading
from collections.abc import Generator

from tests.integration import osc


class StandIn:
    """Answers `status` with `age` seconds of life, and keeps what else it is asked."""

    def __init__(self) -> None:
        self.age = 100.0
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while packet := self._socket.recvfrom(65536):
            address = packet[0].partition(b"\x00")[0].decode()
            if address == "/end":
                return
            self.asked.append(address)
            if address == "/timbred/status":
                reply = osc.message("/timbred/status.reply", 0, 0, 0, 0.0, 0.0, 0, 48000, 0, self.age)
                self._socket.sendto(reply, packet[1])

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(osc.message("/end"), ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()


@contextlib.contextmanager
def stand_in() -> Generator[StandIn]:
    made = StandIn()
    try:
        yield made
    finally:
        made.close()
