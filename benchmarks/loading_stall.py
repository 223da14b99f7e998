"""Gaps between steps while a full-size AudioLDM 2 is loaded and unloaded in the same engine.

Goal: a load delays no job by more than one step: the median, the 99th percentile and the maximum of the
gaps between two steps are at most one usual step longer during loads than alone. The checkpoint has random weights in
its published sizes (4.4 GB in float32). Periods with and without loads alternate, because machines change meanwhile.

Some machines, mainly virtual ones, stall as a whole for longer than a step. A thread
of the highest priority on each core measures that; the second line of figures excludes such time.
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
"""Seconds of steps without a load before each load."""

PROMPT = "a deep punchy kick drum"

Gaps = NDArray[np.float64]
"""Start and end of each gap in seconds of the monotonic clock, (gaps, 2)."""


@dataclass
class Steps:
    """Renders sounds of pocket one after the other, of 200 steps each; `gaps` are between two steps of a sound."""

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
        """Handle one event; returns True if its type is one of `ends`."""
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
        """Return the gaps of a period without loads."""
        self.gaps = []
        end = time.monotonic() + ALONE_S
        while time.monotonic() < end:
            self.receive()
        return self.gaps

    def measure_beside_load(self) -> list[tuple[float, float]]:
        """Return the gaps while a model is loaded and unloaded."""
        self.gaps = []
        for request, end_type in (("load", "loaded"), ("unload", "unloaded")):
            self.client.send(request, model="large")
            while not self.receive(end_type):
                pass
        return self.gaps


@dataclass(frozen=True)
class LoadingStalls:
    """Gaps without and with loads, stalls of the machine, and the seconds of each load with its unload."""

    alone: Gaps
    beside: Gaps
    stalls: Stalls
    load_s: list[float]


def measure(client: Client, folder: Path) -> LoadingStalls:
    """Alternate periods with and without loads."""
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
    return LoadingStalls(
        np.array(alone), np.array(beside), np.concatenate(stalls_by_core or [np.zeros((0, 2))]), load_s
    )


def subtract_stalls(gaps: Gaps, stalls: Stalls) -> NDArray[np.float64]:
    """Return the lengths of the gaps without the time in which any core stalled.

    >>> subtract_stalls(np.array([[0.0, 1.0], [1.0, 2.0]]), np.array([[0.5, 0.75], [0.6, 1.25]])).tolist()
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
    """Format percentiles of both sides in multiples of the median gap without loads."""
    usual = float(np.median(alone))

    def format_percentiles(gaps: NDArray[np.float64]) -> str:
        return "  ".join(f"{np.percentile(gaps, share) / usual:5.2f}" for share in (50, 99, 99.9, 100))

    return f"  {name:28} {format_percentiles(alone)}     {format_percentiles(beside)}   of {usual * 1e3:.1f} ms"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks loading_stall")
    parser.add_argument("--folder", type=Path, help="an existing checkpoint")
    options, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or full_size.make(Path(temporary) / "base", "audioldm2", torch.float32)
        with daemon(f"models.large.source={folder}", "models.preload=0") as client:
            measured = measure(client, Path(temporary))
    report(measured)


def report(measured: LoadingStalls) -> None:
    """Print the results."""
    lengths = [gaps[:, 1] - gaps[:, 0] for gaps in (measured.alone, measured.beside)]
    print(f"gaps between two steps of pocket / a usual step, {ROUND_COUNT} loads; {machine()}")
    print(f"  {'half, 99 and 99.9 of 100 are':28} {'alone':>26}     {'during loads and unloads':>36}")
    print(f"  {'below, and the longest':28} {f'({len(lengths[0])} gaps)':>26}     {f'({len(lengths[1])} gaps)':>36}")
    print(format_row("all gaps", *lengths))
    if len(measured.stalls):
        alone, beside = (subtract_stalls(gaps, measured.stalls) for gaps in (measured.alone, measured.beside))
        print(format_row("without the machine's stalls", alone, beside))
        longest = float((measured.stalls[:, 1] - measured.stalls[:, 0]).max())
        shares = [1 - of.sum() / whole.sum() for of, whole in zip((alone, beside), lengths, strict=True)]
        print(f"  the machine stalled for {shares[0]:.2%} of the time alone and {shares[1]:.2%} during loads, "
              f"{longest * 1e3:.0f} ms at most")  # fmt: skip
    load_s = measured.load_s
    print(f"  a load with its unload takes {np.median(load_s):.1f} s during steps, the first {load_s[0]:.1f} s")


if __name__ == "__main__":
    main()
