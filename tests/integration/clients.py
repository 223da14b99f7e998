"""Clients as a performer's programs are: one plain socket each, and everything that is heard on it in order."""

import contextlib
import itertools
import socket
import time
from collections.abc import Generator

from tests.integration import osc
from tests.integration.osc import Reply, Tagged, Value
from tests.patience import TIMEOUT_S

TERMINAL = ("done", "cancelled", "fail")

_numbers = itertools.count(1)


def new_id() -> str:
    """An id that no other test uses."""
    return f"r{next(_numbers)}"


class Client:
    """What UDP and TCP clients share."""

    def send_packet(self, packet: bytes) -> None:
        raise NotImplementedError

    def receive(self) -> Reply:
        raise NotImplementedError

    def say(self, name: str, *arguments: Value | Tagged) -> None:
        """Send `/timbred/NAME arguments...`."""
        self.send_packet(osc.message(f"/timbred/{name}", *arguments))

    def ask(self, name: str, *arguments: Value | Tagged) -> Reply:
        """Send a message and hear one answer."""
        self.say(name, *arguments)
        return self.receive()

    def until(self, *names: str, id: str | int | None = None) -> list[Reply]:  # noqa: A002
        """Everything heard up to and with the first event of these names (and of this id)."""
        heard: list[Reply] = []
        while not heard or heard[-1].name not in names or (id is not None and heard[-1].id != id):
            heard.append(self.receive())
            if heard[-1].name == "fail" and not {"fail", "synced"} & set(names):
                raise AssertionError(f"waiting for {names}, heard {heard[-1]}")
        return heard

    def until_end(self, id: str | int | None = None) -> list[Reply]:  # noqa: A002
        """Everything heard up to and with a terminal event."""
        return self.until(*TERMINAL, id=id)

    def until_step(self, id: str | int | None = None) -> None:  # noqa: A002
        """Receive until the engine has done a step of a sound.

        With an id, of this one, because an earlier client of the same port may have pending events.
        """
        while (event := self.until("progress", *TERMINAL, id=id)[-1]).name == "progress" and event.arguments[2] == 0:
            pass
        assert event.name == "progress", event

    def until_ends(self, *ids: str) -> dict[str, list[Reply]]:
        """Everything heard until each of these requests has ended, by id. Requests may overtake each other."""
        heard: dict[str, list[Reply]] = {one: [] for one in ids}
        while any(not events or events[-1].name not in TERMINAL for events in heard.values()):
            event = self.receive()
            heard[str(event.id)].append(event)
        return heard

    def nothing_more(self) -> None:
        """Prove that no event waits: all that was sent before is answered before a `sync` is."""
        number = next(_numbers)
        assert self.ask("sync", number) == Reply("synced", "i", (number,))

    def until_alike(self, take: Value, *others: Value) -> None:
        """Ask for the takes like this one until these are among them: takes are indexed after they are delivered."""
        deadline = time.monotonic() + TIMEOUT_S
        alike: set[Value] = set()
        while not alike.issuperset(others):
            assert time.monotonic() < deadline, f"only {alike} are like {take}"
            self.say("takes", "@like", take)
            alike = {event.arguments[8] for event in self.until("done", id="takes") if event.name == "take"}

    def make_take(self, *words: Value | Tagged) -> Reply:
        """One finished sound; its `take` event."""
        name = new_id()
        self.say("generate", name, *(words or ("warm pad",)), "@steps", 1, "@seconds", 0.2)
        *_, take, done = self.until_end(name)
        assert (take.name, done.name) == ("take", "done"), done
        return take


class UdpClient(Client):
    """A UDP socket. `port` is where it listens."""

    def __init__(self, daemon_port: int) -> None:
        self.daemon = ("127.0.0.1", daemon_port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(TIMEOUT_S)
        self.port = int(self.socket.getsockname()[1])

    def send_packet(self, packet: bytes) -> None:
        self.socket.sendto(packet, self.daemon)

    def receive(self) -> Reply:
        packet, source = self.socket.recvfrom(65536)
        assert source == self.daemon, "answers come from the port that was asked"
        assert len(packet) <= 8000, f"a datagram of {len(packet)} bytes"
        return osc.parse(packet)

    def close(self) -> None:
        self.socket.close()


class TcpClient(Client):
    """A TCP connection with SLIP frames."""

    END, ESC = b"\xc0", b"\xdb"

    def __init__(self, daemon_port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", daemon_port), timeout=TIMEOUT_S)
        self._read = bytearray()

    def send_packet(self, packet: bytes) -> None:
        escaped = packet.replace(self.ESC, b"\xdb\xdd").replace(self.END, b"\xdb\xdc")
        self.send_bytes(self.END + escaped + self.END)

    def send_bytes(self, raw: bytes) -> None:
        """Bytes as they are, SLIP or not."""
        self.socket.sendall(raw)

    def receive(self) -> Reply:
        while True:
            frame, end, rest = self._read.partition(self.END)
            if end:
                self._read = rest
                if frame:
                    return osc.parse(bytes(frame).replace(b"\xdb\xdc", self.END).replace(b"\xdb\xdd", self.ESC))
                continue
            received = self.socket.recv(65536)
            assert received, "the daemon closed the connection"
            self._read += received

    def close(self) -> None:
        self.socket.close()


@contextlib.contextmanager
def udp(daemon_port: int) -> Generator[UdpClient]:
    """A UDP client that is closed at the end."""
    client = UdpClient(daemon_port)
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def tcp(daemon_port: int) -> Generator[TcpClient]:
    """A TCP client that is closed at the end."""
    client = TcpClient(daemon_port)
    try:
        yield client
    finally:
        client.close()


def order(events: list[Reply]) -> list[str]:
    """The names in order, `progress` that comes several times on end named once."""
    return [name for name, _ in itertools.groupby(event.name for event in events)]


SOUND = ["queued", "started", "progress", "take", "done"]
"""The order of a sound that goes well."""


def until_idle(client: Client) -> Reply:
    """Wait until nothing is rendered or waits, after a sound that another test cancelled; return the status."""
    while (status := client.ask("status")).arguments[:2] != (0, 0):
        pass
    return status


def hold_engine(client: Client, name: str) -> None:
    """Give the engine a sound that lasts until it is cancelled; for daemons with the fake engine."""
    client.say("generate", name, "slow", "@steps", 3)
    client.until_step(name)


def let_go(client: Client, name: str) -> None:
    """Cancel the sound that holds the engine."""
    client.say("cancel", name)
    assert client.until_end(name)[-1] == Reply("cancelled", "s", (name,))
