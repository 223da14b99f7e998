"""Two machines, as two network namespaces with a cable between them: a daemon on one, its users on the other."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import settings_for
from tests.integration.daemons import ROOT, DaemonProcess, environment, hollow_checkpoint
from tests.keys_home import TOKEN, KeysHome
from tests.patience import TIMEOUT_S
from timbred.access.keys import TrustedKey, write_trusted_key

RACK, LAPTOP, TABLET = "10.99.7.1", "10.99.7.2", "10.99.7.3"


@dataclass(frozen=True)
class Machines:
    """The namespaces of the rack and of the laptop, which has the tablet's address too."""

    rack: str
    laptop: str


def in_namespace(name: str, *command: str, more: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ip", "netns", "exec", name, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        cwd=ROOT,
        env={**os.environ, **(more or {})},
    )


@pytest.fixture
def machines() -> Iterator[Machines]:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need Linux, root and the program ip (apt install iproute2)")
    rack, laptop = (f"timbred-{os.getpid()}-{name}" for name in ("rack", "laptop"))
    commands = (
        f"netns add {rack}",
        f"netns add {laptop}",
        f"-n {rack} link set lo up",
        f"-n {laptop} link set lo up",
        f"-n {rack} link add cable type veth peer name cable netns {laptop}",
        f"-n {rack} addr add {RACK}/24 dev cable",
        f"-n {laptop} addr add {LAPTOP}/24 dev cable",
        f"-n {laptop} addr add {TABLET}/24 dev cable",
        f"-n {rack} link set cable up",
        f"-n {laptop} link set cable up",
    )
    with contextlib.ExitStack() as ending:
        for name in (rack, laptop):
            ending.callback(subprocess.run, ["ip", "netns", "del", name], check=False, capture_output=True)
        for command in commands:
            done = subprocess.run(["ip", *command.split()], check=False, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"this machine has no network namespaces (ip {command}: {done.stderr.strip()})")
        yield Machines(rack, laptop)


@pytest.fixture
def users(tmp_path: Path) -> tuple[KeysHome, KeysHome]:
    """The users of the rack and of the laptop, who trust each other's keys."""
    rack, laptop = KeysHome(tmp_path / "rack-config"), KeysHome(tmp_path / "laptop-config")
    write_trusted_key(rack.folder, TrustedKey("laptop", laptop.own.public))
    write_trusted_key(laptop.folder, TrustedKey("rack", rack.own.public, RACK))
    return rack, laptop


@pytest.fixture
def daemon(tmp_path: Path, machines: Machines, users: tuple[KeysHome, KeysHome]) -> Iterator[DaemonProcess]:
    """A daemon on the rack, which takes OSC from the laptop."""
    python = tmp_path / "python-of-the-rack"
    python.write_text(f'#!/bin/sh\nexec ip netns exec {machines.rack} {sys.executable} "$@"\n', "ascii")
    python.chmod(0o755)
    folder = tmp_path / "daemon"
    settings = (f"host={RACK}", f"access.allow={LAPTOP}", *settings_for(hollow_checkpoint(folder / "hollow")))
    started = DaemonProcess(folder, *settings, more={"XDG_CONFIG_HOME": str(users[0].config)}, program=str(python))
    yield started
    started.stop()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def on_laptop(tmp_path: Path, machines: Machines, users: tuple[KeysHome, KeysHome], daemon: DaemonProcess) -> Run:
    """`on_laptop("say", "pad")`: a command of the laptop's user, whose settings name the rack's daemon."""
    settings = {
        **environment(tmp_path / "laptop", fake_engine=True),
        "XDG_CONFIG_HOME": str(users[1].config),
        "TIMBRED_HOST": RACK,
        "TIMBRED_ZMQ_REQUESTS": str(daemon.requests),
        "TIMBRED_ZMQ_EVENTS": str(daemon.events),
        "TIMBRED_HTTP_PORT": str(daemon.http),
        "TIMBRED_OSC_PORT": str(daemon.osc),
        "TIMBRED_TAKES_FOLDER": str(tmp_path / "laptop-takes"),
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return in_namespace(machines.laptop, sys.executable, "-P", "-m", "timbred", *words, more=settings)

    return run


OSC_PING = """
import socket, sys
from timbred.protocol.osc_packets import read_packet, write_message
host, port, own = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
    line.bind((own, 0))
    line.sendto(write_message("/timbred/ping", ()), (host, port))
    (message,) = read_packet(line.recv(65536))
    print(message.address, *message.arguments)
"""

HTTP_STATUS = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]))
connection.request("GET", sys.argv[3], headers={"Authorization": sys.argv[4]} if sys.argv[4] else {})
print(connection.getresponse().status)
"""


def test_access_of_another_machine_with_keys_token_and_address(
    machines: Machines, daemon: DaemonProcess, on_laptop: Run, users: tuple[KeysHome, KeysHome]
) -> None:
    more = environment(daemon.takes.parent, fake_engine=True)

    def python(code: str, *words: str) -> str:
        done = in_namespace(machines.laptop, sys.executable, "-c", code, *words, more=more)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    said = on_laptop("say", "a warm tone", "--seconds", "0.3")
    assert said.returncode == 0, said.stderr
    assert Path(said.stdout.splitlines()[-1]).parent == daemon.takes

    assert python(OSC_PING, RACK, str(daemon.osc), LAPTOP) == "/timbred/pong"
    refused = python(OSC_PING, RACK, str(daemon.osc), TABLET)
    assert refused.startswith("/timbred/fail ping access-denied")

    assert python(HTTP_STATUS, RACK, str(daemon.http), "/status", "") == "401"
    assert python(HTTP_STATUS, RACK, str(daemon.http), "/status", f"Bearer {TOKEN}") == "200"

    link = on_laptop("keys", "link")  # both users have the same token
    assert link.returncode == 0, link.stderr
    path = re.fullmatch(rf"http://{RACK}:{daemon.http}(/access/link/\S+)\n", link.stdout)
    assert path is not None, link.stdout
    assert python(HTTP_STATUS, RACK, str(daemon.http), path[1], "") == "200"
    assert python(HTTP_STATUS, RACK, str(daemon.http), path[1], "") == "401"

    (users[1].folder / "trusted" / "rack.key").unlink()
    denied = on_laptop("say", "a warm tone")
    assert denied.returncode == 1
    assert "demands a key" in denied.stderr
    log = daemon.log.read_text("utf-8")
    assert log.count(f"access denied: OSC from {TABLET}") == 1
    assert TOKEN not in log


def test_access_of_another_machine_without_a_daemon_fails_at_once(
    machines: Machines, daemon: DaemonProcess, on_laptop: Run
) -> None:
    daemon.stop()
    said = on_laptop("say", "a warm tone")
    assert said.returncode == 1
    assert f"no timbred answers at {RACK}" in said.stderr
