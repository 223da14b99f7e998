"""Floods over each transport: another client's ping is answered among the flood's answers, not after them."""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

import pytest
import zmq
import zmq.asyncio
from websockets.asyncio.client import ClientConnection, connect

from tests.patience import TIMEOUT_S
from tests.transports.stage import Stage, TcpHost, osc, staged
from timbred.protocol import messages as m
from timbred.protocol.osc_packets import encode_slip
from timbred.transports import osc as osc_transport

COUNT = 1500
"""Requests of a flood."""


class Line(Protocol):
    """A client of any transport."""

    async def send(self, count: int) -> None:
        """Send so many requests that are refused or answered."""
        ...

    async def receive(self) -> str:
        """The next answer, in words."""
        ...

    async def ping(self) -> None:
        """Ask for a pong."""
        ...


class _Tcp:
    def __init__(self, host: TcpHost) -> None:
        self.host = host

    async def send(self, count: int) -> None:
        # frames of one byte, which are no OSC: as many as fit into little
        self.host.writer.write(b"".join(encode_slip(b"x") for _ in range(count)))

    async def receive(self) -> str:
        return str((await self.host.receive())[0])

    async def ping(self) -> None:
        self.host.send("/timbred/ping")


class _Udp:
    def __init__(self, line: socket.socket) -> None:
        self.line = line

    async def send(self, count: int) -> None:
        # many requests in each datagram, so that none is lost on the way
        each = osc("/timbred/generate", "a", "pad", "@bogus", 1)
        bundle = b"#bundle\x00" + bytes(7) + b"\x01" + (len(each).to_bytes(4, "big") + each) * 500
        for _ in range(count // 500):
            self.line.send(bundle)

    async def receive(self) -> str:
        packet = await asyncio.get_running_loop().sock_recv(self.line, 65536)
        return packet.partition(b"\0")[0].decode().removeprefix("/timbred/")

    async def ping(self) -> None:
        self.line.send(osc("/timbred/ping"))


class _Zmq:
    def __init__(self, line: zmq.asyncio.Socket) -> None:
        self.line = line

    async def send(self, count: int) -> None:
        for _ in range(count):
            await self.line.send_multipart([b"{", b"x", b"y"])

    async def receive(self) -> str:
        return json.loads(await self.line.recv())["type"]

    async def ping(self) -> None:
        await self.line.send(b'{"type": "ping"}')


class _Json:
    def __init__(self, line: ClientConnection) -> None:
        self.line = line

    async def send(self, count: int) -> None:
        for _ in range(count):
            await self.line.send("{")

    async def receive(self) -> str:
        return json.loads(await self.line.recv())["type"]

    async def ping(self) -> None:
        await self.line.send('{"type": "ping"}')


@contextlib.asynccontextmanager
async def line_of(stage: Stage, transport: str) -> AsyncGenerator[Line]:
    if transport == "tcp":
        async with stage.tcp() as host:
            yield _Tcp(host)
    elif transport == "udp":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            line.setblocking(False)
            line.connect(("127.0.0.1", stage.ports.osc))
            yield _Udp(line)
    elif transport == "zmq":
        context = zmq.asyncio.Context()
        made = context.socket(zmq.DEALER)
        made.set(zmq.RCVHWM, 0)
        made.connect(f"tcp://127.0.0.1:{stage.ports.requests}")
        try:
            yield _Zmq(made)
        finally:
            context.destroy(linger=0)
    else:
        address = f"ws://127.0.0.1:{stage.ports.http}/ws"
        async with connect(address, proxy=None, open_timeout=TIMEOUT_S, ping_timeout=TIMEOUT_S) as made:
            try:
                yield _Json(made)
            finally:
                made.transport.abort()  # a closing handshake would wait behind the unread answers


TRANSPORTS = ("udp", "tcp", "zmq", "websocket")


@pytest.mark.parametrize("asks", TRANSPORTS)
@pytest.mark.parametrize("floods", TRANSPORTS)
async def test_floods_leave_pings_answered(tmp_path: Path, floods: str, asks: str) -> None:
    async with staged(tmp_path) as stage, line_of(stage, floods) as flooder, line_of(stage, asks) as other:

        async def flood() -> None:
            while True:
                await flooder.send(COUNT)
                for _ in range(COUNT // 2):
                    await flooder.receive()

        flooding = asyncio.create_task(flood())
        for _ in range(20):
            await other.ping()
            assert await other.receive() == "pong"
        assert not flooding.done()
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


@pytest.mark.parametrize("floods", ["udp", "tcp"])
@pytest.mark.parametrize("asks", ["udp", "tcp"])
async def test_floods_leave_requests_of_another_client_received(tmp_path: Path, floods: str, asks: str) -> None:
    async with staged(tmp_path) as stage, line_of(stage, floods) as flooder, line_of(stage, asks) as other:
        await other.ping()  # its connection is known
        assert await other.receive() == "pong"
        each = osc("/timbred/status")
        if isinstance(flooder, _Tcp):
            flooder.host.send_raw(each)
            flooder.host.writer.write(encode_slip(each) * COUNT)
        else:
            assert isinstance(flooder, _Udp)
            bundle = b"#bundle\x00" + bytes(7) + b"\x01" + (len(each).to_bytes(4, "big") + each) * 500
            for _ in range(COUNT // 500):
                flooder.line.send(bundle)
        if isinstance(other, _Tcp):
            other.host.send("/timbred/models")
        else:
            assert isinstance(other, _Udp)
            other.line.send(osc("/timbred/models"))
        while len(stage.daemon.received) < COUNT:
            await asyncio.sleep(0)
        kinds = [type(request) for _, request in stage.daemon.received]
        # in the turn of the event loop in which both came, or in the next
        assert kinds.index(m.Models) < COUNT // 5


async def test_floods_of_a_tcp_client_that_does_not_read_are_not_read(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            deaf.setblocking(False)
            await loop.sock_connect(deaf, ("127.0.0.1", stage.ports.osc))
            count = 2000
            long = "@bogus" + "x" * 4000
            asks = b"".join(encode_slip(osc("/timbred/generate", number, "pad", long, 1)) for number in range(count))
            sending = asyncio.create_task(loop.sock_sendall(deaf, asks))
            async with stage.udp() as other:
                for _ in range(200):
                    assert await other.ask("/timbred/ping") == ("pong",)
            assert not sending.done()
            reader, writer = await asyncio.open_connection(sock=deaf.dup())  # `deaf` still sends
            host = TcpHost(reader, writer)
            assert [(await host.receive())[1] for _ in range(count)] == list(range(count))
            await sending
            writer.close()


async def test_floods_of_events_disconnect_a_listener_that_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(osc_transport, "_MAX_UNREAD_BYTES", 1 << 16)

    async with staged(tmp_path) as stage:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            await loop.sock_connect(deaf, ("127.0.0.1", stage.ports.osc))
            await loop.sock_sendall(deaf, encode_slip(osc("/timbred/notify", 1)))
            assert b"notify" in await loop.sock_recv(deaf, 4096)
            async with stage.udp() as other:
                while not any("doesn't read its answers" in record.getMessage() for record in caplog.records):
                    other.send("/timbred/generate", "x" * 200, "pad")
                    for _ in range(4):
                        await other.receive()
            while await loop.sock_recv(deaf, 65536):
                pass  # what was on its way, then the end


async def test_floods_of_bad_requests_write_a_bounded_number_of_log_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "timbred")

    async with staged(tmp_path) as stage, line_of(stage, "tcp") as flooder:
        await flooder.send(COUNT)
        for _ in range(COUNT):
            await flooder.receive()
    assert len(caplog.records) < COUNT / 2
    assert any("this is no OSC" in record.getMessage() for record in caplog.records)


async def test_floods_do_not_prevent_a_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with staged(tmp_path) as stage, line_of(stage, "udp") as flooder:
        each = osc("/timbred/sing")
        bundle = b"#bundle\x00" + bytes(7) + b"\x01" + (len(each).to_bytes(4, "big") + each) * 1500
        assert isinstance(flooder, _Udp)
        for _ in range(10):
            flooder.line.send(bundle)
        assert await flooder.receive() == "fail"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_floods_of_zeromq_frames_are_refused_with_their_number(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        context = zmq.asyncio.Context()
        made = context.socket(zmq.DEALER)
        made.connect(f"tcp://127.0.0.1:{stage.ports.requests}")
        try:
            await made.send_multipart([b"{}"] * 5000)
            assert "5000 frames" in json.loads(await made.recv())["message"]
            await made.send_multipart([b"x" * 300, b"", b'{"type": "ping"}'])
            assert "3 frames" in json.loads(await made.recv())["message"]
            await made.send(b'{"type": "ping"}')
            assert json.loads(await made.recv()) == {"type": "pong"}
        finally:
            context.destroy(linger=0)
