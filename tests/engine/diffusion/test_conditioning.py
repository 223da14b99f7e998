"""Words as controls, noise used again, early renderings, and takes put in order."""

from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

from tests.engine.families.test_latent_diffusion import loudened, order, ours, refuse
from timbred.engine.diffusion.conditioning import interpolate, remove_word
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import NoiseSource, PromptInputs
from timbred.models import checkpoint
from timbred.models.families import AUDIOLDM

SHORT, LONG = "a kick", "a very long and very bright bell in a very large room"


@pytest.fixture(scope="module", params=["audioldm2", "audioldm"])
def model(request: pytest.FixtureRequest) -> LatentDiffusion:
    folder: Path = request.getfixturevalue(request.param)
    found = checkpoint.inspect(folder, "tiny", "")
    return loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))


def mixed(model: LatentDiffusion, mix: float, one: str = SHORT, other: str = LONG) -> np.ndarray:
    return ours(model, order(inputs=PromptInputs(prompt=one, prompt2=other, mix=mix)))


def test_interpolate_at_the_ends_equals_the_plain_prompts(model: LatentDiffusion):
    assert np.array_equal(mixed(model, 0.0), ours(model, order(inputs=PromptInputs(prompt=SHORT))))
    assert np.array_equal(mixed(model, 1.0), ours(model, order(inputs=PromptInputs(prompt=LONG))))


def test_interpolate_is_continuous_near_its_ends(model: LatentDiffusion):
    """Also where one prompt has more words than the other, whose places fade in."""
    whole = np.abs(mixed(model, 1.0) - mixed(model, 0.0)).max()
    assert whole > 0
    for end, near in ((0.0, 1e-4), (1.0, 1 - 1e-4)):
        assert np.abs(mixed(model, near) - mixed(model, end)).max() < 0.05 * whole


def test_interpolate_of_a_prompt_with_itself_is_itself(model: LatentDiffusion):
    plain = ours(model, order(inputs=PromptInputs(prompt=LONG)))
    assert np.abs(mixed(model, 0.4, LONG, LONG) - plain).max() < 1e-4


def test_interpolate_sweeps_without_encoding_words(model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch):
    mixed(model, 0.5)
    monkeypatch.setattr(model.conditioner, "encode", refuse)
    for mix in np.linspace(0, 1, 5):
        model.conditioner.mixed_conditioning(PromptInputs(prompt=SHORT, prompt2=LONG, mix=float(mix)), True)


def test_interpolate_masks_weight_the_attention():
    one = {"states": torch.ones(1, 1, 4), "mask": torch.ones(1, 1)}
    other = {"states": torch.ones(1, 3, 4), "mask": torch.ones(1, 3)}
    bias = (1 - interpolate(one, other, 0.25)["mask"]) * -10_000
    assert bias[0].tolist() == pytest.approx([0.0, np.log(0.25), np.log(0.25)], abs=1e-3)


def test_noise_source_repeats_the_sound_of_an_earlier_take(model: LatentDiffusion):
    earlier = ours(model, order(seeds=(11,)))
    source = NoiseSource(seed=11, seconds=order().seconds)
    assert np.array_equal(ours(model, order(seeds=(99,), noise=source)), earlier)


def test_noise_source_of_another_length_has_the_same_beginning(model: LatentDiffusion):
    shape = model.latent_layout.shape(0.5)
    longer = model.begin(order(seconds=1.0, noise=NoiseSource(seed=11, seconds=0.5))).sampler.latents
    plain = model.begin(order(seconds=0.5, seeds=(11,))).sampler.latents
    assert torch.equal(longer[:, :, : shape[1]], plain)
    assert longer[:, :, shape[1] :].std() > 0.5
    shorter = model.begin(order(seconds=0.3, noise=NoiseSource(seed=11, seconds=0.5))).sampler.latents
    assert torch.equal(shorter, plain[:, :, : shorter.shape[2]])


@pytest.mark.parametrize("scheduler", [name for name in AUDIOLDM.schedulers if name not in ("heun", "pndm")])
def test_latent_diffusion_last_preview_is_the_sound(model: LatentDiffusion, scheduler: str):
    """What the network expects at the last step is what comes out, for every scheduler that ends without noise."""
    run = model.begin(order(scheduler=scheduler, steps=8, seeds=(1, 2)))
    while not run.sampler.done:
        model.advance([run])
    expected, final = model.preview(run).mono, model.decode(run).mono[:1]
    assert expected.shape == final.shape
    assert np.abs(expected - final).max() < 0.05 * np.abs(final).max()


