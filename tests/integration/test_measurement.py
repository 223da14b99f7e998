"""Measured takes over OSC, ZeroMQ and WebSocket: events, recipes, the library and the order of the takes."""

import json
from typing import Any

import pytest
import zmq
from websockets.sync.client import connect

from tests.integration.clients import TIMEOUT_S, UdpClient
from tests.integration.daemons import DaemonProcess
from timbred.audiofile.files import read_recipe

LONG_TIMEOUT_S = 2 * TIMEOUT_S
"""Seconds for the first measurement of a daemon, which compiles librosa's code."""


def ask(daemon: DaemonProcess, **request: Any) -> dict[str, Any]:
    """Send a request from a REQ and return its reply."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.REQ)
    socket.set(zmq.RCVTIMEO, int(LONG_TIMEOUT_S * 1000))
    socket.connect(f"tcp://127.0.0.1:{daemon.requests}")
    try:
        socket.send(json.dumps(request).encode())
        return json.loads(socket.recv())
    finally:
        context.destroy(linger=0)


def test_measurement_measured_take_stands_in_event_recipe_and_library(daemon: DaemonProcess) -> None:
    reply = ask(daemon, type="generate", id="m1", prompt="pulse 97", seconds=6, steps=1, seed=0, measure=True)
    (take,) = reply["takes"]
    assert take["tempo"] == pytest.approx(97, rel=0.01)
    assert take["downbeat"] == pytest.approx(0, abs=0.03)
    assert "key: " in take["unmeasured"]
    recipe = read_recipe(daemon.takes / take["path"])
    assert recipe["measured"] == {"tempo": take["tempo"], "downbeat": take["downbeat"]}
    found = ask(daemon, type="takes", search="bpm:97")
    assert [entry["take_id"] for entry in found["takes"]] == [take["take_id"]]
    assert found["takes"][0]["tempo"] == take["tempo"]
    assert ask(daemon, type="takes", search="pulse bpm:150-160")["takes"] == []


def test_measurement_measured_take_over_osc_has_the_arguments_of_every_take(client: UdpClient) -> None:
    client.say("generate", "m2", "pulse", 97, "@seconds", 2, "@steps", 1, "@measure", 1, "@key", "C", "minor")
    *_, take, done = client.until_end()
    assert (take.tags, done.name) == ("sisfiiifs", "done")


def test_measurement_measured_take_over_websocket_says_why_a_value_is_missing(daemon: DaemonProcess) -> None:
    with connect(f"ws://127.0.0.1:{daemon.http}/ws", open_timeout=TIMEOUT_S) as page:
        page.send(json.dumps({"type": "generate", "id": 3, "prompt": "pad", "seconds": 0.2, "measure": 1}))
        events = [json.loads(page.recv(LONG_TIMEOUT_S))]
        while events[-1]["type"] not in ("done", "fail"):
            events.append(json.loads(page.recv(LONG_TIMEOUT_S)))
    (take,) = [event for event in events if event["type"] == "take"]
    assert "tempo" not in take
    assert "tempo: the sound is shorter than 1 s" in take["unmeasured"]


def test_measurement_fit_puts_the_take_that_keeps_the_tempo_first(daemon: DaemonProcess) -> None:
    reply = ask(
        daemon, type="generate", id="m4", prompt="pulse 97", seconds=6, steps=1, seed=2, takes=3, bpm=97, fit=True
    )
    takes = reply["takes"]
    assert [take["index"] for take in takes] == [0, 1, 2]
    assert takes[0]["seed"] == 4
    assert takes[0]["fit"] > 0.9 > takes[1]["fit"] >= takes[2]["fit"]
    assert reply["path"] == takes[0]["path"]


@pytest.mark.parametrize(
    ("keys", "message"), [({"key": "H minor"}, "key: got 'H minor'"), ({"bpm": 0}, "bpm: got 0, allowed is a number")]
)
def test_measurement_music_that_there_is_not_is_refused_at_once(
    daemon: DaemonProcess, keys: dict[str, Any], message: str
) -> None:
    reply = ask(daemon, type="generate", id="m5", prompt="pad", **keys)
    assert (reply["type"], reply["code"]) == ("fail", "bad-request")
    assert reply["message"].startswith(message)
