"""The first render after a restart against a warm one: compiled calls are read from disk while plain calls run.

Goal: at most 3. On a CPU weights are packed anew at each start, before `loaded`, which needs no compiler.
"""

import tempfile
from statistics import median

from benchmarks.daemon import Client
from benchmarks.machine import machine
from benchmarks.measurement import Measurement, format_ms
from benchmarks.subject import Subject, subjects

WARM_UP_SOUND_COUNT = 24
ROUND_COUNT = 8


def render_often(subject: Subject, client: Client, sounds: int = WARM_UP_SOUND_COUNT) -> None:
    """Render sounds until their calls are compiled, or at least recorded for the next start."""
    for seed in range(sounds):
        client.time_generate(**subject.keys(seed))


def measure(
    subject: Subject, client: Client, sounds: int = WARM_UP_SOUND_COUNT, rounds: int = ROUND_COUNT
) -> Measurement:
    """Measure the ratio with a daemon that has rendered nothing yet."""
    first_s = client.time_generate(**subject.keys(0))
    render_often(subject, client, sounds)
    warm_s = median(client.time_generate(**subject.keys(seed)) for seed in range(rounds))
    return Measurement(first_s / warm_s, f"{format_ms(first_s)} and {format_ms(warm_s)} ms")


def main() -> None:
    """Print the table."""
    print(f"first render after a restart / warm render; {machine()}")
    with subjects() as measured_subjects, tempfile.TemporaryDirectory() as cache:
        for subject in measured_subjects:
            setting = f"engine.cache={cache}"
            with subject.daemon(setting) as client:
                render_often(subject, client)
            with subject.daemon(setting) as client:
                measured = measure(subject, client)
            print(f"  {subject.name:<8} {measured.value:5.2f}   ({measured.detail})")


if __name__ == "__main__":
    main()
