"""The methods are those of the vocabulary, to the letter."""

import inspect
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from bridges.python import generate_requests
from timbred.client import AsyncTimbred, Timbred, requests
from timbred.protocol import json
from timbred.protocol import messages as m
from timbred.protocol.coercion import fields_of
from timbred.protocol.keys import SchedulerName
from timbred.protocol.schema import EVENTS, REQUESTS, RequestEntry, belongs, ends

MADE = [entry for entry in REQUESTS if entry.name not in generate_requests.WITHOUT_METHOD]


def test_generate_requests_file_is_up_to_date() -> None:
    assert Path(requests.__file__).read_text("utf-8") == generate_requests.generate(), "run: make docs"


@pytest.mark.parametrize("entry", MADE, ids=lambda entry: entry.name)
@pytest.mark.parametrize("kind", [AsyncTimbred, Timbred])
def test_generate_requests_has_a_method_with_all_keys_of_each_request(kind: type, entry: RequestEntry) -> None:
    method = getattr(kind, "setting" if entry.family else entry.name)
    signature = inspect.signature(method)
    named = {name for name, one in signature.parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD} - {"self"}
    unpacked = [one for one in signature.parameters.values() if one.kind is one.VAR_KEYWORD]
    keys = set(get_type_hints(get_args(unpacked[0].annotation)[0])) if unpacked else set[str]()
    assert named | keys == set(fields_of(entry.kind)) - set(generate_requests.FILLED_IN)
    assert not named & keys
    assert method.__doc__


def test_generate_requests_declares_choices_and_help() -> None:
    hints: dict[str, Any] = get_type_hints(requests.GenerateKeys)
    assert get_args(hints["scheduler"]) == get_args(SchedulerName)
    assert get_args(hints["bits"]) == (16, 24, 32)
    assert hints["seconds"] is float
    assert get_origin(hints["loudness"]) is not None
    assert "a number from 0.05 to 600; default the model's)." in Path(requests.__file__).read_text("utf-8")


def test_generate_requests_covers_the_vocabulary() -> None:
    methods = {name for name in vars(requests.AsyncRequests) if not name.startswith("_")}
    declared = {"setting" if entry.family else entry.name for entry in MADE}
    assert methods - {"ask", "request"} == declared | {f"{entry.name}_events" for entry in MADE if entry.has_id}


EXAMPLES: dict[type, Any] = {str: "x", int: 3, float: 0.5, bool: True}


def example(kind: type[m.Event]) -> m.Event:
    values = {
        name: next(iter(get_args(hint)), None) if get_origin(hint) is not None and "Literal" in str(hint) else None
        for name, hint in get_type_hints(kind).items()
        if name in kind.__struct_fields__
    }
    given = {name: value if value is not None else _value(kind, name) for name, value in values.items()}
    return kind(**given)


def _value(kind: type[m.Event], name: str) -> Any:
    shown = str(get_type_hints(kind, include_extras=False)[name])
    if "HeardText" in shown:
        return (m.HeardText(key="prompt", characters=900, heard=900, parts=4),)
    for wanted in ("bool", "float", "str", "int"):
        if wanted in shown:
            return EXAMPLES[{"bool": bool, "float": float, "str": str, "int": int}[wanted]]
    raise AssertionError(shown)


@pytest.mark.parametrize("entry", EVENTS, ids=lambda entry: f"{entry.name}-{entry.kind.__name__}")
def test_json_returns_every_event_unchanged(entry: Any) -> None:
    event = example(entry.kind)
    found = json.as_object(event)
    assert json.read_event(found) == event
    assert json.read_event({**found, "of a later version": 1}) == event


def test_json_ignores_an_event_of_a_later_version() -> None:
    assert json.read_event({"type": "sung", "id": 1}) is None
    assert json.read_event({"type": "queued"}) is None


@pytest.mark.parametrize(
    ("request_", "event", "mine"),
    [
        (m.Generate(id="a", prompt="x"), m.Started(id="a", model="p"), True),
        (m.Generate(id="a", prompt="x"), m.Started(id="b", model="p"), False),
        (m.Load(model="p"), m.Loaded(model="p"), True),
        (m.Load(model="p"), m.Loaded(model="q"), False),
        (m.Load(model="p"), m.Fail(id="load", code="x", message=""), True),
        (m.Load(model="p"), m.Fail(id="unload", code="x", message=""), False),
        (m.Tempo(bpm=90), m.Acknowledged(id="tempo"), True),
        (m.Tempo(bpm=90), m.Acknowledged(id="set"), False),
        (m.Setting(name="tempo"), m.SettingNow(name="tempo", value=1.0), True),
        (m.Setting(name="tempo"), m.SettingNow(name="gain", value=1.0), False),
        (m.Setting(name="tempo"), m.Fail(id="settings/tempo", code="x", message=""), True),
        (m.Stop(voice="*"), m.Ended(voice=3, take="a", frame=0, reason="stopped"), True),
        (m.Stop(voice=2), m.Ended(voice=3, take="a", frame=0, reason="stopped"), False),
        (m.Takes(), m.Done(id="takes", takes=0, path=""), True),
    ],
)
def test_belongs_assigns_answers_to_their_request(request_: m.Request, event: m.Event, mine: bool) -> None:
    assert belongs(request_, event) is mine
    assert ends(request_, event) is (mine and not isinstance(event, m.Started))
