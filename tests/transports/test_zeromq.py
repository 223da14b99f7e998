"""ZeroMQ: DEALER, REQ and SUB clients on real sockets."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
import zmq.asyncio

from tests.transports.stage import SOUND, Stage, staged
from timbred.transports.clients import Turns
from timbred.transports.zeromq import ClientTurns

GENERATED = ["queued", "started", "take", "done"]


class Zmq:
    """Client sockets of one scene, all closed at its end."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.context = zmq.asyncio.Context()
        self._made: list[zmq.asyncio.Socket] = []
        self._numbers = itertools.count(1000)

    def socket(self, kind: int, identity: bytes = b"") -> zmq.asyncio.Socket:
        made = self.context.socket(kind)
        self._made.append(made)
        if identity:
            made.set(zmq.IDENTITY, identity)
        port = self._stage.ports.events if kind == zmq.SUB else self._stage.ports.requests
        made.connect(f"tcp://127.0.0.1:{port}")
        return made

    def close(self) -> None:
        for made in self._made:
            made.close(linger=0)
        self.context.term()

    async def subscriber(self, *topics: str) -> zmq.asyncio.Socket:
        """A SUB that is known to be connected."""
        made = self.socket(zmq.SUB)
        for topic in (*topics, "pong", "synced"):
            made.subscribe(topic)
        asker = self.socket(zmq.REQ)
        while not await made.poll(10):
            await ask(asker, type="ping")
        await self.skip_past(made, asker)
        for topic in ("pong", "synced"):
            made.unsubscribe(topic)
        return made

    async def skip_past(self, subscriber: zmq.asyncio.Socket, asker: zmq.asyncio.Socket) -> None:
        """Skip all events up to the current moment; the subscriber must receive `synced`."""
        number = next(self._numbers)
        await ask(asker, type="sync", n=number)
        while json.loads((await subscriber.recv_multipart())[1]).get("n") != number:
            pass


async def ask(req: zmq.asyncio.Socket, **request: Any) -> dict[str, Any]:
    await req.send_json(request)
    return json.loads((await req.recv_multipart())[0])


async def receive(dealer: zmq.asyncio.Socket) -> dict[str, Any]:
    (frame,) = await dealer.recv_multipart()
    return json.loads(frame)


@contextlib.asynccontextmanager
async def connected(folder: Path) -> AsyncGenerator[tuple[Stage, Zmq]]:
    """Start a stage and ZeroMQ clients of it, and end both in any case."""
    async with staged(folder) as stage:
        clients = Zmq(stage)
        try:
            yield stage, clients
        finally:
            clients.close()


async def test_zeromq_waits_for_a_message_without_waking_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's `poll` takes the timeout first: flags in its place wake an idle daemon a thousand times a second."""
    waits: list[tuple[object, int]] = []
    poll = zmq.asyncio.Socket.poll

    def record(socket: zmq.asyncio.Socket, timeout: Any = None, flags: int = zmq.POLLIN) -> Any:
        if socket.getsockopt(zmq.TYPE) == zmq.ROUTER:
            waits.append((timeout, flags))
        return poll(socket, timeout, flags)  # pyright: ignore[reportCallIssue]

    monkeypatch.setattr(zmq.asyncio.Socket, "poll", record)

    async with connected(tmp_path) as (_, clients):
        requester = clients.socket(zmq.REQ)
        for _ in range(3):
            assert (await ask(requester, type="ping"))["type"] == "pong"
    assert len(waits) >= 3
    assert set(waits) == {(None, int(zmq.POLLIN))}


async def test_zeromq_dealer_hears_events_as_they_happen(tmp_path: Path) -> None:
    async with connected(tmp_path) as (stage, clients):
        dealer = clients.socket(zmq.DEALER)
        await dealer.send_json({"type": "generate", "id": "a", "prompt": "pad", "takes": 2})
        said = [await receive(dealer) for _ in range(5)]
        assert [one["type"] for one in said] == ["queued", "started", "take", "take", "done"]
        assert said[-1] == {"type": "done", "id": "a", "takes": 2, "path": "/takes/0.wav"}
        await dealer.send_json({"type": "models"})
        assert [(await receive(dealer))["type"] for _ in range(2)] == ["model", "model"]
        await dealer.send_json({"type": "hello", "name": "me"})
        assert (await receive(dealer))["http_port"] == stage.ports.http


