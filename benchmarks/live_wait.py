"""How long a `live` request takes that arrives while a batch runs, against one that finds the engine idle.

Goal: the 95th percentile at most 1.3 times that of idle.
"""

import numpy as np

from benchmarks.machine import machine
from benchmarks.subject import served

ROUNDS = 20
BUSY = 3


def main() -> None:
    """Print the table."""
    print(f"p95 of a live request while {BUSY} others are rendered / alone, {ROUNDS} rounds; {machine()}")
    for subject, client in served():
        live = {"priority": "live", **subject.keys(1)}
        client.timed(**live)
        alone = [client.timed(**live) for _ in range(ROUNDS)]
        busy: list[float] = []
        for number in range(ROUNDS):
            for other in range(BUSY):
                long = {**subject.keys(other), "steps": 100}
                client.send("generate", id=f"busy-{number}-{other}", **long)
            client.until("progress")
            busy.append(client.timed(**live))
            client.send("cancel", id="*")
            for _ in range(BUSY):
                client.until("cancelled")
        worst, idle = np.percentile(busy, 95), np.percentile(alone, 95)
        print(f"  {subject.name:<8} {worst / idle:5.2f}   (p95 {worst * 1e3:.0f} and {idle * 1e3:.0f} ms, medians "
              f"{np.median(busy) * 1e3:.0f} and {np.median(alone) * 1e3:.0f} ms)")  # fmt: skip


if __name__ == "__main__":
    main()
