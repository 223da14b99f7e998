"""Our loop and diffusers' own pipelines give the same sound: float32, same seed, same scheduler."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from timbred.engine.diffusion.sampler import SamplingStopped, draw_noise, make_generators, make_scheduler
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models import checkpoint
from timbred.models.families import AUDIOLDM

SECONDS = 0.5


def order(**changes: Any) -> RenderOrder:
    plain: dict[str, Any] = {
        "inputs": PromptInputs(prompt="a kick drum"),
        "seconds": SECONDS,
        "steps": 4,
        "guidance": 3.0,
        "eta": 0.0,
        "scheduler": "ddim",
        "seeds": (7,),
    }
    return RenderOrder(**{**plain, **changes})


def refuse(inputs: PromptInputs, guided: bool) -> None:
    pytest.fail(f"{inputs} is encoded again, guided: {guided}")


@pytest.fixture(scope="module", params=["audioldm2", "audioldm"])
def model(request: pytest.FixtureRequest) -> LatentDiffusion:
    folder: Path = request.getfixturevalue(request.param)
    found = checkpoint.inspect(folder, "tiny", "")
    return loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))


def loudened(model: LatentDiffusion) -> LatentDiffusion:
    """Random vocoders are all but silent; a comparison of silences would say nothing."""
    with torch.no_grad():
        for name, parameter in model.pipeline.vocoder.named_parameters():
            if "weight" in name:
                parameter.mul_(12.0)
    return model


def ours(model: LatentDiffusion, wanted: RenderOrder) -> np.ndarray:
    return model.render(wanted, lambda _: None, lambda: False).mono


def stock(model: LatentDiffusion, wanted: RenderOrder) -> np.ndarray:
    """The same by diffusers' pipeline, one call for each seed."""
    pipeline = model.pipeline
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler(wanted.scheduler, model.scheduler_config)
    sounds = [
        pipeline(
            wanted.inputs.prompt,
            negative_prompt=wanted.inputs.negative,
            audio_length_in_s=wanted.seconds,
            num_inference_steps=wanted.steps,
            guidance_scale=wanted.guidance,
            eta=wanted.eta,
            generator=[torch.Generator().manual_seed(seed)],
        ).audios
        for seed in wanted.seeds
    ]
    return np.concatenate(sounds)


def assert_equal(model: LatentDiffusion, wanted: RenderOrder) -> None:
    expected = stock(model, wanted)
    assert np.abs(expected).max() > 0.01, "the comparison must be of something"
    np.testing.assert_allclose(ours(model, wanted), expected, atol=1e-4)


@pytest.mark.parametrize("guidance", [3.0, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("scheduler", AUDIOLDM.schedulers)
def test_latent_diffusion_equals_diffusers_with_every_scheduler(
    model: LatentDiffusion, scheduler: str, guidance: float
):
    assert_equal(model, order(scheduler=scheduler, guidance=guidance))


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance": 1.0},
        # diffusers cuts a negative prompt to the prompt's tokens, so this one has fewer
        {"guidance": 7.5, "inputs": PromptInputs(prompt="a bell in a room", negative="hum")},
        {"eta": 0.7},
        {"seeds": (1, 2, 3)},
        {"seeds": (4, 5), "eta": 1.0},
        {"seconds": 0.33},
        {"steps": 1},
    ],
    ids=str,
)
def test_latent_diffusion_equals_diffusers_with_every_parameter(model: LatentDiffusion, changes: dict[str, Any]):
    assert_equal(model, order(**changes))


def embeddings(model: LatentDiffusion, wanted: RenderOrder) -> dict[str, torch.Tensor]:
    """Our own conditioning, by the names that the stock pipelines take it under."""
    guided = wanted.guidance > 1
    halves = {
        name: tensor.chunk(2 if guided else 1)
        for name, tensor in model.conditioner.conditioning(wanted.inputs, guided).items()
    }
    names = (
        {"text": ("prompt_embeds", "negative_prompt_embeds")}
        if "text" in halves
        else {
            "states": ("prompt_embeds", "negative_prompt_embeds"),
            "mask": ("attention_mask", "negative_attention_mask"),
            "generated": ("generated_prompt_embeds", "negative_generated_prompt_embeds"),
        }
    )
    return {
        known: part
        for name, (prompt, negative) in names.items()
        for known, part in zip((prompt, negative), reversed(halves[name]), strict=False)
    }


@pytest.mark.parametrize("guidance", [3.0, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("scheduler", ["ddim", "dpm++2m"])
def test_latent_diffusion_equals_diffusers_with_given_embeddings_and_noise(
    model: LatentDiffusion, scheduler: str, guidance: float
):
    """The stock pipeline with our embeddings and our noise, three waveforms at once, gives our three takes."""
    inputs = PromptInputs(prompt="a bell", negative="noise, hum")
    wanted = order(inputs=inputs, guidance=guidance, seeds=(1, 2, 3), scheduler=scheduler)
    pipeline = model.pipeline
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler(scheduler, model.scheduler_config)
    noise = draw_noise(model.latent_layout.shape(wanted.seconds), make_generators(wanted.seeds))
    expected = pipeline(
        **embeddings(model, wanted),
        latents=noise,
        num_waveforms_per_prompt=3,
        audio_length_in_s=wanted.seconds,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance,
    ).audios
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(ours(model, wanted), expected, atol=1e-4)


def test_latent_diffusion_loads_where_the_stock_way_fails(audioldm2: Path):
    """Why the language model's class is replaced; when this fails, diffusers was mended."""
    pipeline = diffusers.AudioLDM2Pipeline.from_pretrained(audioldm2)
    with pytest.raises(AttributeError, match="_update_model_kwargs_for_generation"):
        pipeline("a kick", num_inference_steps=1, audio_length_in_s=SECONDS)


def test_latent_diffusion_repeats_the_bits_of_a_seed(model: LatentDiffusion):
    assert np.array_equal(ours(model, order()), ours(model, order()))


def test_latent_diffusion_differs_between_two_seeds(model: LatentDiffusion):
    one, other = ours(model, order(seeds=(1, 2)))
    assert np.abs(one - other).max() > 0.001


def test_latent_diffusion_is_unchanged_by_its_batch(model: LatentDiffusion):
    alone = ours(model, order(seeds=(5,)))[0]
    among = ours(model, order(seeds=(9, 5, 11)))[1]
    assert np.abs(alone - among).max() < 1e-4 * np.abs(alone).max()


def test_latent_diffusion_reports_every_step_in_order(model: LatentDiffusion):
    steps: list[int] = []
    model.render(order(steps=5), steps.append, lambda: False)
    assert steps == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_latent_diffusion_runs_no_step_after_a_cancellation(model: LatentDiffusion, after: int):
    steps: list[int] = []
    with pytest.raises(SamplingStopped):
        model.render(order(steps=5), steps.append, lambda: len(steps) >= after)
    assert len(steps) == after


def test_latent_diffusion_encodes_repeated_words_once(model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch):
    inputs = PromptInputs(prompt="cached prompt")
    first = model.conditioner.conditioning(inputs, True)
    monkeypatch.setattr(model.conditioner, "encode", refuse)
    assert model.conditioner.conditioning(inputs, True) is first
