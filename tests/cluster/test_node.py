"""The actor on a node, and its start in a cluster, without Ray: its place is taken by a substitute."""

import argparse
import asyncio
import json
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tests.cluster.test_files import render, write_model
from tests.patience import TIMEOUT_S
from tests.processes import none_left, python_path
from timbred import __version__
from timbred.cluster import node
from timbred.cluster.files import FileHashes, make_bundle
from timbred.cluster.node import (
    CannotPlace,
    NodeEngine,
    check_reachable,
    connect,
    describe_ray_error,
    engine_options,
    has_room,
    in_time,
    no_room,
    parse_address,
    required_resources,
    version_difference,
)
from timbred.ipc import engine_messages

ROOT = Path(__file__).parents[2]
OWN = {"timbred": "1.2.0", "messages": "13", "ray": "2.60.0", "python": "3.11.7", "node": "laptop"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of a node with the fake engine."""
    monkeypatch.setenv("PYTHONPATH", python_path(ROOT))
    monkeypatch.setenv("TIMBRED_ENGINE_PROGRAM", f"{sys.executable} -m tests.fake_engine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


async def until(engine: NodeEngine, accept: Callable[[Any], bool]) -> list[list[Any]]:
    """All messages of an engine up to the first that is accepted."""
    messages: list[list[Any]] = []
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            more, _ = await engine.receive()
            messages += more
            if any(accept(engine_messages.read_in_daemon(frames[0])) for frames in more):
                return messages


@pytest.mark.usefixtures("environment")
async def test_node_engine_passes_messages_both_ways():
    engine = NodeEngine(in_ray=False)
    with none_left():
        await engine.start([], "token", False)
        first = await until(engine, lambda message: isinstance(message, engine_messages.EngineReady))
        assert engine_messages.read_in_daemon(first[0][0]).token == "token"  # pyright: ignore[reportAttributeAccessIssue]
        await engine.send(engine_messages.encode(render()))
        messages = await until(engine, lambda message: isinstance(message, engine_messages.JobRendered))
        assert len(messages[-1]) == 2
        await engine.end()


@pytest.mark.usefixtures("environment")
async def test_node_engine_returns_the_exit_after_the_last_messages():
    engine = NodeEngine(in_ray=False)
    with none_left():
        await engine.start([], "token", False)
        await engine.send(engine_messages.encode(render(prompt="die")))
        reason = ""
        async with asyncio.timeout(TIMEOUT_S):
            while not reason:
                _, reason = await engine.receive()
        assert reason == "its engine ended with exit status 7"
        assert (await engine.receive())[1] == reason
        await engine.end()


@pytest.mark.usefixtures("environment")
async def test_node_engine_ends_its_engine_without_calls_of_the_relay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(node, "LEASE_S", 0.01)
    monkeypatch.setattr(node, "LEASE_CHECK_INTERVAL_S", 0.01)
    engine = NodeEngine(in_ray=False)
    with none_left():
        await engine.start([], "token", False)
        await engine.describe()
        async with asyncio.timeout(TIMEOUT_S):
            while not (await engine.receive())[1]:  # each call waits, for longer than the lease
                pass
        await engine.end()


@pytest.mark.usefixtures("environment")
async def test_node_engine_describes_its_versions():
    engine = NodeEngine(in_ray=False)
    facts = await engine.describe()
    await engine.end()
    assert facts["timbred"] == __version__
    assert facts["messages"] == str(engine_messages.WIRE_VERSION)
    assert facts["python"].split(".")[:2] == [str(part) for part in sys.version_info[:2]]


@pytest.mark.usefixtures("environment")
async def test_node_engine_replies_with_errors_about_files(tmp_path: Path):
    engine = NodeEngine(in_ray=False)
    bundle = msgspec.json.encode(make_bundle(write_model(tmp_path / "m"), FileHashes()))
    assert "error" in await engine.write(bundle, "model_index.json", 0, b"")
    (tmp_path / "cache").write_text("a file where the folder should be")
    code, message = (await engine.place(bundle, "/none"))["error"]
    assert code in ("forbidden-path", "internal")
    assert "on the node" in message


def test_version_difference_is_empty_for_the_same_versions():
    assert version_difference(OWN, {**OWN, "python": "3.11.2", "node": "rack"}) == ""


@pytest.mark.parametrize(
    ("key", "theirs"), [("timbred", "1.1.0"), ("messages", "12"), ("ray", "2.59.1"), ("python", "3.12.7")]
)
def test_version_difference_names_both_versions(key: str, theirs: str):
    text = version_difference(OWN, {**OWN, key: theirs, "node": "rack"})
    assert theirs in text
    assert OWN[key] in text
    assert "rack" in text
    assert "unknown" in version_difference(OWN, {name: OWN[name] for name in OWN if name != key})


@pytest.mark.parametrize(
    ("device", "threads", "total", "expected"),
    [
        ("auto", 0, {"GPU": 2.0}, {"num_cpus": 0.0, "num_gpus": 1.0}),
        ("auto", 0, {"CPU": 8.0}, {"num_cpus": 1.0, "num_gpus": 0.0}),
        ("auto", 4, {"CPU": 8.0}, {"num_cpus": 4.0, "num_gpus": 0.0}),
        ("cpu", 2, {"CPU": 8.0, "GPU": 1.0}, {"num_cpus": 2.0, "num_gpus": 0.0}),
        ("cuda:0", 0, {"CPU": 8.0}, {"num_cpus": 0.0, "num_gpus": 1.0}),
    ],
)
def test_required_resources_are_a_gpu_or_a_share_of_cpus(
    device: str, threads: int, total: dict[str, float], expected: dict[str, float]
):
    assert required_resources(device, threads, total) == expected


def test_no_room_says_what_is_needed_and_what_is_free():
    text = no_room("ray://r:1", {"num_cpus": 0.0, "num_gpus": 1.0}, {"GPU": 2.0}, {})
    assert "needs 1 GPU" in text
    assert "2 GPU 0 are free" in text


def test_has_room_compares_gpus_and_cpus():
    assert has_room({"num_cpus": 0.0, "num_gpus": 1.0}, {"GPU": 1.0})
    assert not has_room({"num_cpus": 0.0, "num_gpus": 1.0}, {"CPU": 8.0})
    assert not has_room({"num_cpus": 2.0, "num_gpus": 0.0}, {"CPU": 1.0})


def test_engine_options_use_the_actors_share():
    options = argparse.Namespace(
        device="auto", threads=0, memory=5, compile="off", cache="/c", heartbeat=1.0, log_level="info"
    )
    words = engine_options(options, {"num_cpus": 3.0, "num_gpus": 0.0})
    assert words[:4] == ["--device", "cpu", "--threads", "3"]
    assert engine_options(options, {"num_cpus": 0.0, "num_gpus": 1.0})[:4] == ["--device", "auto", "--threads", "0"]
    assert "--cache" not in words


@pytest.mark.parametrize(
    "address", ["", "auto", "local", "rack:10001", "ray://", "ray://rack", "ray://rack:0", "ray://a b:1"]
)
def test_parse_address_refuses_what_is_no_ray_client_server(address: str):
    with pytest.raises(CannotPlace, match="isn't the address of a Ray cluster"):
        parse_address(address)


def test_parse_address_accepts_names_and_numbers():
    assert parse_address("ray://rack.local:10001") == ("rack.local", 10001)
    assert parse_address("ray://[::1]:10001") == ("::1", 10001)


def test_check_reachable_names_a_closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_reachable(f"ray://127.0.0.1:{port}")
    with pytest.raises(CannotPlace, match=f"no Ray cluster at ray://127.0.0.1:{port}"):
        check_reachable(f"ray://127.0.0.1:{port}")


def substitute(monkeypatch: pytest.MonkeyPatch, init: Callable[..., Any]) -> list[Any]:
    """Ray with another `init`, and the arguments of its calls."""
    calls: list[Any] = []

    def recorded(*arguments: Any, **options: Any) -> Any:
        calls.append((arguments, options))
        return init()

    monkeypatch.setattr(node, "import_ray", lambda: SimpleNamespace(init=recorded))
    return calls


def test_connect_always_names_an_address(monkeypatch: pytest.MonkeyPatch):
    calls = substitute(monkeypatch, lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"ray://127.0.0.1:{server.getsockname()[1]}"
        connect(address)
    assert [arguments for arguments, _ in calls] == [(address,)]


def test_connect_refuses_an_address_where_no_ray_answers_in_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(node, "CONNECT_TIMEOUT_S", 0.01)
    ended = threading.Event()
    substitute(monkeypatch, lambda: ended.wait(TIMEOUT_S))
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(CannotPlace, match="no Ray answers there within"):
            connect(f"ray://127.0.0.1:{server.getsockname()[1]}")
        ended.set()


def test_connect_passes_on_what_ray_says_of_versions(monkeypatch: pytest.MonkeyPatch):
    def refuse() -> None:
        raise RuntimeError("Python minor versions differ between client and server: client is 3.11.7, server is 3.12.1")

    substitute(monkeypatch, refuse)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(CannotPlace, match=r"client is 3\.11\.7, server is 3\.12\.1"),
    ):
        connect(f"ray://127.0.0.1:{server.getsockname()[1]}")


def test_connect_without_ray_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CannotPlace, match=r"pip install 'timbred\[cluster\]'"):
        connect("ray://127.0.0.1:10001")


def test_in_time_returns_raises_or_gives_up():
    assert in_time(lambda: json.loads("1"), TIMEOUT_S) == 1
    with pytest.raises(ValueError, match="Expecting value"):
        in_time(lambda: json.loads(""), TIMEOUT_S)
    ended = threading.Event()
    with pytest.raises(TimeoutError):
        in_time(lambda: ended.wait(TIMEOUT_S), 0.01)
    ended.set()


def test_describe_ray_error_names_a_node_without_timbred():
    error = RuntimeError("The actor died\n  File x\nModuleNotFoundError: No module named 'timbred.cluster'")
    assert f"install timbred {__version__} on every node" in describe_ray_error(error)
    assert describe_ray_error(RuntimeError("a\n\nb")) == "a ... b"
    assert describe_ray_error(RuntimeError()) == "RuntimeError"
