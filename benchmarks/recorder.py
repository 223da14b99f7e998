"""A lossless recorder: a callback in C that copies all samples into memory.

`python -m benchmarks.recorder FILE SECONDS CLIENT` records a client's first output on the JACK server in use, from the
line that it prints until its standard input ends. No Python code or disk access is in the audio path; Python only
records the arrival time of each block.
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

from benchmarks.jack import RATE_HZ, SERVER_PRIORITY, is_realtime_allowed
from timbred.audio import Samples
from timbred.player.process.devices import portaudio

POLL_INTERVAL_S = 0.001
"""Interval at which the number of recorded frames is read."""

CATCH_UP_S = 0.02
"""Seconds within which a block that was only late has been caught up."""


@dataclass
class Recording:
    """A recording: `sound` is (frames,), `arrivals` (blocks, 2) has times and the frames recorded by then."""

    sound: Samples
    arrivals: NDArray[np.float64]

    def moment_of(self, frames: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the approximate times of frames."""
        return np.interp(frames, self.arrivals[:, 1], self.arrivals[:, 0])

    def find_dropouts(self, block: int) -> NDArray[np.float64]:
        """Return the times at which the server lost half a block or more, and the seconds lost: (times, 2)."""
        delays = self.arrivals[:, 0] - self.arrivals[:, 1] / RATE_HZ
        interval_numbers = ((self.arrivals[:, 0] - self.arrivals[0, 0]) // CATCH_UP_S).astype(np.int64)
        interval_starts = np.flatnonzero(np.diff(interval_numbers, prepend=-1))
        min_delays = np.minimum.reduceat(delays, interval_starts)
        lost_s = np.diff(min_delays)
        dropouts = np.flatnonzero(lost_s > block / RATE_HZ / 2)
        return np.stack((self.arrivals[interval_starts[dropouts + 1], 0], lost_s[dropouts]), axis=1)


@contextmanager
def recording(path: Path, seconds: float, server: str, client: str) -> Generator[list[Recording]]:
    """Record the output of a server's client, at most `seconds`; the list contains the recording afterwards."""
    command = [sys.executable, "-m", "benchmarks.recorder", str(path), str(seconds), client]
    environment = {**os.environ, "JACK_DEFAULT_SERVER": server}
    recordings: list[Recording] = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as program:
        assert program.stdin
        assert program.stdout
        if not program.stdout.readline():
            raise RuntimeError("the recorder ended")
        yield recordings
        program.stdin.close()
        program.stdout.read()
    with np.load(path) as arrays:
        recordings.append(Recording(arrays["sound"], arrays["came"]))


def main() -> None:
    """Record in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("client")
    options = parser.parse_args()
    names = [device["name"] for device in portaudio().query_devices()]
    import rtmixer  # needs PortAudio: `portaudio` says what to install where it is missing

    memory = np.full(
        round(options.seconds * RATE_HZ), np.nan, np.float32
    )  # written once, so that its pages are allocated
    stream: Any = rtmixer.Recorder(device=names.index(options.client), channels=1, samplerate=RATE_HZ, latency="low")
    with stream:
        action = stream.record_buffer(memory, channels=1)
        while not action.done_frames:
            time.sleep(POLL_INTERVAL_S)
        if is_realtime_allowed():
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(SERVER_PRIORITY - 10))
        gc.disable()
        print("recording", flush=True)
        arrivals = _record_arrivals(action)
    np.savez(options.path, sound=memory[: int(arrivals[-1][1])], came=np.array(arrivals))


def _record_arrivals(action: Any) -> list[tuple[float, int]]:
    """Record the arrival time of each block until standard input ends."""
    arrivals = [(time.monotonic(), int(action.done_frames))]
    readable: Sequence[object] = ()
    while not readable:
        readable, _, _ = select.select([sys.stdin], [], [], POLL_INTERVAL_S)
        recorded_frames = int(action.done_frames)
        if recorded_frames != arrivals[-1][1]:
            arrivals.append((time.monotonic(), recorded_frames))
    return arrivals


if __name__ == "__main__":
    main()
