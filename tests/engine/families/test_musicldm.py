"""MusicLDM against diffusers' own pipeline, and the hearing of its CLAP."""

import functools
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from tests.engine.families.renders import load
from tests.engine.families.test_latent_diffusion import assert_equal, loudened, order, ours, stock
from timbred.engine.diffusion.sampler import draw_noise, make_generators, make_scheduler
from timbred.engine.families.base import LatentDiffusion
from timbred.ipc.engine_messages import PromptInputs
from timbred.models.families import MUSICLDM

MusicLDMPipeline: Any = diffusers.MusicLDMPipeline


@pytest.fixture(scope="module")
def model(musicldm: Path) -> LatentDiffusion:
    return loudened(load(musicldm))


def hear_as_transformers_4(model: LatentDiffusion, patch: pytest.MonkeyPatch) -> None:
    """Have CLAP return the vector itself where MusicLDM's stock pipeline asks for it, as in transformers 4."""
    if not isinstance(model.pipeline, MusicLDMPipeline):
        return
    encoder = model.pipeline.text_encoder
    get_text_features = encoder.get_text_features

    def get_vector(*inputs: Any, **options: Any) -> torch.Tensor:
        return get_text_features(*inputs, **options).pooler_output

    original = type(model.pipeline).__call__

    @functools.wraps(original)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as during_call:
            during_call.setattr(encoder, "get_text_features", get_vector)
            return original(self, *args, **options)

    patch.setattr(type(model.pipeline), "__call__", call)


@pytest.fixture
def clap_of_transformers_4(model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """See `hear_as_transformers_4`."""
    hear_as_transformers_4(model, monkeypatch)


@pytest.mark.usefixtures("clap_of_transformers_4")
@pytest.mark.parametrize("guidance", [3.0, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("scheduler", MUSICLDM.schedulers)
def test_musicldm_render_equals_stock_with_every_scheduler(model: LatentDiffusion, scheduler: str, guidance: float):
    assert_equal(model, order(scheduler=scheduler, guidance=guidance))


@pytest.mark.usefixtures("clap_of_transformers_4")
@pytest.mark.parametrize(
    "changes",
    [
        {"guidance": 7.5, "inputs": PromptInputs(prompt="a bell in a room", negative="hum")},
        {"eta": 0.7},
        {"seeds": (1, 2, 3)},
        {"seconds": 0.33},
    ],
    ids=str,
)
def test_musicldm_render_equals_stock_with_every_parameter(model: LatentDiffusion, changes: dict[str, Any]):
    assert_equal(model, order(**changes))


def test_musicldm_render_equals_stock_with_given_noise_and_embeddings(model: LatentDiffusion):
    wanted = order(seeds=(1, 2, 3))
    text = model.conditioner.conditioning(wanted.inputs, True)["text"]
    pipeline = model.pipeline
    pipeline.scheduler = make_scheduler(wanted.scheduler, model.scheduler_config)
    expected = pipeline(
        prompt_embeds=text[1:],
        negative_prompt_embeds=text[:1],
        latents=draw_noise(model.latent_layout.shape(wanted.seconds), make_generators(wanted.seeds)),
        num_waveforms_per_prompt=3,
        audio_length_in_s=wanted.seconds,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance,
    ).audios
    np.testing.assert_allclose(ours(model, wanted), expected, atol=1e-4)


def test_stock_pipeline_fails_with_this_version_of_transformers(model: LatentDiffusion):
    """Why the text is encoded here; when this fails, diffusers was mended."""
    with pytest.raises(AttributeError, match="no attribute 'to'"):
        stock(model, order())


def test_musicldm_long_prompt_is_read_to_its_end(model: LatentDiffusion):
    one, other = (ours(model, order(inputs=PromptInputs(prompt="soft " * 60 + end))) for end in ("kick", "hi-hat"))
    assert not np.array_equal(one, other)


def test_takes_are_ranked_by_the_models_own_clap(model: LatentDiffusion):
    sounds = model.render(order(seeds=(1, 2, 3)), lambda _: None, lambda: False)
    clap = model.clap
    assert clap is not None
    embeddings = clap.embed_takes(sounds)
    assert embeddings.vectors.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(embeddings.vectors, axis=1), 1.0, atol=1e-5)
    scores = clap.score_takes("a kick drum", embeddings)
    assert len(set(scores)) == 3
    assert all(-1.0 <= score <= 1.0 for score in scores)


def test_take_alone_equals_take_in_batch(model: LatentDiffusion):
    alone, among = ours(model, order(seeds=(5,)))[0], ours(model, order(seeds=(9, 5, 11)))[1]
    assert np.abs(alone - among).max() < 1e-4 * np.abs(alone).max()
