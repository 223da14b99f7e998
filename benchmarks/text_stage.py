"""The text stage for a cached prompt against an uncached one.

Goal: at most 0.02.
"""

import time
from statistics import median

import torch

from benchmarks.machine import machine
from benchmarks.measurement import Measurement
from benchmarks.subject import subjects
from timbred.engine.families.base import LatentDiffusion
from timbred.ipc.engine_messages import PromptInputs

ROUND_COUNT = 30


def time_text_stage(model: LatentDiffusion, prompt: str) -> float:
    """Measure the text stage for one prompt."""
    started_at = time.perf_counter()
    model.conditioner.conditioning(PromptInputs(prompt=prompt), True)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started_at


def measure(model: LatentDiffusion, rounds: int = ROUND_COUNT) -> Measurement:
    """Measure the ratio of the medians over several prompts."""
    time_text_stage(model, "warm-up")
    prompts = [f"a bright bell number {number}" for number in range(rounds)]
    uncached_s = median(time_text_stage(model, prompt) for prompt in prompts)
    cached_s = median(time_text_stage(model, prompt) for prompt in prompts)
    return Measurement(cached_s / uncached_s, f"{cached_s * 1e6:.0f} us and {uncached_s * 1e3:.1f} ms")


def main() -> None:
    """Print the table."""
    print(f"text stage, cached / uncached prompt, {ROUND_COUNT} prompts; {machine()}")
    with subjects() as measured_subjects:
        for subject in measured_subjects:
            measured = measure(subject.resident())
            print(f"  {subject.name:<8} {measured.value:.4f}   ({measured.detail})")


if __name__ == "__main__":
    main()
