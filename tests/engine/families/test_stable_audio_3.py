"""Stable Audio 3 against diffusers' own pipelines: float32, the same seed, the same noise in each step."""

from pathlib import Path
from typing import Any

import diffusers
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
from timbred.models import checkpoint
from timbred.models.families import STABLE_AUDIO_3

SCHEDULERS = STABLE_AUDIO_3.schedulers
Pipeline: Any = diffusers.StableAudio3Pipeline
AudioToAudio: Any = diffusers.StableAudio3AudioToAudioPipeline
Inpaint: Any = diffusers.StableAudio3InpaintPipeline


def order(**changes: Any) -> RenderOrder:
    return wave_order(**{"scheduler": "ping-pong", "guidance": 1.0, **changes})


@pytest.fixture(scope="module")
def model(stable_audio_3: Path) -> LatentDiffusion:
    return load(stable_audio_3)


def stock(model: LatentDiffusion, wanted: RenderOrder, kind: Any = Pipeline, **more: Any) -> torch.Tensor:
    """Render an order with a stock pipeline, one call for each seed: (takes, channels, frames)."""
    scheduler = make_scheduler(wanted.scheduler, model.scheduler_config)
    pipeline = kind(**{**model.pipeline.components, "scheduler": scheduler})
    pipeline.set_progress_bar_config(disable=True)
    guided = {"guidance_scale": wanted.guidance, "negative_prompt": wanted.inputs.negative or None}
    sounds = [
        pipeline(
            wanted.inputs.prompt,
            duration=wanted.seconds,
            num_inference_steps=wanted.steps,
            generator=generator(seed),
            **(guided if kind is Pipeline else {}),
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
        {"guidance": 4.0, "inputs": PromptInputs(prompt="a bell in a room", negative="hum")},
        {"seeds": (1, 2, 3)},
        {"seeds": (1, 2), "guidance": 2.0},
        {"seconds": 0.333},
        {"seconds": 3.0},
        {"steps": 1},
        {"steps": 8},
    ],
    ids=str,
)
def test_render_equals_stock_with_every_parameter(model: LatentDiffusion, changes: dict[str, Any]):
    wanted = order(**changes)
    assert_equal_sounds(render(model, wanted), stock(model, wanted))


def test_render_of_base_checkpoint_equals_stock(tmp_path: Path):
    base = load(checkpoints.stable_audio_3(tmp_path / "base", seed=5, distilled=False))
    wanted = order(scheduler="flow-euler", guidance=7.0, steps=12)
    assert_equal_sounds(render(base, wanted), stock(base, wanted))


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("seconds", [0.4, 0.3], ids=["longer", "same-length"])
def test_render_equals_stock_audio_to_audio(model: LatentDiffusion, strength: float, seconds: float):
    sound = stereo_sound(0.3)
    wanted = order(seconds=seconds, init_audio=init_audio(sound, strength), seeds=(4, 5))
    expected = stock(model, wanted, AudioToAudio, audio=stock_audio(sound), init_noise_level=strength)
    assert_equal_sounds(render(model, wanted), expected)


def test_render_equals_stock_inpainting(model: LatentDiffusion):
    sound = stereo_sound(0.4)
    part = Repaint(start=0.128, end=0.256, low=0.0, high=96_000.0)
    wanted = order(init_audio=init_audio(sound, 1.0, part), seeds=(4, 5))
    expected = stock(model, wanted, Inpaint, audio=stock_audio(sound), mask_start_seconds=0.128, mask_end_seconds=0.256)
    assert_equal_sounds(render(model, wanted), expected)


def test_render_equals_stock_inpainting_of_several_regions(model: LatentDiffusion):
    sound, regions = stereo_sound(0.4), [(0.064, 0.128), (0.256, 0.32)]
    parts = [Repaint(start=start, end=end, low=0.0, high=96_000.0) for start, end in regions]
    wanted = order(init_audio=init_audio(sound, 1.0, *parts), seeds=(4, 5))
    starts, ends = ([region[edge] for region in regions] for edge in (0, 1))
    expected = stock(model, wanted, Inpaint, audio=stock_audio(sound), mask_start_seconds=starts, mask_end_seconds=ends)
    assert_equal_sounds(render(model, wanted), expected)


def test_stable_audio_3_inpainting_with_less_strength_starts_from_init_audio(model: LatentDiffusion):
    sound, part = stereo_sound(0.4), Repaint(start=0.128, end=0.256, low=0.0, high=96_000.0)
    full, half = (render(model, order(init_audio=init_audio(sound, strength, part))) for strength in (1.0, 0.5))
    assert np.abs(full - half).max() > 1e-3


def test_stable_audio_3_extension_equals_stock_inpainting_of_the_end(model: LatentDiffusion):
    sound = stereo_sound(0.256)
    wanted = order(seconds=0.6, init_audio=init_audio(sound, 1.0), window=0.6)
    expected = stock(model, wanted, Inpaint, audio=stock_audio(sound), mask_start_seconds=0.256, mask_end_seconds=0.7)
    assert_equal_sounds(render(model, wanted), expected)


def test_render_equals_stock_with_given_noise(model: LatentDiffusion):
    wanted = order(seeds=(1, 2, 3), scheduler="flow-euler")
    noise = draw_noise(model.latent_layout.shape(wanted.seconds), make_generators(wanted.seeds))
    pipeline = Pipeline(
        **{**model.pipeline.components, "scheduler": make_scheduler(wanted.scheduler, model.scheduler_config)}
    )
    expected = pipeline(
        wanted.inputs.prompt,
        latents=noise,
        num_waveforms_per_prompt=3,
        duration=wanted.seconds,
        num_inference_steps=wanted.steps,
    ).audios
    assert_equal_sounds(render(model, wanted), expected)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_take_alone_equals_take_in_batch(model: LatentDiffusion, scheduler: str):
    alone = render(model, order(scheduler=scheduler, seeds=(5,)))[0]
    among = render(model, order(scheduler=scheduler, seeds=(9, 5, 11)))[1]
    np.testing.assert_allclose(alone, among, atol=1e-5)


def test_stable_audio_3_words_change_the_sound(model: LatentDiffusion):
    one, other = (render(model, order(inputs=PromptInputs(prompt=words))) for words in ("a kick", "rain on a roof"))
    assert np.abs(one - other).max() > 0.001


@pytest.mark.parametrize(("distilled", "steps", "scheduler"), [(True, 8, "ping-pong"), (False, 100, "flow-euler")])
def test_checkpoint_declares_its_sound(tmp_path: Path, distilled: bool, steps: int, scheduler: str):
    folder = checkpoints.stable_audio_3(tmp_path / "sa3", distilled=distilled)
    found = checkpoint.inspect(folder, "tiny", "")
    assert found.family.name == "stable-audio-3"
    assert (found.sound.rate, found.sound.channels, found.sound.max_seconds) == (8000, 2, 8.0)
    assert (found.sound.steps, found.sound.scheduler) == (steps, scheduler)
