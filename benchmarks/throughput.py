"""Eight requests at once against the same eight one after the other: sounds a second, and their ratio.

Goal: at least 3 on a large GPU, 1.3 on a CPU.
"""

import time

from benchmarks.machine import machine
from benchmarks.subject import served

TOGETHER = 8
ROUNDS = 3


def main() -> None:
    """Print the table."""
    print(f"{TOGETHER} requests at once / one after the other, {ROUNDS} rounds; {machine()}")
    for subject, client in served("queue.length=64", f"engine.jobs={TOGETHER}"):
        alone: list[float] = []
        together: list[float] = []
        client.timed(**subject.keys(0))
        for number in range(ROUNDS):
            alone.append(sum(client.timed(**subject.keys(seed)) for seed in range(TOGETHER)))
            began = time.perf_counter()
            for seed in range(TOGETHER):
                client.send("generate", id=f"{number}-{seed}", **subject.keys(seed))
            for _ in range(TOGETHER):
                client.until("done")
            together.append(time.perf_counter() - began)
        ratio = min(alone) / min(together)
        print(f"  {subject.name:<8} {ratio:5.2f}   ({TOGETHER / min(together):.2f} and {TOGETHER / min(alone):.2f} "
              "sounds a second)")  # fmt: skip


if __name__ == "__main__":
    main()
