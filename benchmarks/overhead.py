"""What the daemon adds: from a request to its finished file, less the bare call with the same settings.

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
from timbred.ipc.engine_client import ENVIRONMENT

ROUNDS = 25
PROMPT = "a deep punchy kick drum"
SECONDS = 2.0


def main() -> None:
    """Print the table, in a process whose environment is an engine's: the C library reads it only at the start."""
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        subprocess.run([sys.executable, "-m", "benchmarks.overhead"], env={**os.environ, **ENVIRONMENT}, check=True)
        return
    torch.set_num_threads(1)
    model = pocket.resident()
    pocket.warm(model, PROMPT, SECONDS)
    with daemon("device.threads=1") as client:
        for seed in range(pocket.WARMING):
            client.timed(prompt=PROMPT, seconds=SECONDS, seed=seed)
        pairs = [
            (client.timed(prompt=PROMPT, seconds=SECONDS, seed=seed), pocket.bare(model, PROMPT, SECONDS, seed))
            for seed in range(1, ROUNDS + 1)
        ]
    whole, bare = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    added = median(one - other for one, other in pairs)
    print(f"overhead of the daemon, pocket, {SECONDS:g} s of sound, {ROUNDS} pairs; {machine()}")
    print(f"  request to file / bare call   {whole / bare:.3f}   (medians {whole * 1e3:.1f} and {bare * 1e3:.1f} ms)")
    print(f"  added                         {added * 1e3:.1f} ms, {100 * added / bare:.1f} % (median of the pairs)")


if __name__ == "__main__":
    main()