async def test_zeromq_dealer_gets_samples_after_each_take(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, clients):
        dealer = clients.socket(zmq.DEALER)
        await dealer.send_json({"type": "generate", "id": 1, "prompt": "pad", "inline": True, "to": "none"})
        messages = [await dealer.recv_multipart() for _ in range(4)]
        assert [len(message) for message in messages] == [1, 1, 2, 1]
        np.testing.assert_array_equal(np.frombuffer(messages[2][1], "<f4").reshape(-1, 2), SOUND.samples)


async def test_zeromq_req_gets_one_whole_reply(tmp_path: Path) -> None:
    async with connected(tmp_path) as (stage, clients):
        req = clients.socket(zmq.REQ)
        await req.send_json({"type": "generate", "id": "a", "prompt": "pad", "takes": 2, "inline": True})
        done, *samples = await req.recv_multipart()
        reply = json.loads(done)
        assert (reply["type"], [take["take_id"] for take in reply["takes"]]) == ("done", ["t0", "t1"])
        assert samples == [SOUND.samples.astype("<f4").tobytes()] * 2
        assert [len((await ask(req, type="models"))["models"]), stage.ports.http > 0] == [2, True]
        takes = await ask(req, type="takes")
        assert (takes["type"], takes["id"], takes["path"], len(takes["takes"])) == ("done", "takes", "", 2)
        assert await ask(req, type="load", name="pocket") == {"type": "loaded", "model": "pocket"}
        assert await ask(req, type="cancel", id="a") == {"type": "cancelled", "id": "a"}
        assert await ask(req, type="tempo", bpm=120) == {"type": "done", "id": "tempo"}
        assert (await ask(req, type="status"))["type"] == "status.reply"
        assert await ask(req, type="sync", n=4) == {"type": "synced", "n": 4}
        for bad in ({"type": "sing"}, {"type": "notify", "on": 1}, {"type": "generate", "id": "a"}):
            assert (await ask(req, **bad))["code"] == "bad-request"


@pytest.mark.parametrize("correlated", [False, True])
async def test_zeromq_req_that_resends_gets_its_reply_once(tmp_path: Path, correlated: bool) -> None:
    async with connected(tmp_path) as (stage, clients):
        req = clients.socket(zmq.REQ, b"looper")
        req.set(zmq.REQ_RELAXED, 1)
        if correlated:
            req.set(zmq.REQ_CORRELATE, 1)
        request = {"type": "generate", "id": "a", "prompt": "wait"}
        await req.send_json(request)
        await req.send_json(request)
        other = clients.socket(zmq.DEALER)
        while len(stage.daemon.received) < 2:
            await other.send_json({"type": "ping"})
            await receive(other)
        stage.daemon.finish()
        assert (await req.recv_json())["type"] == "done"
        assert await ask(req, type="ping") == {"type": "pong"}


async def test_zeromq_bad_messages_are_answered_and_others_undisturbed(tmp_path: Path) -> None:
    async with connected(tmp_path) as (stage, clients):
        bad, good = clients.socket(zmq.DEALER), clients.socket(zmq.REQ)
        for message in (
            [b"not json"],
            [b"[" * 100_000],
            [b'{"type": "generate", "id": "x", "prompt": "' + b"x" * 100_000 + b'"}'],
            [b"\xff\xfe"],
            [b""],
            [b"{}", b"{}"],
            [b"a", b"b", b"c"],
        ):
            await bad.send_multipart(message)
            assert (await receive(bad))["code"] == "bad-request"
            assert await ask(good, type="ping") == {"type": "pong"}
        await bad.send_multipart([b"", b"{}", b"{}"])
        empty, answer = await bad.recv_multipart()
        assert (empty, json.loads(answer)["code"]) == (b"", "bad-request")
        assert stage.daemon.received == []