def test_latent_diffusion_preview_changes_nothing(model: LatentDiffusion):
    run = model.begin(order(steps=6))
    while not run.sampler.done:
        model.advance([run])
        assert np.isfinite(model.preview(run).mono).all()
    assert np.array_equal(model.decode(run).mono, ours(model, order(steps=6)))


def test_latent_diffusion_has_no_preview_before_the_first_step(model: LatentDiffusion):
    with pytest.raises(RuntimeError):
        model.begin(order()).sampler.predict_x0()


def test_latent_diffusion_ranks_by_likeness_as_diffusers_does(audioldm2: Path):
    found = checkpoint.inspect(audioldm2, "tiny", "")
    model = loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))
    sounds = model.render(order(seeds=(1, 2, 3)), lambda _: None, lambda: False)
    clap = model.clap
    assert clap is not None
    scores = clap.score_takes("a kick drum", clap.embed_takes(sounds))
    inputs = model.pipeline.tokenizer("a kick drum", return_tensors="pt")
    inputs["input_features"] = model.pipeline.feature_extractor(
        [soxr.resample(waveform, 16000, 48000) for waveform in sounds.mono],
        return_tensors="pt",
        sampling_rate=48000,
    ).input_features
    stock = model.pipeline.text_encoder(**inputs)
    logits = stock.logits_per_text[0]
    assert np.allclose(clap.embed_takes(sounds).vectors, stock.audio_embeds.detach(), atol=1e-6)
    assert np.argsort(scores).tolist() == logits.argsort().tolist()
    assert all(-1 <= score <= 1 for score in scores)


def test_latent_diffusion_without_an_audio_encoder_has_no_clap(audioldm: Path):
    found = checkpoint.inspect(audioldm, "tiny", "")
    model = make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None)
    assert model.clap is None
    assert not model.lends_clap


def weighted(model: LatentDiffusion, *weights: tuple[str, float], prompt: str = LONG) -> np.ndarray:
    return ours(model, order(inputs=PromptInputs(prompt=prompt, weights=weights)))


def test_conditioning_weight_of_one_changes_nothing(model: LatentDiffusion):
    plain = ours(model, order(inputs=PromptInputs(prompt=LONG)))
    assert np.abs(weighted(model, ("bright", 1.0), ("bell", 1.0)) - plain).max() < 1e-6


def test_conditioning_weight_changes_the_sound_by_its_size(model: LatentDiffusion):
    plain = ours(model, order(inputs=PromptInputs(prompt=LONG)))
    little = np.abs(weighted(model, ("bell", 1.1)) - plain).max()
    much = np.abs(weighted(model, ("bell", 2.5)) - plain).max()
    assert 0 < little < much


def test_remove_word_gives_the_summary_of_the_prompt_without_it(model: LatentDiffusion):
    leaning = model.conditioner.conditioning(PromptInputs(prompt=LONG, weights=(("bright", 0.0),)), True)
    lacking = model.conditioner.conditioning(PromptInputs(prompt=remove_word(LONG, "bright")), True)
    for name in model.conditioner.summary_tensors:
        assert torch.allclose(leaning[name], lacking[name], atol=1e-6)


def test_conditioning_scales_only_the_states_of_a_weighted_word(audioldm2: Path):
    found = checkpoint.inspect(audioldm2, "tiny", "")
    model = make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None)
    plain = model.conditioner.conditioning(PromptInputs(prompt="a bright bell"), True)["states"]
    scaled = model.conditioner.conditioning(PromptInputs(prompt="a bright bell", weights=(("bright", 1.5),)), True)[
        "states"
    ]
    assert torch.equal(scaled[0], plain[0]), "the negative prompt has no weights"
    ratio = (scaled[1] / plain[1]).mean(dim=1)
    assert set(ratio.round(decimals=3).tolist()) == {1.0, 1.5}
    text = "".join(
        model.pipeline.tokenizer_2.convert_ids_to_tokens(model.pipeline.tokenizer_2("a bright bell").input_ids)
    )
    assert int((ratio > 1.2).sum()) >= len("bright") - 1, text


def test_remove_word_removes_whole_words():
    assert remove_word("Bright brightness, bright!", "bright") == "brightness, !"
    assert remove_word("kick", "kick") == ""
