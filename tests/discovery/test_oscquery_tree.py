"""The address space as it is told: derived, whole, and right about every attribute."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timbred.config import NAMED, SETTINGS, Value
from timbred.discovery.oscquery import ATTRIBUTES, AddressContainer, AddressMethod, Node, OscQuery
from timbred.errors import BadRequest
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId
from timbred.protocol.coercion import build
from timbred.protocol.schema import EVENTS, REQUESTS

ME, OTHER = ClientId("oscquery:1"), ClientId("udp:127.0.0.1:9")


def space(**changed: Value) -> OscQuery:
    values = {setting.name: setting.default for setting in SETTINGS}
    values |= {name.replace("__", "."): value for name, value in changed.items()}
    return OscQuery("timbred", values.__getitem__, {"models.default": ("large", "pocket")})


def get(path: str, query: str = "", **changed: Value) -> Any:
    status, content = space(**changed).answer(path, query)
    return status, json.loads(content) if content else None


def nodes(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [found, *(one for child in found.get("CONTENTS", {}).values() for one in nodes(child))]


def test_oscquery_tree_has_every_address_once_and_nothing_else() -> None:
    status, root = get("/")
    assert status == 200
    paths = [one["FULL_PATH"] for one in nodes(root)]
    declared = {entry.address for entry in (*REQUESTS, *EVENTS) if not entry.family}
    settings = {f"/timbred/settings/{setting.name}" for setting in SETTINGS}
    assert sorted(paths) == sorted({"/", "/timbred", "/timbred/settings", *declared, *settings})


def test_oscquery_tree_nodes_have_descriptions() -> None:
    for one in nodes(get("/")[1]):
        assert one["DESCRIPTION"]
        assert ("CONTENTS" in one) == (one["ACCESS"] == 0) == ("TYPE" not in one)
        if "RANGE" in one:
            assert len(one["RANGE"]) == len(one["TYPE"])
        assert get(one["FULL_PATH"]) == (200, one)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_oscquery_tree_settings_have_value_type_range_and_access(setting: Any) -> None:
    _, node = get(f"/timbred/settings/{setting.name}")
    value = node["VALUE"][0]
    assert value == setting.default
    assert node["ACCESS"] == (3 if setting.live else 1)
    assert node["TYPE"] == {str: "s", float: "f", int: "i", bool: "i"}[type(setting.default)]
    if isinstance(setting.default, bool):
        assert node["RANGE"] == [{"VALS": [0, 1]}]
    elif isinstance(setting.default, int | float):
        assert node["RANGE"] == [{"MIN": setting.low, "MAX": setting.high}]
    elif setting.choices:
        assert node["RANGE"] == [{"VALS": list(setting.choices)}]


def test_oscquery_tree_has_choices_that_only_the_daemon_knows() -> None:
    assert get("/timbred/settings/models.default", "RANGE")[1] == {"RANGE": [{"VALS": ["large", "pocket"]}]}


def test_oscquery_tree_tempo_is_a_request_and_a_value() -> None:
    _, node = get("/timbred/tempo", tempo=98.5)
    assert (node["ACCESS"], node["TYPE"], node["VALUE"]) == (3, "f", [98.5])
    assert node["RANGE"] == [{"MIN": NAMED["tempo"].low, "MAX": NAMED["tempo"].high}]


@pytest.mark.parametrize(
    ("path", "tags"),
    [
        ("generate", "ss"),
        ("vary", "sss"),
        ("status", ""),
        ("notify", "i"),
        ("play", "is"),
        ("sync", "i"),
        ("queued", "sif"),
        ("take", "sisfiiifs"),
        ("done", "sis"),
        ("fail", "sss"),
    ],
)
def test_oscquery_tree_types_are_those_of_the_messages(path: str, tags: str) -> None:
    assert get(f"/timbred/{path}", "TYPE") == (200, {"TYPE": tags})


@pytest.mark.parametrize("entry", [one for one in REQUESTS if not one.family], ids=lambda entry: entry.name)
def test_oscquery_tree_keys_have_the_ranges_of_the_decoder(entry: Any) -> None:
    """What KEYS calls allowed is taken; just outside it is refused."""
    needed: dict[str, Any] = {
        "id": 1,
        "prompt": "pad",
        "take": "t",
        "model": "x",
        "voice": 1,
        "bpm": 90,
        "n": 1,
        "on": 1,
    }
    raw = {name: needed[name] for name in (*entry.positional, entry.rest) if name in needed}
    for key in get(entry.address)[1].get("KEYS", []):
        name, allowed = key["NAME"].removeprefix("@"), key.get("RANGE", {})
        for good in (*allowed.get("VALS", ()), *(allowed[edge] for edge in ("MIN", "MAX") if edge in allowed)):
            build(entry, {**raw, name: good})
        for edge, step in (("MIN", -1), ("MAX", 1)):
            if edge in allowed:
                with pytest.raises(BadRequest):
                    build(entry, {**raw, name: allowed[edge] + step})


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/timbred/tempo", "VALUE", 200),
        ("/timbred/tempo/", "VALUE", 200),
        ("/timbred/generate", "VALUE", 204),
        ("/timbred/queued", "VALUE", 204),
        ("/timbred", "VALUE", 204),
        ("/timbred/hello", "RANGE", 204),
        ("/timbred/tempo", "CONTENTS", 204),
        ("/timbred/tempo", "COLOUR", 400),
        ("/timbred/tempo", "value", 400),
        ("/timbred/tempo", "VALUE&RANGE", 400),
        ("/timbred/nothing", "", 404),
        ("/timbred/nothing", "VALUE", 404),
        ("/timbred/tempo/deeper", "", 404),
        ("/timbred/nothing", "COLOUR", 404),
        ("/", "HOST_INFO", 200),
        ("/timbred/tempo", "HOST_INFO", 200),
    ],
)
def test_oscquery_tree_gives_missing_attributes_their_status(path: str, query: str, status: int) -> None:
    assert get(path, query)[0] == status


def test_oscquery_tree_attributes_equal_those_of_the_node() -> None:
    for one in nodes(get("/")[1]):
        for attribute in ATTRIBUTES:
            expected = (200, {attribute: one[attribute]}) if attribute in one else (204, None)
            assert get(one["FULL_PATH"], attribute) == expected


def test_oscquery_tree_host_info_has_the_ports_and_no_unusable_address() -> None:
    _, found = get("/", "HOST_INFO", osc__port=9001, http__port=9002)
    assert (found["NAME"], found["OSC_IP"], found["OSC_PORT"]) == ("timbred", "127.0.0.1", 9001)
    assert (found["WS_IP"], found["WS_PORT"], found["OSC_TRANSPORT"]) == ("127.0.0.1", 9002, "UDP")
    assert all(found["EXTENSIONS"][name] for name in ("LISTEN", "IGNORE", "VALUE", "RANGE"))
    _, everywhere = get("/", "HOST_INFO", host="0.0.0.0")
    assert not {"OSC_IP", "WS_IP"} & set(everywhere)


@given(st.text(max_size=60), st.text(max_size=30))
def test_oscquery_tree_answers_any_path_and_query(path: str, query: str) -> None:
    status, content = space().answer("/" + path, query)
    assert status in (200, 204, 400, 404)
    assert bool(content) == (status == 200)


@given(st.text(max_size=200))
def test_oscquery_tree_reads_or_refuses_any_command(text: str) -> None:
    try:
        space().command(ME, text, lambda _packet: None)
    except BadRequest as refusal:
        assert "LISTEN" in refusal.message


def test_oscquery_tree_pushes_an_event_to_listeners_except_its_client() -> None:
    pushed: list[ClientId] = []
    query = space()

    def command(client: ClientId, name: str) -> None:
        text = json.dumps({"COMMAND": name, "DATA": "/timbred/queued"})
        query.command(client, text, lambda _packet: pushed.append(client))

    for client in (ME, OTHER):
        command(client, "LISTEN")
    query.publish(ME, m.Queued(id=7, position=0, eta_s=0.5))
    query.publish(ME, m.Started(id=7, model="pocket"))
    assert pushed == [OTHER]
    assert json.loads(query.answer("/timbred/queued", "VALUE")[1]) == {"VALUE": [7, 0, 0.5]}
    command(OTHER, "IGNORE")
    query.publish(ME, m.Queued(id=8, position=0, eta_s=0.5))
    query.forget(ME)
    query.publish(OTHER, m.Queued(id=9, position=0, eta_s=0.5))
    assert pushed == [OTHER]


def test_oscquery_tree_has_containers_and_methods() -> None:
    def kinds(node: Node) -> set[type]:
        below = node.children.values() if isinstance(node, AddressContainer) else ()
        return {type(node)}.union(*(kinds(child) for child in below))

    assert kinds(space().tree.root) == {AddressContainer, AddressMethod}
