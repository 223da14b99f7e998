"""Underruns and discontinuities of the player and of a plain Python callback under load, in one run.

A loop sounds through the player and another through a sounddevice callback written in Python, at 128 frames. Meanwhile
the engine generates, loads and unloads, and two threads of the daemon's process hold the GIL as often as they
can. Goal: 0 and 0 for the player, in ten minutes.

Each plays on its own JACK server, without a sound card: JACK reports xruns to all clients, so on one server
(`--together`) the cause can't be determined. Every frame of the loops encodes its number, and a callback in C
records them, so that every missing, silent or repeated frame is found. A recorder can't detect a block
that the server skips for all clients; that is measured by the clock. A `--synchronous` server waits
for late clients; any other one also skips single blocks.

Some machines, mainly virtual ones, stall as a whole for longer than a block. A thread of the
highest priority on each core measures that; breaks near such a stall are counted separately.
"""

import argparse
import asyncio
import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.jack import RATE_HZ, JackServer, jack_server
from benchmarks.machine import machine
from benchmarks.numbered import LOOP_FRAMES, Breaks, find_breaks, numbered_loop
from benchmarks.recorder import Recording, recording
from benchmarks.witness import Stalls, witnesses
from timbred.config import load
from timbred.player.process.devices import portaudio, rescan
from timbred.server import Daemon

EXTRA_RECORDING_S = 60.0
"""Additional seconds of the recorders' memory, because the engine finishes its last sound."""

STALL_MARGIN_S = 0.025
"""Seconds around a stall in which a break is attributed to it."""

Moments = NDArray[np.float64]


class PythonCallback:
    """The simplest implementation: a callback in Python, in the daemon's own process."""

    def __init__(self) -> None:
        self.late = 0
        self._loop = numbered_loop()
        self._position = 0
        self._stream: Any = portaudio().OutputStream(
            channels=2, samplerate=RATE_HZ, callback=self._fill_block, latency="low"
        )

    def _fill_block(self, out: Any, frames: int, _time: object, flags: Any) -> None:
        self.late += bool(flags.output_underflow)
        out[:] = self._loop[np.arange(self._position, self._position + frames) % LOOP_FRAMES]
        self._position += frames

    def __enter__(self) -> "PythonCallback":
        self._stream.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


@contextlib.contextmanager
def hold_gil(count: int = 2) -> Generator[None]:
    """Run threads that parse and encode JSON without a pause, as in a busy daemon."""
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
    """Generate without a pause, and reload the model after every eight sounds; returns the sounds and the loads."""
    client, sound_count, load_count = daemon.transports.client(), 0, 0
    while time.monotonic() < until:
        await client.request(type="generate", id=f"busy-{sound_count}", prompt="warm pad", seconds=2, seed=sound_count)
        sound_count += 1
        if sound_count % 8 == 0:
            await client.request(type="unload", model="pocket")
            await client.request(type="load", model="pocket")
            load_count += 1
    return sound_count, load_count


@dataclass(frozen=True)
class PlaybackResult:
    """Result of one of the two: `late` are blocks that its driver called late, `xrun_count` the server's xruns."""

    recorded: Recording
    breaks: Breaks
    dropouts: Moments
    late: int
    xrun_count: int

    @property
    def moments(self) -> Moments:
        """Times of all breaks in seconds."""
        return np.concatenate((self.recorded.moment_of(self.breaks.broken_frames), self.dropouts[:, 0]))


@dataclass(frozen=True)
class UnderrunResult:
    """Both results; `underruns` are blocks that the player did not mix in time, `lead` the final lead in ms."""

    player: PlaybackResult
    plain: PlaybackResult
    stalls: Stalls
    underruns: int
    lead: float
    sound_count: int
    load_count: int
    is_realtime: bool


async def soak(folder: Path, seconds: float, lead: float, servers: tuple[JackServer, JackServer]) -> UnderrunResult:
    """Record player and plain callback on two JACK servers for some seconds under load."""
    soundfile.write(folder / "loop.wav", numbered_loop(), RATE_HZ, subtype="FLOAT")
    settings = [f"{name}=0" for name in ("osc.port", "zmq.requests", "zmq.events", "http.port")]
    daemon = Daemon(load(None, {}, [*settings, f"takes.folder={folder}", f"player.lead={lead}", "log.level=error"]))
    servers[0].use()
    await daemon.start()
    try:
        device = await daemon.player.opened()
        await daemon.transports.client().request(type="play", voice=1, take=str(folder / "loop.wav"), loop=1)
        servers[1].use()
        rescan()
        clients = ("PortAudio", "PortAudio" if servers[0] is not servers[1] else "PortAudio-01")
        with PythonCallback() as plain, witnesses(folder) as stalls_by_core:
            of_player = recording(folder / "player.npz", seconds + EXTRA_RECORDING_S, servers[0].name, clients[0])
            of_plain = recording(folder / "plain.npz", seconds + EXTRA_RECORDING_S, servers[1].name, clients[1])
            with of_player as player_recordings, of_plain as plain_recordings, hold_gil():
                before = read_counters(daemon, plain, servers)
                sound_count, load_count = await keep_engine_busy(daemon, time.monotonic() + seconds)
                now = read_counters(daemon, plain, servers)
        underruns, *counts = (after - earlier for after, earlier in zip(now, before, strict=True))
        return UnderrunResult(
            summarise(player_recordings[0], device.block, counts[0], counts[2]),
            summarise(plain_recordings[0], device.block, counts[1], counts[3]),
            np.concatenate(stalls_by_core or [np.zeros((0, 2))]),
            underruns, daemon.player.lead * 1000, sound_count, load_count,
            device.raised,
        )  # fmt: skip
    finally:
        await daemon.stop()


