"""Common parts of all training stages: device, time budget, checkpoints, progress lines."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from training.settings import RUNS


def choose_device(name: str) -> torch.device:
    """Return a torch device by name; `auto` is a GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def half_precision(device: torch.device) -> Generator[None]:
    """Enable bfloat16 autocast on CPU or GPU; weights and optimiser stay float32."""
    with torch.autocast(device.type, torch.bfloat16):
        yield


def checkpoint_path(stage: str) -> Path:
    """Return the path of a stage's checkpoint."""
    return RUNS / f"{stage}.pt"


def save_checkpoint(stage: str, **state: Any) -> None:
    """Write a stage's checkpoint atomically."""
    path = checkpoint_path(stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.rename(path)


def load_checkpoint(stage: str) -> dict[str, Any] | None:
    """Load a stage's checkpoint of tensors and plain values; return None if there is none."""
    path = checkpoint_path(stage)
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


@dataclass
class Budget:
    """Wall-clock budget of a stage with periodic progress and checkpoints.

    Attributes:
        minutes: Maximum time of this run.
        save: Called every `save_seconds`.
    """

    name: str
    minutes: float
    save: Callable[[], None]
    save_seconds: float = 150.0
    line_seconds: float = 15.0
    started: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)
    _line: float = 0.0
    _sums: dict[str, float] = field(default_factory=dict)
    _count: int = 0

    @property
    def fraction(self) -> float:
        """Used share of the budget, 0..1."""
        return min(1.0, (time.monotonic() - self.started) / (60 * self.minutes))

    def step(self, step: int, **losses: float) -> bool:
        """Count a step, and print and save at their intervals; return False once the budget is used up."""
        for key, value in losses.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count += 1
        now = time.monotonic()
        if now - self._line > self.line_seconds:
            means = "  ".join(f"{key} {value / self._count:.4f}" for key, value in self._sums.items())
            elapsed = now - self.started
            print(f"{self.name}  step {step}  {elapsed:.0f}/{60 * self.minutes:.0f} s  {means}", flush=True)
            self._line, self._sums, self._count = now, {}, 0
        if now - self._saved > self.save_seconds:
            self.save()
            self._saved = now
        return self.fraction < 1.0


@dataclass
class ThreadChoice:
    """Choice of the number of CPU threads by measurement: on a shared machine more threads can be slower.

    Call `step` before every training step. Every `period` steps each choice is measured for `trial` steps.
    """

    choices: tuple[int, ...] = (1, 2)
    period: int = 48
    trial: int = 3
    _step: int = 0
    _times: list[float] = field(default_factory=list)
    _last: float = 0.0

    def step(self) -> None:
        """Record the time of the previous step, and set the number of threads for the next one."""
        now = time.monotonic()
        position = self._step % self.period
        trials = len(self.choices) * self.trial
        if position == 0:
            self._times = [0.0] * len(self.choices)
        elif position <= trials:
            self._times[(position - 1) // self.trial] += now - self._last
        if position < trials:
            torch.set_num_threads(self.choices[position // self.trial])
        elif position == trials:
            best = min(range(len(self.choices)), key=lambda index: self._times[index])
            torch.set_num_threads(self.choices[best])
        self._last = now
        self._step += 1


def cosine_rate(fraction: float, step: int, warmup: int, floor: float = 0.05) -> float:
    """Return the learning-rate factor: linear warm-up over `warmup` steps, cosine to `floor` at `fraction` 1."""
    import math

    warm = min(1.0, (step + 1) / warmup)
    return warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * fraction)))
