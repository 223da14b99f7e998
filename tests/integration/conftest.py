"""Daemons to talk to."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration import clients
from tests.integration.clients import UdpClient, hold_engine, let_go, new_id, until_idle
from tests.integration.daemons import DaemonProcess, hollow_checkpoint

StartDaemon = Callable[..., DaemonProcess]
"""Starts a daemon with the fake engine, on settings of its own; it is ended with the test."""


@pytest.fixture(scope="session")
def hollow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder for the fake engine."""
    return hollow_checkpoint(tmp_path_factory.mktemp("hollow") / "model")


def settings_for(model: Path) -> tuple[str, ...]:
    return f"models.hollow.source={model}", "models.default=hollow", "engine.jobs=1", "player.device=no such device"


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory, hollow: Path) -> Iterator[DaemonProcess]:
    """One daemon with the fake engine that many tests share: each with ids of its own, each leaving nothing running."""
    started = DaemonProcess(tmp_path_factory.mktemp("daemon"), *settings_for(hollow))
    yield started
    started.stop()


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[StartDaemon]:
    """`start_daemon("queue.length=2")`: a daemon for one test."""
    with contextlib.ExitStack() as ending:  # each is ended, also when another one's end is a failure
        numbers = itertools.count()

        def start(*settings: str, more: dict[str, str] | None = None) -> DaemonProcess:
            folder = tmp_path / f"daemon-{next(numbers)}"
            model = hollow_checkpoint(folder / "hollow")
            daemon = DaemonProcess(folder, *settings_for(model), *settings, more=more)
            ending.callback(daemon.stop)
            return daemon

        yield start


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[UdpClient]:
    """A new UDP client of the shared daemon."""
    with clients.udp(daemon.osc) as made:
        yield made
        made.say("cancel", "*")


@pytest.fixture
def other(daemon: DaemonProcess) -> Iterator[UdpClient]:
    """Another UDP client of the shared daemon."""
    with clients.udp(daemon.osc) as made:
        yield made
        made.say("cancel", "*")


@pytest.fixture
def idle(daemon: DaemonProcess) -> None:
    """The shared daemon does nothing when the test begins."""
    with clients.udp(daemon.osc) as asking:
        until_idle(asking)


@pytest.fixture
def undisturbed(other: UdpClient) -> Iterator[None]:
    """Another client's sound, in the engine's hands while everything here is sent, goes on as if nothing was."""
    name = new_id()
    hold_engine(other, name)
    yield
    other.nothing_more()
    let_go(other, name)
