"""The embedded model in this process: by timbred's engine, and by diffusers as in its documentation."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from timbred.engine.compile.compiled_calls import CompileQueue
from timbred.engine.diffusion.sampler import make_scheduler
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.component_loader import quiet_libraries
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models import registry

WARM_UP_SOUND_COUNT = 24
"""Sounds after which an engine has compiled the model and its decoder for their shape."""

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


def time_stock_pipeline(model: LatentDiffusion, prompt: str, seconds: float, seed: int) -> float:
    """Return the seconds of the stock pipeline with the same components, steps, guidance and scheduler."""
    pipeline: Any = model.pipeline
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler(POCKET_CARD.scheduler, model.scheduler_config)
    started_at = time.perf_counter()
    pipeline(
        prompt,
        audio_length_in_s=seconds,
        num_inference_steps=POCKET_CARD.steps,
        guidance_scale=POCKET_CARD.guidance,
        negative_prompt=POCKET_CARD.negative,
        generator=torch.Generator().manual_seed(seed),
    )
    return time.perf_counter() - started_at
