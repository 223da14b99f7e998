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

from benchmarks.jack import RATE, JackServer, jack_server
from benchmarks.machine import machine
from benchmarks.numbered import FRAMES, Breaks, breaks, numbered_loop
from benchmarks.recorder import Recording, recording
from benchmarks.witness import Stalls, witnesses
from timbred.config import load
from timbred.player.process.devices import portaudio, rescan
from timbred.server import Daemon

SPARE = 60.0
"""Seconds that the recorders have memory for beyond those asked for: the engine ends what it began."""

NEAR = 0.025
"""Seconds: so near is a moment told."""

Moments = NDArray[np.float64]


class PythonCallback:
    """What one would write first: a callback in Python, in the daemon's own process."""

    def __init__(self) -> None:
        self.late = 0
        self._loop = numbered_loop()
        self._place = 0
        self._stream: Any = portaudio().OutputStream(channels=2, samplerate=RATE, callback=self._give, latency="low")

    def _give(self, out: Any, frames: int, _time: object, flags: Any) -> None:
        self.late += bool(flags.output_underflow)
        out[:] = self._loop[np.arange(self._place, self._place + frames) % FRAMES]
        self._place += frames

    def __enter__(self) -> "PythonCallback":
        self._stream.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


@contextlib.contextmanager
def lock_holders(count: int = 2) -> Generator[None]:
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


@dataclass(frozen=True)
class Side:
    """What became of one of the two. `late`: blocks that its driver called late; `complaints` are the server's."""

    recorded: Recording
    broken: Breaks
    left_out: Moments
    late: int
    complaints: int

    @property
    def moments(self) -> Moments:
        """When the sound broke off, however, in seconds."""
        return np.concatenate((self.recorded.moment_of(self.broken.places), self.left_out[:, 0]))


@dataclass(frozen=True)
class Soak:
    """Both sides; `underruns`: how often the player's sound wasn't mixed in time, at last `lead` ms ahead."""

    player: Side
    plain: Side
    stalls: Stalls
    underruns: int
    lead: float
    made: int
    loads: int
    raised: bool


async def soak(folder: Path, seconds: float, lead: float, servers: tuple[JackServer, JackServer]) -> Soak:
    """Record player and plain callback on two JACK servers for so many seconds under load."""
    soundfile.write(folder / "loop.wav", numbered_loop(), RATE, subtype="FLOAT")
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
        with PythonCallback() as plain, witnesses(folder) as seen:
            of_player = recording(folder / "player.npz", seconds + SPARE, servers[0].name, clients[0])
            of_plain = recording(folder / "plain.npz", seconds + SPARE, servers[1].name, clients[1])
            with of_player as played, of_plain as given, lock_holders():
                before = counted(daemon, plain, servers)
                made, loads = await keep_engine_busy(daemon, time.monotonic() + seconds)
                now = counted(daemon, plain, servers)
        underruns, *told = (after - then for after, then in zip(now, before, strict=True))
        return Soak(
            side(played[0], device.block, told[0], told[2]), side(given[0], device.block, told[1], told[3]),
            np.concatenate(seen or [np.zeros((0, 2))]), underruns, daemon.player.lead * 1000, made, loads,
            device.raised,
        )  # fmt: skip
    finally:
        await daemon.stop()


def counted(daemon: Daemon, plain: PythonCallback, servers: tuple[JackServer, JackServer]) -> tuple[int, ...]:
    """Return underruns, late blocks of both, and the complaints of both servers."""
    complaints = [server.complaints() for server in servers]
    return daemon.player.underruns, daemon.player.late, plain.late, *complaints


def side(recorded: Recording, block: int, late: int, complaints: int) -> Side:
    """Summarise one recording."""
    return Side(recorded, breaks(recorded.sound), recorded.left_out(block), late, complaints)


def unexplained(moments: Moments, stalls: Stalls) -> int:
    """How many of these moments aren't near one at which the machine stood still."""
    begins, ends = stalls[:, 0] - NEAR, stalls[:, 1] + NEAR
    return sum(1 for moment in moments if not ((begins <= moment) & (moment <= ends)).any())


def covered(stalls: Stalls, seconds: float) -> float:
    """The part of all moments that are near one, by chance too."""
    total, until = 0.0, -np.inf
    for begin, end in sorted((begin - NEAR, end + NEAR) for begin, end in stalls):
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
        apart = [] if options.together else [jack_server(options.block, "timbred-bench-plain", synchronous=kind)]
        second = stack.enter_context(apart[0]) if apart else first
        found = asyncio.run(soak(folder, options.seconds, options.lead, (first, second)))
    print(f"a loop at {options.block} frames and {RATE} Hz, mixed {options.lead:g} ms ahead; {machine()}")
    print(f"  meanwhile   {found.made} sounds made, model unloaded and loaded {found.loads} times")
    print(f"  real-time   the sound server {yes(first.realtime)}, the player's mixing {yes(found.raised)}")
    print(f"  underruns   {found.underruns}: sound that the player didn't mix in time; ahead at last {found.lead:g} ms")
    lasted = found.stalls[:, 1] - found.stalls[:, 0]
    still = found.stalls[lasted > options.block / RATE / 2]
    long = lasted[lasted > options.block / RATE]
    stood = f"{len(long)} times for a block or longer, {max(long, default=0) * 1000:.0f} ms at most"
    print(f"  the machine stood still {stood}")
    share = covered(still, options.seconds)
    print(f"  (what is near a moment at which it did, for half a block, is told apart: {share:.0%} of all time is)")
    print(f"  {'goal for the player: 0 and 0':42s} {'player':>10s}    Python callback")
    for what, one, other in rows(found.player, found.plain, still):
        print(f"  {what:42s} {one:10.6g}    {other:10.6g}")


def rows(player: Side, plain: Side, stalls: Stalls) -> list[tuple[str, float, float]]:
    """Return the rows of the table: name, player's value, plain callback's value."""

    def both(what: str, count: Callable[[Side], float]) -> tuple[str, float, float]:
        return what, count(player), count(plain)

    return [
        both("seconds recorded", lambda one: one.broken.frames / RATE),
        both("places where the next frame isn't the next", lambda one: len(one.broken.places)),
        both("frames silent, or none of the loop's", lambda one: one.broken.foreign),
        both("tenths of a second broken", lambda one: one.broken.tenths),
        both("times that blocks were left out for all", lambda one: len(one.left_out)),
        both("milliseconds that went with them", lambda one: one.left_out[:, 1].sum() * 1000),
        both("breaks of either kind, the machine running", lambda one: unexplained(one.moments, stalls)),
        both("blocks that the driver calls late", lambda one: one.late),
        both("complaints of the sound server", lambda one: one.complaints),
    ]


def yes(it_is: bool) -> str:
    """Describe whether the system allows it."""
    return "yes" if it_is else "no, the system doesn't allow it"


if __name__ == "__main__":
    main()
