"""Latency from the `play` datagram until the first sample is in the device's buffer.

Goal: at most 5 ms beyond the lead and one buffer. A recorder on the same JACK server notes when each block passed.
The limiter's look-ahead, 1.6 ms, is a part of it.
"""

import argparse
import asyncio
import math
import socket
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.jack import RATE_HZ, JackServer, jack_server
from benchmarks.machine import machine
from benchmarks.recorder import Recording, recording
from timbred.config import load
from timbred.protocol.osc_packets import write_message
from timbred.server import Daemon

ROUND_COUNT = 60
MAX_RECORDING_S = 120.0
"""Seconds of the recorder's memory."""


def find_click_times(recorded: Recording, block: int) -> list[float]:
    """Return the time of each click: when the device took its block, plus its position in the block.

    The block after it determines the time, because a block may be observed late; the one before doesn't, because the
    server may have paused between them.
    """
    sound, came = recorded.sound, recorded.arrivals
    starts = np.flatnonzero((sound[1:] > 0.1) & (sound[:-1] <= 0.1)) + 1
    moments: list[float] = []
    for start in starts:
        near = came[(came[:, 1] > start) & (came[:, 1] < start + RATE_HZ // 4)]
        moments.append(float(np.min(near[:, 0] - near[:, 1] / RATE_HZ)) + (int(start) + block) / RATE_HZ)
    return moments


def pair_delays(sent: list[float], recorded: list[float]) -> list[float]:
    """Return the delay of each recorded click."""
    delays = [[moment - sent_at for moment in recorded if 0 <= moment - sent_at < 0.12] for sent_at in sent]
    return [candidates[0] for candidates in delays if candidates]


async def measure_delays(folder: Path, lead: float, server: JackServer) -> tuple[list[float], float, float]:
    """Return the delays, the final lead and the device's block, all in seconds."""
    click = folder / "click.wav"
    soundfile.write(click, np.full((64, 2), 0.5, np.float32), RATE_HZ, subtype="FLOAT")
    ports = [f"{name}=0" for name in ("osc.port", "zmq.requests", "zmq.events", "http.port")]
    flags = [*ports, f"takes.folder={folder}", f"player.lead={lead}", "models.preload=0", "log.level=error"]
    daemon = Daemon(load(None, {}, flags))
    bound = await daemon.start()
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        device = await daemon.player.opened()
        sent: list[float] = []
        with recording(folder / "recorded.npz", MAX_RECORDING_S, server.name, "PortAudio") as recorded:
            await asyncio.sleep(0.5)
            for number in range(ROUND_COUNT):
                await asyncio.sleep(0.15 + 0.0007 * number)  # anywhere in the device's block
                sent.append(time.monotonic())
                sender.sendto(write_message("/timbred/play", [1, str(click)]), ("127.0.0.1", bound.osc))
            await asyncio.sleep(0.5)
        return (
            pair_delays(sent, find_click_times(recorded[0], device.block)),
            daemon.player.lead,
            device.block / RATE_HZ,
        )
    finally:
        sender.close()
        await daemon.stop()


def p95(values: list[float]) -> float:
    """Return the 95th percentile."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--lead", type=float, default=10.0, help="milliseconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, jack_server(options.block) as server:
        delays, lead, block = asyncio.run(measure_delays(Path(folder), options.lead, server))
    allowed = (lead + block) * 1000
    print(f"from play's datagram to the device, {options.block} frames, {lead * 1000:g} ms ahead; {machine()}")
    print(f"  {len(delays)} of {ROUND_COUNT} recorded; lead and one buffer are {allowed:.2f} ms (goal: 5 beyond)")
    for quantile, delay in (("median", statistics.median(delays)), ("p95", p95(delays)), ("worst", max(delays))):
        print(f"  {quantile:7s} {delay * 1000:6.2f} ms, {delay * 1000 - allowed:6.2f} beyond")


if __name__ == "__main__":
    main()
