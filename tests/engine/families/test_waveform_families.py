"""What the families over latents of waveforms have in common."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.families.renders import (
    AUDIBLE_PEAK,
    init_audio,
    load,
    render,
    render_in_changing_batches,
    stereo_sound,
    wave_order,
)
from timbred.engine.diffusion.generation import Generation
from timbred.engine.families.base import LatentDiffusion
from timbred.ipc.engine_messages import NoiseSource, PromptInputs, RenderOrder, Repaint

SOFT = "soft " * 60
"""Alone longer than the window of the tiny models."""

PROMPTS = ["kick", SOFT + "kick", "rain"]


@pytest.fixture(scope="module", params=["stable_audio", "stable_audio_3"])
def model(request: pytest.FixtureRequest) -> LatentDiffusion:
    folder: Path = request.getfixturevalue(request.param)
    return load(folder)


def order(model: LatentDiffusion, **changes: object) -> RenderOrder:
    return wave_order(**{"scheduler": model.spec.facts.schedulers[0], **changes})


def finished(model: LatentDiffusion, wanted: RenderOrder) -> Generation:
    generation = model.begin(wanted)
    while not generation.sampler.done:
        model.advance([generation])
    return generation


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.5])
def test_waveform_stream_equals_whole(model: LatentDiffusion, seconds: float):
    generation = finished(model, order(model, seconds=seconds, steps=2))
    whole = model.decode(generation).waveforms
    stream = model.begin_stream(generation)
    pieces: list[torch.Tensor] = []
    while not stream.done:
        if (piece := stream.render_piece()) is not None:
            assert piece.first == sum(part.shape[1] for part in pieces)
            pieces.append(piece.samples)
    assert stream.frames == whole.shape[1]
    assert 0.0 < stream.peak <= np.abs(whole).max() + 1e-4
    np.testing.assert_allclose(torch.cat(pieces, dim=1).numpy(), whole, atol=1e-5)


def test_waveform_stream_begins_before_whole_is_decoded(model: LatentDiffusion):
    generation = finished(model, order(model, seconds=0.5, steps=2))
    stream = model.begin_stream(generation)
    stream.render_piece()
    assert not stream.done
    assert 0 < stream.waveforms.shape[1] < stream.frames


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": PromptInputs(prompt=SOFT + "kick drum")},
        {"inputs": PromptInputs(prompt="pad", negative=SOFT + "hiss")},
        {"inputs": PromptInputs(prompt="pad", prompt2=SOFT + "bell", mix=0.5)},
        {"inputs": PromptInputs(prompt=SOFT + "kick drum", weights=(("kick", 2.0),))},
        {"inputs": PromptInputs(prompt="kick drum", weights=(("drum", 0.0),)), "guidance": 1.0},
    ],
    ids=str,
)
def test_waveform_words_are_read_to_their_end(model: LatentDiffusion, changes: dict[str, object]):
    made = render(model, order(model, **changes))
    assert np.isfinite(made).all()
    assert np.abs(made - render(model, order(model, inputs=PromptInputs(prompt="pad")))).max() > 1e-5


def test_waveform_end_of_long_prompt_changes_the_sound(model: LatentDiffusion):
    one, other = (
        render(model, order(model, inputs=PromptInputs(prompt=SOFT + end))) for end in ("kick drum", "hi-hat")
    )
    assert not np.array_equal(one, other)


def test_waveform_mix_ends_equal_single_prompts(model: LatentDiffusion):
    one, other = (render(model, order(model, inputs=PromptInputs(prompt=words))) for words in ("a kick", "rain"))
    for mix, expected in ((0.0, one), (1.0, other)):
        mixed = render(model, order(model, inputs=PromptInputs(prompt="a kick", prompt2="rain", mix=mix)))
        assert np.array_equal(mixed, expected)


def test_waveform_last_preview_is_the_sound(model: LatentDiffusion):
    """What the network expects at the last step is what comes out, for schedulers that end without noise."""
    generation = model.begin(order(model, seeds=(1, 2)))
    while not generation.sampler.done:
        model.advance([generation])
        assert np.isfinite(model.preview(generation).waveforms).all()
    np.testing.assert_allclose(model.preview(generation).waveforms, model.decode(generation).waveforms[:1], atol=1e-4)


def test_noise_source_of_another_length_is_reused(model: LatentDiffusion):
    source = NoiseSource(seed=7, seconds=0.2)
    noise = model.begin(order(model, seeds=(9,), noise=source)).sampler.noise
    earlier = model.begin(order(model, seeds=(7,), seconds=0.2)).sampler.noise
    assert torch.equal(noise[:, :, : earlier.shape[2]], earlier)
    assert noise.shape == model.begin(order(model)).sampler.noise.shape


@pytest.fixture(scope="module", params=["stable_audio", "stable_audio_3", "ace_step"])
def looping_model(request: pytest.FixtureRequest) -> LatentDiffusion:
    folder: Path = request.getfixturevalue(request.param)
    return load(folder)


@pytest.mark.parametrize("seconds", [0.4, 0.401], ids=["whole-rows", "cut"])
def test_waveform_loop_has_its_exact_length_and_no_step_at_its_ends(looping_model: LatentDiffusion, seconds: float):
    wanted = order(looping_model, seconds=seconds, loop=True, seeds=(1, 2))
    sounds = looping_model.render(wanted, lambda _: None, lambda: False)
    assert sounds.looped == (True, True)
    assert sounds.waveforms.shape[1:] == (round(seconds * sounds.rate), 2)
    largest = np.abs(np.diff(sounds.waveforms, axis=1)).max(axis=(1, 2))
    assert (np.abs(sounds.waveforms[:, 0] - sounds.waveforms[:, -1]).max(axis=1) <= largest).all()
    assert (np.abs(sounds.waveforms).max(axis=(1, 2)) > AUDIBLE_PEAK).all()


def test_waveform_circle_of_rotated_latents_is_the_rotated_circle(looping_model: LatentDiffusion):
    layout = looping_model.latent_layout
    latents = torch.randn(1, layout.channels, 24, generator=torch.Generator().manual_seed(3))
    circle = looping_model.codec.decode_circle(latents)
    rotated = looping_model.codec.decode_circle(latents.roll(7, dims=2))
    np.testing.assert_allclose(rotated, np.roll(circle, 7 * layout.samples_per_row, axis=1), atol=1e-4)


def test_waveform_loop_is_rotated_before_each_step(looping_model: LatentDiffusion):
    generation = looping_model.begin(order(looping_model, loop=True, guidance=1.0))
    rows, rotations = generation.rotated_rows, list[int]()
    while not generation.sampler.done:
        plain, seen = generation.sampler.network_input()[:, :, :rows], generation.network_input()
        rotations += [rows_ for rows_ in range(rows) if torch.equal(seen[:, :, :rows], plain.roll(rows_, dims=2))]
        assert torch.equal(seen[:, :, rows:], generation.sampler.network_input()[:, :, rows:])
        looping_model.advance([generation])
    assert len(set(rotations)) == len(rotations) == generation.order.steps


def test_waveform_loops_in_one_batch_equal_their_solo_runs(looping_model: LatentDiffusion):
    wanted = [order(looping_model, loop=True, guidance=1.0, seeds=(seed,)) for seed in (3, 4)]
    alone = [render(looping_model, one) for one in wanted]
    first, second = (looping_model.begin(one) for one in wanted)
    looping_model.advance([first])
    while not first.sampler.done:
        looping_model.advance([first, second])
    while not second.sampler.done:
        looping_model.advance([second])
    for generation, expected in zip((first, second), alone, strict=True):
        np.testing.assert_allclose(looping_model.decode(generation).waveforms, expected, atol=1e-4)


def test_waveform_extension_beyond_the_longest_sound_is_rendered_in_windows(looping_model: LatentDiffusion):
    sound, rate = stereo_sound(0.3), looping_model.latent_layout.rate
    wanted = order(looping_model, seconds=1.3, window=0.512, init_audio=init_audio(sound, 0.5), seeds=(1, 2), steps=3)
    told = list[int]()
    sounds = looping_model.render(wanted, told.append, lambda: False)
    windows = looping_model.begin(wanted).wave_windows
    assert windows is not None
    assert told == list(range(1, 3 * windows.window_count + 1))
    assert windows.window_count > 2
    assert sounds.first_frame + sounds.waveforms.shape[1] == round(1.3 * rate)
    assert sounds.first_frame < len(sound)
    alone = looping_model.render(
        order(looping_model, seconds=1.3, window=0.512, init_audio=init_audio(sound, 0.5), seeds=(2,), steps=3),
        lambda _: None,
        lambda: False,
    )
    np.testing.assert_allclose(alone.waveforms[0], sounds.waveforms[1], atol=2e-4)
    for piece in np.array_split(sounds.waveforms, windows.window_count, axis=1):
        assert np.abs(piece).max() > AUDIBLE_PEAK


def chance_orders(model: LatentDiffusion, chance: random.Random) -> list[RenderOrder]:
    sound = stereo_sound(0.3)
    givens = [None, init_audio(sound, 0.6), init_audio(sound, 1.0, Repaint(start=0.1, end=0.2, low=0.0, high=96_000.0))]
    return [
        order(
            model,
            inputs=PromptInputs(
                prompt=chance.choice(["kick", SOFT + "kick", "rain"]), negative=chance.choice(["", "hum"])
            ),
            init_audio=chance.choice(givens),
            seconds=0.3,
            steps=chance.randint(3, 6),
            guidance=chance.choice([1.0, 3.0]),
            scheduler=chance.choice(model.spec.facts.schedulers),
            seeds=tuple(chance.randrange(1000) for _ in range(chance.randint(1, 2))),
        )
        for _ in range(8)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_generation_in_a_changing_batch_equals_its_solo_run(model: LatentDiffusion, seed: int):
    """Eight jobs start at random moments, some are dropped on the way, the others step together by shape."""
    chance = random.Random(seed)
    wanted = chance_orders(model, chance)
    sounds, shared = render_in_changing_batches(model, wanted, chance, start_probability=0.6)
    assert len(sounds) >= 3
    assert shared, "some steps must be shared"
    for number, together in sounds.items():
        alone = render(model, wanted[number])
        assert np.abs(alone).max() > 0.01
        assert np.abs(together.waveforms - alone).max() < 1e-4
