"""Ports: taken ones are named with what to do, free ones are found, nothing stays bound."""

import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.free_ports import free_port
from tests.transports.stage import FakeDaemon, Stage, config_for, staged
from timbred.errors import BadRequest
from timbred.transports.base import Transports
from timbred.transports.sockets import is_beyond_loopback, osc_pair, resolve, warn_of_open_access


def test_osc_pair_shares_a_free_number_for_udp_and_tcp() -> None:
    udp, tcp = osc_pair("osc.port", "127.0.0.1", 0)
    with udp, tcp:
        assert udp.getsockname() == tcp.getsockname()


@pytest.mark.parametrize("setting", ["osc.port", "zmq.requests", "zmq.events", "http.port"])
async def test_transports_name_a_taken_port_and_leave_nothing_bound(tmp_path: Path, setting: str) -> None:
    async def start(*flags: str) -> None:
        transports = Transports(config_for(tmp_path, *flags))
        await transports.start(FakeDaemon(transports.outbox))
        await transports.stop()

    taken = free_port()
    with socket.create_server(("127.0.0.1", taken)), pytest.raises(BadRequest) as refused:
        await start(f"{setting}={taken}")
    assert f"{setting}: port {taken} is in use" in refused.value.message
    assert f"--set {setting}=0" in refused.value.message
    await start(f"{setting}={taken}")


def test_transports_name_a_taken_udp_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(BadRequest, match=r"osc\.port: port \d+ is in use"):
            osc_pair("osc.port", "127.0.0.1", other.getsockname()[1])


async def test_transports_run_twice_beside_each_other(tmp_path: Path) -> None:
    async with staged(tmp_path) as first:
        second = Stage(config_for(tmp_path))
        await second.start()
        async with first.udp() as one, second.udp() as other:
            assert await one.ask("/timbred/ping") == await other.ask("/timbred/ping") == ("pong",)
        await second.transports.stop()
        await second.transports.stop()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "", "\x00", "203.0.113.9"])
def test_transports_name_an_unavailable_host(host: str) -> None:
    with pytest.raises(BadRequest, match="host"):
        osc_pair("osc.port", host or "..", 0)


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_is_beyond_loopback_only_for_other_addresses(host: str, expected: bool) -> None:
    assert is_beyond_loopback(host) is expected


def test_warn_of_open_access_names_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_open_access("0.0.0.0")
    assert "anyone who can reach" in caplog.text
    assert "--set host=127.0.0.1" in caplog.text


def test_sockets_raise_file_limit_raises_the_soft_limit_alone() -> None:
    code = (
        "import resource; from timbred.transports.sockets import raise_file_limit as limit; _, hard = "
        "resource.getrlimit(resource.RLIMIT_NOFILE); resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)); limit(); "
        "soft, now = resource.getrlimit(resource.RLIMIT_NOFILE); assert (soft, now) == (min(hard, 16384), hard)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_resolve_turns_names_into_addresses() -> None:
    assert resolve("localhost")[1] in ("127.0.0.1", "::1")
