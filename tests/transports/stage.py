"""A daemon without an engine behind the real transports, for tests that talk to it over real sockets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

from tests.patience import TIMEOUT_S
from timbred.audio import Clip, SampleRate
from timbred.config import Config, load
from timbred.errors import ShuttingDown
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox
from timbred.protocol.osc_packets import SlipDecoder, encode_slip
from timbred.transports.base import Transports
from timbred.transports.sockets import Ports

STATUS = m.StatusReply(
    jobs_queued=0,
    jobs_running=0,
    models_resident=1,
    device_memory_used=10.0,
    device_memory_total=20.0,
    voices_playing=0,
    sample_rate=48000,
    underruns=0,
    uptime_s=1.5,
)
MODEL = m.Model(
    name="pocket",
    state="resident",
    native_rate=32000,
    channels=1,
    max_seconds=8.0,
    licence="Apache-2.0",
    memory_mb=60.0,
)
SOUND = Clip(np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2), SampleRate(48000))


def take_of(request: m.Generate, index: int) -> m.Take:
    return m.Take(
        id=request.id,
        index=index,
        path="" if request.to == "none" else f"/takes/{index}.wav",
        seconds=1.0,
        rate=48000,
        channels=2,
        seed=index,
        score=0.0,
        take_id=f"t{index}",
    )


class FakeDaemon:
    """An Inbox that answers at once. A prompt of `wait` is only started; `finish` ends it."""

    def __init__(self, outbox: Outbox) -> None:
        self.received: list[tuple[ClientId, m.Request]] = []
        self._outbox = outbox
        self._waiting: dict[tuple[ClientId, m.Id], m.Generate] = {}

    def receive(self, client: ClientId, request: m.Request) -> None:
        self.received.append((client, request))
        match request:
            case m.Generate() if request.prompt == "wait":
                self._start(client, request)
                self._waiting[client, request.id] = request
            case m.Generate():
                self._start(client, request)
                self._end(client, request)
            case m.Cancel(id=place):
                self._outbox.send(client, m.Cancelled(id=place))
            case m.Status():
                self._outbox.send(client, STATUS)
            case m.Models():
                self._outbox.send_list(client, "models", [MODEL, MODEL], None)
            case m.Takes():
                takes = [take_of(m.Generate(id="old", prompt="x"), index) for index in range(2)]
                self._outbox.send_list(client, "takes", takes, m.Done(id="takes", takes=2, path=""))
            case m.Load(model=name):
                self._outbox.send(client, m.Loaded(model=name))
            case m.Tempo():
                self._outbox.send(client, m.Acknowledged(id="tempo"))
            case m.Unload():
                raise RuntimeError("a fault in the daemon")
            case _:
                pass

    def _start(self, client: ClientId, request: m.Generate) -> None:
        self._outbox.send(client, m.Queued(id=request.id, position=0, eta_s=0.5))
        self._outbox.send(client, m.Started(id=request.id, model="pocket"))

    def _end(self, client: ClientId, request: m.Generate) -> None:
        count = request.takes or 1
        for index in range(count):
            self._outbox.send(client, take_of(request, index), SOUND if request.inline else None)
        self._outbox.send(client, m.Done(id=request.id, takes=count, path=take_of(request, 0).path))

    def finish(self) -> None:
        """End every request that waits."""
        while self._waiting:
            (client, _), request = self._waiting.popitem()
            self._end(client, request)

    def shut_down(self) -> None:
        """Fail every request that waits."""
        while self._waiting:
            client, place = self._waiting.popitem()[0]
            self._outbox.send(client, m.Fail(id=place, code=ShuttingDown.code, message="timbred is stopping"))


class Stage:
    """Running transports, their ports, and the fake daemon behind them."""

    def __init__(self, config: Config) -> None:
        self.transports = Transports(config)
        self.daemon = FakeDaemon(self.transports.outbox)
        self.ports = Ports(0, 0, 0, 0)
        self.takes = config.takes_folder

    async def start(self) -> None:
        self.ports = await self.transports.start(self.daemon)

    @contextlib.asynccontextmanager
    async def udp(self) -> AsyncGenerator["UdpHost"]:
        host = UdpHost(self.ports.osc)
        try:
            yield host
        finally:
            host.close()

    @contextlib.asynccontextmanager
    async def tcp(self) -> AsyncGenerator["TcpHost"]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports.osc)
        try:
            yield TcpHost(reader, writer)
        finally:
            writer.close()


def config_for(folder: Path, *flags: str) -> Config:
    free = [f"{name}=0" for name in ("osc.port", "zmq.requests", "zmq.events", "http.port")]
    return load(None, {}, [*free, f"takes.folder={folder}", *flags])


@contextlib.asynccontextmanager
async def staged(folder: Path, *flags: str) -> AsyncGenerator[Stage]:
    """Start a stage, stop it in any case, and check that none of its tasks is left."""
    before = asyncio.all_tasks()
    stage = Stage(config_for(folder, *flags))
    await stage.start()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield stage
    finally:
        await stage.transports.stop()
    left = asyncio.all_tasks() - before
    assert not left, left


ReceivedMessage = tuple[Any, ...]


def osc(address: str, *arguments: object) -> bytes:
    builder = OscMessageBuilder(address)
    for argument in arguments:
        builder.add_arg(argument)  # pyright: ignore[reportArgumentType]
    return builder.build().dgram


def read_message(packet: bytes) -> ReceivedMessage:
    read = OscMessage(packet)
    return (read.address.removeprefix("/timbred/"), *read.params)


class UdpHost:
    """A host that speaks OSC over UDP from one port."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]
        self._daemon = ("127.0.0.1", port)

    def send(self, address: str, *arguments: object) -> None:
        self.send_raw(osc(address, *arguments))

    def send_raw(self, packet: bytes) -> None:
        self.socket.sendto(packet, self._daemon)

    async def receive(self) -> ReceivedMessage:
        return read_message(await asyncio.get_running_loop().sock_recv(self.socket, 65536))

    async def ask(self, address: str, *arguments: object) -> ReceivedMessage:
        self.send(address, *arguments)
        return await self.receive()

    def close(self) -> None:
        self.socket.close()


class TcpHost:
    """A host that speaks OSC 1.1 over TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._decoder = SlipDecoder()
        self._frames: list[bytes] = []

    def send(self, address: str, *arguments: object) -> None:
        self.send_raw(osc(address, *arguments))

    def send_raw(self, packet: bytes) -> None:
        self.writer.write(encode_slip(packet))

    async def receive(self) -> ReceivedMessage:
        while not self._frames:
            data = await self.reader.read(65536)
            if not data:
                raise ConnectionError("the daemon has closed the connection")
            self._frames += [frame for frame in self._decoder.feed(data) if isinstance(frame, bytes)]
        return read_message(self._frames.pop(0))

    async def ask(self, address: str, *arguments: object) -> ReceivedMessage:
        self.send(address, *arguments)
        return await self.receive()
