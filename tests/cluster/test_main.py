"""The relay between a daemon's socket and an engine on a node, which is in this process here: no Ray."""

import asyncio
import secrets
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.test_files import render, write_model
from tests.ipc.test_engine_client import EventRecorder
from tests.patience import TIMEOUT_S, patient
from tests.processes import none_left, python_path
from timbred.cluster.__main__ import Relay, read_messages, read_reply
from timbred.cluster.node import NodeEngine, NodeLost
from timbred.errors import ModelError
from timbred.ipc import engine_messages
from timbred.ipc.engine_client import EngineLink, EngineSettings

ROOT = Path(__file__).parents[2]
FAKE_ENGINE = f"{sys.executable} -m tests.fake_engine"
TOKEN = "0123"


class LocalNode:
    """Calls an actor in this process. Implements `NodeCalls`.

    Attributes:
        before: Called before each call with its method; may wait, or raise.
        replies: Results in place of those of the actor, by method.
    """

    def __init__(self, actor: NodeEngine) -> None:
        self.actor = actor
        self.calls: list[str] = []
        self.before: Callable[[str], Any] | None = None
        self.replies: dict[str, Any] = {}

    async def call(self, method: str, *arguments: Any) -> Any:
        self.calls.append(method)
        if self.before is not None:
            await self.before(method)
        if method in self.replies:
            return self.replies[method]
        return await getattr(self.actor, method)(*arguments)

    async def store(self, data: bytes) -> Any:
        return data

    async def fetch(self, frame: Any) -> Any:
        return frame


class DaemonEnd:
    """The daemon's end of a relay."""

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self.socket = socket

    async def say(self, message: engine_messages.EngineMessage) -> None:
        await self.socket.send(engine_messages.encode(message))

    async def next(self) -> tuple[Any, list[bytes]]:
        """The next message that is no heartbeat, and its payload."""
        while True:
            first, *payload = await asyncio.wait_for(self.socket.recv_multipart(), TIMEOUT_S)
            message = engine_messages.read_in_daemon(first)
            if not isinstance(message, engine_messages.EngineHeartbeat):
                return message, payload

    async def until(self, kind: type[Any]) -> tuple[list[Any], list[bytes]]:
        """All messages up to the first of a kind, and its payload."""
        messages: list[Any] = []
        while True:
            message, payload = await self.next()
            messages.append(message)
            if isinstance(message, kind):
                return messages, payload


def no_folders(*_: object) -> tuple[Path, ...]:
    """In place of the folders of a node that may have the files."""
    return ()


