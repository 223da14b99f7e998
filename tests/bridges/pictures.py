"""Pictures for the guides: real Pd on a screen that nobody sees, and what a real scsynth played.

`python -m tests.bridges.pictures` needs Xvfb, xdotool, ImageMagick's import, Pd with its window, sclang, scsynth, jackd
and jack_capture, and writes docs/pictures/puredata-*.png and docs/pictures/supercollider-*.png.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tests.bridges.supercollider_program import QUARK, recording, sclang_with_server
from tests.free_ports import free_port
from tests.hosts import TIMEOUT_S, Program, running
from tests.integration.daemons import ROOT, DaemonProcess
from tests.player.player_stage import jack_server

PICTURES = ROOT / "docs" / "pictures"
FOLDER = ROOT / "bridges" / "puredata"
SCREEN = ":77"


def find(program: str) -> str:
    """The program's path.

    Raises:
        FileNotFoundError: it isn't installed.
    """
    found = shutil.which(program)
    if found is None:
        raise FileNotFoundError(program)
    return found


@contextlib.contextmanager
def screen() -> Generator[None]:
    """A screen in memory that programs started inside draw on."""
    before = os.environ.get("DISPLAY")
    with running(find("Xvfb"), SCREEN, "-screen", "0", "1400x1000x24"):
        os.environ["DISPLAY"] = SCREEN
        try:
            yield
        finally:
            del os.environ["DISPLAY"]
            if before is not None:
                os.environ["DISPLAY"] = before


def window(title: str) -> str:
    """The window with this title, once there is one."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        done = subprocess.run(
            ["xdotool", "search", "--onlyvisible", "--name", title], capture_output=True, text=True, check=False
        )
        if done.stdout:
            return done.stdout.split()[0]
        time.sleep(0.1)
    raise AssertionError(f"no window {title}")


def picture(title: str, name: str) -> None:
    """Keep a window as a picture."""
    subprocess.run(["import", "-window", window(title), str(PICTURES / f"{name}.png")], check=True)


@contextlib.contextmanager
def pd_window(patch: str, *sent: str) -> Generator[Program]:
    """Pd with its own windows."""
    quiet = ("-noaudio", "-nomidi", "-path", str(FOLDER))
    with running(find("pd"), *quiet, "-open", str(FOLDER / patch), "-send", "; ".join(sent)) as program:
        window(patch)
        yield program


def pure_data(daemon: DaemonProcess) -> None:
    """Each patch after it has been used."""
    connect = f"timbred-connect 127.0.0.1 {daemon.osc}"
    for patch in ("timbred-help", "timbred-sampler-help"):
        with pd_window(f"{patch}.pd", connect):
            time.sleep(2)
            picture(f"{patch}.pd", f"puredata-{patch}")
    with pd_window("drum-machine.pd", connect, "drum-machine make", "pd dsp 1", "drum-machine run 1"):
        wait_for(daemon, 8)
        picture("drum-machine.pd", "puredata-drum-machine")


def wait_for(daemon: DaemonProcess, takes: int) -> None:
    """Until so many sounds are there, and a moment for their drawing."""
    deadline = time.monotonic() + 10 * TIMEOUT_S
    while len(list(daemon.takes.glob("*.wav"))) < takes:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(2)


def super_collider(daemon: DaemonProcess) -> None:
    """What the example with a Pbind sounds like."""
    body = (QUARK / "examples" / "pbind.scd").read_text("utf-8")
    body = body[body.index("(\n") + 2 : body.rindex(")")]
    with tempfile.TemporaryDirectory() as name, jack_server(find):
        folder = Path(name)
        with sclang_with_server(find, folder, body, daemon.osc, free_port()) as program:
            program.spoken.until("^timbred: playing", 10 * TIMEOUT_S)
            with recording(find, folder) as captured:
                captured.wait_for(6 * 48000)
                sound = captured.samples()[:, 0]
    draw_sound(sound, "supercollider-pbind")


def draw_sound(sound: np.ndarray, name: str) -> None:
    """Waveform and spectrogram, one above the other."""
    figure = Figure((10, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(np.arange(len(sound)) / 48000, sound, linewidth=0.5)
    above.set_ylabel("full scale is 1")
    below.specgram(sound + 1e-9, NFFT=1024, noverlap=768, Fs=48000, vmin=-140, vmax=-40, cmap="magma")
    below.set_ylabel("Hz")
    below.set_xlabel("seconds")
    figure.savefig(PICTURES / f"{name}.png", dpi=90)


def main() -> None:
    """All of them."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        daemon = DaemonProcess(Path(name), "player.device=no such device", fake_engine=False)
        try:
            with screen():
                pure_data(daemon)
            super_collider(daemon)
        finally:
            daemon.stop()


if __name__ == "__main__":
    main()
