"""Eight requests at once against the same eight one after the other: sounds a second, and their ratio.

Goal: at least 3 on a large GPU, 1.3 on a CPU.
"""

import time

from benchmarks.daemon import Client
from benchmarks.machine import machine
from benchmarks.measurement import Measurement
from benchmarks.subject import Subject, served

CONCURRENT_COUNT = 8
ROUND_COUNT = 3


def measure(subject: Subject, client: Client, rounds: int = ROUND_COUNT) -> Measurement:
    """Measure the ratio of sounds a second; the daemon must take `CONCURRENT_COUNT` jobs."""
    alone: list[float] = []
    together: list[float] = []
    client.time_generate(**subject.keys(0))
    for number in range(rounds):
        alone.append(sum(client.time_generate(**subject.keys(seed)) for seed in range(CONCURRENT_COUNT)))
        started_at = time.perf_counter()
        for seed in range(CONCURRENT_COUNT):
            client.send("generate", id=f"{number}-{seed}", **subject.keys(seed))
        for _ in range(CONCURRENT_COUNT):
            client.until("done")
        together.append(time.perf_counter() - started_at)
    rates = f"{CONCURRENT_COUNT / min(together):.2f} and {CONCURRENT_COUNT / min(alone):.2f}"
    return Measurement(min(alone) / min(together), f"{rates} sounds a second")


def main() -> None:
    """Print the table."""
    print(f"{CONCURRENT_COUNT} requests at once / one after the other, {ROUND_COUNT} rounds; {machine()}")
    for subject, client in served("queue.length=64", f"engine.jobs={CONCURRENT_COUNT}"):
        measured = measure(subject, client)
        print(f"  {subject.name:<8} {measured.value:5.2f}   ({measured.detail})")


if __name__ == "__main__":
    main()
