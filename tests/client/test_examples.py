"""The examples in `bridges/python` that use the client, each run as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.hosts import running
from tests.integration.daemons import ROOT, DaemonProcess, environment
from tests.patience import TIMEOUT_S
from timbred.client import Timbred

EXAMPLES = ROOT / "bridges" / "python"


def run(example: str, *arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(EXAMPLES / example), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment(folder, fake_engine=True),
        check=False,
    )


def test_examples_drum_kit_writes_a_beat(daemon: DaemonProcess, tmp_path: Path) -> None:
    out = tmp_path / "beat.wav"
    done = run("drum_kit.py", "--port", str(daemon.requests), "--bpm", "150", "--out", str(out), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out)
    samples, rate = soundfile.read(out)
    assert (rate, len(samples)) == (48000, 2 * 4 * 48000 * 60 // 150)
    assert abs(samples).max() == pytest.approx(10 ** (-1 / 20), abs=1e-3)


def test_examples_picture_draws_sounds(daemon: DaemonProcess, tmp_path: Path) -> None:
    out = tmp_path / "sounds.png"
    done = run("picture.py", "a kick", "a bell", "--port", str(daemon.requests), "--out", str(out), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().startswith(b"\x89PNG")


def test_examples_watch_prints_events(daemon: DaemonProcess) -> None:
    command = [sys.executable, str(EXAMPLES / "watch.py"), "take"]
    ports = ["--requests", str(daemon.requests), "--port", str(daemon.events)]
    with running(*command, *ports) as watch, Timbred(requests=daemon.requests) as timbred:
        made = [timbred.generate("pad", seconds=0.1, steps=1)]
        while not watch.spoken.matching("Take"):
            assert watch.process.poll() is None, watch.spoken.lines
            made.append(timbred.generate("pad", seconds=0.1, steps=1))
        assert watch.spoken.matching("Take")[0].startswith("zmq:")
        watch.spoken.until(made[-1].take_id)


@pytest.mark.parametrize("example", ["first_request_zmq.py", "drum_kit.py", "watch.py"])
def test_examples_without_a_daemon_say_so(example: str, tmp_path: Path) -> None:
    flag = "--requests" if example == "watch.py" else "--port"
    done = run(example, flag, "9", folder=tmp_path)
    assert done.returncode == 1
    assert "no timbred answers at 127.0.0.1, port 9; start it with: timbred serve" in done.stderr
