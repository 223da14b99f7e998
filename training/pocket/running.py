"""Common parts of the stages: checkpoints, averaged weights, and the log of figures."""

import json
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.pocket.settings import RUNS

STAGES_FOLDER = Path(__file__).resolve().parent / "stages"
"""Folder in the repository with the weights of trained stages, from which a training on another machine continues."""


def choose_device(name: str) -> torch.device:
    """Return a torch device by name; `auto` is a GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def checkpoint_path(stage: str) -> Path:
    """Return the path of a stage's checkpoint."""
    return RUNS / f"{stage}.pt"


def save_checkpoint(stage: str, **state: Any) -> None:
    """Write a stage's checkpoint atomically."""
    path = checkpoint_path(stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(state, temporary)
    temporary.rename(path)


def load_checkpoint(stage: str) -> dict[str, Any] | None:
    """Load a stage's checkpoint; return None if there is none."""
    path = checkpoint_path(stage)
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def stage_path(stage: str) -> Path:
    """Return the path of a stage's weights in the repository."""
    return STAGES_FOLDER / f"{stage}.safetensors"


def keep_stage(stage: str) -> Path:
    """Write a stage's averaged weights to the repository in half precision; return the path.

    Raises:
        FileNotFoundError: It hasn't been trained.
    """
    from safetensors.torch import save_file  # not installed on a machine that only trains

    state = load_checkpoint(stage)
    if state is None:
        raise FileNotFoundError(f"{checkpoint_path(stage)} doesn't exist: train the stage {stage} first")
    weights = {name: value.half() if value.is_floating_point() else value for name, value in state["average"].items()}
    stage_path(stage).parent.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, stage_path(stage))
    return stage_path(stage)


def restore_stage(stage: str) -> bool:
    """Create the checkpoint of a stage from the repository unless there is one; return True if it was created.

    A training that continues from it starts with a new optimiser.
    """
    from safetensors.torch import load_file

    if checkpoint_path(stage).exists() or not stage_path(stage).exists():
        return False
    weights = load_file(stage_path(stage))
    average = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    save_checkpoint(stage, average=average, **{stage: average}, step=0)
    return True


def fingerprint(weights: dict[str, torch.Tensor]) -> int:
    """Return a checksum of the weights in half precision."""
    checksum = 0
    for name in sorted(weights):
        checksum = zlib.crc32(weights[name].detach().cpu().half().contiguous().numpy().tobytes(), checksum)
    return checksum


class Average:
    """Exponential moving average of a module's weights."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Include the weights of a step; early steps have a smaller decay."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                self.weights[name].lerp_(value.detach(), 1 - decay)
            else:
                self.weights[name].copy_(value)


def log_figures(stage: str, step: int, figures: dict[str, float]) -> None:
    """Append a line to `log.jsonl`: stage, step, seconds since the epoch, figures."""
    RUNS.mkdir(parents=True, exist_ok=True)
    line = {
        "stage": stage,
        "step": step,
        "time": round(time.time()),
        **{key: round(x, 4) for key, x in figures.items()},
    }
    with (RUNS / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


@dataclass
class Clock:
    """The schedule of a run by wall-clock time: printing, saving, measuring, and the end.

    Attributes:
        stage: Name for printed lines.
        minutes: Maximum time of this run.
        save: Writes a checkpoint.
        measure: Computes and logs held-out figures.
    """

    stage: str
    minutes: float
    save: Callable[[], None]
    measure: Callable[[], None]
    save_seconds: float = 180.0
    measure_seconds: float = 600.0
    line_seconds: float = 30.0
    started: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)
    _measured: float = field(default_factory=time.monotonic)
    _line: float = field(default_factory=time.monotonic)
    _sums: dict[str, float] = field(default_factory=dict[str, float])
    _count: int = 0

    def tick(self, step: int, **losses: float) -> bool:
        """Count a step, and print, save and measure at their intervals; return False at the end of the run."""
        for key, value in losses.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count += 1
        now = time.monotonic()
        if now - self._line > self.line_seconds:
            means = "  ".join(f"{key} {value / self._count:.4f}" for key, value in self._sums.items())
            rate = 3600 * self._count / (now - self._line)
            print(f"{self.stage}  step {step}  {rate:.0f} steps/h  {means}", flush=True)
            log_figures(self.stage, step, {key: value / self._count for key, value in self._sums.items()})
            self._line, self._sums, self._count = now, {}, 0
        over = now - self.started > 60 * self.minutes
        if over or now - self._saved > self.save_seconds:
            self.save()
            self._saved = now
        if over or now - self._measured > self.measure_seconds:
            self.measure()
            self._measured = time.monotonic()
        return not over
