"""A soak test: mixed requests of many lengths over all transports, and the memory of each process.

Sounds, variations, continued sounds, loops, plays, flows, cancels, loads and unloads, all of random lengths. Memory,
threads and descriptors of the daemon, its engine and its player are read every few seconds. Goal: flat. Over the last
half of the time the trend of each process's memory rises by at most `MAX_RISE_MB`, that of its threads and descriptors
by at most `MAX_RISE_COUNT`. Exit status 1 where it rises more, or where a request had no end.

A spare process, which is started when its kind is idle for the first time, is counted separately: added to the process
that it may replace, its start would look like a leak.

Plays and flows need a sound device; where `jackd` is installed, a server without a card is started for them.
"""

import argparse
import contextlib
import itertools
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from benchmarks.connections import TRANSPORT_CLASSES, Connection, Event
from benchmarks.daemon import Client, Ports, daemon
from benchmarks.jack import jack_server
from benchmarks.machine import machine
from timbred.ipc.child_exit import SPARE_OPTION

SAMPLE_INTERVAL_S = 5.0

REQUEST_TIMEOUT_S = 180.0
"""Seconds without an event after which a request counts as lost."""

MAX_FLOW_S = 4.0
"""Longest duration of a flow."""

MAX_SOUND_S = 10.0
"""Longest sound: the maximum of the model pocket."""

MAX_RISE_MB = {"daemon": 12.0, "engine": 64.0, "player": 8.0, "spare engine": 8.0, "spare player": 8.0}
"""Largest rise of the memory over the last half of a run that counts as flat."""

MAX_RISE_COUNT = 6
"""Largest rise of the threads and descriptors that counts as flat."""

MIN_SAMPLES = 3
"""Samples in the last half of a run that a trend needs."""

SPARE_PREFIX = "spare "

KINDS_BY_MODULE = {"timbred.engine.__main__": "engine", "timbred.player.process": "player"}
"""Kinds of child processes by the module in their command lines."""

PROMPT_WORDS = (
    "kick", "snare", "bell", "pad", "drone", "rain", "glass", "bass", "pluck", "choir", "wood", "metal", "noise",
    "wind", "string", "deep", "bright", "soft", "long", "dark", "warm", "short", "airy", "dusty", "hollow",
)  # fmt: skip

TERMINAL_TYPES = ("done", "cancelled", "fail")


@dataclass(frozen=True)
class Sample:
    """One sample of a process: seconds since the start, MB, and counts."""

    elapsed_s: float
    memory_mb: float
    threads: int
    descriptors: int


@dataclass
class Tally:
    """Counts of the clients' actions and faults; used by several threads."""

    done: Counter[str] = field(default_factory=Counter[str])
    failed: Counter[str] = field(default_factory=Counter[str])
    unanswered: list[str] = field(default_factory=list[str])

    def count(self, action: str, event: Event | None) -> None:
        """Count an action by its terminal event; None for an action without one."""
        if event is None:
            self.unanswered.append(action)
        elif event["type"] == "fail":
            self.failed[f"{action}: {event.get('code')}: {event.get('message')}"] += 1
        else:
            self.done[action] += 1


@dataclass(frozen=True)
class SoakResult:
    """Result of a run. `samples` by process; `tally` of the clients."""

    seconds: float
    samples: dict[str, list[Sample]]
    tally: Tally

    def rise(self, process: str, value: Callable[[Sample], float]) -> float:
        """Return the rise of a value's trend over the last half."""
        last_half = [sample for sample in self.samples[process] if sample.elapsed_s >= self.seconds / 2]
        times_s = [sample.elapsed_s for sample in last_half]
        return trend(times_s, [value(sample) for sample in last_half]) * self.seconds / 2

    @property
    def faults(self) -> list[str]:
        """Deviations from the bounds, one sentence each."""
        faults = [f"no end: {action}" for action in self.tally.unanswered]
        for process, samples in self.samples.items():
            if len([sample for sample in samples if sample.elapsed_s >= self.seconds / 2]) < MIN_SAMPLES:
                if not process.startswith(SPARE_PREFIX):
                    faults.append(f"{process}: too few samples in the last half")
                continue
            rise = self.rise(process, lambda sample: sample.memory_mb)
            if rise > MAX_RISE_MB[process]:
                faults.append(
                    f"{process}: memory rises by {rise:.0f} MB in the last half, {MAX_RISE_MB[process]:g} allowed"
                )
            for value_name in ("threads", "descriptors"):
                rise = self.rise(process, lambda sample, name=value_name: float(getattr(sample, name)))
                if rise > MAX_RISE_COUNT:
                    faults.append(
                        f"{process}: {value_name} rise by {rise:.0f} in the last half, {MAX_RISE_COUNT} allowed"
                    )
        return faults

    @property
    def is_flat(self) -> bool:
        """True if no trend was found."""
        return not self.faults


