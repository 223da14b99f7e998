"""From the `play` datagram to the device: how long until the first sample is in its buffer.

Goal: at most 5 ms beyond the lead and one buffer. A recorder on the same JACK server notes when each block passed.
"""

import argparse
import asyncio
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import sounddevice
import soundfile

from benchmarks.jack import RATE, jack_server
from benchmarks.machine import machine
from timbred.app import Daemon
from timbred.config import load
from timbred.delivery.playback.devices import look_again
from timbred.protocol.osc_bytes import write_message

ROUNDS = 20


class Recorder:
    """Records the player's first output, and when each block of it passed."""

    def __init__(self) -> None:
        look_again()
        names = [device["name"] for device in sounddevice.query_devices()]
        source = next(number for number, name in enumerate(names) if "PortAudio" in name)
        self.blocks: list[Any] = []
        self.passed: list[tuple[int, float]] = []
        self.frames = 0
        self.stream = sounddevice.InputStream(device=source, channels=1, samplerate=RATE, callback=self._take)

    def _take(self, block: Any, frames: int, _time: object, _flags: object) -> None:
        self.passed.append((self.frames, time.monotonic()))
        self.blocks.append(block.copy())
        self.frames += frames

    def clicks(self) -> list[float]:
        """The moment of each click: that of its block, and its place in there."""
        sound = np.concatenate(self.blocks)[:, 0]
        starts = np.flatnonzero((sound[1:] > 0.1) & (sound[:-1] == 0.0)) + 1
        moments: list[float] = []
        for start in starts:
            near = [moment - first / RATE for first, moment in self.passed if abs(first - start) < RATE // 4]
            moments.append(min(near) + int(start) / RATE)
        return moments


def paired(sent: list[float], heard: list[float]) -> list[float]:
    """The delay of each click; the recorder may have lost one when this process was late."""
    delays = [[moment - asked for moment in heard if 0 <= moment - asked < 0.12] for asked in sent]
    return [found[0] for found in delays if found]


async def rounds(folder: Path, lead: float) -> tuple[list[float], float]:
    click = folder / "click.wav"
    soundfile.write(click, np.full((64, 2), 0.5, np.float32), RATE, subtype="FLOAT")
    ports = [f"{name}=0" for name in ("osc.port", "zmq.requests", "zmq.events", "http.port")]
    flags = [*ports, f"takes.folder={folder}", f"player.lead={lead}", "models.preload=0", "log.level=error"]
    daemon = Daemon(load(None, {}, flags))
    bound = await daemon.start()
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        device = await daemon.player.opened()
        recorder = Recorder()
        sent: list[float] = []
        with recorder.stream:
            await asyncio.sleep(0.5)
            for number in range(ROUNDS):
                await asyncio.sleep(0.15 + 0.0007 * number)  # anywhere in the device's block
                sent.append(time.monotonic())
                sender.sendto(write_message("/timbred/play", [1, str(click)]), ("127.0.0.1", bound.osc))
            await asyncio.sleep(0.5)
        return paired(sent, recorder.clicks()), device.block / RATE
    finally:
        sender.close()
        await daemon.stop()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--lead", type=float, default=10.0, help="milliseconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, jack_server(options.block):
        delays, block = asyncio.run(rounds(Path(place), options.lead))
    allowed = options.lead + block * 1000
    middle, worst = statistics.median(delays) * 1000, max(delays) * 1000
    print(f"from play's datagram to the device, {options.block} frames, {options.lead:g} ms ahead; {machine()}")
    print(f"  {len(delays)} of {ROUNDS} seen by the recorder")
    print(f"  median {middle:6.2f} ms, worst {worst:6.2f} ms; lead and one buffer are {allowed:.2f} ms")
    print(f"  beyond them {middle - allowed:6.2f} ms, worst {worst - allowed:6.2f} ms (goal: at most 5)")


if __name__ == "__main__":
    main()
