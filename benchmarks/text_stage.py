"""The text stage for a cached prompt against an uncached one.

Goal: at most 0.02.
"""

import time
from statistics import median

import torch

from benchmarks.machine import machine
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


def main() -> None:
    """Print the table."""
    print(f"text stage, cached / uncached prompt, {ROUND_COUNT} prompts; {machine()}")
    with subjects() as measured:
        for subject in measured:
            model = subject.resident()
            time_text_stage(model, "warm-up")
            prompts = [f"a bright bell number {number}" for number in range(ROUND_COUNT)]
            uncached_s = median(time_text_stage(model, prompt) for prompt in prompts)
            cached_s = median(time_text_stage(model, prompt) for prompt in prompts)
            times = f"{cached_s * 1e6:.0f} us and {uncached_s * 1e3:.1f} ms"
            print(f"  {subject.name:<8} {cached_s / uncached_s:.4f}   ({times})")


if __name__ == "__main__":
    main()
