"""`timbred demo` as a newcomer runs it: what is said, where the file is, and what happens when it can't be made."""

import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest
import soundfile

from tests.disks import on_disk
from tests.hosts import Spoken
from tests.integration.conftest import StartDaemon, settings_for, start_daemon
from tests.integration.daemons import DaemonProcess, environment, gone, hollow_checkpoint
from tests.patience import TIMEOUT_S
from tests.processes import run_captured
from timbred.cli.demo import DemoDaemon
from timbred.errors import ForbiddenPath

__all__ = ["start_daemon"]
COMMAND = (sys.executable, "-m", "timbred", "demo")


class Newcomer:
    """Someone with a model for the fake engine, and a temporary folder that shows what is left in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.takes = folder / "takes"
        self.before: list[str] = []
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        settings = ("osc.port=1", f"takes.folder={self.takes}", *settings_for(hollow_checkpoint(folder / "hollow")))
        self.flags = [word for setting in settings for word in ("--set", setting)]
        self.environment = {**environment(folder, fake_engine=True), "TMPDIR": str(self.temporary)}

    def command(self, *words: str) -> list[str]:
        return [*self.before, *COMMAND, *self.flags, *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run_captured(self.command(*words), self.folder, self.environment)

    @contextlib.contextmanager
    def running(self, *words: str) -> Generator[tuple[psutil.Popen, Spoken]]:
        with psutil.Popen(
            self.command(*words), env=self.environment, cwd=self.folder, stdout=-1, stderr=-1, text=True
        ) as process:
            spoken = Spoken(process.stdout, process.stderr)  # pyright: ignore[reportArgumentType]
            try:
                yield process, spoken
            finally:
                with contextlib.suppress(psutil.NoSuchProcess):  # it has ended, as most tests wait for
                    process.kill()

    @property
    def logs(self) -> list[Path]:
        return list(self.temporary.glob("timbred-demo-*"))


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    return Newcomer(tmp_path)


def test_demo_prints_the_file_and_what_is_missing_for_playback(newcomer: Newcomer):
    done = newcomer.run("a bright bell")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.removesuffix("\n"))
    assert path.parent == newcomer.takes
    assert soundfile.info(path).frames > 0
    said = done.stderr.splitlines()
    assert said[:3] == ["timbred 0.1.0", "starting a daemon", "requesting over OSC: a bright bell"]
    assert "rendering: 100%" in said
    assert said[-1].startswith("not played: ")
    assert newcomer.logs == []


def test_demo_writes_plain_lines_into_a_pipe(newcomer: Newcomer):
    newcomer.environment |= {"FORCE_COLOR": "1", "TERM": "xterm"}
    done = newcomer.run("--no-play")
    assert done.stderr.isprintable() is False  # the line ends
    assert all(line.isprintable() for line in done.stderr.split("\n"))
    assert not any(level in done.stderr for level in ("INFO", "WARNING", "ERROR", "Traceback"))
    assert "played" not in done.stderr


def test_demo_draws_one_line_on_a_terminal(newcomer: Newcomer):
    ours, theirs = pty.openpty()
    newcomer.environment |= {"TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(
        newcomer.command("a bright bell"), env=newcomer.environment, cwd=newcomer.folder,
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = bytearray()
    with contextlib.suppress(OSError):  # Linux: EIO once the other end is closed
        while more := os.read(ours, 65536):
            shown += more
    os.close(ours)
    assert process.wait(TIMEOUT_S) == 0
    text = shown.decode()
    assert "\x1b[2K" in text, "the line is drawn anew"
    assert not any(level in text for level in ("INFO", "WARNING", "ERROR"))
    path = next(line for line in text.splitlines() if line.endswith(".wav"))
    assert Path(path.rpartition("\x1b[2K")[2]).is_file()
    assert text.index("requesting over OSC: a bright bell") < text.index(path) < text.index("not played: ")


def test_demo_uses_the_running_daemon(newcomer: Newcomer, start_daemon: StartDaemon):
    daemon: DaemonProcess = start_daemon()
    done = newcomer.run("a bright bell", "--set", f"osc.port={daemon.osc}")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == daemon.takes
    assert done.stderr.splitlines()[1] == "a daemon is running"
    assert not newcomer.takes.exists()


def test_demo_starts_its_own_daemon_where_another_program_has_the_port(newcomer: Newcomer):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        done = newcomer.run("--set", f"osc.port={other.getsockname()[1]}", "--no-play")
    assert done.returncode == 0, done.stderr
    assert "starting a daemon" in done.stderr
    assert Path(done.stdout.strip()).parent == newcomer.takes


def test_demo_that_fails_says_why_and_names_the_log(newcomer: Newcomer):
    done = newcomer.run("fail now")
    assert (done.returncode, done.stdout) == (1, "")
    *_, reason, log = done.stderr.splitlines()
    assert reason == "timbred: told to fail"
    assert log.removeprefix("The log: ") == str(newcomer.logs[0])
    assert "engine ready" in newcomer.logs[0].read_text("utf-8")


def test_demo_says_where_sounds_cannot_be_written(newcomer: Newcomer):
    (newcomer.folder / "file").touch()
    done = newcomer.run("--set", f"takes.folder={newcomer.folder / 'file'}")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"timbred: {newcomer.folder / 'file'} can't be written to" in done.stderr
    assert "or set takes.folder to another" in done.stderr


def test_demo_says_that_the_disk_is_full(newcomer: Newcomer):
    newcomer.takes.mkdir()
    newcomer.before = on_disk(newcomer.takes, "160k")
    done = newcomer.run("long wave", "--no-play")
    assert (done.returncode, done.stdout) == (1, "")
    assert "timbred: no room left on the disk" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_says_why_its_daemon_does_not_start(newcomer: Newcomer):
    done = newcomer.run("--set", "models.default=nothing")
    assert (done.returncode, done.stdout) == (1, "")
    *_, reason, log = done.stderr.splitlines()
    assert reason.startswith("timbred: there is no model 'nothing'")
    assert log.startswith("The log: ")


def test_demo_refuses_a_wrong_setting_before_anything_starts(newcomer: Newcomer):
    done = newcomer.run("--set", "osc.prt=3")
    assert done.returncode == 1
    assert done.stderr.startswith("timbred: there is no setting 'osc.prt'")


def test_demo_says_that_no_log_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ForbiddenPath, match="set TMPDIR to a writable folder"):
        DemoDaemon(None, [])


def test_demo_ends_when_its_daemon_is_killed(newcomer: Newcomer):
    with newcomer.running("slow") as (process, spoken):
        spoken.until("starting hollow")
        (daemon,) = process.children()
        daemon.kill()
        assert process.wait(TIMEOUT_S) == 1
        spoken.until(r"timbred: the daemon has exited \(status -9\); try again, or check its log")
        spoken.until(r"The log: ")


def test_demo_ends_when_the_running_daemon_is_killed(newcomer: Newcomer, tmp_path: Path):
    daemon = DaemonProcess(tmp_path / "temporary", *settings_for(tmp_path / "hollow"))
    family = daemon.family()
    with newcomer.running("slow", "--set", f"osc.port={daemon.osc}") as (process, spoken):
        try:
            spoken.until("starting hollow")
        finally:
            daemon.end_by_force(family)
        assert process.wait(TIMEOUT_S) == 1
        spoken.until("timbred: the daemon has exited; start it with: timbred serve")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_interrupted_leaves_no_daemon(newcomer: Newcomer, number: signal.Signals):
    with newcomer.running("slow") as (process, spoken):
        spoken.until("starting hollow")
        family = process.children(recursive=True)
        assert len(family) >= 2
        process.send_signal(number)
        assert process.wait(TIMEOUT_S) != 0
        assert gone(family)
    assert newcomer.logs == []
