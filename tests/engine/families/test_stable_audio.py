"""Stable Audio against diffusers' own pipeline: float32, the same seed, the same scheduler."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import checkpoints
from tests.engine.families.renders import (
    assert_equal_sounds,
    generator,
    init_audio,
    load,
    render,
    stereo_sound,
    stock_audio,
    wave_order,
)
from timbred.engine.diffusion.sampler import draw_noise, make_generators, make_scheduler
from timbred.engine.families.base import LatentDiffusion
from timbred.ipc.engine_messages import PromptInputs, RenderOrder, Repaint
from timbred.models.families import STABLE_AUDIO

SCHEDULERS = STABLE_AUDIO.schedulers


def order(**changes: Any) -> RenderOrder:
    return wave_order(**{"scheduler": "cosine-dpm", **changes})


@pytest.fixture(scope="module")
def model(stable_audio: Path) -> LatentDiffusion:
    return load(stable_audio)


def stock_pipeline(model: LatentDiffusion, wanted: RenderOrder) -> Any:
    pipeline = model.pipeline
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler(wanted.scheduler, model.scheduler_config)
    return pipeline


def stock(model: LatentDiffusion, wanted: RenderOrder, **more: Any) -> torch.Tensor:
    """Render an order with the stock pipeline, one call for each seed: (takes, channels, frames)."""
    sounds = [
        stock_pipeline(model, wanted)(
            wanted.inputs.prompt,
            negative_prompt=wanted.inputs.negative or None,
            audio_end_in_s=wanted.seconds,
            num_inference_steps=wanted.steps,
            guidance_scale=wanted.guidance,
            generator=generator(seed),
            **more,
        ).audios
        for seed in wanted.seeds
    ]
    return torch.cat(sounds)


@pytest.mark.parametrize("guidance", [3.0, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_render_equals_stock_with_every_scheduler(model: LatentDiffusion, scheduler: str, guidance: float):
    wanted = order(scheduler=scheduler, guidance=guidance)
    assert_equal_sounds(render(model, wanted), stock(model, wanted))


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": PromptInputs(prompt="a bell in a room", negative="hum")},
        {"inputs": PromptInputs(prompt="a bell", negative="a long hum of the mains")},
        {"seeds": (1, 2, 3)},
        {"seconds": 0.33},
        {"steps": 1},
        {"steps": 16},
    ],
    ids=str,
)
def test_render_equals_stock_with_every_parameter(model: LatentDiffusion, changes: dict[str, Any]):
    wanted = order(**changes)
    assert_equal_sounds(render(model, wanted), stock(model, wanted))


@pytest.mark.parametrize("seconds", [0.3, 0.512], ids=["shorter", "whole"])
def test_render_equals_stock_with_init_audio(model: LatentDiffusion, seconds: float):
    sound = stereo_sound(seconds)
    wanted = order(seconds=seconds, init_audio=init_audio(sound, strength=1.0), seeds=(4, 5))
    expected = stock(
        model,
        wanted,
        initial_audio_waveforms=stock_audio(sound),
        initial_audio_sampling_rate=checkpoints.WAVE_RATE,
    )
    assert_equal_sounds(render(model, wanted), expected)


def test_render_equals_stock_with_given_noise(model: LatentDiffusion):
    wanted = order(seeds=(1, 2, 3), scheduler="edm-dpm")
    noise = draw_noise(model.latent_layout.shape(wanted.seconds), make_generators(wanted.seeds))
    expected = stock_pipeline(model, wanted)(
        wanted.inputs.prompt,
        latents=noise,
        num_waveforms_per_prompt=3,
        audio_end_in_s=wanted.seconds,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance,
    ).audios
    assert_equal_sounds(render(model, wanted), expected)


def test_render_with_less_strength_stays_closer_to_init_audio(model: LatentDiffusion):
    sound = stereo_sound(0.4)
    codec = model.codec.decode(model.codec.encode(stock_audio(sound)[0], 25, make_generators((1,))), len(sound))

    def distance(strength: float) -> float:
        made = render(model, order(init_audio=init_audio(sound, strength), steps=10))
        return float(np.abs(made - codec).mean())

    assert distance(0.1) < distance(0.5) < distance(1.0)


def test_render_keeps_latents_outside_repainted_part(model: LatentDiffusion):
    sound = stereo_sound(0.512)
    part = Repaint(start=0.256, end=0.512, low=0.0, high=96_000.0)
    wanted = order(seconds=0.512, init_audio=init_audio(sound, 1.0, part), steps=8)
    generation = model.begin(wanted)
    assert generation.sampler.init_latents is not None
    kept = generation.sampler.init_latents.latents
    while not generation.sampler.done:
        model.advance([generation])
    made = generation.sampler.latents
    assert torch.equal(made[:, :, :16], kept[:, :, :16])
    assert (made[:, :, 16:] - kept[:, :, 16:]).abs().max() > 0.01


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_take_alone_equals_take_in_batch(model: LatentDiffusion, scheduler: str):
    alone = render(model, order(scheduler=scheduler, seeds=(5,)))[0]
    among = render(model, order(scheduler=scheduler, seeds=(9, 5, 11)))[1]
    np.testing.assert_allclose(alone, among, atol=1e-5)


def test_stable_audio_channels_of_a_take_differ(model: LatentDiffusion):
    made = render(model, order())
    assert made.shape == (1, round(0.4 * checkpoints.WAVE_RATE), 2)
    assert np.abs(made[..., 0] - made[..., 1]).max() > 0.01


def test_stable_audio_checkpoint_declares_its_sound(tmp_path: Path):
    from timbred.models import checkpoint

    found = checkpoint.inspect(checkpoints.stable_audio(tmp_path / "sa"), "tiny", "")
    assert found.family.name == "stable-audio"
    assert (found.sound.rate, found.sound.channels, found.sound.max_seconds) == (8000, 2, 0.512)
    assert found.sound.scheduler == "cosine-dpm"
