"""A plot of memory while three models that share components are loaded and unloaded: docs/memory-over-time.png.

Needs matplotlib, which comes with `pip install .[training]`.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import full_size
from benchmarks.daemon import Client, daemon
from benchmarks.machine import machine

PLOT_PATH = Path(__file__).parents[1] / "docs" / "memory-over-time.png"
PIXELS_PER_POINT = 4
MODEL_REQUESTS = (
    ("load", "audioldm2"), ("load", "audioldm2-music"), ("load", "audioldm2-large"), ("unload", "audioldm2-music"),
    ("load", "audioldm2-music"), ("unload", "audioldm2"), ("unload", "audioldm2-large"), ("unload", "audioldm2-music"),
)  # fmt: skip
HEARTBEAT_WAIT_S = 2.5
"""Seconds in which a heartbeat of the engine updates the figures."""


def sample_memory(client: Client, started_at: float) -> dict[str, Any]:
    """Query the memory and the time in seconds since `began`."""
    client.send("status")
    status = client.until("status.reply")
    return {"at": time.perf_counter() - started_at, "used": status["device_memory_used"]}


def record_memory(folder: Path) -> tuple[list[dict[str, Any]], list[tuple[float, str]]]:
    """Return the memory that `status` reports, and the times of the requests."""
    sibling: Path | None = None
    sources: list[str] = []
    for name in full_size.MODEL_NAMES:
        sibling = full_size.make(folder / name, name, torch.float32, sibling, PIXELS_PER_POINT)
        sources.append(f"models.{name}.source={sibling}")
    samples: list[dict[str, Any]] = []
    events: list[tuple[float, str]] = []
    with daemon(*sources, "models.preload=0") as client:
        client.send("unload", model="pocket")
        client.until("unloaded")
        started_at = time.perf_counter()
        for kind, name in MODEL_REQUESTS:
            events.append((time.perf_counter() - started_at, f"{kind} {name}"))
            client.send(kind, model=name)
            client.until(f"{kind}ed")
            until = time.perf_counter() + HEARTBEAT_WAIT_S
            while time.perf_counter() < until:
                samples.append(sample_memory(client, started_at))
                time.sleep(0.05)
    return samples, events


def plot(samples: list[dict[str, Any]], events: list[tuple[float, str]]) -> None:
    """Plot the memory over time, with a label at each event."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    plots: Any = pyplot
    figure, axes = plots.subplots(figsize=(10, 4.5), layout="constrained")
    axes.step(
        [sample["at"] for sample in samples],
        [sample["used"] for sample in samples],
        where="post",
        color="#2a6f97",
        linewidth=1.8,
    )
    top = max(sample["used"] for sample in samples)
    for at, label in events:
        axes.axvline(at, color="#c0c0c0", linewidth=0.8)
        axes.text(at, top * 1.03, label, rotation=30, fontsize=8, ha="left", va="bottom")
    axes.set_ylim(0, top * 1.35)
    axes.set_xlabel("seconds")
    axes.set_ylabel("memory of the engine in MB")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PLOT_PATH, dpi=110)


def main() -> None:
    """Draw the plot and print its main figures."""
    with tempfile.TemporaryDirectory() as folder:
        samples, events = record_memory(Path(folder))
    plot(samples, events)
    used = [sample["used"] for sample in samples]
    print(
        f"memory while three AudioLDM 2 models (1/{PIXELS_PER_POINT} of the size) are loaded and unloaded; {machine()}"
    )
    print(f"  {used[0]:.0f} MB at first, {max(used):.0f} MB at most, {used[-1]:.0f} MB at the end: {PLOT_PATH.name}")


if __name__ == "__main__":
    main()
