"""The first render after a restart against a warm one: compiled calls are read from disk while plain calls run.

Goal: at most 3. On a CPU weights are packed anew at each start, before `loaded`, which needs no compiler.
"""

import tempfile
from statistics import median

from benchmarks.machine import machine
from benchmarks.subject import subjects

WARM_UP_SOUND_COUNT = 24
ROUND_COUNT = 8


def main() -> None:
    """Print the table."""
    print(f"first render after a restart / warm render; {machine()}")
    with subjects() as measured, tempfile.TemporaryDirectory() as cache:
        for subject in measured:
            setting = f"engine.cache={cache}"
            with subject.daemon(setting) as client:
                for seed in range(WARM_UP_SOUND_COUNT):
                    client.time_generate(**subject.keys(seed))
            with subject.daemon(setting) as client:
                first_s = client.time_generate(**subject.keys(0))
                for seed in range(WARM_UP_SOUND_COUNT):
                    client.time_generate(**subject.keys(seed))
                warm_s = median(client.time_generate(**subject.keys(seed)) for seed in range(ROUND_COUNT))
            print(f"  {subject.name:<8} {first_s / warm_s:5.2f}   ({first_s * 1e3:.0f} and {warm_s * 1e3:.0f} ms)")


if __name__ == "__main__":
    main()
