"""ZeroMQ beyond loopback: only trusted keys connect, encrypted; others are refused, counted and logged once."""

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import psutil
import pytest
import zmq
import zmq.asyncio

from tests.keys_home import BEYOND, KeysHome, own_address
from tests.patience import TIMEOUT_S
from tests.transports.stage import Stage, config_for, staged
from timbred.access.keys import (
    CurveKeys,
    KeyPair,
    TrustedKey,
    make_key_pair,
    remove_trusted_key,
    write_trusted_key,
)
from timbred.errors import BadRequest
from timbred.transports.base import Transports


class Line:
    """A ZeroMQ client with its own context."""

    def __init__(
        self, stage: Stage, keys: CurveKeys | None = None, kind: int = zmq.DEALER, host: str = "127.0.0.1"
    ) -> None:
        self.context = zmq.asyncio.Context()
        self.socket = self.context.socket(kind)
        if keys is not None:
            keys.apply_to(self.socket)
        if kind == zmq.SUB:
            self.socket.subscribe(b"")
        port = stage.ports.events if kind == zmq.SUB else stage.ports.requests
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | _FAILURES)
        self.socket.connect(f"tcp://{host}:{port}")

    async def outcome(self) -> int:
        """The event of the handshake."""
        return int.from_bytes((await self.monitor.recv_multipart())[0][:2], "little")

    async def ask(self, **request: object) -> dict[str, object]:
        await self.socket.send(json.dumps(request).encode())
        return json.loads(await self.socket.recv())

    def close(self) -> None:
        self.context.destroy(linger=0)


_FAILURES = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


@contextlib.asynccontextmanager
async def line(
    stage: Stage, keys: CurveKeys | None = None, kind: int = zmq.DEALER, host: str = "127.0.0.1"
) -> AsyncGenerator[Line]:
    made = Line(stage, keys, kind, host)
    try:
        yield made
    finally:
        made.close()


def keys_of(pair: KeyPair, home: KeysHome) -> CurveKeys:
    return CurveKeys(pair.public, pair.secret, home.own.public)


def trusted_pair(home: KeysHome, name: str = "laptop") -> KeyPair:
    pair = make_key_pair()
    write_trusted_key(home.folder, TrustedKey(name, pair.public))
    return pair


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def test_zeromq_serves_trusted_keys_and_this_users_own(tmp_path: Path, keys_home: KeysHome) -> None:
    pair = trusted_pair(keys_home)
    async with staged(tmp_path / "takes", *BEYOND) as stage:
        for each in (pair, keys_home.own):
            async with (
                line(stage, keys_of(each, keys_home)) as made,
                line(stage, keys_of(each, keys_home), zmq.SUB) as listening,
            ):
                assert await listening.outcome() == zmq.EVENT_HANDSHAKE_SUCCEEDED
                assert await made.ask(type="ping") == {"type": "pong"}
                await until_subscribed(stage, listening)
        assert stage.transports.denied == 0


async def until_subscribed(stage: Stage, listening: Line) -> None:
    """Publish until the subscription has arrived."""
    async with stage.udp() as host:
        while not await listening.socket.poll(20):
            await host.ask("/timbred/load", "pocket")
        topic, event = await listening.socket.recv_multipart()
        assert json.loads(event)["type"] == topic.decode()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # the daemon may have closed the connection before the client has read why
        ("none", zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL),
        ("unknown", zmq.EVENT_HANDSHAKE_FAILED_AUTH),
        ("other daemon's", zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL),
    ],
)
@pytest.mark.parametrize("socket_kind", [zmq.DEALER, zmq.SUB])
async def test_zeromq_refuses_other_keys_and_counts_them(
    tmp_path: Path, keys_home: KeysHome, caplog: pytest.LogCaptureFixture, kind: str, expected: int, socket_kind: int
) -> None:
    pair = trusted_pair(keys_home)
    keys = {
        "none": None,
        "unknown": keys_of(make_key_pair(), keys_home),
        "other daemon's": CurveKeys(pair.public, pair.secret, make_key_pair().public),
    }[kind]
    async with staged(tmp_path / "takes", *BEYOND) as stage, line(stage, keys_of(pair, keys_home)) as good:
        for attempt in range(3):
            async with line(stage, keys, socket_kind) as refused:
                assert await refused.outcome() & expected
            await until(lambda attempt=attempt: stage.transports.denied > attempt)
            assert await good.ask(type="ping") == {"type": "pong"}
        assert stage.daemon.received == []
    # the address of a connection that has ended already isn't known
    counts = [caplog.text.count(f"access denied: ZeroMQ from {source}") for source in ("127.0.0.1", "an unknown")]
    assert max(counts) == 1
    assert sum(counts) == caplog.text.count("access denied") == len(caplog.records)


