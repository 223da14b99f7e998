"""Does anything make the player stutter? Underruns and discontinuities beside a plain Python callback, in one run.

A loop sounds through the player and another through a sounddevice callback written in Python, at 128 frames. Meanwhile
the engine generates, loads and unloads, and two threads of the daemon's process hold Python's lock as often as they
can. Goal: 0 and 0 for the player, in ten minutes.

Each plays on a JACK server of its own, without a card: JACK tells all its clients when any was late, so on one server
(`--together`) it can't be said whose fault that was. Every frame of the loops tells its number, and a callback in C
records them, so that every frame that is missing, silent or out of turn is seen. What no recorder can hear is a block
that a server leaves out for all, itself included: that is seen by the clock. A `--synchronous` server does nothing
else when a client is late; any other also loses single blocks.

Some machines, virtual ones above all, stand still for longer than a block lasts, with all that runs on them. A thread
on each core, above all others, sees that; what happened near such a moment is counted, and told apart.
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
"""Seconds that the recorders have memory for beyond those asked for: the engine ends what it began."""

STALL_MARGIN_S = 0.025
"""Seconds: so near is a moment told."""

Moments = NDArray[np.float64]


class PythonCallback:
    """What one would write first: a callback in Python, in the daemon's own process."""

    def __init__(self) -> None:
        self.late = 0
        self._loop = numbered_loop()
        self._position = 0
        self._stream: Any = portaudio().OutputStream(channels=2, samplerate=RATE_HZ, callback=self._fill_block, latency="low")

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
    """What became of one of the two. `late`: blocks that its driver called late; `complaints` are the server's."""

    recorded: Recording
    breaks: Breaks
    dropouts: Moments
    late: int
    xrun_count: int

    @property
    def moments(self) -> Moments:
        """When the sound broke off, however, in seconds."""
        return np.concatenate((self.recorded.moment_of(self.breaks.broken_frames), self.dropouts[:, 0]))


@dataclass(frozen=True)
class UnderrunResult:
    """Both sides; `underruns`: how often the player's sound wasn't mixed in time, at last `lead` ms ahead."""

    player: PlaybackResult
    plain: PlaybackResult
    stalls: Stalls
    underruns: int
    lead: float
    sound_count: int
    load_count: int
    is_realtime: bool


async def soak(folder: Path, seconds: float, lead: float, servers: tuple[JackServer, JackServer]) -> UnderrunResult:
    """Record player and plain callback on two JACK servers for so many seconds under load."""
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
            summarise(player_recordings[0], device.block, counts[0], counts[2]), summarise(plain_recordings[0], device.block, counts[1], counts[3]),
            np.concatenate(stalls_by_core or [np.zeros((0, 2))]), underruns, daemon.player.lead * 1000, sound_count, load_count,
            device.raised,
        )  # fmt: skip
    finally:
        await daemon.stop()


def read_counters(daemon: Daemon, plain: PythonCallback, servers: tuple[JackServer, JackServer]) -> tuple[int, ...]:
    """Return underruns, late blocks of both, and the complaints of both servers."""
    complaints = [server.count_xruns() for server in servers]
    return daemon.player.underruns, daemon.player.late, plain.late, *complaints


def summarise(recorded: Recording, block: int, late: int, complaints: int) -> PlaybackResult:
    """Summarise one recording."""
    return PlaybackResult(recorded, find_breaks(recorded.sound), recorded.find_dropouts(block), late, complaints)


def count_unexplained(moments: Moments, stalls: Stalls) -> int:
    """How many of these moments aren't near one at which the machine stood still."""
    begins, ends = stalls[:, 0] - STALL_MARGIN_S, stalls[:, 1] + STALL_MARGIN_S
    return sum(1 for moment in moments if not ((begins <= moment) & (moment <= ends)).any())


def stalled_share(stalls: Stalls, seconds: float) -> float:
    """The part of all moments that are near one, by chance too."""
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
        second_server = [] if options.together else [jack_server(options.block, "timbred-bench-plain", synchronous=kind)]
        second = stack.enter_context(second_server[0]) if second_server else first
        result = asyncio.run(soak(folder, options.seconds, options.lead, (first, second)))
    print(f"a loop at {options.block} frames and {RATE_HZ} Hz, mixed {options.lead:g} ms ahead; {machine()}")
    print(f"  meanwhile   {result.sound_count} sounds made, model unloaded and loaded {result.load_count} times")
    print(f"  real-time   the sound server {describe_permission(first.realtime)}, the player's mixing {describe_permission(result.is_realtime)}")
    print(f"  underruns   {result.underruns}: sound that the player didn't mix in time; ahead at last {result.lead:g} ms")
    stall_s = result.stalls[:, 1] - result.stalls[:, 0]
    stalls = result.stalls[stall_s > options.block / RATE_HZ / 2]
    long = stall_s[stall_s > options.block / RATE_HZ]
    stall_summary = f"{len(long)} times for a block or longer, {max(long, default=0) * 1000:.0f} ms at most"
    print(f"  the machine stood still {stall_summary}")
    share = stalled_share(stalls, options.seconds)
    print(f"  (what is near a moment at which it did, for half a block, is told apart: {share:.0%} of all time is)")
    print(f"  {'goal for the player: 0 and 0':42s} {'player':>10s}    Python callback")
    for what, player_value, plain_value in rows(result.player, result.plain, stalls):
        print(f"  {what:42s} {player_value:10.6g}    {plain_value:10.6g}")


def rows(player: PlaybackResult, plain: PlaybackResult, stalls: Stalls) -> list[tuple[str, float, float]]:
    """Return the rows of the table: name, player's value, plain callback's value."""

    def both(what: str, count: Callable[[PlaybackResult], float]) -> tuple[str, float, float]:
        return what, count(player), count(plain)

    return [
        both("seconds recorded", lambda one: one.breaks.frames / RATE_HZ),
        both("places where the next frame isn't the next", lambda one: len(one.breaks.broken_frames)),
        both("frames silent, or none of the loop's", lambda one: one.breaks.foreign_count),
        both("tenths of a second broken", lambda one: one.breaks.broken_tenths),
        both("times that blocks were left out for all", lambda one: len(one.dropouts)),
        both("milliseconds that went with them", lambda one: one.dropouts[:, 1].sum() * 1000),
        both("breaks of either kind, the machine running", lambda one: count_unexplained(one.moments, stalls)),
        both("blocks that the driver calls late", lambda one: one.late),
        both("complaints of the sound server", lambda one: one.xrun_count),
    ]


def describe_permission(is_allowed: bool) -> str:
    """Describe whether the system allows it."""
    return "yes" if is_allowed else "no, the system doesn't allow it"


if __name__ == "__main__":
    main()
