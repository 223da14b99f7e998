"""Takes that go straight into the buffers of a SuperCollider server: the server's side is played by a socket."""

import contextlib
import socket
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest
import zmq

from tests.integration import osc
from tests.integration.clients import TIMEOUT_S, UdpClient, new_id
from tests.integration.daemons import DaemonProcess
from timbred.errors import NoAudioDevice
from timbred.protocol.osc_packets import OscMessage, read_packet
from timbred.requests import scsynth_buffers


class Server:
    """A server's socket, answered for by the test."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(TIMEOUT_S)
        self.port = int(self.socket.getsockname()[1])
        self.asked_by: tuple[str, int] = ("", 0)

    def receive(self) -> OscMessage:
        packet, self.asked_by = self.socket.recvfrom(65536)
        return read_packet(packet)[0]

    def answer(self, address: str, *arguments: str | int) -> None:
        self.socket.sendto(osc.message(address, *arguments), self.asked_by)


@contextlib.contextmanager
def server() -> Generator[Server]:
    made = Server()
    try:
        yield made
    finally:
        made.socket.close()


def ask(client: UdpClient, port: int, *more: str | int) -> str:
    name = new_id()
    client.say("generate", name, "warm", "@seconds", 0.2, "@steps", 1, "@scsynth", port, "@buffer", 7, *more)
    return name


def test_scsynth_loads_each_take_into_its_own_buffer(client: UdpClient) -> None:
    with server() as there:
        name = ask(client, there.port, "@takes", 2)
        received = client.until_end(name)
        takes = {int(event.arguments[1]): str(event.arguments[2]) for event in received if event.name == "take"}
        asked = {}
        for _ in range(2):
            message = there.receive()
            assert message.address == "/b_allocRead"
            buffer, path, *rest = message.arguments
            assert rest == [0, 0]
            asked[buffer] = path
            there.answer("/done", "/b_allocRead", int(str(buffer)))
            event = client.receive()
            assert (event.name, event.tags) == ("buffered", "siis")
            assert event.arguments == (name, int(str(buffer)) - 7, buffer, path)
        assert asked == {7: takes[0], 8: takes[1]}


def test_scsynth_buffer_is_reported_to_its_client_alone(
    daemon: DaemonProcess, client: UdpClient, other: UdpClient
) -> None:
    assert other.ask("notify", 1).name == "done"
    with server() as there, zmq.Context[zmq.Socket[bytes]]() as context, context.socket(zmq.SUB) as listener:
        listener.setsockopt(zmq.LINGER, 0)
        listener.setsockopt(zmq.RCVTIMEO, int(TIMEOUT_S * 1000))
        listener.connect(f"tcp://127.0.0.1:{daemon.events}")
        listener.subscribe(b"")
        while not listener.poll(100):  # until it is subscribed
            assert client.ask("ping").name == "pong"
        name = ask(client, there.port)
        client.until_end(name)
        there.receive()
        there.answer("/done", "/b_allocRead", 7)
        assert client.receive().name == "buffered"
        client.nothing_more()
        reported = other.until("done", id=name)
        assert {event.name for event in reported} <= {"queued", "started", "progress", "take", "done"}
        other.nothing_more()
        topics = [listener.recv_multipart()[0].decode()]
        while topics[-1] != "synced":
            topics.append(listener.recv_multipart()[0].decode())
        assert "take" in topics
        assert "buffered" not in topics
    other.ask("notify", 0)


def test_scsynth_that_cannot_read_the_file_is_reported(client: UdpClient) -> None:
    with server() as there:
        name = ask(client, there.port)
        assert client.until_end(name)[-1].name == "done"
        there.receive()
        there.answer("/fail", "/b_allocRead", "buffer index out of range", 7)
        failed = client.receive()
        assert (failed.name, failed.arguments[:2]) == ("fail", ("scsynth", "bad-audio"))
        assert "buffer index out of range" in str(failed.arguments[2])


def test_scsynth_that_is_absent_is_reported_and_the_take_kept(client: UdpClient) -> None:
    with server() as gone:
        port = gone.port
    *_, take, done = client.until_end(ask(client, port))
    assert (take.name, done.name) == ("take", "done")
    failed = client.receive()
    assert failed.arguments[:2] == ("scsynth", "no-audio-device")
    assert f"port {port}" in str(failed.arguments[2])
    assert str(take.arguments[2]) in str(failed.arguments[2])
    assert Path(str(take.arguments[2])).is_file()


async def test_scsynth_that_is_silent_is_given_up() -> None:
    with server() as silent, pytest.raises(NoAudioDevice, match=f"port {silent.port}"):
        await scsynth_buffers.allocate_and_read("127.0.0.1", silent.port, 1, Path("take.wav"), timeout_s=0.1)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("@scsynth", 57110), "scsynth, buffer: give both or none"),
        (("@buffer", 3), "scsynth, buffer: give both or none"),
        (("@scsynth", 0, "@buffer", 3), "scsynth: got 0, allowed is a whole number from 1 to 65535"),
        (("@scsynth", 57110, "@buffer", -1), "buffer: got -1, allowed is a whole number from 0 to 1000000"),
    ],
)
def test_scsynth_buffers_refuse_unusable_keys(client: UdpClient, keys: tuple[str | int, ...], said: str) -> None:
    name = new_id()
    client.say("generate", name, "warm", *keys)
    [failed] = client.until_end(name)
    assert failed.arguments[:2] == (name, "bad-request")
    assert str(failed.arguments[2]).startswith(said)


def test_scsynth_buffers_are_loaded_only_over_osc(daemon: DaemonProcess) -> None:
    with zmq.Context[zmq.Socket[bytes]]() as context, context.socket(zmq.REQ) as request:
        request.setsockopt(zmq.LINGER, 0)
        request.connect(f"tcp://127.0.0.1:{daemon.requests}")
        request.send(b'{"type": "generate", "id": "z", "prompt": "warm", "scsynth": 57110, "buffer": 1}')
        answer = msgspec.json.decode(request.recv())
    assert (answer["type"], answer["code"]) == ("fail", "bad-request")
    assert "over OSC" in answer["message"]
