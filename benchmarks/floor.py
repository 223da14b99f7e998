"""GPU time of the default path against the arithmetic floor.

The floor is the FLOPs of one sound at the rate of a large matrix product, measured in the same run.

Goal: at most 3. Needs a GPU.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import machine
from benchmarks.subject import Subject, subjects
from timbred.engine.compile.compiled_calls import CALLS_BEFORE_COMPILING, CompileQueue

MATRIX_SIDE = 8192
ROUND_COUNT = 10


def measure_peak_rate() -> float:
    """Return the FLOPs per second of a square bfloat16 product."""
    matrix = torch.randn(MATRIX_SIDE, MATRIX_SIDE, device="cuda", dtype=torch.bfloat16)
    times: list[float] = []
    for _ in range(ROUND_COUNT):
        torch.cuda.synchronize()
        started_at = time.perf_counter()
        _ = matrix @ matrix
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started_at)
    return 2 * MATRIX_SIDE**3 / min(times)


def measure(subject: Subject, cache: Path) -> tuple[float, float]:
    """Return the FLOPs and seconds of one sound."""
    model = subject.resident()
    with FlopCounterMode(display=False) as counter:
        model.render(subject.order(0), lambda _: None, lambda: False)
    compile_queue = CompileQueue("auto", model.device, cache)
    model.use_compile_queue(compile_queue)
    for seed in range(1 + CALLS_BEFORE_COMPILING):  # so that the decoder is called often enough to be compiled
        model.render(subject.order(seed), lambda _: None, lambda: False)
    compile_queue.wait()
    times: list[float] = []
    for seed in range(ROUND_COUNT):
        started_at = time.perf_counter()
        model.render(subject.order(seed), lambda _: None, lambda: False)
        times.append(time.perf_counter() - started_at)
    return float(counter.get_total_flops()), median(times[2:])


def main() -> None:
    """Print the table."""
    print(f"time of a sound / arithmetic floor; {machine()}")
    if not torch.cuda.is_available():
        print("  needs a GPU with CUDA: nothing was measured")
        return
    rate = measure_peak_rate()
    with subjects() as measured, tempfile.TemporaryDirectory() as cache:
        for subject in measured:
            flops, seconds = measure(subject, Path(cache))
            print(f"  {subject.name:<8} {seconds * rate / flops:5.2f}   ({seconds * 1e3:.1f} and "
                  f"{flops / rate * 1e3:.1f} ms; {flops / 1e12:.2f} TFLOP at {rate / 1e12:.0f} TFLOP/s)")  # fmt: skip


if __name__ == "__main__":
    main()
