"""The player's side of the protocol, line by line: the same requests over OSC and ZeroMQ to one daemon as a process.

The names and places of arguments are written out here from the protocol: tests of a wire must not share its code.
"""

import contextlib
import itertools
import json
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
import zmq

from tests.integration import clients
from tests.integration.clients import TIMEOUT_S, Client
from tests.integration.daemons import DaemonProcess, hollow_checkpoint
from tests.integration.osc import Tagged, Value
from tests.player.player_stage import RATE, JackServer

Json = dict[str, Any]

NEEDED = {
    "play": ("voice", "take"),
    "stop": ("voice",),
    "set": ("voice",),
    "flow": ("voice", "prompt"),
    "generate": ("id", "prompt"),
    "cancel": ("id",),
    "tempo": ("bpm",),
    "sync": ("n",),
    "notify": ("on",),
    "settings/player.gain": ("value",),
}
"""What a request needs, in OSC's order; all else is `@key value`."""

TOLD = {
    "playing": ("voice", "take", "frame", "beat"),
    "ended": ("voice", "take", "frame", "reason"),
    "flowing": ("voice", "take", "frame", "late"),
    "fail": ("id", "code", "message"),
    "synced": ("n",),
    "settings/player.gain": ("value",),
    "done": ("id", "takes", "path"),
    "cancelled": ("id",),
    "queued": ("id", "position", "eta_s"),
    "started": ("id", "model"),
    "progress": ("id", "fraction", "step", "steps", "eta_s"),
    "take": ("id", "index", "path", "seconds", "rate", "channels", "seed", "score", "take_id"),
}
"""What an event's arguments are, in OSC's order."""

_numbers = itertools.count(1)


class Speaker:
    """A client in one of the languages. Events come as JSON tells them."""

    can_say_types = False

    def say(self, kind: str, **words: Any) -> None:
        raise NotImplementedError

    def receive(self) -> Json:
        raise NotImplementedError

    def ask(self, kind: str, **words: Any) -> Json:
        """The first answer."""
        self.say(kind, **words)
        return self.receive()

    def until(self, *kinds: str) -> Json:
        """The next event of one of these kinds."""
        while (event := self.receive())["type"] not in kinds:
            assert event["type"] != "fail", event
        return event

    def settled(self) -> list[Json]:
        """All that is still told of what was said before."""
        number = next(_numbers)
        self.say("sync", n=number)
        received: list[Json] = []
        while (event := self.receive()) != {"type": "synced", "n": number}:
            received.append(event)
        return received


class OscSpeaker(Speaker):
    """OSC, over UDP or TCP."""

    can_say_types = True

    def __init__(self, client: Client) -> None:
        self.client = client

    def say(self, kind: str, **words: Any) -> None:
        needed: list[Value | Tagged] = [words.pop(name) for name in NEEDED.get(kind, ()) if name in words]
        keys: list[Value | Tagged] = [part for name, value in words.items() for part in (f"@{name}", value)]
        self.client.say(kind, *needed, *keys)

    def receive(self) -> Json:
        received = self.client.receive()
        assert set(received.tags) <= set("ifs")
        return {"type": received.name, **dict(zip(TOLD[received.name], received.arguments, strict=False))}


class JsonSpeaker(Speaker):
    """ZeroMQ."""

    def __init__(self, port: int) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.connected(zmq.DEALER, port)

    def connected(self, kind: int, port: int) -> "zmq.Socket[bytes]":
        socket = self.context.socket(kind)
        socket.set(zmq.RCVTIMEO, int(TIMEOUT_S * 1000))
        socket.connect(f"tcp://127.0.0.1:{port}")
        return socket

    def say(self, kind: str, **words: Any) -> None:
        self.socket.send_json({"type": kind, **words})

    def receive(self) -> Json:
        return json.loads(self.socket.recv())