async def test_zeromq_tells_sources_apart(
    tmp_path: Path, keys_home: KeysHome, caplog: pytest.LogCaptureFixture
) -> None:
    address = own_address()
    keys = keys_of(make_key_pair(), keys_home)
    async with staged(tmp_path / "takes", *BEYOND) as stage:
        for host in ("127.0.0.1", address):
            async with line(stage, keys, host=host) as refused:
                await refused.outcome()
        await until(lambda: stage.transports.denied == 2)
    assert caplog.text.count("access denied: ZeroMQ from 127.0.0.1") == 1
    assert caplog.text.count(f"access denied: ZeroMQ from {address}") == 1
    assert keys_home.own.secret.decode() not in caplog.text


async def test_zeromq_follows_trust_and_its_removal_while_it_runs(tmp_path: Path, keys_home: KeysHome) -> None:
    pair = make_key_pair()
    async with staged(tmp_path / "takes", *BEYOND) as stage:

        async def outcome() -> int:
            async with line(stage, keys_of(pair, keys_home)) as made:
                return await made.outcome()

        assert await outcome() == zmq.EVENT_HANDSHAKE_FAILED_AUTH
        write_trusted_key(keys_home.folder, TrustedKey("laptop", pair.public))
        assert await outcome() == zmq.EVENT_HANDSHAKE_SUCCEEDED
        remove_trusted_key(keys_home.folder, "laptop")
        assert await outcome() == zmq.EVENT_HANDSHAKE_FAILED_AUTH


@pytest.mark.parametrize(
    ("removed", "flags", "message"),
    [
        ("own.key", (), "timbred keys make"),
        ("token", (), "HTTP has no token"),
        ("", ("access.allow=",), "OSC has no allowed address"),
        ("", ("access.allow=rack",), "access.allow: got 'rack'"),
        ("", ("access.token=short",), "access.token: this token of 5 characters"),
    ],
)
async def test_transports_refuse_to_start_beyond_loopback_without(
    tmp_path: Path, keys_home: KeysHome, removed: str, flags: tuple[str, ...], message: str
) -> None:
    if removed:
        (keys_home.folder / removed).unlink()
    transports = Transports(config_for(tmp_path, *BEYOND, *flags))
    with pytest.raises(BadRequest) as refused:
        await transports.start(Stage(config_for(tmp_path)).daemon)
    assert message in refused.value.message
    await transports.stop()


@pytest.mark.parametrize("name", ["own.key", "token", "trusted/laptop.key"])
async def test_transports_refuse_to_start_with_key_files_that_others_can_use(
    tmp_path: Path, keys_home: KeysHome, name: str
) -> None:
    trusted_pair(keys_home)
    (keys_home.folder / name).chmod(0o640)
    with pytest.raises(BadRequest, match=f"chmod 600 .*{name}"):
        await Transports(config_for(tmp_path, *BEYOND)).start(Stage(config_for(tmp_path)).daemon)


async def test_transports_demand_nothing_with_open_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    async with staged(tmp_path / "takes", "host=0.0.0.0", "access.open=1") as stage, line(stage) as made:
        assert await made.ask(type="ping") == {"type": "pong"}
    assert "access.open is set: anyone who can reach this machine" in caplog.text


