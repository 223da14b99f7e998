"""Does anything make the player stutter? Underruns and discontinuities beside a plain Python callback, in one run.

A loop sounds through the player and another through a sounddevice callback written in Python, on one JACK server
without a card, at 128 frames. Meanwhile the engine generates, loads and unloads, and two threads of the daemon's
process hold Python's lock as often as they can. Goal: 0 and 0 for the player, in ten minutes.
"""

import argparse
import asyncio
import contextlib
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import sounddevice
import soundfile

from benchmarks.jack import RATE, broken_periods, capture, jack_server, output_ports
from benchmarks.machine import machine
from timbred.app import Daemon
from timbred.config import load
from timbred.delivery.playback.devices import look_again

PERIOD = 4_800
"""Frames of both loops."""


def sine(level: float) -> np.ndarray:
    wave = level * np.sin(2 * np.pi * 44 * np.arange(PERIOD) / PERIOD)
    return np.repeat(wave[:, None], 2, axis=1).astype(np.float32)


class PythonCallback:
    """What one would write first: a callback in Python, in the daemon's own process."""

    def __init__(self) -> None:
        self.late = 0
        self._loop = sine(0.3)
        self._place = 0
        self._stream = sounddevice.OutputStream(channels=2, samplerate=RATE, callback=self._give, latency="low")

    def _give(self, out: Any, frames: int, _time: object, flags: Any) -> None:
        self.late += bool(flags.output_underflow)
        out[:] = self._loop[np.arange(self._place, self._place + frames) % PERIOD]
        self._place += frames

    def __enter__(self) -> "PythonCallback":
        self._stream.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


@contextlib.contextmanager
def lock_holders(count: int = 2):
    """Threads that parse and build, as a busy daemon does, without a pause."""
    text, ending = json.dumps([{"key": list(range(50))}] * 200), threading.Event()

    def hold() -> None:
        while not ending.is_set():
            json.dumps(json.loads(text))

    threads = [threading.Thread(target=hold, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()


async def keep_engine_busy(daemon: Daemon, until: float) -> tuple[int, int]:
    """Generate without a pause, and every few sounds unload and load. Sounds made, loads made."""
    client, made, loads = daemon.transports.client(), 0, 0
    while time.monotonic() < until:
        await client.request(type="generate", id=f"busy-{made}", prompt="warm pad", seconds=2, seed=made)
        made += 1
        if made % 8 == 0:
            await client.request(type="unload", model="pocket")
            await client.request(type="load", model="pocket")
            loads += 1
    return made, loads


async def soak(folder: Path, seconds: float, lead: float) -> dict[str, Any]:
    soundfile.write(folder / "loop.wav", sine(0.3), RATE, subtype="FLOAT")
    settings = [f"{name}=0" for name in ("osc.port", "zmq.requests", "zmq.events", "http.port")]
    daemon = Daemon(load(None, {}, [*settings, f"takes.folder={folder}", f"player.lead={lead}", "log.level=error"]))
    await daemon.start()
    try:
        device = await daemon.player.opened()
        client = daemon.transports.client()
        await client.request(type="play", voice=1, take=str(folder / "loop.wav"), loop=1)
        of_player = output_ports()
        look_again()
        with PythonCallback() as plain:
            await asyncio.sleep(1.0)
            of_plain = [port for port in output_ports() if port not in of_player]
            before = daemon.player.underruns, daemon.player.last.late, plain.late
            # a recorder each: one that waits for the late client would lose the other's sound too
            with capture(folder / "player.wav", of_player), capture(folder / "plain.wav", of_plain), lock_holders():
                made, loads = await keep_engine_busy(daemon, time.monotonic() + seconds)
            now = daemon.player.underruns, daemon.player.last.late, plain.late
        names = ("underruns", "late", "late_plain")
        found = {"made": made, "loads": loads, "raised": device.raised}
        return {**found, **{name: b - a for name, a, b in zip(names, before, now, strict=True)}}
    finally:
        await daemon.stop()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--lead", type=float, default=10.0, help="milliseconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, jack_server(options.block):
        folder = Path(place)
        found = asyncio.run(soak(folder, options.seconds, options.lead))
        player, seen = broken_periods(folder / "player.wav", PERIOD)
        plain, _ = broken_periods(folder / "plain.wav", PERIOD)
    print(f"underruns in {seen:.0f} s at {options.block} frames and {RATE} Hz, {options.lead:g} ms ahead; {machine()}")
    meanwhile = f"{found['made']} sounds made, model unloaded and loaded {found['loads']} times"
    print(f"  meanwhile                     {meanwhile}")
    print(f"  real-time priority            {'given' if found['raised'] else 'not given'}")
    print("                                the player    Python callback    (goal for the player: 0 and 0)")
    print(f"  sound not mixed in time       {found['underruns']:10d}             -")
    print(f"  blocks the driver calls late  {found['late']:10d}    {found['late_plain']:10d}")
    print(f"  tenths of a second broken     {player:10d}    {plain:10d}")


if __name__ == "__main__":
    main()
