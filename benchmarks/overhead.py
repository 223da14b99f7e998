"""Overhead of the daemon: from a request to its finished file, minus the bare call with the same settings.

Goal: at most 3 ms added, and 1 % at 1 s of rendering. The two alternate in one run, each
on one thread, so that neither waits for the other's; both processes are started with the same environment.
"""

import os
import subprocess
import sys
from statistics import median

import torch

from benchmarks import pocket
from benchmarks.daemon import daemon
from benchmarks.machine import machine
from benchmarks.measurement import Measurement, compare_medians
from timbred.ipc.engine_client import ENGINE_ENVIRONMENT

ROUND_COUNT = 25
PROMPT = "a deep punchy kick drum"
SOUND_S = 2.0


def summarize(pairs: list[tuple[float, float]]) -> Measurement:
    """Return the milliseconds added to the bare call, from pairs of seconds of a request and a call."""
    added_s, call_s = median(request_s - call_s for request_s, call_s in pairs), median(call_s for _, call_s in pairs)
    return Measurement(added_s * 1e3, f"{100 * added_s / call_s:.1f} % (median of the pairs)")


def main() -> None:
    """Print the table, in a process with an engine's environment, which the C library reads only at the start."""
    if any(os.environ.get(name) != value for name, value in ENGINE_ENVIRONMENT.items()):
        subprocess.run(
            [sys.executable, "-m", "benchmarks.overhead"], env={**os.environ, **ENGINE_ENVIRONMENT}, check=True
        )
        return
    torch.set_num_threads(1)
    model = pocket.resident()
    pocket.compile_model(model, PROMPT, SOUND_S)
    with daemon("device.threads=1") as client:
        for seed in range(pocket.WARM_UP_SOUND_COUNT):
            client.time_generate(prompt=PROMPT, seconds=SOUND_S, seed=seed)
        pairs = [
            (
                client.time_generate(prompt=PROMPT, seconds=SOUND_S, seed=seed),
                pocket.time_engine_call(model, PROMPT, SOUND_S, seed),
            )
            for seed in range(1, ROUND_COUNT + 1)
        ]
    ratio, added = compare_medians(pairs), summarize(pairs)
    print(f"overhead of the daemon, pocket, {SOUND_S:g} s of sound, {ROUND_COUNT} pairs; {machine()}")
    print(f"  request to file / bare call   {ratio.value:.3f}   ({ratio.detail})")
    print(f"  added                         {added.value:.1f} ms, {added.detail}")


if __name__ == "__main__":
    main()
