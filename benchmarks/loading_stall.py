"""How much longer a step takes while a full-size AudioLDM 2 is loaded and unloaded beside it.

Goal: nobody waits for more than one step because of a load: of the gaps between two steps, half, 99 of
100 and the longest are at most one usual step longer beside loads than alone. The checkpoint has random weights in
its published sizes (4.4 GB in float32). Loads and times without one take turns, for machines change meanwhile.

Some machines, virtual ones above all, stand still for longer than a step lasts, with all that runs on them. A thread
on each core, above all others, sees that; the second line of figures is without such time.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import full_size
from benchmarks.daemon import Client, daemon
from benchmarks.machine import machine
from benchmarks.witness import Stalls, witnesses

ROUND_COUNT = 8
ALONE_S = 8.0
"""Seconds of steps without a load, before each."""

PROMPT = "a deep punchy kick drum"

Gaps = NDArray[np.float64]
"""Shape (gaps, 2): when each began and ended, in seconds of the monotonic clock."""


@dataclass
class Steps:
    """One sound of pocket after the other, of 200 steps each; `gaps` lie between two steps of a sound."""

    client: Client
    gaps: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    _number: int = 0
    _last: float | None = None

    def begin(self) -> None:
        """Start a new sequence of gaps."""
        self._number += 1
        self._last = None
        self.client.send("generate", id=f"steps-{self._number}", model="pocket", prompt=PROMPT, seconds=2.0, steps=200)

    def receive(self, *ends: str) -> bool:
        """Take in one event; whether it is one of these."""
        event = self.client.until("progress", "done", *ends)
        now = time.monotonic()
        if event["type"] == "progress" and event["step"] > 0:
            if self._last is not None:
                self.gaps.append((self._last, now))
            self._last = now
        elif event["type"] == "done":
            self.begin()
        return event["type"] in ends

    def measure_alone(self) -> list[tuple[float, float]]:
        """The gaps of a while without any load."""
        self.gaps = []
        end = time.monotonic() + ALONE_S
        while time.monotonic() < end:
            self.receive()
        return self.gaps

    def measure_beside_load(self) -> list[tuple[float, float]]:
        """The gaps while a model is loaded and unloaded again."""
        self.gaps = []
        for request, end_type in (("load", "loaded"), ("unload", "unloaded")):
            self.client.send(request, model="large")
            while not self.receive(end_type):
                pass
        return self.gaps


@dataclass(frozen=True)
class LoadingStalls:
    """Gaps without and with loads, when the machine stood still, and seconds from each load to its unload."""

    alone: Gaps
    beside: Gaps
    stalls: Stalls
    load_s: list[float]


def measure(client: Client, folder: Path) -> LoadingStalls:
    """Loads and times without one, in turns."""
    steps, load_s = Steps(client), list[float]()
    alone, beside = list[tuple[float, float]](), list[tuple[float, float]]()
    steps.begin()
    steps.measure_alone()  # until the calls are prepared
    with witnesses(folder) as stalls_by_core:
        for _ in range(ROUND_COUNT):
            alone += steps.measure_alone()
            started_at = time.monotonic()
            beside += steps.measure_beside_load()
            load_s.append(time.monotonic() - started_at)
    return LoadingStalls(np.array(alone), np.array(beside), np.concatenate(stalls_by_core or [np.zeros((0, 2))]), load_s)


def subtract_stalls(gaps: Gaps, stalls: Stalls) -> NDArray[np.float64]:
    """How long the gaps are without the time in which any core stood still.

    >>> without(np.array([[0.0, 1.0], [1.0, 2.0]]), np.array([[0.5, 0.75], [0.6, 1.25]])).tolist()
    [0.5, 0.75]
    """
    covered, until = list[tuple[float, float]](), -np.inf
    for begin, end in sorted(map(tuple, stalls.tolist())):
        if end > until:
            covered.append((max(begin, until), end))
            until = end
    begins, ends = np.array(covered).reshape(-1, 2).T
    stalled_s = [np.clip(np.minimum(ends, end) - np.maximum(begins, begin), 0.0, None).sum() for begin, end in gaps]
    return gaps[:, 1] - gaps[:, 0] - np.array(stalled_s)


def format_row(name: str, alone: NDArray[np.float64], beside: NDArray[np.float64]) -> str:
    """Both sides in steps as they usually are alone."""
    usual = float(np.median(alone))

    def format_percentiles(gaps: NDArray[np.float64]) -> str:
        return "  ".join(f"{np.percentile(gaps, share) / usual:5.2f}" for share in (50, 99, 99.9, 100))

    return f"  {name:28} {format_percentiles(alone)}     {format_percentiles(beside)}   of {usual * 1e3:.1f} ms"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks loading_stall")
    parser.add_argument("--folder", type=Path, help="a checkpoint that is there already")
    options, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or full_size.make(Path(temporary) / "base", "audioldm2", torch.float32)
        with daemon(f"models.large.source={folder}", "models.preload=0") as client:
            measured = measure(client, Path(temporary))
    report(measured)


def report(measured: LoadingStalls) -> None:
    """Print what was found."""
    lengths = [gaps[:, 1] - gaps[:, 0] for gaps in (measured.alone, measured.beside)]
    print(f"gaps between two steps of pocket / a usual step, {ROUND_COUNT} loads; {machine()}")
    print(f"  {'half, 99 and 99.9 of 100 are':28} {'alone':>26}     {'beside a model that comes and goes':>36}")
    print(f"  {'below, and the longest':28} {f'({len(lengths[0])} gaps)':>26}     {f'({len(lengths[1])} gaps)':>36}")
    print(format_row("as heard", *lengths))
    if len(measured.stalls):
        alone, beside = (subtract_stalls(gaps, measured.stalls) for gaps in (measured.alone, measured.beside))
        print(format_row("without the machine's stalls", alone, beside))
        longest = float((measured.stalls[:, 1] - measured.stalls[:, 0]).max())
        shares = [1 - of.sum() / whole.sum() for of, whole in zip((alone, beside), lengths, strict=True)]
        print(f"  the machine stood still for {shares[0]:.2%} of the time alone and {shares[1]:.2%} beside loads, "
              f"{longest * 1e3:.0f} ms at most")  # fmt: skip
    load_s = measured.load_s
    print(f"  a load and its unload take {np.median(load_s):.1f} s beside steps, the first ones {load_s[0]:.1f} s")


if __name__ == "__main__":
    main()
