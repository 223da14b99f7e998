"""Orders and renders of tiny waveform models, and comparisons with the stock pipelines."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.checkpoints import WAVE_RATE
from timbred.engine.diffusion.generation import Generation, RenderedSounds
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import InitAudio, NoiseSource, PromptInputs, RenderOrder, Repaint
from timbred.models import checkpoint

TOLERANCE = 1e-4
AUDIBLE_PEAK = 0.01


def load(folder: Path) -> LatentDiffusion:
    """Load a checkpoint in float32 on the CPU."""
    found = checkpoint.inspect(folder, "tiny", "")
    return make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None)


def wave_order(**changes: Any) -> RenderOrder:
    """Return an order for a waveform model."""
    plain: dict[str, Any] = {
        "inputs": PromptInputs(prompt="a kick drum"),
        "seconds": 0.4,
        "steps": 4,
        "guidance": 3.0,
        "eta": 0.0,
        "scheduler": "",
        "seeds": (7,),
    }
    return RenderOrder(**{**plain, **changes})


def render(model: LatentDiffusion, wanted: RenderOrder) -> NDArray[np.float32]:
    """Return the takes of an order rendered alone, (takes, frames, channels)."""
    return model.render(wanted, lambda _: None, lambda: False).waveforms


def assert_shared_steps_equal_solo(model: LatentDiffusion, wanted: Sequence[RenderOrder]) -> None:
    """Compare two orders of one shape that share their steps, as long as both have some, with their solo renders."""
    alone = [render(model, order) for order in wanted]
    first, second = (model.begin(order) for order in wanted)
    assert first.shape == second.shape
    while not first.sampler.done:
        model.advance([first, second])
    while not second.sampler.done:
        model.advance([second])
    for generation, expected in zip((first, second), alone, strict=True):
        np.testing.assert_allclose(model.decode(generation).waveforms, expected, atol=TOLERANCE)


def render_in_changing_batches(
    model: LatentDiffusion, wanted: Sequence[RenderOrder], chance: random.Random, start_probability: float
) -> tuple[dict[int, RenderedSounds], int]:
    """Render orders that start at random moments and step together by shape; some are dropped on the way.

    Returns the sounds by the order's index, and the number of steps that several generations shared.
    """
    waiting, running, sounds = list(enumerate(wanted)), dict[int, Generation](), dict[int, RenderedSounds]()
    shared = 0
    while waiting or running:
        if waiting and (not running or chance.random() < start_probability):
            number, order = waiting.pop(0)
            running[number] = model.begin(order)
        if running and chance.random() < 0.1:
            running.pop(chance.choice(list(running)))
            continue
        if running:
            shape = chance.choice(list(running.values())).shape
            batch = [generation for generation in running.values() if generation.shape == shape]
            shared += len(batch) > 1
            model.advance(batch)
        for number, generation in tuple(running.items()):
            if generation.sampler.done:
                sounds[number] = model.decode(running.pop(number))
    return sounds, shared


def stereo_sound(seconds: float, seed: int = 3) -> NDArray[np.float32]:
    """Return noise over a tone, different in each channel, (frames, 2)."""
    frames = round(seconds * WAVE_RATE)
    tone = np.sin(2 * np.pi * 440.0 * np.arange(frames) / WAVE_RATE)
    noise = np.random.default_rng(seed).uniform(-0.3, 0.3, (frames, 2))
    return (0.4 * tone[:, None] * [1.0, 0.5] + noise).astype(np.float32)


def init_audio(sound: NDArray[np.float32], strength: float, *repaint: Repaint) -> InitAudio:
    """Return init audio of samples (frames, channels), with the parts to regenerate."""
    return InitAudio(samples=sound.tobytes(), channels=sound.shape[1], strength=strength, repaint=repaint)


def stock_audio(sound: NDArray[np.float32]) -> torch.Tensor:
    """Return samples (frames, channels) as the stock pipelines take them, (1, channels, frames)."""
    return torch.from_numpy(np.ascontiguousarray(sound.T))[None]


def generator(seed: int) -> list[torch.Generator]:
    """Return a stock pipeline's random generator of one take."""
    return [torch.Generator().manual_seed(seed)]


def assert_equal_sounds(made: NDArray[np.float32], expected: torch.Tensor) -> None:
    """Compare takes (takes, frames, channels) with a stock pipeline's, (takes, channels, frames)."""
    reference = expected.transpose(1, 2).numpy()
    assert np.abs(reference).max() > AUDIBLE_PEAK, "the comparison must be of something"
    np.testing.assert_allclose(made, reference, atol=TOLERANCE)


def wave_orders(chance: random.Random, schedulers: Sequence[str]) -> list[RenderOrder]:
    """Return orders of each kind that the waveform families take, with everything else chosen at random."""
    part = Repaint(start=0.1, end=0.25, low=0.0, high=96_000.0)
    prompts = ["kick", "a long bright bell in a room", "rain on a tin roof"]
    kinds: list[dict[str, Any]] = [
        {},
        {"inputs": PromptInputs(prompt=chance.choice(prompts), negative="noise"), "guidance": 5.0},
        {"guidance": 1.0},
        {"seeds": tuple(chance.randrange(1000) for _ in range(3))},
        {"init_audio": init_audio(stereo_sound(0.4, chance.randrange(100)), chance.choice([0.5, 0.8]))},
        {"init_audio": init_audio(stereo_sound(0.4, chance.randrange(100)), 1.0, part), "seconds": 0.4},
        {"init_audio": init_audio(stereo_sound(0.2, chance.randrange(100)), 1.0), "seconds": 0.4, "window": 0.4},
        {"noise": NoiseSource(seed=chance.randrange(1000), seconds=0.3)},
        {"inputs": PromptInputs(prompt=prompts[0], prompt2=prompts[2], mix=0.5)},
        {"inputs": PromptInputs(prompt=prompts[2], weights=(("rain", 1.5),))},
        {"exact": True},
        {"steps": 30},
        {"seconds": 0.4, "is_streamed": True},
    ]
    orders = [
        wave_order(
            **{
                "inputs": PromptInputs(prompt=chance.choice(prompts)),
                "seconds": chance.choice([0.3, 0.4]),
                "steps": chance.randint(4, 8),
                "guidance": chance.choice([1.0, 3.0]),
                "scheduler": chance.choice(schedulers),
                "seeds": (chance.randrange(1000),),
                **kind,
            }
        )
        for kind in kinds
    ]
    chance.shuffle(orders)
    return orders
