"""How much longer a step takes while a full-size AudioLDM 2 is loaded and unloaded beside it.

Goal: the longest gap between two steps at most 2 usual steps: nobody waits for more than one step. The checkpoint has
random weights in its published sizes (4.4 GB in float32), and is loaded several times, first as the disk has it.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks import full_size
from benchmarks.daemon import Client, daemon
from benchmarks.machine import machine

ROUNDS = 5
ALONE = 10.0
"""Seconds of steps without a load, before and after."""

PROMPT = "a deep punchy kick drum"


@dataclass
class Steps:
    """One sound of pocket after the other, of 200 steps each; `gaps` are the seconds between two steps of a sound."""

    client: Client
    gaps: list[float] = field(default_factory=list[float])
    _number: int = 0
    _last: float | None = None

    def begin(self) -> None:
        self._number += 1
        self._last = None
        self.client.send("generate", id=f"steps-{self._number}", model="pocket", prompt=PROMPT, seconds=2.0, steps=200)

    def hear(self, *ends: str) -> bool:
        """Take in one event; whether it is one of these."""
        event = self.client.until("progress", "done", *ends)
        now = time.perf_counter()
        if event["type"] == "progress" and event["step"] > 0:
            if self._last is not None:
                self.gaps.append(now - self._last)
            self._last = now
        elif event["type"] == "done":
            self.begin()
        return event["type"] in ends

    def alone(self) -> list[float]:
        """The gaps of a while without any load."""
        self.gaps = []
        end = time.perf_counter() + ALONE
        while time.perf_counter() < end:
            self.hear()
        return self.gaps

    def beside(self, took: list[float]) -> list[float]:
        """The gaps while a model is loaded and unloaded again; notes in `took` how many seconds each load took."""
        self.gaps = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            self.client.send("load", model="large")
            while not self.hear("loaded"):
                pass
            took.append(time.perf_counter() - began)
            self.client.send("unload", model="large")
            while not self.hear("unloaded"):
                pass
        return self.gaps


def measure(client: Client) -> tuple[list[float], list[float], list[float]]:
    """Gaps alone and beside loads, and how long each load took."""
    steps, took = Steps(client), list[float]()
    steps.begin()
    steps.alone()  # until the calls are prepared
    return steps.alone(), steps.beside(took), took


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks loading_stall")
    parser.add_argument("--folder", type=Path, help="a checkpoint that is there already")
    options, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or full_size.make(Path(place) / "base", "audioldm2", torch.float32)
        with daemon(f"models.large.source={folder}", "models.preload=0") as client:
            alone, beside, took = measure(client)
    usual = float(np.median(alone))
    print(f"the longest gap between two steps while a model comes and goes / a usual step, {ROUNDS} loads; {machine()}")
    print(f"  pocket   {max(beside) / usual:5.2f}   ({max(beside) * 1e3:.0f} and {usual * 1e3:.1f} ms; alone the "
          f"longest is {max(alone) / usual:.2f}; 99 of 100 are below {np.percentile(beside, 99) / usual:.2f}, alone "
          f"below {np.percentile(alone, 99) / usual:.2f})")  # fmt: skip
    print(f"  a load takes {np.median(took):.1f} s beside it, the first {took[0]:.1f} s; steps meanwhile take "
          f"{np.median(beside) / usual:.2f} times as long")  # fmt: skip


if __name__ == "__main__":
    main()
