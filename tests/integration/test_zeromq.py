"""ZeroMQ: a DEALER hears events as they happen, a REQ gets one reply, a SUB hears everybody."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import zmq

from tests.integration.clients import SOUND, TIMEOUT_S, UdpClient, hold_engine, let_go, order
from tests.integration.daemons import DaemonProcess

Json = dict[str, Any]
TERMINAL = ("done", "cancelled", "fail")


class Sockets:
    """ZeroMQ sockets to one daemon."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def connected(self, kind: int) -> "zmq.Socket[bytes]":
        socket = self.context.socket(kind)
        socket.set(zmq.RCVTIMEO, int(TIMEOUT_S * 1000))
        socket.set(zmq.LINGER, 0)
        port = self.daemon.events if kind == zmq.SUB else self.daemon.requests
        socket.connect(f"tcp://127.0.0.1:{port}")
        return socket


@pytest.fixture
def sockets(daemon: DaemonProcess) -> Iterator[Sockets]:
    made = Sockets(daemon)
    yield made
    made.context.destroy(linger=0)


def events_until_end(dealer: "zmq.Socket[bytes]") -> list[Json]:
    received: list[Json] = [json.loads(dealer.recv())]
    while received[-1]["type"] not in TERMINAL:
        received.append(json.loads(dealer.recv()))
    return received


def ask(socket: "zmq.Socket[bytes]", **request: object) -> Json:
    socket.send(json.dumps(request).encode())
    return json.loads(socket.recv())


def names(events: list[Json]) -> list[str]:
    return [name for name, _ in itertools.groupby(event["type"] for event in events)]


@pytest.mark.usefixtures("idle")
def test_zeromq_dealer_hears_events_in_order_by_name(sockets: Sockets) -> None:
    dealer = sockets.connected(zmq.DEALER)
    request = {"type": "generate", "id": "d1", "prompt": "warm pad", "seconds": 0.5, "seed": 7, "steps": 3}
    dealer.send(json.dumps(request).encode())
    events = events_until_end(dealer)
    assert names(events) == SOUND
    queued, started, *progress, take, done = events
    assert (queued["id"], queued["position"]) == ("d1", 0)
    assert queued["eta_s"] >= 0
    assert started == {"type": "started", "id": "d1", "model": "hollow"}
    assert [(event["step"], event["steps"]) for event in progress[-3:]] == [(1, 3), (2, 3), (3, 3)]
    assert set(take) >= {"id", "index", "path", "seconds", "rate", "channels", "seed", "score", "take_id"}
    assert (take["seconds"], take["rate"], take["seed"]) == (0.5, 48000, 7)
    assert done == {"type": "done", "id": "d1", "takes": 1, "path": take["path"]}
    assert Path(take["path"]).is_file()


def test_zeromq_samples_come_with_their_take(sockets: Sockets) -> None:
    dealer = sockets.connected(zmq.DEALER)
    request = {"type": "generate", "id": "in", "prompt": "pad", "seconds": 0.5, "takes": 2, "channels": 2, "steps": 1}
    dealer.send(json.dumps({**request, "inline": True, "bits": 32}).encode())
    takes = 0
    while True:
        event, *frames = dealer.recv_multipart()
        received = json.loads(event)
        assert len(frames) == (received["type"] == "take")
        if frames:
            samples = np.frombuffer(frames[0], "<f4").reshape(-1, received["channels"])
            assert samples.shape == (round(received["seconds"] * received["rate"]), 2)
            np.testing.assert_array_equal(samples, soundfile.read(received["path"], dtype="float32")[0])
            takes += 1
        if received["type"] in TERMINAL:
            break
    assert (received["type"], takes) == ("done", 2)


def test_zeromq_samples_come_without_a_file(sockets: Sockets, daemon: DaemonProcess) -> None:
    dealer = sockets.connected(zmq.DEALER)
    request = {"type": "generate", "id": "none", "prompt": "never written", "seconds": 0.2, "steps": 1}
    dealer.send(json.dumps({**request, "inline": True, "to": "none"}).encode())
    while (parts := dealer.recv_multipart()) and json.loads(parts[0])["type"] != "take":
        pass
    assert json.loads(parts[0])["path"] == ""
    assert len(parts[1]) == 4 * 9600
    assert json.loads(dealer.recv())["type"] == "done"
    assert not list(daemon.takes.glob("never-written*"))


def test_zeromq_req_gets_exactly_one_reply(sockets: Sockets) -> None:
    req = sockets.connected(zmq.REQ)
    reply = ask(req, type="generate", id="r1", prompt="pad", seconds=0.2, takes=2, steps=1)
    assert (reply["type"], reply["id"]) == ("done", "r1")
    assert [take["index"] for take in reply["takes"]] == [0, 1]
    assert reply["path"] == reply["takes"][0]["path"]
    assert ask(req, type="ping") == {"type": "pong"}
    assert ask(req, type="status")["type"] == "status.reply"
    assert {model["name"] for model in ask(req, type="models")["models"]} >= {"pocket", "hollow"}
    assert len(ask(req, type="takes", limit=2)["takes"]) == 2
    assert ask(req, type="load", model="hollow") == {"type": "loaded", "model": "hollow"}
    failure = ask(req, type="generate", id="r2", prompt="pad", seconds=-1)
    assert (failure["type"], failure["id"], failure["code"]) == ("fail", "r2", "bad-request")
    assert ask(req, type="sync", n=5) == {"type": "synced", "n": 5}