@asynccontextmanager
async def relayed(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> AsyncGenerator[tuple[DaemonEnd, LocalNode, "asyncio.Task[None]"]]:
    """A relay with the fake engine on a node whose cache and models are in `folder`."""
    monkeypatch.setenv("PYTHONPATH", python_path(ROOT))
    monkeypatch.setenv("TIMBRED_ENGINE_PROGRAM", FAKE_ENGINE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setenv("TIMBRED_MODELS_FOLDER", str(folder / "models"))
    context = zmq.asyncio.Context()
    ends = [context.socket(zmq.PAIR) for _ in range(2)]
    ends[0].bind(f"inproc://{secrets.token_hex(8)}")
    ends[1].connect(ends[0].getsockopt_string(zmq.LAST_ENDPOINT))
    with none_left():
        node = LocalNode(NodeEngine(in_ray=False))
        await node.actor.start(["--heartbeat", "1"], TOKEN, False)
        task = asyncio.create_task(Relay(ends[1], node, "rack").run())
        try:
            yield DaemonEnd(ends[0]), node, task
        finally:
            task.cancel()
            await asyncio.wait({task})
            await node.actor.end()
            context.destroy(linger=0)


async def test_relay_passes_a_rendering_from_handshake_to_samples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    async with relayed(monkeypatch, tmp_path) as (daemon, _, task):
        ready, _ = await daemon.next()
        assert isinstance(ready, engine_messages.EngineReady)
        assert (ready.token, ready.node) == (TOKEN, "rack")
        await daemon.say(render())
        messages, payload = await daemon.until(engine_messages.JobRendered)
        assert [type(message) for message in messages] == [
            engine_messages.ModelLoading,
            engine_messages.ModelLoaded,
            engine_messages.StepDone,
            engine_messages.JobRendered,
        ]
        assert [len(frame) for frame in payload] == [4 * 16000]
        await daemon.say(engine_messages.QuitEngine())
        await asyncio.wait_for(task, TIMEOUT_S)


async def test_relay_reports_the_exit_of_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    async with relayed(monkeypatch, tmp_path) as (daemon, _, task):
        await daemon.say(render(prompt="die"))
        with pytest.raises(NodeLost, match="exit status 7"):
            await asyncio.wait_for(task, TIMEOUT_S)


async def test_relay_sends_a_model_once_and_renders_from_the_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    model = write_model(tmp_path / "daemon" / "m")
    monkeypatch.setattr(NodeEngine, "_candidates", no_folders)
    async with relayed(monkeypatch, tmp_path) as (daemon, node, _):
        for _ in range(2):
            await daemon.say(render(str(model)))
            await daemon.until(engine_messages.JobRendered)
        assert node.calls.count("place") == node.calls.count("finish") == 1
        (copy,) = (path for path in (tmp_path / "cache" / "timbred" / "models").iterdir() if path.is_dir())
        assert (copy / "unet" / "model.safetensors").read_bytes() == b"weights"


async def test_relay_uses_the_nodes_own_folder_with_the_same_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    model = write_model(tmp_path / "daemon" / "m")
    write_model(tmp_path / "models" / "m")
    async with relayed(monkeypatch, tmp_path) as (daemon, node, _):
        await daemon.say(engine_messages.LoadModel(model=engine_messages.ModelSource(name="m", folder=str(model))))
        await daemon.until(engine_messages.ModelLoaded)
        assert "begin" not in node.calls
        assert "write" not in node.calls


async def test_relay_sends_a_model_again_that_has_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    model = write_model(tmp_path / "daemon" / "m")
    monkeypatch.setattr(NodeEngine, "_candidates", no_folders)
    async with relayed(monkeypatch, tmp_path) as (daemon, node, _):
        await daemon.say(render(str(model)))
        await daemon.until(engine_messages.JobRendered)
        (model / "unet" / "model.safetensors").write_bytes(b"other weights")
        await daemon.say(render(str(model)))
        await daemon.until(engine_messages.JobRendered)
        assert node.calls.count("finish") == 2


async def test_relay_cancels_a_job_whose_files_are_being_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    model = write_model(tmp_path / "daemon" / "m")
    monkeypatch.setattr(NodeEngine, "_candidates", no_folders)
    async with relayed(monkeypatch, tmp_path) as (daemon, node, _):
        reached, proceed = asyncio.Event(), asyncio.Event()

        async def hold(method: str) -> None:
            if method == "finish":
                reached.set()
                await proceed.wait()

        node.before = hold
        await daemon.say(render(str(model)))
        await asyncio.wait_for(reached.wait(), TIMEOUT_S)
        await daemon.say(engine_messages.CancelJob(job=1))
        messages, _ = await daemon.until(engine_messages.JobCancelled)
        assert messages[-1] == engine_messages.JobCancelled(job=1)
        assert {type(message) for message in messages[1:-1]} == {engine_messages.ModelLoading}
        proceed.set()
        await daemon.say(msgspec.structs.replace(render(str(model)), job=2))
        messages, _ = await daemon.until(engine_messages.JobRendered)
        assert all(getattr(message, "job", 2) == 2 for message in messages)


async def test_relay_unloads_a_model_after_its_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    model = write_model(tmp_path / "daemon" / "m")
    async with relayed(monkeypatch, tmp_path) as (daemon, _, _):
        await daemon.say(engine_messages.LoadModel(model=engine_messages.ModelSource(name="m", folder=str(model))))
        await daemon.say(engine_messages.UnloadModel(name="m"))
        messages, _ = await daemon.until(engine_messages.ModelUnloaded)
        assert [type(message) for message in messages[1:]] == [
            engine_messages.ModelLoaded,
            engine_messages.ModelUnloaded,
        ]


async def test_relay_fails_only_the_order_whose_files_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    async with relayed(monkeypatch, tmp_path) as (daemon, _, _):
        await daemon.say(render(str(tmp_path / "none")))
        messages, _ = await daemon.until(engine_messages.JobFailed)
        assert (messages[-1].code, messages[-1].job) == ("missing-weights", 1)
        await daemon.say(engine_messages.LoadModel(model=engine_messages.ModelSource(name="m", folder="/none")))
        messages, _ = await daemon.until(engine_messages.JobFailed)
        assert (messages[-1].code, messages[-1].model, messages[-1].job) == ("missing-weights", "m", None)
        await daemon.say(render())
        await daemon.until(engine_messages.JobRendered)


async def test_relay_ends_when_an_order_with_files_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """No job is forgotten: the daemon renders it again."""
    model = write_model(tmp_path / "daemon" / "m")
    async with relayed(monkeypatch, tmp_path) as (daemon, node, task):
        node.replies["place"] = "garbage"
        await daemon.say(render(str(model)))
        with pytest.raises(NodeLost, match="returned str about files"):
            await asyncio.wait_for(task, TIMEOUT_S)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("hello", "returned str instead of messages"),
        ([[]], "returned list instead of messages"),
        (([b"frame"], ""), "returned tuple instead of messages"),
        (([[b"no message"]], ""), "sent an invalid message"),
        (([["text"]], ""), "frames that aren't bytes"),
        (([], "its engine ended with exit status 1"), "exit status 1"),
    ],
)
async def test_relay_ends_on_garbage_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reply: Any, reason: str
):
    async with relayed(monkeypatch, tmp_path) as (_, node, task):
        node.replies["receive"] = reply
        with pytest.raises(NodeLost, match=reason):
            await asyncio.wait_for(task, TIMEOUT_S)


