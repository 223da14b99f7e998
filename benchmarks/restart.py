"""The first render after a restart against a warm one: what was compiled is on disk, and read while eager serves.

Goal: at most 3. On a CPU weights are packed anew at each start, before `loaded`, which needs no compiler.
"""

import tempfile
from statistics import median

from benchmarks.machine import machine
from benchmarks.subject import subjects

WARMING = 24
ROUNDS = 8


def main() -> None:
    """Print the table."""
    print(f"first render after a restart / warm render; {machine()}")
    with subjects() as measured, tempfile.TemporaryDirectory() as cache:
        for subject in measured:
            setting = f"engine.cache={cache}"
            with subject.daemon(setting) as client:
                for seed in range(WARMING):
                    client.timed(**subject.keys(seed))
            with subject.daemon(setting) as client:
                first = client.timed(**subject.keys(0))
                for seed in range(WARMING):
                    client.timed(**subject.keys(seed))
                warm = median(client.timed(**subject.keys(seed)) for seed in range(ROUNDS))
            print(f"  {subject.name:<8} {first / warm:5.2f}   ({first * 1e3:.0f} and {warm * 1e3:.0f} ms)")


if __name__ == "__main__":
    main()
