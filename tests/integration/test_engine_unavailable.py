"""When no engine can be started: everything that waits for one ends with the reason, and new requests at once."""

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import clients
from tests.integration.clients import SOUND, UdpClient, order
from tests.integration.conftest import StartDaemon
from tests.integration.daemons import FAKE_ENGINE, ROOT, DaemonProcess, environment
from tests.patience import TIMEOUT_S


@pytest.fixture
def reason(tmp_path: Path) -> Path:
    """As long as this file is there, no engine starts."""
    path = tmp_path / "reason"
    path.touch()
    return path


@pytest.fixture
def unable(start_daemon: StartDaemon, reason: Path) -> DaemonProcess:
    """A daemon whose engine refuses to start."""
    return start_daemon(more={"TIMBRED_ENGINE_PROGRAM": f"{FAKE_ENGINE} --cannot-start-while {reason}"})


def status_of(daemon: DaemonProcess) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.http}/status") as answer:
        return json.load(answer)


def until_engine_is(daemon: DaemonProcess, client: UdpClient, state: str) -> dict[str, Any]:
    """The daemon's status, once its engine is so."""
    while (status := status_of(daemon))["engine"] != state:
        client.nothing_more()
    return status


def test_engine_unavailable_ends_waiting_requests_with_its_reason(unable: DaemonProcess, reason: Path) -> None:
    with clients.udp(unable.osc) as client:
        client.say("generate", "a1", "pad", "@steps", 1, "@seconds", 0.2)
        failure = client.until_end()[-1]
        assert failure.arguments[:2] == ("a1", "worker-lost")
        assert f"the engine can't be started: told not to start by {reason}; remove it" in str(failure.arguments[2])


def test_engine_unavailable_answers_new_requests_at_once_until_it_starts(unable: DaemonProcess, reason: Path) -> None:
    with clients.udp(unable.osc) as client:
        status = until_engine_is(unable, client, "failed")
        assert status["engine_trouble"] == f"told not to start by {reason}; remove it"
        client.say("generate", "a1", "pad", "@steps", 1, "@seconds", 0.2)
        assert [event.name for event in client.until_end()] == ["fail"]
        client.say("generate", "a2", "pad", "@steps", 1, "@seconds", 0.2, "@by", 60)
        assert client.until_end()[-1].arguments[:2] == ("a2", "worker-lost")
        assert client.ask("load", "hollow").arguments[:2] == ("load", "worker-lost")
        assert client.ask("unload", "hollow").name == "unloaded"
        reason.unlink()
        assert until_engine_is(unable, client, "up")["engine_trouble"] == ""
        client.say("generate", "a1", "pad", "@steps", 1, "@seconds", 0.2)
        assert order(client.until_end()) == SOUND, "a refused id may be asked for again"


def test_engine_unavailable_after_a_loss_ends_what_it_held(start_daemon: StartDaemon, tmp_path: Path) -> None:
    reason = tmp_path / "reason"
    daemon = start_daemon(more={"TIMBRED_ENGINE_PROGRAM": f"{FAKE_ENGINE} --cannot-start-while {reason}"})
    with clients.udp(daemon.osc) as client:
        clients.hold_engine(client, "held")
        assert client.ask("generate", "waits", "pad", "@steps", 1).name == "queued"
        reason.touch()
        for process in daemon.family()[1:]:
            if "fake_engine" in " ".join(process.cmdline()):
                process.kill()
        ends = client.until_ends("held", "waits")
        assert {events[-1].arguments[1] for events in ends.values()} == {"worker-lost"}
        client.nothing_more()


def test_engine_unavailable_is_explained_by_say_and_doctor(unable: DaemonProcess, reason: Path, tmp_path: Path) -> None:
    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        settings = (f"zmq.requests={unable.requests}", f"zmq.events={unable.events}", f"takes.folder={unable.takes}")
        return subprocess.run(
            [sys.executable, "-P", "-m", "timbred", *arguments, *(f"--set={setting}" for setting in settings)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment(tmp_path, fake_engine=True),
            timeout=TIMEOUT_S,
            check=False,
        )

    said = ask("say", "pad", "--seconds", "0.2")
    assert said.returncode == 1
    assert f"told not to start by {reason}" in said.stderr
    with clients.udp(unable.osc) as client:
        until_engine_is(unable, client, "failed")
    found = ask("doctor", "--json")
    assert found.returncode == 1
    (engine,) = [finding for finding in json.loads(found.stdout) if finding["what"] == "running engine"]
    assert engine["state"] == "bad"
    assert engine["found"] == f"it can't be started: told not to start by {reason}; remove it"


@pytest.fixture
def temporary() -> Generator[Path]:
    """A temporary folder with a short path, removed after the daemons that use it have ended."""
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    yield folder
    shutil.rmtree(folder)


def test_engine_unavailable_leaves_no_folders_of_a_killed_daemon(
    temporary: Path, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    foreign = temporary / "timbred-0123456789ab"
    foreign.mkdir()
    (tmp_path / "killed").mkdir()
    killed = DaemonProcess(tmp_path / "killed", "player.device=no such device", more={"TMPDIR": str(temporary)})
    with clients.udp(killed.osc) as client:
        until_engine_is(killed, client, "up")
    family = killed.family()
    for process in reversed(family):  # all of them: no child is left to remove anything
        process.kill()
    killed.end_by_force(family)
    left = [folder for folder in temporary.iterdir() if folder != foreign]
    assert left
    start_daemon(more={"TMPDIR": str(temporary)})
    assert not any(folder.exists() for folder in left)
    assert foreign.exists()
