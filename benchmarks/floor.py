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
from benchmarks.measurement import Measurement
from benchmarks.subject import Subject, subjects
from timbred.engine.compile.compiled_calls import CALLS_BEFORE_COMPILING, CompileQueue
from timbred.engine.families.base import LatentDiffusion

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


def compile_model(model: LatentDiffusion, subject: Subject, cache: Path, timeout_s: float | None = None) -> bool:
    """Compile a model as an engine does, with a cache on disk, and wait for it; returns False if that took too long."""
    compile_queue = CompileQueue("auto", model.device, cache)
    model.use_compile_queue(compile_queue)
    for seed in range(1 + CALLS_BEFORE_COMPILING):  # so that the decoder is called often enough to be compiled
        subject.time_engine_call(model, seed)
    compile_queue.wait(timeout_s=timeout_s)
    return not compile_queue.is_busy


def count_flops(model: LatentDiffusion, subject: Subject) -> float:
    """Return the FLOPs of one sound; operations within compiled calls aren't counted."""
    with FlopCounterMode(display=False) as counter:
        subject.time_engine_call(model, 0)
    return float(counter.get_total_flops())


def measure(
    model: LatentDiffusion, subject: Subject, flops: float, rate: float, rounds: int = ROUND_COUNT
) -> Measurement:
    """Measure the ratio with a compiled model.

    Args:
        model: The model.
        subject: Settings of the sound.
        flops: FLOPs of one sound.
        rate: FLOPs per second of a large matrix product.
        rounds: Number of sounds, at least 3.
    """
    seconds = median([subject.time_engine_call(model, seed) for seed in range(rounds)][2:])
    return Measurement(
        seconds * rate / flops,
        f"{seconds * 1e3:.1f} and {flops / rate * 1e3:.1f} ms; {flops / 1e12:.2f} TFLOP at {rate / 1e12:.0f} TFLOP/s",
    )


def main() -> None:
    """Print the table."""
    print(f"time of a sound / arithmetic floor; {machine()}")
    if not torch.cuda.is_available():
        print("  needs a GPU with CUDA: nothing was measured")
        return
    rate = measure_peak_rate()
    with subjects() as measured_subjects, tempfile.TemporaryDirectory() as cache:
        for subject in measured_subjects:
            model = subject.resident()
            flops = count_flops(model, subject)
            compile_model(model, subject, Path(cache))
            measured = measure(model, subject, flops, rate)
            print(f"  {subject.name:<8} {measured.value:5.2f}   ({measured.detail})")


if __name__ == "__main__":
    main()
