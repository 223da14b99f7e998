"""OSC beyond loopback: datagrams and connections of allowed addresses only; others are told once, and counted."""

import asyncio
import socket
import time
from pathlib import Path

import pytest

from tests.keys_home import BEYOND, KeysHome, own_address
from tests.transports.stage import Stage, TcpHost, osc, read_message, staged
from timbred.access.policy import MAX_SOURCES, AllowList, Denials
from timbred.transports import osc as osc_transport


class Stranger:
    """A UDP socket whose datagrams come from another address than loopback."""

    def __init__(self, stage: Stage, address: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.socket.setblocking(False)
        self._daemon = (address, stage.ports.osc)

    def send(self, address: str, *arguments: object) -> None:
        self.socket.sendto(osc(address, *arguments), self._daemon)

    async def receive(self) -> tuple[object, ...]:
        return read_message(await asyncio.get_running_loop().sock_recv(self.socket, 65536))


async def until_denied(stage: Stage, count: int) -> None:
    while stage.transports.denied < count:
        await asyncio.sleep(0.005)


async def test_osc_from_other_addresses_is_told_once_and_counted(
    tmp_path: Path, keys_home: KeysHome, caplog: pytest.LogCaptureFixture
) -> None:
    address = own_address()
    async with staged(tmp_path / "takes", *BEYOND) as stage, stage.udp() as good:
        stranger = Stranger(stage, address)
        stranger.send("/timbred/generate", "a1", "pad")
        name, identity, code, message = await stranger.receive()
        assert (name, identity, code) == ("fail", "a1", "access-denied")
        assert (
            f"add it to access.allow on timbred's machine, as in `timbred serve --set access.allow={address}`"
            in str(message)
        )
        for _ in range(20):
            stranger.send("/timbred/ping")
        await until_denied(stage, 21)
        assert await good.ask("/timbred/ping") == ("pong",)
        with pytest.raises(BlockingIOError):
            stranger.socket.recv(100)
        assert stage.daemon.received == []
        stranger.socket.close()
    assert caplog.text.count(f"access denied: OSC from {address}") == 1
    assert keys_home.folder.exists()


async def test_osc_from_allowed_addresses_is_served(tmp_path: Path, keys_home: KeysHome) -> None:
    address = own_address()
    async with staged(tmp_path / "takes", "host=0.0.0.0", f"access.allow={address}") as stage:
        stranger = Stranger(stage, address)
        stranger.send("/timbred/ping")
        assert await stranger.receive() == ("pong",)
        stranger.socket.close()
        reader, writer = await asyncio.open_connection(address, stage.ports.osc)
        assert await TcpHost(reader, writer).ask("/timbred/ping") == ("pong",)
        writer.close()
        assert stage.transports.denied == 0
    assert keys_home.folder.exists()


async def test_osc_over_tcp_from_other_addresses_is_told_once_and_closed(
    tmp_path: Path, keys_home: KeysHome, caplog: pytest.LogCaptureFixture
) -> None:
    address = own_address()
    async with staged(tmp_path / "takes", *BEYOND) as stage, stage.tcp() as good:
        reader, writer = await asyncio.open_connection(address, stage.ports.osc)
        host = TcpHost(reader, writer)
        host.send("/timbred/ping")
        assert (await host.receive())[:3] == ("fail", "osc", "access-denied")
        with pytest.raises(ConnectionError):
            await host.receive()
        writer.close()
        for _ in range(5):
            reader, writer = await asyncio.open_connection(address, stage.ports.osc)
            with pytest.raises(ConnectionError):
                await TcpHost(reader, writer).receive()
            writer.close()
        assert stage.transports.denied == 6
        assert await good.ask("/timbred/ping") == ("pong",)
    assert caplog.text.count(f"access denied: OSC from {address}") == 1
    assert keys_home.folder.exists()


async def test_osc_flood_of_strangers_leaves_clients_undisturbed(tmp_path: Path, keys_home: KeysHome) -> None:
    """Thousands of datagrams and more than a thousand connections a second, beside a client that is served."""
    address = own_address()
    async with staged(tmp_path / "takes", *BEYOND) as stage, stage.udp() as good, stage.tcp() as connected:

        def flood() -> int:
            count = 0
            packet = osc("/timbred/generate", "a", "pad")
            end = time.monotonic() + 2.0
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
                line.bind((address, 0))
                while time.monotonic() < end:
                    for _ in range(10):
                        line.sendto(packet, (address, stage.ports.osc))
                    with socket.create_connection((address, stage.ports.osc)):
                        count += 1
                    time.sleep(0.0005)
            return count

        flooding = asyncio.create_task(asyncio.to_thread(flood))
        answered = 0
        while not flooding.done():
            assert await good.ask("/timbred/ping") == ("pong",)
            assert await connected.ask("/timbred/ping") == ("pong",)
            answered += 1
        assert answered > 20
        assert await flooding > 200
        assert stage.transports.denied > 1000
        assert stage.daemon.received == []
    assert keys_home.folder.exists()


async def test_osc_udp_of_invented_sources_fills_no_table(
    tmp_path: Path, keys_home: KeysHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The addresses are invented before the daemon's own check, as a sender of raw packets does."""
    made: list[osc_transport.OscUdp] = []

    class Recorded(osc_transport.OscUdp):
        def start(self) -> None:
            made.append(self)
            super().start()

    monkeypatch.setattr("timbred.transports.base.OscUdp", Recorded)
    async with staged(tmp_path / "takes", *BEYOND) as stage, stage.udp() as good:
        (udp,) = made
        packet = osc("/timbred/generate", "a", "pad")
        for number in range(20_000):
            source = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            udp._append_datagram(packet, (source, 9))  # pyright: ignore[reportPrivateUsage]
        rules = udp._access  # pyright: ignore[reportPrivateUsage]
        assert rules is not None
        assert stage.transports.denied == 20_000
        assert len(rules.denials) <= MAX_SOURCES
        assert not udp._pending  # pyright: ignore[reportPrivateUsage]
        assert await good.ask("/timbred/ping") == ("pong",)
    assert isinstance(rules.allow, AllowList)
    assert isinstance(rules.denials, Denials)
    assert keys_home.folder.exists()