def test_zeromq_req_gets_samples_after_its_reply(sockets: Sockets) -> None:
    req = sockets.connected(zmq.REQ)
    request = {"type": "generate", "id": "r3", "prompt": "pad", "seconds": 0.2, "takes": 2, "steps": 1, "inline": True}
    req.send(json.dumps(request).encode())
    reply, *frames = req.recv_multipart()
    assert [len(frame) for frame in frames] == [4 * 9600] * len(json.loads(reply)["takes"])


def test_zeromq_sub_hears_every_client_by_topic(sockets: Sockets, client: UdpClient) -> None:
    everything, takes = sockets.connected(zmq.SUB), sockets.connected(zmq.SUB)
    everything.subscribe("")
    takes.subscribe("take")
    for one in (everything, takes):
        one.set(zmq.RCVTIMEO, 20)
        while True:  # a subscription is in force once an event is heard
            client.make_take("listening")
            try:
                one.recv_multipart()
                break
            except zmq.Again:
                continue
        one.set(zmq.RCVTIMEO, int(TIMEOUT_S * 1000))
    client.say("generate", "on air", "pad", "@seconds", 0.2, "@steps", 2)
    received = client.until_end()
    published: list[Json] = []
    while not published or published[-1]["type"] != "done" or published[-1]["id"] != "on air":
        topic, event = everything.recv_multipart()
        published.append(json.loads(event))
        assert topic.decode() == published[-1]["type"]
    published = [event for event in published if event.get("id") == "on air"]
    assert [event["type"] for event in published] == [event.name for event in received]
    while json.loads((parts := takes.recv_multipart())[1])["id"] != "on air":
        assert parts[0] == b"take"
    assert order(received) == SOUND


def test_zeromq_resends_are_the_same_request(sockets: Sockets) -> None:
    req = sockets.connected(zmq.REQ)
    first = ask(req, type="generate", id="once", prompt="pad", seconds=0.2, steps=1)
    assert ask(req, type="generate", id="once", prompt="pad", seconds=0.2, steps=1) == first


def test_zeromq_dealer_cancels(sockets: Sockets) -> None:
    dealer = sockets.connected(zmq.DEALER)
    dealer.send(b'{"type": "generate", "id": 3, "prompt": "slow", "steps": 3}')
    while (event := json.loads(dealer.recv()))["type"] != "progress":
        assert event["type"] not in TERMINAL, event
    dealer.send(b'{"type": "cancel", "id": 3}')
    assert events_until_end(dealer)[-1] == {"type": "cancelled", "id": 3}


BAD = {
    b"": "JSON",
    b"\xff\xfe": "JSON",
    b"generate": "JSON",
    b"[1, 2]": "object",
    b'"generate"': "object",
    b"{": "JSON",
    b"{}": "type",
    b'{"type": 5}': "5",
    b'{"type": "sing"}': "sing",
    b'{"type": "generate", "id": "x"}': "prompt",
    b'{"type": "generate", "id": "x", "prompt": "p", "sekunden": 4}': "sekunden",
    b'{"type": "generate", "id": "x", "prompt": "p", "seconds": [4]}': "seconds",
    b'{"type": "generate", "id": "x", "prompt": "p", "seconds": {"a": 1}}': "seconds",
    b'{"type": "generate", "id": "x", "prompt": "p", "seconds": 1e999}': "",
    b'{"type": "generate", "id": "x", "prompt": {"a": 1}}': "prompt",
    b'{"type": "generate", "id": null, "prompt": "p"}': "id",
    b'{"type": "generate", "id": {}, "prompt": "p"}': "id",
    b'{"type": "generate", "prompt": "p"}': "id",
    b'{"type": "generate", "id": "x", "prompt": "%s"}' % (b"x" * 100_000): "2000",
    b'{"type": "ping", "surplus": 1}': "surplus",
    b"[" * 100_000: "",
    b'{"a":' * 100_000: "",
}


@pytest.mark.parametrize("number", range(len(BAD)))
def test_zeromq_frames_without_a_request_are_refused(sockets: Sockets, client: UdpClient, number: int) -> None:
    frame, word = list(BAD.items())[number]
    hold_engine(client, f"beside-{number}")
    for kind in (zmq.DEALER, zmq.REQ):
        socket = sockets.connected(kind)
        socket.send(frame)
        answer = json.loads(socket.recv())
        assert (answer["type"], answer["code"]) == ("fail", "bad-request")
        assert word in answer["message"]
        assert ask(socket, type="ping") == {"type": "pong"}
    client.nothing_more()
    let_go(client, f"beside-{number}")


def test_zeromq_frame_of_a_hundred_megabytes_is_refused(sockets: Sockets, client: UdpClient) -> None:
    hold_engine(client, "beside a giant")
    dealer = sockets.connected(zmq.DEALER)
    dealer.send(b'{"type": "generate", "id": "x", "prompt": "' + b"x" * 100_000_000 + b'"}')
    answer = json.loads(dealer.recv())
    assert (answer["type"], answer["code"]) == ("fail", "bad-request")
    assert ask(dealer, type="ping") == {"type": "pong"}
    client.nothing_more()
    let_go(client, "beside a giant")


def test_zeromq_messages_of_several_frames_are_refused(sockets: Sockets) -> None:
    dealer = sockets.connected(zmq.DEALER)
    dealer.send_multipart([b'{"type": "ping"}', b'{"type": "ping"}'])
    answer = json.loads(dealer.recv())
    assert (answer["type"], answer["code"]) == ("fail", "bad-request")
    assert ask(dealer, type="ping") == {"type": "pong"}
