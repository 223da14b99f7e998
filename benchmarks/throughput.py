"""Eight requests at once against the same eight one after the other: sounds a second, and their ratio.

Goal: at least 3 on a large GPU, 1.3 on a CPU.
"""

import time

from benchmarks.machine import machine
from benchmarks.subject import served

CONCURRENT_COUNT = 8
ROUND_COUNT = 3


def main() -> None:
    """Print the table."""
    print(f"{CONCURRENT_COUNT} requests at once / one after the other, {ROUND_COUNT} rounds; {machine()}")
    for subject, client in served("queue.length=64", f"engine.jobs={CONCURRENT_COUNT}"):
        alone: list[float] = []
        together: list[float] = []
        client.time_generate(**subject.keys(0))
        for number in range(ROUND_COUNT):
            alone.append(sum(client.time_generate(**subject.keys(seed)) for seed in range(CONCURRENT_COUNT)))
            started_at = time.perf_counter()
            for seed in range(CONCURRENT_COUNT):
                client.send("generate", id=f"{number}-{seed}", **subject.keys(seed))
            for _ in range(CONCURRENT_COUNT):
                client.until("done")
            together.append(time.perf_counter() - started_at)
        ratio = min(alone) / min(together)
        rates = f"{CONCURRENT_COUNT / min(together):.2f} and {CONCURRENT_COUNT / min(alone):.2f}"
        print(f"  {subject.name:<8} {ratio:5.2f}   ({rates} "
              "sounds a second)")  # fmt: skip


if __name__ == "__main__":
    main()
