"""A recorder that loses nothing: a callback in C that copies what passes into memory.

`python -m benchmarks.recorder FILE SECONDS CLIENT` records a client's first output on the JACK server in use, from when
it says so until its standard input ends. Neither Python nor a disk is in the way of the sound; Python only notes when
each block had come.
"""

import argparse
import gc
import os
import select
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.jack import PRIORITY, RATE, may_be_realtime
from timbred.audio import Samples
from timbred.player.process.devices import portaudio

LOOK_EVERY = 0.001
"""Seconds between looks at how much was recorded."""

WITHIN = 0.02
"""Seconds in which a block that only came late has been made up for."""


@dataclass
class Recording:
    """`sound` has shape (frames,); `came` (blocks, 2): a moment, and the frames that were there by then."""

    sound: Samples
    came: NDArray[np.float64]

    def moment_of(self, frames: NDArray[np.int64]) -> NDArray[np.float64]:
        """When each of these frames passed, about."""
        return np.interp(frames, self.came[:, 1], self.came[:, 0])

    def left_out(self, block: int) -> NDArray[np.float64]:
        """Shape (times, 2): when the server left out at least half a block for everybody, and the seconds lost."""
        behind = self.came[:, 0] - self.came[:, 1] / RATE
        part = ((self.came[:, 0] - self.came[0, 0]) // WITHIN).astype(np.int64)
        begins = np.flatnonzero(np.diff(part, prepend=-1))
        least = np.minimum.reduceat(behind, begins)
        lost = np.diff(least)
        found = np.flatnonzero(lost > block / RATE / 2)
        return np.stack((self.came[begins[found + 1], 0], lost[found]), axis=1)


@contextmanager
def recording(path: Path, seconds: float, server: str, client: str) -> Generator[list[Recording]]:
    """Record what a server's client plays, at most `seconds`. The list has the recording afterwards."""
    command = [sys.executable, "-m", "benchmarks.recorder", str(path), str(seconds), client]
    environment = {**os.environ, "JACK_DEFAULT_SERVER": server}
    found: list[Recording] = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as program:
        assert program.stdin
        assert program.stdout
        if not program.stdout.readline():
            raise RuntimeError("the recorder ended")
        yield found
        program.stdin.close()
        program.stdout.read()
    with np.load(path) as arrays:
        found.append(Recording(arrays["sound"], arrays["came"]))


def main() -> None:
    """Record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("client")
    options = parser.parse_args()
    names = [device["name"] for device in portaudio().query_devices()]
    import rtmixer  # needs PortAudio: `portaudio` says what to install where it is missing

    memory = np.full(round(options.seconds * RATE), np.nan, np.float32)  # touched, so that it is there
    stream: Any = rtmixer.Recorder(device=names.index(options.client), channels=1, samplerate=RATE, latency="low")
    with stream:
        action = stream.record_buffer(memory, channels=1)
        while not action.done_frames:
            time.sleep(LOOK_EVERY)
        if may_be_realtime():
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY - 10))
        gc.disable()
        print("recording", flush=True)
        came = _watch(action)
    np.savez(options.path, sound=memory[: int(came[-1][1])], came=np.array(came))


def _watch(action: Any) -> list[tuple[float, int]]:
    """Note each block, until the end."""
    came = [(time.monotonic(), int(action.done_frames))]
    ended: Sequence[object] = ()
    while not ended:
        ended, _, _ = select.select([sys.stdin], [], [], LOOK_EVERY)
        done = int(action.done_frames)
        if done != came[-1][1]:
            came.append((time.monotonic(), done))
    return came


if __name__ == "__main__":
    main()