@given(
    st.recursive(
        st.none() | st.binary() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.tuples(inner, inner)
    )
)
def test_read_messages_accepts_only_lists_of_frames_and_a_reason(reply: Any):
    try:
        messages, reason = read_messages(reply)
    except NodeLost:
        return
    assert isinstance(reason, str)
    assert all(frames for frames in messages)


@pytest.mark.parametrize("reply", [None, [], {"error": 1}, {"error": ["only a code"]}])
def test_read_reply_refuses_garbage(reply: Any):
    with pytest.raises(NodeLost, match="install the same timbred there"):
        read_reply(reply)


def test_read_reply_raises_the_error_in_it():
    with pytest.raises(ModelError, match="damaged"):
        read_reply({"error": ["model-error", "damaged"]})
    assert read_reply({"path": "/m"}) == {"path": "/m"}


@pytest.mark.parametrize(
    ("address", "reason"), [("rack:10001", "isn't the address of a Ray cluster"), ("ray://127.0.0.1:1", "Ray")]
)
async def test_main_reports_why_no_engine_can_be_placed(address: str, reason: str, monkeypatch: pytest.MonkeyPatch):
    """Without Ray, the reason is that it isn't installed; with it, that nothing answers at the address."""
    monkeypatch.setenv("PYTHONPATH", python_path(ROOT))
    recorder = EventRecorder()
    program = (sys.executable, "-m", "timbred.cluster", address)
    link = EngineLink(EngineSettings(program=program, timeout_s=TIMEOUT_S), recorder)
    with patient(), none_left():
        link.start()
        try:
            kind, message = await recorder.next()
            assert kind == "cannot start"
            assert reason in message
        finally:
            await link.stop(5.0)
