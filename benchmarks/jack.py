"""A JACK server without a card, and a recorder, for the player's figures."""

import os
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from timbred.delivery.playback.devices import let_go

RATE = 48_000


@contextmanager
def jack_server(period: int) -> Generator[None]:
    """A server on the dummy driver that this process and its children use. Needs jackd and jack_wait."""
    name = "timbred-bench"  # one and the same: a name that was left behind is free again only for itself
    os.environ.update(JACK_DEFAULT_SERVER=name, JACK_NO_START_SERVER="1")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = ["jackd", "-n", name, "-d", "dummy", "-r", str(RATE), "-p", str(period)]
    server = subprocess.Popen(command, **quiet)
    try:
        subprocess.run(["jack_wait", "-w", "-t", "20"], check=True, **quiet)
        yield
    finally:
        let_go()  # PortAudio ends badly when its server is gone before it
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def output_ports() -> list[str]:
    """The first output of each PortAudio client, in the order in which they came."""
    listed = subprocess.run(["jack_lsp"], capture_output=True, text=True, check=True).stdout.split("\n")
    return sorted(port for port in listed if port.startswith("PortAudio") and port.endswith(":out_0"))


@contextmanager
def capture(path: Path, ports: list[str]) -> Generator[None]:
    """Record ports of the server into a file of floats. Needs jack_capture."""
    named = [part for port in ports for part in ("-p", port)]
    command = ["jack_capture", "-b", "FLOAT", "-B", "30", "-c", str(len(ports)), *named, "-dc", "-hbu", str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (path.exists() and path.stat().st_size > 100_000):
            if process.poll() is not None:
                raise RuntimeError("jack_capture ended")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(2)
        process.wait()


def broken_periods(path: Path, period: int) -> tuple[int, float]:
    """In how many periods a captured loop of `period` frames doesn't repeat itself, and the seconds seen."""
    broken, seen, before = 0, 0, np.zeros(0, np.float32)
    with soundfile.SoundFile(path) as file:
        file.seek(RATE)
        for block in file.blocks(blocksize=period * 100, dtype="float32", always_2d=True):
            line: NDArray[np.float32] = np.concatenate((before, np.asarray(block[:, 0], np.float32)))
            whole = line[: len(line) // period * period].reshape(-1, period)
            broken += int((whole[1:] != whole[:-1]).any(axis=1).sum())
            seen += len(whole) - 1
            before = line[(len(whole) - 1) * period :]
    return broken, seen * period / RATE