@pytest.fixture(scope="module")
def daemon(jack: JackServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with the fake engine, and a player on a device of two channels."""
    folder = tmp_path_factory.mktemp("player-wire")
    model = hollow_checkpoint(folder / "hollow")
    started = DaemonProcess(
        folder, f"models.hollow.source={model}", "models.default=hollow", "tempo=960", "player.lead=100",
    )  # fmt: skip
    soundfile.write(started.takes / "loop.wav", np.full(RATE // 2, 0.01), RATE)
    soundfile.write(started.takes / "long.wav", np.full(120 * RATE, 0.01), RATE)
    yield started
    started.stop()


@contextlib.contextmanager
def speaking(language: str, daemon: DaemonProcess) -> Generator[Speaker]:
    match language:
        case "udp":
            with clients.udp(daemon.osc) as client:
                yield OscSpeaker(client)
        case "tcp":
            with clients.tcp(daemon.osc) as client:
                yield OscSpeaker(client)
        case _:
            speaker = JsonSpeaker(daemon.requests)
            yield speaker
            speaker.context.destroy(linger=0)


@pytest.fixture(params=["udp", "tcp", "zmq"])
def speaker(request: pytest.FixtureRequest, daemon: DaemonProcess) -> Iterator[Speaker]:
    """A client that leaves every voice silent."""
    with speaking(request.param, daemon) as made:
        yield made
        made.say("cancel", id="*")
        made.settled()
        made.say("stop", voice="*")
        while made.receive()["type"] not in ("done", "ended"):  # then the player has carried it out
            pass
        made.settled()


@pytest.fixture
def loop(daemon: DaemonProcess) -> str:
    return str(daemon.takes / "loop.wav")


def test_play_is_answered_by_playing_and_ended(speaker: Speaker, loop: str) -> None:
    playing = speaker.ask("play", voice=3, take=loop)
    assert {key: playing[key] for key in ("type", "voice", "take")} == {"type": "playing", "voice": 3, "take": loop}
    assert isinstance(playing["frame"], int)
    ended = speaker.receive()
    assert ended == {
        "type": "ended", "voice": 3, "take": loop, "frame": playing["frame"] + RATE // 2, "reason": "finished",
    }  # fmt: skip
    assert speaker.settled() == []


def test_stop_is_answered_by_ended_or_the_reason(speaker: Speaker, loop: str) -> None:
    for voice in (1, 64):
        assert speaker.ask("play", voice=voice, take=loop, loop=1)["type"] == "playing"
    first = speaker.ask("stop", voice=64, fade=0.02)
    assert (first["type"], first["voice"], first["reason"]) == ("ended", 64, "stopped")
    on_the_bar = speaker.ask("stop", voice=1, at="bar", fade=0.0)
    assert (on_the_bar["type"], on_the_bar["reason"]) == ("ended", "stopped")
    silent = speaker.ask("stop", voice=1)
    assert (silent["type"], silent["id"], silent["code"]) == ("fail", "stop", "bad-request")
    assert speaker.ask("stop", voice="*") == {"type": "done", "id": "stop"}, "all of none is no fault"
    for voice in (2, 5):
        assert speaker.ask("play", voice=voice, take=loop, loop=1)["type"] == "playing"
    speaker.say("stop", voice="*")
    assert {speaker.receive()["voice"] for _ in range(2)} == {2, 5}
    assert speaker.settled() == []


def test_set_is_answered_by_done(speaker: Speaker, loop: str) -> None:
    assert speaker.ask("play", voice=1, take=loop, loop=1)["type"] == "playing"
    for keys in ({"gain": -3}, {"pan": -1}, {"speed": 0.5}, {"gain": -120.0, "pan": 1, "speed": 2, "fade": 0.1}):
        assert speaker.ask("set", voice=1, **keys) == {"type": "done", "id": "set"}
    for keys in ({}, {"fade": 1}, {"gain": 7}, {"pan": 2}, {"speed": 0}, {"out": 2}, {"voice": 9, "gain": 0}):
        refused = speaker.ask("set", **{"voice": 1, **keys})
        assert (refused["type"], refused["id"], refused["code"]) == ("fail", "set", "bad-request"), (keys, refused)


GOOD: dict[str, tuple[Any, ...]] = {
    "gain": (-120, 6, 0.5, "-6", "-6.5"),
    "pan": (-1, 1, 0.25, "0.5"),
    "loop": (0, 1, True, False, "1", "true", "yes", "off", 1.0),
    "speed": (0.05, 20, 1, "2"),
    "out": (1, 2, "2", 2.0),
    "at": ("now", "beat", "bar", "NOW"),
    "fade": (0, 0.01, "0.02"),
}
"""Values that each key of `play` takes."""


@pytest.mark.parametrize("key", GOOD)
def test_play_accepts_each_key_in_every_form(speaker: Speaker, daemon: DaemonProcess, loop: str, key: str) -> None:
    values: list[Any] = list(GOOD[key])
    if speaker.can_say_types:
        values += [Tagged("d", value) for value in values if type(value) in (int, float)]
        values += [Tagged("h", value) for value in values if type(value) is int]
    take = str(daemon.takes / "long.wav") if key == "loop" else loop  # one that doesn't loop must not end by itself
    for value in values:
        playing = speaker.ask("play", voice=1, take=take, **{"loop": 1, key: value})
        assert playing["type"] == "playing", (key, value, playing)
        speaker.say("stop", voice=1, fade=0)
        speaker.until("ended")


BAD: dict[str, tuple[Any, ...]] = {
    "gain": (-121, 6.5, 25, "loud", "", float("inf")),
    "pan": (-1.01, 2, "left"),
    "loop": (2, -1, "perhaps", 0.5),
    "speed": (0, 0.01, 21, -1, "fast"),
    "out": (0, 257, 1.5, "two", 5),
    "at": ("soon", "-1", "nan", "bar 33", 0),
    "fade": (-0.1, 61, "long"),
    "voice": (0, 65, -1, 1.5, "lead", "1.5", "", "*"),
    "take": ("0123456789", "nowhere.wav", "../../etc/passwd"),
    "steps": (3,),
    "sekunden": (3,),
}
"""Values that `play` refuses, and keys that it hasn't got."""


@pytest.mark.parametrize("key", BAD)
def test_play_refuses_unusable_values_of_each_key_by_name(speaker: Speaker, loop: str, key: str) -> None:
    assert speaker.ask("play", voice=9, take=loop, loop=1)["type"] == "playing"
    for value in BAD[key]:
        if isinstance(value, float) and not np.isfinite(value) and not speaker.can_say_types:
            continue  # JSON has no such numbers
        refused = speaker.ask("play", **{"voice": 1, "take": loop, key: value})
        assert (refused["type"], refused["id"]) == ("fail", "play"), (key, value, refused)
        assert refused["code"] in ("bad-request", "forbidden-path", "bad-audio"), refused
        assert key in refused["message"] or str(value) in refused["message"], refused
    assert speaker.settled() == [], "and voice 9 sounds on"


def test_play_accepts_voice_numbers_in_any_form(speaker: Speaker, loop: str) -> None:
    forms: list[Any] = [7, "7", 7.0]
    if speaker.can_say_types:
        forms += [Tagged("h", 7), Tagged("d", 7.0)]
    for voice in forms:
        assert speaker.ask("play", voice=voice, take=loop, loop=1)["voice"] == 7, voice
        assert speaker.ask("set", voice=voice, gain=-6) == {"type": "done", "id": "set"}, voice
        assert speaker.ask("stop", voice=voice)["voice"] == 7, voice


def test_play_accepts_beats_by_number(speaker: Speaker, loop: str) -> None:
    assert speaker.ask("tempo", bpm=20) == {"type": "done", "id": "tempo"}
    now = round(speaker.ask("play", voice=1, take=loop)["beat"])
    beats = (now + 40, str(now + 41), now + 42.5)
    for number, beat in enumerate(beats):
        speaker.say("play", voice=2 + number, take=loop, at=beat)
    assert speaker.receive()["type"] == "ended", "the first one's, meanwhile the others wait"
    assert speaker.ask("tempo", bpm=960) == {"type": "done", "id": "tempo"}
    for number, beat in enumerate(beats):
        playing = speaker.until("playing")
        assert (playing["voice"], playing["beat"]) == (2 + number, pytest.approx(float(beat), abs=0.01))


def test_flow_is_reported_by_segment_change_and_end(speaker: Speaker) -> None:
    keys = {"seconds": 0.5, "steps": 2, "fade": 0.1, "gain": -20, "pan": 0.5, "out": 2}
    first = speaker.ask("flow", voice=4, prompt="a tone", at="bar", **keys)
    assert first == {"type": "flowing", "voice": 4, "take": first.get("take"), "frame": first.get("frame"), "late": 0}
    assert isinstance(first["frame"], int)
    takes = {first["take"]}
    while len(takes) < 3:
        event = speaker.receive()
        assert (event["type"], event["voice"]) == ("flowing", 4)
        takes.add(event["take"])
    speaker.say("flow", voice=4, prompt="another tone", **keys)
    while speaker.until("flowing")["take"] in takes:
        pass
    speaker.say("set", voice=4, gain=-30)
    assert speaker.until("done")["id"] == "set"
    speaker.say("stop", voice=4)
    ended = speaker.until("ended")
    assert (ended["voice"], ended["reason"]) == (4, "stopped")
    assert speaker.settled() == []


@pytest.mark.parametrize(
    "keys", [{"takes": 2}, {"loop": 1}, {"to": "file"}, {"by": "bar 3"}, {"voice": 65}, {"seconds": -1}, {"gain": 20}]
)
def test_flow_refuses_requests_without_content(speaker: Speaker, keys: Json) -> None:
    refused = speaker.ask("flow", **{"voice": 1, "prompt": "a tone", **keys})
    assert (refused["type"], refused["id"], refused["code"]) == ("fail", "flow", "bad-request")
    assert next(iter(keys)) in refused["message"]


def test_generate_accepts_the_keys_of_play(speaker: Speaker) -> None:
    identity = f"words-{next(_numbers)}"
    keys = {"voice": 6, "gain": -6, "pan": 0.1, "speed": 1.5, "out": 2, "at": "bar", "fade": 0.01}
    speaker.say("generate", id=identity, prompt="a tone", to="play", seconds=0.3, steps=2, loop=1, **keys)
    events: list[Json] = []
    while {"done", "playing"} - {event["type"] for event in events}:
        events.append(speaker.receive())
        assert events[-1]["type"] != "fail", events
    by_kind = {event["type"]: event for event in events}
    assert [kind for kind in by_kind if kind not in ("progress", "playing")] == ["queued", "started", "take", "done"]
    assert by_kind["take"]["path"] == "", "to play alone makes no file"
    assert (by_kind["playing"]["voice"], by_kind["playing"]["take"]) == (6, by_kind["take"]["take_id"])
    assert by_kind["playing"]["beat"] == pytest.approx(round(by_kind["playing"]["beat"] / 4) * 4, abs=0.01)
    again = speaker.ask("play", voice=6, take=by_kind["take"]["take_id"])
    assert (again["type"], again["code"]) == ("fail", "bad-audio"), "and so it can only be made again"


def test_tempo_accepts_numbers_in_any_form(speaker: Speaker) -> None:
    forms: list[Any] = [90, 90.5, "91"]
    if speaker.can_say_types:
        forms += [Tagged("h", 92), Tagged("d", 92.5)]
    for bpm in (*forms, 960):
        assert speaker.ask("tempo", bpm=bpm) == {"type": "done", "id": "tempo"}, bpm
    for bpm in (19, 1000, "fast", 0):
        refused = speaker.ask("tempo", bpm=bpm)
        assert (refused["type"], refused["id"], refused["code"]) == ("fail", "tempo", "bad-request"), bpm
        assert "bpm" in refused["message"]


def test_settings_include_the_players_gain(speaker: Speaker) -> None:
    assert speaker.ask("settings/player.gain", value=-12)["value"] == -12
    assert speaker.ask("settings/player.gain")["value"] == -12
    assert speaker.ask("settings/player.gain", value=0)["value"] == 0
    refused = speaker.ask("settings/player.gain", value=40)
    assert (refused["type"], refused["id"], refused["code"]) == ("fail", "settings/player.gain", "bad-request")


def test_notify_sends_player_events_to_every_listener(speaker: Speaker, daemon: DaemonProcess, loop: str) -> None:
    with clients.udp(daemon.osc) as listener:
        assert listener.ask("notify", 1).name == "done"
        assert speaker.ask("play", voice=11, take=loop)["type"] == "playing"
        assert speaker.receive()["type"] == "ended"
        received = [listener.receive() for _ in range(2)]
        assert [(event.name, event.tags) for event in received] == [("playing", "isif"), ("ended", "isis")]
        assert listener.ask("notify", 0).name == "done"


def test_play_answers_go_to_the_named_port(daemon: DaemonProcess, loop: str) -> None:
    with clients.udp(daemon.osc) as sender, clients.udp(daemon.osc) as listener:
        sender.say("play", 12, loop, "@port", listener.port, "@loop", 1)
        assert listener.receive().name == "playing"
        sender.say("stop", 12, "@port", listener.port)
        assert listener.receive().name == "ended"
        sender.nothing_more()


def test_play_accepts_words_and_numbers_as_patchers_send_them(daemon: DaemonProcess, loop: str) -> None:
    """Pd sends every number as a float, and a voice, a flag and a bpm with them."""
    with clients.udp(daemon.osc) as pd:
        assert pd.ask("play", 13.0, loop, "@loop", 1.0, "@gain", -6.0, "@out", 2.0).name == "playing"
        assert pd.ask("set", 13.0, "@pan", 0.0).name == "done"
        assert pd.ask("tempo", 960.0).name == "done"
        pd.say("flow", 13.0, "warm", "analog", 808.0, "pad", "@seconds", 0.5, "@steps", 2.0, "@fade", 0.1)
        assert pd.until("flowing")[-1].arguments[0] == 13
        pd.say("stop", 13.0, "@fade", 0.01)
        pd.until("ended")


def test_play_over_req_gets_one_reply_and_pub_sends_all(daemon: DaemonProcess, loop: str) -> None:
    speaker = JsonSpeaker(daemon.requests)
    try:
        sub, req = speaker.connected(zmq.SUB, daemon.events), speaker.connected(zmq.REQ, daemon.requests)
        sub.subscribe(b"")
        while True:  # until it is subscribed
            speaker.settled()
            if sub.poll(100):
                break
        for request, answer in (
            ({"type": "play", "voice": 20, "take": loop, "loop": 1}, "playing"),
            ({"type": "set", "voice": 20, "gain": -6}, "done"),
            ({"type": "stop", "voice": 20}, "ended"),
            ({"type": "flow", "voice": 21, "prompt": "a tone", "seconds": 0.5, "steps": 2}, "flowing"),
            ({"type": "stop", "voice": 21}, "ended"),
            ({"type": "stop", "voice": 21}, "fail"),
            ({"type": "tempo", "bpm": 960}, "done"),
        ):
            req.send_json(request)
            assert json.loads(req.recv())["type"] == answer, request
        wanted = ["playing", "done", "ended", "flowing", "ended", "fail", "done"]
        received: list[str] = []
        while len(received) < len(wanted):
            topic, event = sub.recv_multipart()
            assert json.loads(event)["type"] == topic.decode()
            if topic.decode() == wanted[len(received)]:
                received.append(topic.decode())
    finally:
        speaker.context.destroy(linger=0)
