"""Two real engines on the CPU, with the embedded model: the same sound, whichever renders it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import zmq

from tests.forked_programs import torch_program
from tests.integration.daemons import DaemonProcess
from tests.patience import TIMEOUT_S
from timbred.audiofile.files import read_recipe

MAX_DIFFERENCE_DBFS = -80.0


class Requests:
    """A ZeroMQ client that keeps the events of each request."""

    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        self.socket = socket

    def ask(self, **keys: object) -> None:
        self.socket.send_json(keys)

    def receive(self) -> dict[str, object]:
        assert self.socket.poll(int(TIMEOUT_S * 1000))
        event = self.socket.recv_json()
        assert isinstance(event, dict)
        assert event["type"] != "fail", event
        return event

    def until_all_are_up(self) -> None:
        """Wait until both engines have the model."""
        while True:
            self.ask(type="engines")
            if all(self.receive()["models"] == "pocket" for _ in range(2)):
                return

    def render_twice(self, **keys: object) -> list[Path]:
        """The files of the same sound, rendered twice at the same time: each engine has one job at once."""
        for name in ("one", "two"):
            self.ask(type="generate", id=f"{name} {keys}", prompt="a deep kick", seconds=0.5, bits=32, seed=7, **keys)
        order: list[object] = []
        files: list[Path] = []
        while len(files) < 2:
            event = self.receive()
            if event["type"] in ("started", "take"):
                order.append(event["type"])
            elif event["type"] == "done":
                files.append(Path(str(event["path"])))
        assert order == ["started", "started", "take", "take"], "both engines have rendered"
        return files


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Requests]:
    folder = tmp_path_factory.mktemp("pair")
    settings = ("engines=cpu cpu", "device.threads=1", "engine.jobs=1", "engine.spare=off", "models.default=pocket")
    daemon = DaemonProcess(folder, *settings, "player.device=none", fake_engine=False, more=torch_program())
    try:
        with zmq.Context[zmq.Socket[bytes]]() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(f"tcp://127.0.0.1:{daemon.requests}")
            made = Requests(socket)
            made.until_all_are_up()
            yield made
    finally:
        daemon.stop()


def test_engine_pair_renders_the_same_sound(requests: Requests) -> None:
    first, second = requests.render_twice(steps=4)
    sounds = [soundfile.read(path, dtype="float32")[0] for path in (first, second)]
    assert np.abs(sounds[0]).max() > 0.1
    assert np.abs(sounds[0] - sounds[1]).max() < 10 ** (MAX_DIFFERENCE_DBFS / 20)
    recipes = [read_recipe(path) for path in (first, second)]
    assert [recipe["device"] for recipe in recipes] == ["CPU, 1 threads, float32"] * 2


def test_engine_pair_renders_exact_sounds_bit_for_bit(requests: Requests) -> None:
    first, second = requests.render_twice(steps=4, exact=1)
    assert soundfile.read(first, dtype="float32")[0].tobytes() == soundfile.read(second, dtype="float32")[0].tobytes()
