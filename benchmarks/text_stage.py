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


def seconds_for(model: LatentDiffusion, prompt: str) -> float:
    """Measure the text stage for one prompt."""
    started_at = time.perf_counter()
    model.conditioner.conditioning(PromptInputs(prompt=prompt), True)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started_at


def main() -> None:
    """Print the table."""
    print(f"text stage, prompt heard before / new, {ROUND_COUNT} prompts; {machine()}")
    with subjects() as measured:
        for subject in measured:
            model = subject.resident()
            seconds_for(model, "the first costs more")
            prompts = [f"a bright bell number {number}" for number in range(ROUND_COUNT)]
            new = median(seconds_for(model, prompt) for prompt in prompts)
            heard = median(seconds_for(model, prompt) for prompt in prompts)
            print(f"  {subject.name:<8} {heard / new:.4f}   ({heard * 1e6:.0f} us and {new * 1e3:.1f} ms)")


if __name__ == "__main__":
    main()