def trend(moments: Sequence[float], values: Sequence[float]) -> float:
    """Return the median slope between any two points (Theil and Sen), which a few outliers don't change.

    >>> trend([0, 1, 2, 3], [5, 6, 70, 8])
    1.0
    """
    times, measured = np.asarray(moments, float), np.asarray(values, float)
    first, second = np.triu_indices(len(times), 1)
    slopes = (measured[second] - measured[first]) / (times[second] - times[first])
    return float(np.median(slopes)) if len(slopes) else 0.0


class Performer:
    """A client that sends random requests one after the other, and sometimes reconnects."""

    def __init__(self, transport: Callable[[Ports], Connection], ports: Ports, seed: int, tally: Tally) -> None:
        self._transport = transport
        self._ports = ports
        self._random = random.Random(seed)
        self._tally = tally
        self._numbers = itertools.count()
        self._voices = range(1 + 4 * (seed % 8), 5 + 4 * (seed % 8))
        self._takes: list[str] = []
        self._seed = seed
        self._connection = transport(ports)

    def perform(self, until: float) -> None:
        """Send requests until a time of the monotonic clock."""
        actions: list[tuple[Callable[[], Event | None], int]] = [
            (self.generate, 8), (self.vary, 4), (self.extend, 1), (self.cancel, 2), (self.play, 4), (self.flow, 2),
            (self.search, 1), (self.query_status, 1), (self.reload, 1), (self.reconnect, 1),
        ]  # fmt: skip
        kinds, weights = zip(*actions, strict=True)
        try:
            while time.monotonic() < until:
                action: Callable[[], Event | None] = self._random.choices(kinds, weights)[0]
                self._tally.count(getattr(action, "__name__", ""), action())
        finally:
            self._connection.close()

    def generate(self) -> Event | None:
        """Generate a sound of random length."""
        chance = self._random.random
        keys: dict[str, Any] = {
            "prompt": self._prompt(),
            "seconds": self._seconds(),
            "takes": 1 + int(3 * chance() ** 3),
        }
        if chance() < 0.15:
            keys["loop"] = True
        if chance() < 0.1:
            keys["exact"] = True
        if chance() < 0.1:
            keys["preview"] = True
        if chance() < 0.2:
            keys.update(to="both", voice=self._voice())
        if chance() < 0.1:
            keys.update(prompt2=self._prompt(), mix=round(chance(), 2))
        return self._sound("generate", **keys)

    def vary(self) -> Event | None:
        """Vary an earlier take."""
        if not self._takes:
            return self.generate()
        keys: dict[str, Any] = {"take": self._random.choice(self._takes), "seed": self._random.randrange(1 << 31)}
        if self._random.random() < 0.5:
            keys["seconds"] = self._seconds()
        return self._sound("vary", **keys)

    def extend(self) -> Event | None:
        """Extend an earlier take, or use it as init audio."""
        if not self._takes:
            return self.generate()
        keys: dict[str, Any] = {"prompt": self._prompt(), "init": self._random.choice(self._takes)}
        if self._random.random() < 0.5:
            keys["extend"] = self._seconds()
        else:
            keys["strength"] = 0.6
        return self._sound("generate", **keys)

    def cancel(self) -> Event | None:
        """Cancel a sound during its rendering."""
        name = self._name()
        self._connection.send("generate", id=name, prompt=self._prompt(), seconds=self._seconds(), steps=100)
        first = self._next(lambda event: event.get("id") == name and event["type"] in ("progress", *TERMINAL_TYPES))
        if first is None or first["type"] in TERMINAL_TYPES:
            return first
        self._connection.send("cancel", id=name)
        return self._end(name)

    def play(self) -> Event | None:
        """Play a take on a voice, change it, and stop it."""
        if not self._takes:
            return self.generate()
        voice = self._voice()
        self._connection.send("play", voice=voice, take=self._random.choice(self._takes), loop=True, gain=-30.0)
        event = self._next(_of_voice(voice, "playing"))
        if event is None or event["type"] == "fail":
            return event
        self._connection.send("set", voice=voice, gain=-35.0, pan=0.5, fade=0.05)
        self._connection.send("stop", voice=voice, fade=0.02)
        return self._next(_of_voice(voice, "ended"))

    def flow(self) -> Event | None:
        """Start a flow, change its prompt, and stop it."""
        voice = self._voice()
        self._connection.send("flow", voice=voice, prompt=self._prompt(), seconds=self._seconds(), gain=-30.0)
        event = self._next(_of_voice(voice, "flowing"))
        if event is None or event["type"] == "fail":
            return event
        self._connection.send("flow", voice=voice, prompt=self._prompt())
        self._next(_of_voice(voice, "flowing"), self._random.uniform(0.0, MAX_FLOW_S))
        self._connection.send("stop", voice=voice, fade=0.05)
        return self._next(_of_voice(voice, "ended"))

    def search(self) -> Event | None:
        """Search takes by a word."""
        self._connection.send("takes", search=self._random.choice(PROMPT_WORDS), limit=20)
        return self._next(lambda event: event["type"] in ("done", "fail") and event.get("id") == "takes")

    def query_status(self) -> Event | None:
        """Query the daemon's status."""
        self._connection.send("status")
        return self._next(lambda event: event["type"] in ("status.reply", "fail"))

    def reload(self) -> Event | None:
        """Load the model, sometimes after unloading it."""
        if self._random.random() < 0.5:
            self._connection.send("unload", model="pocket")
            event = self._next(lambda event: event["type"] in ("unloaded", "fail"))
            if event is None:
                return event
        self._connection.send("load", model="pocket")
        return self._next(lambda event: event["type"] in ("loaded", "fail"))

    def reconnect(self) -> Event | None:
        """Replace the connection by a new one."""
        self._connection.close()
        self._connection = self._transport(self._ports)
        self._connection.send("ping")
        return self._next(lambda event: event["type"] in ("pong", "fail"))

    def _sound(self, kind: str, **keys: Any) -> Event | None:
        name = self._name()
        self._connection.send(kind, id=name, **keys)
        return self._end(name)

    def _end(self, name: str) -> Event | None:
        return self._next(lambda event: event.get("id") == name and event["type"] in TERMINAL_TYPES)

    def _next(self, matches: Callable[[Event], bool], seconds: float = REQUEST_TIMEOUT_S) -> Event | None:
        """Return the next event that matches, or None after `seconds`; ids of takes are stored meanwhile."""
        deadline = time.monotonic() + seconds
        while (remaining_s := deadline - time.monotonic()) > 0:
            event = self._connection.receive(remaining_s)
            if event is None:
                return None
            if event["type"] == "take" and event.get("id") and event["path"]:
                self._takes = [*self._takes[-15:], event["take_id"]]
            if matches(event):
                return event
        return None

    def _name(self) -> str:
        return f"soak-{self._seed}-{next(self._numbers)}"

    def _prompt(self) -> str:
        return " ".join(self._random.choices(PROMPT_WORDS, k=self._random.randint(1, 8)))

    def _seconds(self) -> float:
        return round(self._random.uniform(0.2, MAX_SOUND_S), 3)

    def _voice(self) -> int:
        return self._random.choice(self._voices)


