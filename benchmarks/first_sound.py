"""Time to the first playable piece of a sound against the whole sound; the vocoder works in exact pieces.

Goal: at most 0.85. Both from the request's arrival in the engine; the text was heard before.
"""

import time
from statistics import median

from benchmarks.machine import machine
from benchmarks.subject import Subject, subjects
from timbred.engine.families.base import LatentDiffusion

ROUND_COUNT = 12


def first_and_whole(model: LatentDiffusion, subject: Subject, seed: int) -> tuple[float, float]:
    """Return the seconds to the first piece that is safe to play, and to the last."""
    began = time.perf_counter()
    run = model.begin(subject.order(seed))
    while not run.sampler.done:
        model.advance([run])
    sounding = model.begin_stream(run)
    first = 0.0
    while not sounding.done:
        piece = sounding.render_piece()
        if piece is not None and not first:
            first = time.perf_counter() - began
    return first, time.perf_counter() - began


def main() -> None:
    """Print the table."""
    print(f"first sound / whole sound, {ROUND_COUNT} sounds; {machine()}")
    with subjects() as measured:
        for subject in measured:
            model = subject.resident()
            first_and_whole(model, subject, 0)
            times = [first_and_whole(model, subject, seed) for seed in range(ROUND_COUNT)]
            ratio = median(first / whole for first, whole in times)
            first, whole = median(one for one, _ in times), median(one for _, one in times)
            print(f"  {subject.name:<8} {ratio:5.2f}   ({first * 1e3:.0f} and {whole * 1e3:.0f} ms)")


if __name__ == "__main__":
    main()
