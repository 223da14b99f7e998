"""Time to the first playable piece of a sound against the whole sound; the vocoder works in exact pieces.

Goal: at most 0.85. Both from the request's arrival in the engine; with a cached prompt.
"""

import time

from benchmarks.machine import machine
from benchmarks.measurement import Measurement, compare_medians
from benchmarks.subject import Subject, subjects
from timbred.engine.families.base import LatentDiffusion

ROUND_COUNT = 12


def time_first_and_last(model: LatentDiffusion, subject: Subject, seed: int) -> tuple[float, float]:
    """Return the seconds to the first piece that is safe to play, and to the last."""
    started_at = time.perf_counter()
    generation = model.begin(subject.order(seed))
    while not generation.sampler.done:
        model.advance([generation], at_once=True)
    stream = model.begin_stream(generation)
    first = 0.0
    while not stream.done:
        piece = stream.render_piece()
        if piece is not None and not first:
            first = time.perf_counter() - started_at
    return first, time.perf_counter() - started_at


def measure(model: LatentDiffusion, subject: Subject, rounds: int = ROUND_COUNT) -> Measurement:
    """Measure the median ratio."""
    time_first_and_last(model, subject, 0)
    return compare_medians([time_first_and_last(model, subject, seed) for seed in range(rounds)])


def main() -> None:
    """Print the table."""
    print(f"first sound / whole sound, {ROUND_COUNT} sounds; {machine()}")
    with subjects() as measured_subjects:
        for subject in measured_subjects:
            measured = measure(subject.resident(), subject)
            print(f"  {subject.name:<8} {measured.value:5.2f}   ({measured.detail})")


if __name__ == "__main__":
    main()
