"""Time to the first playable piece of a sound against the whole sound; the vocoder works in exact pieces.

Goal: at most 0.85. Both from the request's arrival in the engine; with a cached prompt.
"""

import time
from statistics import median

from benchmarks.machine import machine
from benchmarks.subject import Subject, subjects
from timbred.engine.families.base import LatentDiffusion

ROUND_COUNT = 12


def time_first_and_last(model: LatentDiffusion, subject: Subject, seed: int) -> tuple[float, float]:
    """Return the seconds to the first piece that is safe to play, and to the last."""
    started_at = time.perf_counter()
    generation = model.begin(subject.order(seed))
    while not generation.sampler.done:
        model.advance([generation])
    stream = model.begin_stream(generation)
    first = 0.0
    while not stream.done:
        piece = stream.render_piece()
        if piece is not None and not first:
            first = time.perf_counter() - started_at
    return first, time.perf_counter() - started_at


def main() -> None:
    """Print the table."""
    print(f"first sound / whole sound, {ROUND_COUNT} sounds; {machine()}")
    with subjects() as measured:
        for subject in measured:
            model = subject.resident()
            time_first_and_last(model, subject, 0)
            times = [time_first_and_last(model, subject, seed) for seed in range(ROUND_COUNT)]
            ratio = median(first / whole for first, whole in times)
            first, whole = median(seconds for seconds, _ in times), median(seconds for _, seconds in times)
            print(f"  {subject.name:<8} {ratio:5.2f}   ({first * 1e3:.0f} and {whole * 1e3:.0f} ms)")


if __name__ == "__main__":
    main()