def _of_voice(voice: int, kind: str) -> Callable[[Event], bool]:
    """Return a filter for an event of this type about a voice, or the failure of a request for voices."""
    return lambda event: (
        (event["type"] == kind and event.get("voice") == voice)
        or (event["type"] == "fail" and event.get("id") in ("play", "flow", "set", "stop"))
    )


def sample_processes(process: psutil.Process, started_at: float) -> dict[str, Sample]:
    """Sample a daemon and its children; several children of one kind are summed, spare ones are a kind of their own."""
    samples: dict[str, Sample] = {}
    for member in (process, *process.children()):
        try:
            command = member.cmdline()
            child_kind = next((KINDS_BY_MODULE[part] for part in command if part in KINDS_BY_MODULE), None)
            kind = "daemon" if member == process else child_kind
            if kind is None:
                continue
            if SPARE_OPTION in command:
                kind = SPARE_PREFIX + kind
            elapsed_s, memory_mb = time.monotonic() - started_at, member.memory_info().rss / 1e6
            sample = Sample(elapsed_s, memory_mb, member.num_threads(), member.num_fds())
        except psutil.NoSuchProcess:
            continue
        if kind in samples:
            other = samples[kind]
            sample = Sample(sample.elapsed_s, sample.memory_mb + other.memory_mb, sample.threads + other.threads,
                          sample.descriptors + other.descriptors)  # fmt: skip
        samples[kind] = sample
    return samples


