"""The embedded model: from words to a finished file, and in this process by timbred's engine and by plain calls.

Goals on two cores, warm, medians: at most 150 ms for 2 s of sound, 600 ms for 10 s; memory of all processes under
900 MB. From `timbred serve` to the first finished file: at most 5 s.
"""

import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import psutil
import torch

from benchmarks.daemon import Client, daemon
from benchmarks.machine import machine
from timbred.engine.compile.compiled_calls import CompileQueue
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.component_loader import quiet_libraries
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models import registry
from training.pocket.export import load_exported
from training.pocket.pipeline import Pocket

WARM_UP_SOUND_COUNT = 24
"""Sounds after which an engine has compiled the model and its decoder for their shape."""

ROUND_COUNT = 25
START_COUNT = 3
LENGTHS_S = (2.0, 10.0)
PROMPTS = ("a grand piano c4", "church organ a3", "techno drum loop", "rain", "a deep kick")

POCKET_CARD = registry.pocket_card()


def resident() -> LatentDiffusion:
    """Load the model as the engine process does."""
    quiet_libraries()
    entry = registry.build(registry.pocket_folder(), {})["pocket"]
    return make_resident(entry.checkpoint(), "pocket", torch.device("cpu"), torch.float32, lambda _: None)


def order(prompt: str, seconds: float, seed: int, loop: bool = False) -> RenderOrder:
    """Return an order with the model's default settings."""
    return RenderOrder(
        inputs=PromptInputs(prompt=prompt, negative=POCKET_CARD.negative),
        seconds=seconds,
        steps=POCKET_CARD.steps,
        guidance=POCKET_CARD.guidance,
        eta=0.0,
        scheduler=POCKET_CARD.scheduler,
        seeds=(seed,),
        loop=loop,
    )


def compile_model(model: LatentDiffusion, prompt: str, seconds: float) -> None:
    """Compile the model as an engine does, and wait for it."""
    with tempfile.TemporaryDirectory() as cache:
        compile_queue = CompileQueue("auto", model.device, Path(cache))
        model.use_compile_queue(compile_queue)
        for seed in range(WARM_UP_SOUND_COUNT):
            time_engine_call(model, prompt, seconds, seed)
        compile_queue.wait()
    time_engine_call(model, prompt, seconds, 0)


def time_engine_call(model: LatentDiffusion, prompt: str, seconds: float, seed: int) -> float:
    """Return the seconds of the engine's call, without a daemon."""
    started_at = time.perf_counter()
    model.render(order(prompt, seconds, seed), lambda _: None, lambda: False)
    return time.perf_counter() - started_at


def plain_model() -> Pocket:
    """Load the model as the training's evaluation does: plain calls in the order of the pipeline, without an engine."""
    return load_exported(registry.pocket_folder())


def time_plain_model(model: Pocket, prompt: str, seconds: float, seed: int) -> float:
    """Return the seconds of the plain calls with the same weights and steps."""
    started_at = time.perf_counter()
    model.sounds([prompt], seconds, seed)
    return time.perf_counter() - started_at


def measure_latency(client: Client, seconds: float) -> list[float]:
    """Return the seconds from words to the finished file, with a prompt that was never used before each time."""
    for seed in range(WARM_UP_SOUND_COUNT):
        client.time_generate(prompt=f"{PROMPTS[seed % len(PROMPTS)]}, warm-up {seed}", seconds=seconds, seed=seed)
    return [
        client.time_generate(prompt=f"{PROMPTS[number % len(PROMPTS)]} number {number}", seconds=seconds, seed=number)
        for number in range(ROUND_COUNT)
    ]


def time_first_sound(seed: int) -> float:
    """Return the seconds from the start of a daemon to its first finished file of 2 s; the disk cache is warm."""
    started_at = time.perf_counter()
    with daemon(model=None) as client:
        client.time_generate(prompt=PROMPTS[0], seconds=LENGTHS_S[0], seed=seed)
        return time.perf_counter() - started_at


def measure_memory(process: int) -> tuple[float, float]:
    """Return the memory of a process and all processes below it in MB: proportional (PSS), and resident (RSS).

    Pages that several processes share are counted once in the first, and for each of them in the second. Where the
    system doesn't tell the first, it is that of unshared pages (USS).
    """
    parent = psutil.Process(process)
    parts = [part.memory_full_info() for part in (parent, *parent.children(recursive=True))]
    return sum(getattr(part, "pss", part.uss) for part in parts) / 1e6, sum(part.rss for part in parts) / 1e6


def main() -> None:
    """Print the table."""
    print(f"words to finished file, pocket, {ROUND_COUNT} sounds, warm, new prompts; {machine()}")
    with daemon() as client:
        for seconds in LENGTHS_S:
            durations = measure_latency(client, seconds)
            slow = quantiles(durations, n=10)[-1]
            print(f"  {seconds:4g} s: median {median(durations) * 1e3:4.0f} ms, 90 % within {slow * 1e3:4.0f} ms")
        proportional, resident = measure_memory(client.process)
        print(f"  memory of all processes: {proportional:.0f} MB (PSS; RSS {resident:.0f} MB)")
    starts = [time_first_sound(seed) for seed in range(START_COUNT)]
    print(f"  from `timbred serve` to the first file: median {median(starts):.1f} s of {START_COUNT} starts")


if __name__ == "__main__":
    main()