async def test_zeromq_answers_a_frame_of_100_megabytes(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, clients):
        bad, good = clients.socket(zmq.DEALER), clients.socket(zmq.REQ)
        await bad.send(bytes(100_000_000), copy=False)
        assert await ask(good, type="ping") == {"type": "pong"}
        answer = await receive(bad)
        assert "100000000 bytes" in answer["message"]


async def test_zeromq_subscribers_hear_everything_with_its_client(tmp_path: Path) -> None:
    async with connected(tmp_path) as (stage, clients):
        everything, takes = await clients.subscriber(""), await clients.subscriber("take")
        await clients.skip_past(everything, clients.socket(zmq.REQ))
        async with stage.udp() as host:
            host.send("/timbred/generate", "a", "pad")
            said = [await everything.recv_multipart() for _ in range(4)]
            assert [topic.decode() for topic, _ in said] == GENERATED
            topic, body = await takes.recv_multipart()
            take = json.loads(body)
            assert (topic, take["type"], take["client"]) == (b"take", "take", f"udp:127.0.0.1:{host.port}")


async def test_zeromq_listener_gets_no_samples_of_others(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, clients):
        listener, asker = clients.socket(zmq.DEALER), clients.socket(zmq.DEALER)
        await listener.send_json({"type": "notify", "on": True})
        assert await receive(listener) == {"type": "done", "id": "notify"}
        await asker.send_json({"type": "generate", "id": 1, "prompt": "pad", "inline": True})
        assert [(await receive(listener))["type"] for _ in range(4)] == GENERATED


async def test_zeromq_clients_that_vanish_do_no_harm(tmp_path: Path) -> None:
    async with connected(tmp_path) as (stage, clients):
        other = clients.socket(zmq.REQ)
        for number in range(20):
            gone = clients.socket(zmq.DEALER)
            await gone.send_json({"type": "notify", "on": True})
            await gone.send_json({"type": "generate", "id": number, "prompt": "wait"})
            assert (await receive(gone))["type"] == "done"
            gone.close(linger=0)
        assert await ask(other, type="ping") == {"type": "pong"}
        stage.daemon.finish()
        assert (await ask(other, type="generate", id=1, prompt="pad"))["type"] == "done"


async def test_zeromq_events_at_the_end_arrive(tmp_path: Path) -> None:
    async with connected(tmp_path) as (stage, clients):
        dealer, req, sub = clients.socket(zmq.DEALER), clients.socket(zmq.REQ), await clients.subscriber("fail")
        for made in (dealer, req):
            await made.send_json({"type": "generate", "id": "a", "prompt": "wait"})
        while len(stage.daemon.received) < 2:
            await asyncio.sleep(0)
        stage.daemon.shut_down()
        await stage.transports.stop()
        assert [(await receive(dealer))["type"] for _ in range(3)] == ["queued", "started", "fail"]
        assert (await req.recv_json())["code"] == "shutting-down"
        assert (await sub.recv_multipart())[0] == b"fail"


def count_after(sent: str) -> int:
    turns = ClientTurns()
    for name in sent:
        turns.record(name.encode())
    return turns.count_clients()


@pytest.mark.parametrize(
    ("sent", "count"),
    [("", 1), ("a", 1), ("aaaa", 1), ("ab", 2), ("abcabc", 3), ("abcdabcdaa", 1), ("abcdabcda", 4), ("ababacbd", 4)],
)
def test_client_turns_count_clients_that_send_at_present(sent: str, count: int):
    assert count_after(sent) == count


async def test_zeromq_gets_a_step_per_turn_for_each_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counters: list[Callable[[], int]] = []
    work = Turns.work

    async def recorded(turns: Turns, steps: Iterator[object], count_clients: Callable[[], int]) -> None:
        counters.append(count_clients)
        await work(turns, steps, count_clients)

    monkeypatch.setattr(Turns, "work", recorded)
    async with connected(tmp_path) as (_, zeromq):
        dealers = [zeromq.socket(zmq.DEALER) for _ in range(20)]
        for _ in range(2):
            for dealer in dealers:
                await dealer.send_json({"type": "ping"})
            for dealer in dealers:
                assert (await receive(dealer))["type"] == "pong"
    assert counters[-1]() == len(dealers)