def soak(client: Client, minutes: float, seed: int = 0, report_line: Callable[[str], None] = print) -> SoakResult:
    """Use a running daemon for some minutes; `report_line` receives a line after each tenth of the time."""
    process, tally = psutil.Process(client.process), Tally()
    started_at = time.monotonic()
    until = started_at + 60 * minutes
    performers = [Performer(kind, client.ports, seed + number, tally) for number, kind in enumerate(TRANSPORT_CLASSES)]
    threads = [threading.Thread(target=each.perform, args=(until,), daemon=True) for each in performers]
    for thread in threads:
        thread.start()
    samples: dict[str, list[Sample]] = {kind: [] for kind in MAX_RISE_MB}
    reported_tenths = 0
    while (now := time.monotonic()) < until:
        for kind, sample in sample_processes(process, started_at).items():
            samples[kind].append(sample)
        if (now - started_at) / (until - started_at) * 10 >= reported_tenths:
            reported_tenths += 1
            report_line(format_samples(samples, tally))
        time.sleep(min(SAMPLE_INTERVAL_S, max(0.0, until - now)))
    for thread in threads:
        thread.join(REQUEST_TIMEOUT_S)
    return SoakResult(60 * minutes, samples, tally)


def format_samples(samples: dict[str, list[Sample]], tally: Tally) -> str:
    """Format the latest sample of every process."""
    latest = {kind: series[-1] for kind, series in samples.items() if series}
    elapsed_s = max((sample.elapsed_s for sample in latest.values()), default=0.0)
    parts = [
        f"{kind} {sample.memory_mb:7.1f} MB {sample.threads:3d} threads {sample.descriptors:4d} descriptors"
        for kind, sample in latest.items()
    ]
    return f"  {elapsed_s:7.0f} s  {sum(tally.done.values()):6d} requests   " + "   ".join(parts)


def run(
    minutes: float, seed: int = 0, report_line: Callable[[str], None] = print, settings: Sequence[str] = ()
) -> SoakResult:
    """Start a daemon and use it for some minutes."""
    with contextlib.ExitStack() as stack:
        if shutil.which("jackd") and shutil.which("jack_wait"):
            stack.enter_context(jack_server(256, "timbred-soak"))
        else:
            report_line("  no jackd here: plays and flows end with no-audio-device unless there is a sound device")
        client = stack.enter_context(daemon(*settings))
        return soak(client, minutes, seed, report_line)


def report(result: SoakResult, report_line: Callable[[str], None] = print) -> None:
    """Print the result of a run."""
    hours = result.seconds / 3600
    done = ", ".join(f"{count} {name}" for name, count in result.tally.done.most_common())
    report_line(f"  done: {done}")
    for failure, count in result.tally.failed.most_common():
        report_line(f"  failed {count} times: {failure}")
    for kind, samples in result.samples.items():
        if not samples:
            report_line(f"  {kind:12} not running")
            continue
        rise = result.rise(kind, lambda sample: sample.memory_mb)
        most = max(sample.memory_mb for sample in samples)
        report_line(
            f"  {kind:12} {samples[0].memory_mb:7.1f} MB at first, {most:7.1f} at most, "
            f"{samples[-1].memory_mb:7.1f} at last; "
            f"last half {rise:+.1f} MB ({rise / (hours / 2):+.0f} MB an hour), "
            f"threads {result.rise(kind, lambda sample: sample.threads):+.1f}, "
            f"descriptors {result.rise(kind, lambda sample: sample.descriptors):+.1f}"
        )
    for fault in result.faults:
        report_line(f"  NOT FLAT  {fault}")


def main() -> None:
    """Run the soak; exit with status 1 unless every process is flat and every request ended."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks soak")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the daemon")
    options = parser.parse_args()
    print(f"{options.minutes:g} minutes of mixed requests, 4 clients; {machine()}", flush=True)

    def report_line(text: str) -> None:
        print(text, flush=True)

    result = run(options.minutes, options.seed, report_line, options.set)
    report(result, report_line)
    sys.exit(0 if result.is_flat else 1)


if __name__ == "__main__":
    main()
