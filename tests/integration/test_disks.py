"""Homes that may only be read, and logs on a full disk: timbred starts, works where it can, and says what it can't."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disks import mounted
from tests.integration import clients
from tests.integration.conftest import settings_for
from tests.integration.daemons import FREE_PORTS, ROOT, DaemonProcess, environment, hollow_checkpoint
from tests.patience import TIMEOUT_S

TAKES = "takes.folder"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return hollow_checkpoint(tmp_path / "hollow")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user whose home, with all that belongs in it, may only be read."""
    folder = tmp_path / "home"
    folder.mkdir()
    with mounted(folder, "1m", "ro"):
        with pytest.raises(OSError, match="Read-only"):
            (folder / "file").touch()
        places = {"CONFIG": ".config", "DATA": ".local/share", "STATE": ".local/state", "CACHE": ".cache"}
        yield {"HOME": str(folder), **{f"XDG_{name}_HOME": str(folder / part) for name, part in places.items()}}


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk without room."""
    folder = tmp_path / "full"
    folder.mkdir()
    with mounted(folder, "64k"):
        with (folder / "filling").open("wb", buffering=0) as filling, pytest.raises(OSError, match="No space"):
            while True:
                filling.write(bytes(4096))
        yield folder


def test_disks_read_only_home_is_enough_with_takes_elsewhere(home: dict[str, str], model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    daemon = DaemonProcess(tmp_path / "elsewhere", *settings_for(model), more=home)
    try:
        with clients.udp(daemon.osc) as client:
            assert Path(str(client.make_take("pad").arguments[2])).parent == daemon.takes
        assert "Read-only" not in daemon.log.read_text("utf-8")
    finally:
        daemon.stop()


def test_disks_read_only_takes_folder_is_reported_at_the_start_and_to_each_request(
    home: dict[str, str], model: Path, tmp_path: Path
) -> None:
    takes = Path(home["HOME"]) / "Music" / "timbred"
    daemon = DaemonProcess(tmp_path, *settings_for(model), f"{TAKES}={takes}", more=home)
    try:
        reported = f"{takes} can't be written to (Read-only file system)"
        assert reported in daemon.log.read_text("utf-8")
        with clients.udp(daemon.osc) as client:
            for name in ("a1", "a2"):
                client.say("generate", name, "pad", "@steps", 1, "@seconds", 0.2)
                failure = client.until_end(name)[-1]
                assert failure.arguments[:2] == (name, "forbidden-path")
                assert reported in str(failure.arguments[2])
                assert f"set {TAKES} to another" in str(failure.arguments[2])
        assert "Traceback" not in daemon.log.read_text("utf-8")
    finally:
        daemon.stop()


def test_disks_full_log_does_not_stop_the_daemon(full: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "daemon"
    folder.mkdir()
    (folder / "log.txt").symlink_to(full / "log.txt")
    misspelt = {"TIMBRED_TAKES_FOLDR": "here"}  # it warns before anything else happens
    daemon = DaemonProcess(folder, *settings_for(model), "log.level=debug", more=misspelt)
    try:
        with clients.udp(daemon.osc) as client:
            client.make_take("pad")
        assert daemon.log.read_bytes() == b""
        (full / "filling").unlink()
        with clients.udp(daemon.osc) as client:
            client.make_take("pad")
    finally:
        daemon.stop()
    assert daemon.log.read_bytes() != b"", "it logs again once there is room"


def test_disks_full_standard_error_does_not_stop_commands(full: Path, model: Path, tmp_path: Path) -> None:
    def ask(*words: str) -> tuple[int, str]:
        more = {"TIMBRED_TAKES_FOLDR": "here"}
        with (full / "errors").open("wb") as errors:
            command = [sys.executable, "-P", "-m", "timbred", *words]
            for setting in (*FREE_PORTS, *settings_for(model), f"{TAKES}={tmp_path / 'takes'}"):
                command += ["--set", setting]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, timeout=TIMEOUT_S, check=False,
                env={**environment(tmp_path, fake_engine=True), **more},
            )  # fmt: skip
        assert (full / "errors").stat().st_size == 0
        return done.returncode, done.stdout

    status, said = ask("say", "pad", "--seconds", "0.2", "--steps", "1")
    assert status == 0
    assert Path(said.strip()).is_file()
    status, said = ask("models")
    assert status == 0
    assert "hollow" in said
    assert ask("say", "pad", "--seconds", "-1") == (1, "")