async def test_transports_demand_nothing_on_loopback(tmp_path: Path, keys_home: KeysHome) -> None:
    (keys_home.folder / "own.key").chmod(0o644)  # isn't read
    async with staged(tmp_path / "takes") as stage, line(stage) as made:
        assert await made.ask(type="ping") == {"type": "pong"}


async def test_zeromq_flood_of_strangers_leaves_clients_undisturbed_and_memory_bounded(
    tmp_path: Path, keys_home: KeysHome
) -> None:
    """Plain connections, unknown keys and connections that send nothing, beside a client that is served."""
    pair = trusted_pair(keys_home)
    process = psutil.Process()
    async with staged(tmp_path / "takes", *BEYOND) as stage, line(stage, keys_of(pair, keys_home)) as good:
        flood = asyncio.create_task(asyncio.to_thread(_flood, stage.ports.requests, 3.0))
        answered = 0
        sizes: list[int] = []
        while not flood.done():
            assert await good.ask(type="ping") == {"type": "pong"}
            answered += 1
            sizes.append(process.memory_info().rss)
            await asyncio.sleep(0)
        attempts = await flood
        assert attempts > 500
        assert answered > 100
        middle = sizes[len(sizes) // 2]
        assert sizes[-1] - middle < 32 << 20, "memory grows with the number of refused connections"
        assert await good.ask(type="ping") == {"type": "pong"}
        assert stage.transports.denied > attempts // 2
        await until(lambda: not _open_connections(stage.ports.requests))  # those that sent nothing are closed


def _open_connections(port: int) -> int:
    """Connections of strangers that are open at the daemon's end; the good client has one."""
    mine = psutil.Process().net_connections("tcp4")
    return sum(each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED for each in mine if each.laddr) - 1


def _flood(port: int, seconds: float) -> int:
    """Connect as strangers for some seconds, from a thread: the greeting of a client without keys, or nothing."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
    silent: list[socket.socket] = []
    count = 0
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            made = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
            count += 1
            if count % 10 == 0 and len(silent) < 200:
                silent.append(made)
                continue
            made.sendall(greeting)
            made.setblocking(False)
            with contextlib.suppress(OSError):
                made.recv(64)
            made.close()
            time.sleep(0.0005)
    finally:
        for made in silent:
            made.close()
    return count


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can capture packets")
@pytest.mark.skipif(not hasattr(socket, "AF_PACKET"), reason="packets are captured on Linux only")
async def test_zeromq_sends_no_clear_text_with_keys(tmp_path: Path, keys_home: KeysHome) -> None:
    """A capture on loopback: the same words are there without keys, and are not with them."""
    secret_words = "a secret thunderstorm over the sea"

    async def captured(stage: Stage, keys: CurveKeys | None) -> bytes:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sniffer:
            sniffer.bind(("lo", 0))
            sniffer.setblocking(False)
            async with line(stage, keys) as made, line(stage, keys, zmq.SUB) as listening:
                assert await listening.outcome() == zmq.EVENT_HANDSHAKE_SUCCEEDED
                await made.socket.send(
                    json.dumps({"type": "generate", "id": "a", "prompt": secret_words, "inline": True}).encode()
                )
                while json.loads((await made.socket.recv_multipart())[0])["type"] != "done":
                    pass
            packets: list[bytes] = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    packets.append(sniffer.recv(65536))
        ports = [stage.ports.requests.to_bytes(2, "big"), stage.ports.events.to_bytes(2, "big")]
        return b"".join(packet for packet in packets if any(port in packet[34:38] for port in ports))

    async with staged(tmp_path / "plain") as stage:
        plain = await captured(stage, None)
    async with staged(tmp_path / "keys", *BEYOND) as stage:
        encrypted = await captured(stage, keys_of(keys_home.own, keys_home))
    for words in (secret_words.encode(), b"prompt", b'"type"', b"/takes/0.wav"):
        assert words in plain
        assert words not in encrypted
    assert b"CURVE" in encrypted
    assert len(encrypted) > 1000
