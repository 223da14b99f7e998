"""The client and daemons beyond loopback: keys are found by host, and a refusal says which command changes it."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_keys import runs
from tests.integration.conftest import StartDaemon
from tests.integration.daemons import DaemonProcess
from tests.keys_home import BEYOND, KeysHome, make_home, own_address
from tests.patience import TIMEOUT_S
from timbred.access.keys import CurveKeys, TrustedKey, hexadecimal, make_key_pair, remove_trusted_key, write_trusted_key
from timbred.client import AsyncTimbred, Timbred
from timbred.errors import AccessDenied


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[KeysHome]:
    """The user of the daemon's machine. This process is that of another user, with keys of its own."""
    with pytest.MonkeyPatch.context() as patch:
        yield make_home(tmp_path / "rack", patch)


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rack: KeysHome) -> KeysHome:
    """The user of this process."""
    assert rack.folder.exists()
    return make_home(tmp_path / "laptop", monkeypatch)


def start(start_daemon: StartDaemon, rack: KeysHome, *settings: str) -> DaemonProcess:
    return start_daemon(*BEYOND, *settings, more={"XDG_CONFIG_HOME": str(rack.config)})


def befriend(rack: KeysHome, laptop: KeysHome, host: str) -> None:
    write_trusted_key(rack.folder, TrustedKey("laptop", laptop.own.public))
    write_trusted_key(laptop.folder, TrustedKey("rack", rack.own.public, host))


def test_timbred_uses_the_keys_of_the_host(start_daemon: StartDaemon, rack: KeysHome, laptop: KeysHome) -> None:
    address = own_address()
    befriend(rack, laptop, address)
    daemon = start(start_daemon, rack)
    with Timbred(address, requests=daemon.requests, events=daemon.events) as timbred:
        sound = timbred.generate("warm pad", seconds=0.3, steps=1)
        assert sound.samples.dtype == np.float32
        assert len(timbred.models()) >= 1  # over a REQ socket
        assert timbred.status().denied == 0
        assert timbred.setting("access.token").value == ""


async def test_async_timbred_listens_with_the_keys(start_daemon: StartDaemon, rack: KeysHome, laptop: KeysHome) -> None:
    address = own_address()
    befriend(rack, laptop, address)
    daemon = start(start_daemon, rack, "access.token=another-token-0123456789")
    async with asyncio.timeout(TIMEOUT_S), AsyncTimbred(address, daemon.requests, daemon.events) as timbred:
        heard: asyncio.Queue[str] = asyncio.Queue()

        async def listen() -> None:
            async for client, _ in timbred.listen("take"):
                heard.put_nowait(client)

        listening = asyncio.create_task(listen())
        while heard.empty():
            await timbred.generate("warm pad", seconds=0.3, steps=1)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        assert (await timbred.setting("access.token")).value == "(hidden)"


def test_timbred_takes_keys_as_an_argument(start_daemon: StartDaemon, rack: KeysHome, laptop: KeysHome) -> None:
    pair = make_key_pair()
    write_trusted_key(rack.folder, TrustedKey("program", pair.public))
    daemon = start(start_daemon, rack)
    keys = CurveKeys(pair.public, pair.secret, rack.own.public)
    with Timbred("127.0.0.1", requests=daemon.requests, keys=keys) as timbred:
        assert timbred.status().denied == 0
    assert laptop.folder.exists()


def test_timbred_of_the_daemons_user_needs_no_settings(
    start_daemon: StartDaemon, rack: KeysHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = start(start_daemon, rack)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(rack.config))
    for host in ("127.0.0.1", "0.0.0.0", own_address()):
        with Timbred(host, requests=daemon.requests) as timbred:
            assert timbred.ping() is not None


def test_timbred_names_the_command_for_each_refusal(
    start_daemon: StartDaemon, rack: KeysHome, laptop: KeysHome
) -> None:
    address = own_address()
    daemon = start(start_daemon, rack)

    def refusal() -> str:
        with Timbred(address, requests=daemon.requests) as timbred, pytest.raises(AccessDenied) as refused:
            timbred.status()
        return refused.value.message

    assert f"timbred keys trust NAME KEY --host {address}" in refusal()
    write_trusted_key(laptop.folder, TrustedKey("rack", rack.own.public, address))
    assert f"there, run: timbred keys trust NAME {hexadecimal(laptop.own.public)}" in refusal()
    write_trusted_key(rack.folder, TrustedKey("laptop", laptop.own.public))
    with Timbred(address, requests=daemon.requests) as timbred:
        assert timbred.status().denied >= 2
    write_trusted_key(laptop.folder, TrustedKey("rack", make_key_pair().public, address), replace=True)
    assert "has another key than the one that is trusted" in refusal()
    (laptop.folder / "trusted" / "rack.key").chmod(0o644)
    assert "chmod 600" in refusal()
    (laptop.folder / "trusted" / "rack.key").unlink()
    (laptop.folder / "own.key").unlink()
    assert "timbred keys make" in refusal()
    assert daemon.log.read_text("utf-8").count("access denied: ZeroMQ from " + address) <= 1


def test_timbred_names_a_daemon_without_keys(start_daemon: StartDaemon, rack: KeysHome, laptop: KeysHome) -> None:
    write_trusted_key(laptop.folder, TrustedKey("here", rack.own.public, "127.0.0.1"))
    daemon = start_daemon()
    with Timbred("127.0.0.1", requests=daemon.requests) as timbred, pytest.raises(AccessDenied, match="uses no keys"):
        timbred.status()
    remove_trusted_key(laptop.folder, "here")
    with Timbred("127.0.0.1", requests=daemon.requests) as timbred:
        assert timbred.status().denied == 0


async def test_async_timbred_recovers_when_it_is_trusted(
    start_daemon: StartDaemon, rack: KeysHome, laptop: KeysHome, caplog: pytest.LogCaptureFixture
) -> None:
    """The same client, first refused, is served after the command in its message has been run."""
    caplog.set_level(logging.DEBUG)
    address = own_address()
    write_trusted_key(laptop.folder, TrustedKey("rack", rack.own.public, address))
    daemon = start(start_daemon, rack)
    async with asyncio.timeout(TIMEOUT_S), AsyncTimbred(address, daemon.requests) as timbred:
        for _ in range(2):
            with pytest.raises(AccessDenied):
                await timbred.status()
        write_trusted_key(rack.folder, TrustedKey("laptop", laptop.own.public))
        assert (await timbred.status()).denied == 2
    assert laptop.own.secret.decode() not in caplog.text


def test_say_renders_with_the_keys_of_the_host(
    start_daemon: StartDaemon,
    rack: KeysHome,
    laptop: KeysHome,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = own_address()
    monkeypatch.setattr("timbred.cli.serve.ANSWER_TIMEOUT_S", TIMEOUT_S)
    befriend(rack, laptop, address)
    daemon = start(start_daemon, rack)
    settings = ("--set", f"host={address}", "--set", f"zmq.requests={daemon.requests}")
    runs("say", "a warm tone", "--seconds", "0.3", *settings)
    path = Path(capsys.readouterr().out.splitlines()[-1])
    assert path.parent == daemon.takes
    assert path.exists()