def read_counters(daemon: Daemon, plain: PythonCallback, servers: tuple[JackServer, JackServer]) -> tuple[int, ...]:
    """Return underruns, late blocks of both, and the xruns of both servers."""
    complaints = [server.count_xruns() for server in servers]
    return daemon.player.underruns, daemon.player.late, plain.late, *complaints


def summarise(recorded: Recording, block: int, late: int, complaints: int) -> PlaybackResult:
    """Summarise one recording."""
    return PlaybackResult(recorded, find_breaks(recorded.sound), recorded.find_dropouts(block), late, complaints)


def count_unexplained(moments: Moments, stalls: Stalls) -> int:
    """Count the times that are not near a stall of the machine."""
    begins, ends = stalls[:, 0] - STALL_MARGIN_S, stalls[:, 1] + STALL_MARGIN_S
    return sum(1 for moment in moments if not ((begins <= moment) & (moment <= ends)).any())


def stalled_share(stalls: Stalls, seconds: float) -> float:
    """Return the share of the time that is near a stall."""
    total, until = 0.0, -np.inf
    for begin, end in sorted((begin - STALL_MARGIN_S, end + STALL_MARGIN_S) for begin, end in stalls):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total / seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--lead", type=float, default=10.0, help="milliseconds")
    parser.add_argument("--together", action="store_true", help="both on one server")
    parser.add_argument("--synchronous", action="store_true", help="servers that wait for their clients")
    options = parser.parse_args()
    kind = options.synchronous
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        first = stack.enter_context(jack_server(options.block, synchronous=kind))
        second_server = (
            [] if options.together else [jack_server(options.block, "timbred-bench-plain", synchronous=kind)]
        )
        second = stack.enter_context(second_server[0]) if second_server else first
        result = asyncio.run(soak(folder, options.seconds, options.lead, (first, second)))
    print(f"a loop at {options.block} frames and {RATE_HZ} Hz, mixed {options.lead:g} ms ahead; {machine()}")
    print(f"  load        {result.sound_count} sounds rendered, model unloaded and loaded {result.load_count} times")
    print(
        f"  real-time   the sound server: {describe_permission(first.realtime)}; "
        f"the player's mixing: {describe_permission(result.is_realtime)}"
    )
    print(f"  underruns   {result.underruns}: blocks that the player didn't mix in time; final lead {result.lead:g} ms")
    stall_s = result.stalls[:, 1] - result.stalls[:, 0]
    stalls = result.stalls[stall_s > options.block / RATE_HZ / 2]
    long = stall_s[stall_s > options.block / RATE_HZ]
    stall_summary = f"{len(long)} times for a block or longer, at most {max(long, default=0) * 1000:.0f} ms"
    print(f"  the machine stalled {stall_summary}")
    share = stalled_share(stalls, options.seconds)
    print(f"  (breaks near a stall of half a block or longer are counted separately: {share:.0%} of the time)")
    print(f"  {'goal for the player: 0 and 0':42s} {'player':>10s}    Python callback")
    for what, player_value, plain_value in rows(result.player, result.plain, stalls):
        print(f"  {what:42s} {player_value:10.6g}    {plain_value:10.6g}")


def rows(player: PlaybackResult, plain: PlaybackResult, stalls: Stalls) -> list[tuple[str, float, float]]:
    """Return the rows of the table: name, player's value, plain callback's value."""

    def both(what: str, count: Callable[[PlaybackResult], float]) -> tuple[str, float, float]:
        return what, count(player), count(plain)

    return [
        both("seconds recorded", lambda one: one.breaks.frames / RATE_HZ),
        both("discontinuities", lambda one: len(one.breaks.broken_frames)),
        both("silent or foreign frames", lambda one: one.breaks.foreign_count),
        both("tenths of a second with a break", lambda one: one.breaks.broken_tenths),
        both("dropouts of the server", lambda one: len(one.dropouts)),
        both("milliseconds of these dropouts", lambda one: one.dropouts[:, 1].sum() * 1000),
        both("breaks of either kind without a stall", lambda one: count_unexplained(one.moments, stalls)),
        both("blocks that the driver calls late", lambda one: one.late),
        both("xruns of the sound server", lambda one: one.xrun_count),
    ]


def describe_permission(is_allowed: bool) -> str:
    """Describe whether the system allows it."""
    return "yes" if is_allowed else "no, the system doesn't allow it"


if __name__ == "__main__":
    main()
