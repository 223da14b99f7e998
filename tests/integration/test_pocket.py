"""The real engine with a small untrained model of the family pocket: sounds, edits, loops, and old takes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import zmq

from tests.integration.clients import TIMEOUT_S
from tests.integration.daemons import DaemonProcess, start_real_engine
from timbred.audio import Clip, SampleRate
from timbred.audiofile.files import encode, read_recipe
from timbred.render_settings import RenderSettings
from timbred.storage.recipe import make_recipe

Json = dict[str, Any]


@pytest.fixture(scope="module")
def pocket_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.training.pocket.test_export import small
    from training.pocket.export import export

    folder = tmp_path_factory.mktemp("pocket")
    export(small(), folder, 1000)
    return folder


@pytest.fixture(scope="module")
def pocket_daemon(pocket_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    started = start_real_engine(tmp_path_factory.mktemp("daemon"), {"second": pocket_folder})
    yield started
    started.stop()


@pytest.fixture(scope="module")
def dealer(pocket_daemon: DaemonProcess) -> Iterator["zmq.Socket[bytes]"]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.RCVTIMEO, int(TIMEOUT_S * 1000))
    socket.set(zmq.LINGER, 0)
    socket.connect(f"tcp://127.0.0.1:{pocket_daemon.requests}")
    yield socket
    context.destroy(linger=0)


def render(dealer: "zmq.Socket[bytes]", identity: str, **request: object) -> list[Json]:
    """Send a request and return its events, of which the last one is `done`."""
    kind = "vary" if "take" in request else "generate"
    dealer.send(json.dumps({"type": kind, "id": identity, **request}).encode())
    events: list[Json] = []
    while not events or events[-1]["type"] not in ("done", "cancelled", "fail"):
        events.append(json.loads(dealer.recv()))
    assert events[-1]["type"] == "done", events[-1]
    return events


def take_of(events: list[Json]) -> Json:
    return next(event for event in events if event["type"] == "take")


def read(take: Json) -> np.ndarray:
    return soundfile.read(take["path"], dtype="float32", always_2d=True)[0]


def test_pocket_take_says_how_much_of_its_prompt_is_known(dealer: "zmq.Socket[bytes]") -> None:
    piano = take_of(render(dealer, "piano", prompt="a grand piano c4", seconds=0.5, seed=1))
    unknown = render(dealer, "dog", prompt="a dog barking", seconds=0.5, seed=1)
    dog, (warning,) = take_of(unknown), [event for event in unknown if event["type"] == "warning"]
    assert piano["knows"] > 0.9
    assert dog["knows"] == 0.0
    assert (warning["key"], warning["message"][:13]) == ("prompt", "nearest sound")
    assert (piano["channels"], len(read(piano))) == (2, 24_000)
    assert np.abs(read(dog)).max() > 0.1


def test_pocket_loop_of_bars_has_its_exact_length(dealer: "zmq.Socket[bytes]") -> None:
    for rate in (44_100, 48_000):
        request = {"prompt": "techno drum loop", "bars": 2, "bpm": 97, "loop": True, "rate": rate}
        take = take_of(render(dealer, f"loop at {rate}", **request))
        assert len(read(take)) == round(2 * 4 * 60 / 97 * rate)


def test_pocket_edits_leave_the_rest_of_a_take_unchanged(dealer: "zmq.Socket[bytes]") -> None:
    whole = take_of(render(dealer, "whole", prompt="violin c4", seconds=1.0, seed=2))
    part = take_of(render(dealer, "part", prompt="noise", init=whole["take_id"], regions="0.4-0.6", seed=3))
    longer = take_of(render(dealer, "longer", prompt="violin c4", init=whole["take_id"], extend=0.5, seed=3))
    before, repainted, extended = read(whole), read(part), read(longer)
    assert np.array_equal(repainted[:14_000], before[:14_000])
    assert not np.array_equal(repainted[20_000:28_000], before[20_000:28_000])
    assert np.array_equal(extended[:40_000], before[:40_000])
    assert len(extended) == 72_000


def test_pocket_vary_says_that_the_model_has_changed(pocket_daemon: DaemonProcess, dealer: "zmq.Socket[bytes]") -> None:
    recipe = make_recipe(
        {"seconds": 0.5, "scheduler": "dpm++2m", "steps": 14},
        model="second", licence="Apache-2.0", prompt="a kick", seed=5,
    )  # fmt: skip
    old = pocket_daemon.takes / "old.wav"
    clip = Clip(np.full((24_000, 1), 0.1, np.float32), SampleRate(48_000), recipe)
    encode(clip, old, RenderSettings())
    events = render(dealer, "changed", take=str(old))
    warning = next(event for event in events if event["type"] == "warning")
    assert warning["key"] == "model"
    assert "has changed" in warning["message"]
    new = take_of(events)
    written = read_recipe(Path(new["path"]))
    assert new["seed"] == 5
    assert written["model_version"].startswith("2-")
    again = render(dealer, "same", take=new["take_id"])
    assert not [event for event in again if event["type"] == "warning"]
    assert np.array_equal(read(take_of(again)), read(new))


def test_pocket_card_tells_its_kinds_and_words(dealer: "zmq.Socket[bytes]") -> None:
    dealer.send(json.dumps({"type": "models"}).encode())
    answers = [json.loads(dealer.recv())]
    while not any(answer.get("name") == "second" for answer in answers):
        answers.append(json.loads(dealer.recv()))
    knows = next(answer["knows"] for answer in answers if answer.get("name") == "second").split(", ")
    assert {"grand piano", "violin", "house drum loop", "reverb", "minor 7"} <= set(knows)


def test_pocket_words_are_listed_by_group(dealer: "zmq.Socket[bytes]") -> None:
    dealer.send(json.dumps({"type": "words", "model": "second"}).encode())
    answers: list[Json] = []
    while not answers or answers[-1]["type"] != "done":
        answers.append(json.loads(dealer.recv()))
    groups = {answer["group"]: answer["words"].split(", ") for answer in answers[:-1]}
    kinds = {answer["group"] for answer in answers[:-1] if answer["kinds"]}
    assert {answer["model"] for answer in answers[:-1]} == {"second"}
    assert {"piano", "strings", "voice", "drums", "drum loops", "synthesised"} <= kinds
    assert kinds.isdisjoint({"notes", "chords", "scales", "tempi", "styles of drum loops", "touches", "effects"})
    assert "violin" in groups["strings"]
    assert {"with reverb", "lo-fi"} <= set(groups["effects"])
    assert {"c4", "f#4"} <= set(groups["notes"])


def test_pocket_words_of_no_model_are_refused(dealer: "zmq.Socket[bytes]") -> None:
    dealer.send(json.dumps({"type": "words", "model": "dog"}).encode())
    answer = json.loads(dealer.recv())
    assert (answer["type"], answer["id"], answer["code"]) == ("fail", "words", "unknown-model")


def test_pocket_is_described_on_the_command_line(pocket_folder: Path) -> None:
    source = f"models.second.source={pocket_folder}"
    command = [sys.executable, "-m", "timbred", "models", "describe", "second", "--set", source]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = dict(line.split(": ", 1) for line in text.splitlines())
    described = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True, text=True).stdout)
    assert lines["piano"].startswith("grand piano, ")
    assert lines["chords"].startswith("major, minor, ")
    assert "0 to 1" in lines["knows"]
    assert described["kinds"]["piano"][0] == "grand piano"
    assert {"notes", "chords", "scales", "styles of drum loops", "touches", "effects"} <= described["words"].keys()
    assert described["knows"] == lines["knows"]
