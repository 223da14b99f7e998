"""Gain of the choice between one thread and all: renders with one, with all, and with the thread tuner's choice.

The embedded model in one process, alone and beside a process that keeps one core busy. The three take turns. The choice
is worth its code if its time is close to the better of the others in both cases.
"""

import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from statistics import median

import torch

from benchmarks import pocket
from benchmarks.machine import machine
from timbred.engine.batching import ThreadTuner
from timbred.engine.families.base import LatentDiffusion
from timbred.ipc.engine_messages import PromptInputs, RenderOrder

ROUND_COUNT = 12
STEP_COUNT = 40
ORDER = RenderOrder(
    inputs=PromptInputs(prompt="a deep punchy kick drum"), seconds=2.0, steps=STEP_COUNT, guidance=1.0, eta=0.0,
    scheduler="flow-euler", seeds=(1,),
)  # fmt: skip


@contextmanager
def busy_core() -> Generator[None]:
    """Keep one core busy with another process."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def step_seconds(model: LatentDiffusion, tuner: ThreadTuner, threads: int | None) -> float:
    """Return the mean duration of a step with a number of threads; None: the tuner's choice for each step."""
    generation = model.begin(ORDER)
    durations = list[float]()
    while not generation.sampler.done:
        count = tuner.choose_threads("step") if threads is None else threads
        torch.set_num_threads(count)
        began = time.perf_counter()
        model.advance([generation])
        durations.append(time.perf_counter() - began)
        if threads is None:
            tuner.record("step", count, durations[-1])
    return sum(durations) / len(durations)


def measure(model: LatentDiffusion, tuner: ThreadTuner) -> tuple[float, float, float]:
    """Return the mean duration of a step in ms with one thread, with all, and with the tuner's choice."""
    choices = (1, tuner.max_threads, None)
    rounds = [[step_seconds(model, tuner, threads) for threads in choices] for _ in range(ROUND_COUNT)]
    one, every, tuned = (median(column) * 1e3 for column in zip(*rounds, strict=True))
    return one, every, tuned


def main() -> None:
    """Print the table."""
    tuner = ThreadTuner(torch.get_num_threads())
    model = pocket.resident()
    pocket.compile_model(model, ORDER.inputs.prompt, ORDER.seconds)
    print(f"milliseconds of a step of pocket by number of threads; {machine()}")
    print(f"  {'':24}  one thread  {tuner.max_threads} threads  chosen  chosen / the better one")
    for name, beside in (("alone", False), ("beside a busy process", True)):
        if beside:
            with busy_core():
                one, every, tuned = measure(model, tuner)
        else:
            one, every, tuned = measure(model, tuner)
        print(f"  {name:24}  {one:10.1f}  {every:9.1f}  {tuned:6.1f}  {tuned / min(one, every):23.2f}")


if __name__ == "__main__":
    main()
