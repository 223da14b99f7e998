"""No module in the working folder is imported, and a deleted working folder doesn't prevent a start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration import clients
from tests.integration.clients import SOUND, order
from tests.integration.conftest import settings_for
from tests.integration.daemons import ROOT, DaemonProcess, environment, hollow_checkpoint
from tests.patience import TIMEOUT_S
from timbred.ipc.isolation import child_environment

FOREIGN = ("random", "queue", "numpy", "statistics", "colorsys", "bisect")
"""Names of modules that a folder of exercises may well have."""

MARK = "FOREIGN CODE RUNS"


@pytest.fixture
def exercises(tmp_path: Path) -> Path:
    """A folder with modules that say so when they are imported."""
    folder = tmp_path / "exercises"
    folder.mkdir()
    for name in FOREIGN:
        (folder / f"{name}.py").write_text(f"import sys\nprint({MARK!r}, {name!r}, file=sys.stderr)\n", "utf-8")
    return folder


@pytest.mark.parametrize(
    "python_path", ["", f"{os.pathsep}{ROOT}{os.pathsep}{ROOT / 'daemon'}"], ids=["unset", "empty part"]
)
def test_isolation_of_daemon_and_children_imports_nothing_from_the_working_folder(
    exercises: Path, tmp_path: Path, python_path: str
) -> None:
    more = {"PYTHONPATH": python_path} if python_path else {}
    model = hollow_checkpoint(tmp_path / "hollow")
    daemon = DaemonProcess(tmp_path, *settings_for(model), cwd=exercises, more=more)
    try:
        with clients.udp(daemon.osc) as client:
            client.say("generate", "a1", "pad", "@steps", 1, "@seconds", 0.2)
            assert order(client.until_end()) == SOUND
            client.say("play", 1, str(client.make_take("pad").arguments[-1]))
            assert client.until("fail")[-1].arguments[1] == "no-audio-device"  # the player said so: it has started
    finally:
        daemon.stop()
    assert MARK not in daemon.log.read_text("utf-8")


@pytest.mark.parametrize("command", ["devices", "doctor"])
def test_isolation_of_commands_imports_nothing_from_the_working_folder(
    exercises: Path, tmp_path: Path, command: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "timbred", command, "--json"],
        cwd=exercises,
        env={**environment(tmp_path, fake_engine=False), "TIMBRED_TAKES_FOLDER": str(tmp_path / "takes")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert MARK not in done.stderr
    assert "Traceback" not in done.stderr


def test_isolation_starts_a_daemon_in_a_deleted_working_folder(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    model = hollow_checkpoint(tmp_path / "hollow")
    script = tmp_path / "start.sh"
    script.write_text(f'#!/bin/sh\ncd "{folder}" && rmdir "{folder}" && exec "{sys.executable}" "$@"\n', "utf-8")
    script.chmod(0o755)
    daemon = DaemonProcess(tmp_path, *settings_for(model), program=str(script))
    try:
        with clients.udp(daemon.osc) as client:
            client.say("generate", "a1", "pad", "@steps", 1, "@seconds", 0.2)
            assert order(client.until_end()) == SOUND
    finally:
        daemon.stop()


def test_child_environment_drops_what_stands_for_the_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/opt/x", "inside", ""]))
    assert child_environment()["PYTHONPATH"].split(os.pathsep) == ["/opt/x", str(tmp_path / "inside")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    assert "PYTHONPATH" not in child_environment()


def test_isolation_removes_the_working_folder_before_any_import(exercises: Path):
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import sys, timbred.__main__, random; print(sys.path)"],
        cwd=exercises,
        env={**os.environ, "PYTHONPATH": f"{os.pathsep}{ROOT / 'daemon'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert MARK not in done.stderr
    assert str(exercises) not in done.stdout
