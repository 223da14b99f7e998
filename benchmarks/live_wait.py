"""Duration of a `live` request that arrives while a batch runs, against one on an idle engine.

Goal: the 95th percentile at most 1.3 times that of idle.
"""

import numpy as np

from benchmarks.daemon import Client
from benchmarks.machine import machine
from benchmarks.measurement import Measurement
from benchmarks.subject import Subject, served

ROUND_COUNT = 20
BUSY_JOB_COUNT = 3


def measure(subject: Subject, client: Client, rounds: int = ROUND_COUNT) -> Measurement:
    """Measure the ratio of the 95th percentiles."""
    live = {"priority": "live", **subject.keys(1)}
    client.time_generate(**live)
    alone = [client.time_generate(**live) for _ in range(rounds)]
    busy: list[float] = []
    for number in range(rounds):
        for job_number in range(BUSY_JOB_COUNT):
            long_request = {**subject.keys(job_number), "steps": 100}
            client.send("generate", id=f"busy-{number}-{job_number}", **long_request)
        client.until("progress")
        busy.append(client.time_generate(**live))
        client.send("cancel", id="*")
        for _ in range(BUSY_JOB_COUNT):
            client.until("cancelled")
    worst, idle = np.percentile(busy, 95), np.percentile(alone, 95)
    return Measurement(
        float(worst / idle),
        f"p95 {worst * 1e3:.0f} and {idle * 1e3:.0f} ms, medians "
        f"{np.median(busy) * 1e3:.0f} and {np.median(alone) * 1e3:.0f} ms",
    )


def main() -> None:
    """Print the table."""
    print(
        f"p95 of a live request while {BUSY_JOB_COUNT} others are rendered / alone, {ROUND_COUNT} rounds; {machine()}"
    )
    for subject, client in served():
        measured = measure(subject, client)
        print(f"  {subject.name:<8} {measured.value:5.2f}   ({measured.detail})")


if __name__ == "__main__":
    main()
