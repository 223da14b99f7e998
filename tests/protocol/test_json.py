"""JSON frames: what is read, what is refused, what is written."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred.errors import BadRequest
from timbred.protocol import json as frames
from timbred.protocol import messages as m


def read(**request: Any) -> m.Request:
    outcome = frames.read(json.dumps(request).encode()).outcome
    assert isinstance(outcome, m.Request)
    return outcome


def test_json_reads_one_object_as_a_request() -> None:
    wanted = m.Generate(id="a1", prompt="warm analog pad", seconds=4.0, seed=7)
    assert read(type="generate", id="a1", prompt="warm analog pad", seconds=4, seed=7) == wanted


@pytest.mark.parametrize("key", ["model", "name"])
def test_json_reads_both_spellings_of_load(key: str) -> None:
    assert read(**{"type": "load", key: "pocket"}) == m.Load(model="pocket")


REFUSED: list[tuple[bytes, str, m.Id]] = [
    (b"", "not valid JSON", "json"),
    (b"hello", "not valid JSON", "json"),
    (b"\xff\xfe", "not valid JSON", "json"),
    (b'{"type": "ping"} x', "not valid JSON", "json"),
    (b"[" * 100_000, "nested", "json"),
    (b'{"a":' * 100_000, "nested", "json"),
    (b"[1]", "one JSON object", "json"),
    (b"7", "one JSON object", "json"),
    (b"{}", "type", "json"),
    (b'{"type": 5}', "5", "json"),
    (b'{"type": "sing"}', "'sing'", "sing"),
    (b'{"type": "sing", "id": "a1"}', "'sing'", "a1"),
    (b'{"type": "load"}', "model", "load"),
    (b'{"type": "load", "model": "a", "name": "b"}', "another spelling", "load"),
    (b'{"type": "status", "id": 3}', "id: status has no such key", "status"),
    (b'{"type": "ping", "port": 9000}', "port", "ping"),
    (b'{"type": "generate", "prompt": "x"}', "id", "generate"),
    (b'{"type": "generate", "id": 7, "prompt": ""}', "prompt", 7),
    (b'{"type": "generate", "id": 7, "prompt": ["x"]}', "prompt", 7),
    (b'{"type": "generate", "id": 7, "prompt": "x", "seconds": "long"}', "'long'", 7),
    (b'{"type": "generate", "id": 7, "prompt": "x", "seconds": 1e999}', "out of range", "json"),
    (b'{"type": "generate", "id": 7, "prompt": "x", "seconds": 601}', "from 0.05 to 600", 7),
    (b'{"type": "generate", "id": 7, "prompt": "x", "loop": {"a": 1}}', "loop", 7),
    (b'{"type": "generate", "id": {"a": 1}, "prompt": "x"}', "id", "generate"),
    (b'{"type": "generate", "id": 7, "prompt": "' + b"x" * 100_000 + b'"}', "2000", 7),
    (b" " * (frames.MAX_REQUEST_BYTES + 1), "bytes", "json"),
]


@pytest.mark.parametrize(("frame", "said", "place"), REFUSED)
def test_json_refusal_names_what_cannot_be_read(frame: bytes, said: str, place: m.Id) -> None:
    incoming = frames.read(frame)
    assert isinstance(incoming.outcome, BadRequest)
    assert said in incoming.outcome.message
    assert incoming.id == place
    assert len(incoming.outcome.message) < 1000


@given(st.binary(max_size=200))
def test_json_refuses_any_bytes_without_another_exception(frame: bytes) -> None:
    frames.read(frame)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["generate", "vary", "play", "notify", "sync", "load"]), JSON, JSON, JSON)
def test_json_refuses_any_values_without_another_exception(name: str, first: Any, second: Any, third: Any) -> None:
    frames.read_object({"type": name, "id": first, "prompt": second, "seconds": third, "n": first, "on": third})


def test_json_writes_the_type_of_an_event_first() -> None:
    event = m.Progress(id=3, fraction=0.5, step=1, steps=2, eta_s=0.1, stage="loading")
    wanted = '{"type":"progress","id":3,"fraction":0.5,"step":1,"steps":2,"eta_s":0.1,"stage":"loading"}'
    assert frames.encode_event(event).decode() == wanted
    assert json.loads(frames.encode_event(m.Pong(), "udp:127.0.0.1:9000")) == {
        "type": "pong",
        "client": "udp:127.0.0.1:9000",
    }


def take(index: int) -> m.Take:
    return m.Take(
        id="a",
        index=index,
        path=f"/t/{index}.wav",
        seconds=1.0,
        rate=48000,
        channels=1,
        seed=index,
        score=0.0,
        take_id=f"t{index}",
    )


def test_json_writes_whole_replies() -> None:
    whole = json.loads(frames.encode_done(m.Done(id="a", takes=2, path="/t/0.wav"), [take(1), take(0)]))
    assert (whole["type"], whole["id"], whole["path"]) == ("done", "a", "/t/0.wav")
    assert [one["index"] for one in whole["takes"]] == [0, 1]
    assert whole["takes"][0]["type"] == "take"
    assert json.loads(frames.encode_list("models", [])) == {"type": "done", "id": "models", "models": []}
    assert json.loads(frames.encode_list("takes", [take(0)])) == {
        "type": "done",
        "id": "takes",
        "takes": [frames.as_object(take(0))],
        "path": "",
    }
