"""ACE-Step against diffusers' own pipeline: float32, the same seed, each task.

The stock pipeline draws the latents of given audio by a random generator that can't be set; here both take their mean.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_oobleck import OobleckDiagonalGaussianDistribution
from msgspec import structs

from tests import checkpoints
from tests.engine.families.renders import (
    TOLERANCE,
    assert_equal_sounds,
    assert_shared_steps_equal_solo,
    generator,
    init_audio,
    load,
    render,
    stereo_sound,
    wave_order,
)
from timbred.engine.diffusion.sampler import make_generators, make_scheduler
from timbred.engine.families.base import LatentDiffusion
from timbred.errors import ModelError
from timbred.ipc.engine_messages import NoiseSource, PromptInputs, RenderOrder, Repaint
from timbred.models import checkpoint

ROWS_S = 128 / checkpoints.WAVE_RATE
"""Seconds of a row of latents."""

SECONDS = 32 * ROWS_S


def order(**changes: Any) -> RenderOrder:
    inputs = PromptInputs(prompt="a bell", lyrics="hello there")
    return wave_order(**{"scheduler": "flow-euler", "guidance": 1.0, "seconds": SECONDS, "inputs": inputs, **changes})


@pytest.fixture(scope="module")
def model(ace_step: Path) -> LatentDiffusion:
    return load(ace_step)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    return load(checkpoints.ace_step(tmp_path_factory.mktemp("base"), seed=3, turbo=False, covers=False))


@pytest.fixture(autouse=True)
def mean_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OobleckDiagonalGaussianDistribution, "sample", OobleckDiagonalGaussianDistribution.mode)


def stock(model: LatentDiffusion, wanted: RenderOrder, **more: Any) -> torch.Tensor:
    """Render an order with the stock pipeline, one call for each seed: (takes, channels, frames)."""
    pipeline = model.pipeline
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler(wanted.scheduler, model.scheduler_config)
    inputs = wanted.inputs
    sounds = [
        pipeline(
            inputs.prompt,
            inputs.lyrics,
            audio_duration=wanted.seconds,
            vocal_language=inputs.language,
            bpm=inputs.bpm or None,
            keyscale=inputs.key or None,
            timesignature=inputs.signature.partition("/")[0] or None,
            num_inference_steps=wanted.steps,
            guidance_scale=wanted.guidance,
            generator=generator(seed),
            **more,
        ).audios
        for seed in wanted.seeds
    ]
    return torch.cat(sounds)[:, :, : int(wanted.seconds * checkpoints.WAVE_RATE)]


def given(strength: float = 1.0, *repaint: Repaint, seconds: float = SECONDS) -> tuple[Any, torch.Tensor]:
    """Return the same sound as init audio, and as the stock pipeline takes it."""
    sound = stereo_sound(seconds)
    return init_audio(sound, strength, *repaint), torch.from_numpy(np.ascontiguousarray(sound.T))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"guidance": 5.0},
        {"seeds": (1, 2, 3)},
        {"steps": 1},
        {"steps": 8},
        {"seconds": 0.3},
        {"seconds": 2.5},
        {"inputs": PromptInputs(prompt="a bell")},
        {
            "inputs": PromptInputs(
                prompt="a song", lyrics="[verse] la la", language="de", bpm=120, key="C major", signature="3/4"
            )
        },
    ],
    ids=str,
)
def test_render_equals_stock_with_every_parameter(model: LatentDiffusion, changes: dict[str, Any]):
    wanted = order(**changes)
    assert_equal_sounds(render(model, wanted), stock(model, wanted))


@pytest.mark.parametrize(
    "changes", [{"guidance": 7.0}, {"guidance": 1.0}, {"guidance": 3.0, "seeds": (1, 2), "steps": 9}], ids=str
)
def test_render_of_base_checkpoint_equals_stock(base: LatentDiffusion, changes: dict[str, Any]):
    wanted = order(**changes)
    assert_equal_sounds(render(base, wanted), stock(base, wanted))


def test_render_equals_stock_with_reference(model: LatentDiffusion):
    reference, audio = given(seconds=1.0)
    wanted = order(reference=reference, seeds=(4, 5))
    made = render(model, wanted)
    assert_equal_sounds(made, stock(model, wanted, reference_audio=audio))
    assert np.abs(made - render(model, order(seeds=(4, 5)))).max() > 1e-3


def test_render_equals_stock_repainting(model: LatentDiffusion):
    start, end = 8 * ROWS_S, 20 * ROWS_S
    init, audio = given(1.0, Repaint(start=start, end=end, low=0.0, high=96_000.0))
    wanted = order(init_audio=init, seeds=(4, 5))
    expected = stock(model, wanted, task_type="repaint", src_audio=audio, repainting_start=start, repainting_end=end)
    assert_equal_sounds(render(model, wanted), expected)


@pytest.mark.parametrize(
    ("task", "track"),
    [("cover", ""), ("extract", "vocals"), ("extract", ""), ("lego", "drums"), ("complete", "bass"), ("complete", "")],
)
def test_render_equals_stock_with_every_task(model: LatentDiffusion, task: str, track: str):
    init, audio = given()
    wanted = order(init_audio=init, inputs=PromptInputs(prompt="a bell", lyrics="la", task=task, track=track))
    expected = stock(
        model,
        wanted,
        task_type=task,
        src_audio=audio,
        track_name=track or None,
        complete_track_classes=[track] if track else None,
    )
    assert_equal_sounds(render(model, wanted), expected)


def test_ace_step_context_of_regions_is_that_of_each_region(model: LatentDiffusion):
    """In a region, the context with both regions equals the context with that region alone."""
    parts = [Repaint(start=a * ROWS_S, end=b * ROWS_S, low=0.0, high=96_000.0) for a, b in ((4, 8), (20, 24))]

    def context(*regions: Repaint) -> torch.Tensor:
        return model.begin(order(init_audio=given(1.0, *regions)[0])).conditioning["context"]

    both, first, second = context(*parts), context(parts[0]), context(parts[1])
    torch.testing.assert_close(both[:, :12], first[:, :12])
    torch.testing.assert_close(both[:, 12:], second[:, 12:])
    assert both[0, :, -1].tolist() == [float(4 <= row < 8 or 20 <= row < 24) for row in range(32)]


def test_render_equals_stock_completing_with_several_tracks(model: LatentDiffusion):
    init, audio = given()
    wanted = order(
        init_audio=init, inputs=PromptInputs(prompt="a bell", lyrics="la", task="complete", track="bass drums")
    )
    expected = stock(model, wanted, task_type="complete", src_audio=audio, complete_track_classes=["bass", "drums"])
    assert_equal_sounds(render(model, wanted), expected)


@pytest.mark.parametrize("key", ["prompt", "lyrics"])
def test_ace_step_names_texts_of_which_it_reads_the_beginning(model: LatentDiffusion, key: str):
    short, long = PromptInputs(prompt="a bell", lyrics="la"), "na na hey hey " * 200
    assert model.find_long_texts(short) == []
    (found,) = model.find_long_texts(structs.replace(short, **{key: long}))
    assert (found.key, found.characters, found.parts) == (key, len(long), 1)
    assert 0 < found.read < len(long)
    texts = (long, long[: found.read] + "another end" * 50)
    one, other = (render(model, order(inputs=structs.replace(short, **{key: text}))) for text in texts)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seeds", [(7,), (4, 5)], ids=str)
def test_render_equals_stock_cover_of_less_strength(model: LatentDiffusion, seeds: tuple[int, ...]):
    init, audio = given(0.3)
    wanted = order(init_audio=init, seeds=seeds, inputs=PromptInputs(prompt="a bell", lyrics="la", task="cover"))
    made = render(model, wanted)
    assert_equal_sounds(made, stock(model, wanted, task_type="cover", src_audio=audio, audio_cover_strength=0.3))
    full = structs.replace(wanted, init_audio=given()[0])
    assert np.abs(made - render(model, full)).max() > 1e-3


def test_ace_step_lego_in_a_part_equals_stock(model: LatentDiffusion):
    start, end = 8 * ROWS_S, 20 * ROWS_S
    init, audio = given(1.0, Repaint(start=start, end=end, low=0.0, high=96_000.0))
    wanted = order(init_audio=init, inputs=PromptInputs(prompt="a bell", task="lego", track="drums"))
    expected = stock(
        model,
        wanted,
        task_type="lego",
        src_audio=audio,
        track_name="drums",
        repainting_start=start,
        repainting_end=end,
    )
    assert_equal_sounds(render(model, wanted), expected)


def test_render_equals_stock_with_given_noise(model: LatentDiffusion):
    wanted = order(seeds=(9,), noise=NoiseSource(seed=7, seconds=SECONDS))
    noise = torch.randn((1, 32, 4), generator=make_generators((7,))[0])
    assert_equal_sounds(render(model, wanted), stock(model, wanted, latents=noise))


def test_render_with_less_strength_stays_closer_to_init_audio(model: LatentDiffusion):
    init, audio = given()
    codec = model.codec.decode(model.codec.encode(audio, 32, make_generators((1,))))

    def distance(strength: float) -> float:
        init, _ = given(strength)
        return float(np.abs(render(model, order(init_audio=init, steps=10)) - codec).mean())

    assert init.strength == 1.0
    assert distance(0.1) < distance(0.5) < distance(1.0)


def test_ace_step_extension_is_repainting_of_the_end(model: LatentDiffusion):
    init, audio = given(seconds=16 * ROWS_S)
    wanted = order(init_audio=init, window=SECONDS)
    padded = torch.nn.functional.pad(audio, (0, audio.shape[1]))
    expected = stock(
        model, wanted, task_type="repaint", src_audio=padded, repainting_start=16 * ROWS_S, repainting_end=SECONDS
    )
    # the stock pipeline encodes the silence after the sound too, whose first rows hear its end
    assert_equal_sounds(render(model, wanted), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "rain"},
        {"lyrics": "la la"},
        {"bpm": 120},
        {"key": "C major"},
        {"signature": "3/4"},
        {"language": "de"},
    ],
    ids=str,
)
def test_ace_step_every_word_changes_the_sound(model: LatentDiffusion, changes: dict[str, Any]):
    plain: dict[str, Any] = {"prompt": "a bell", "lyrics": "hello there"}
    one, other = (render(model, order(inputs=PromptInputs(**words))) for words in (plain, {**plain, **changes}))
    assert np.abs(one - other).max() > 2 * TOLERANCE


def test_ace_step_cover_without_audio_tokenizer_is_refused(base: LatentDiffusion):
    init, _ = given()
    with pytest.raises(ModelError, match="no audio tokenizer"):
        render(base, order(init_audio=init, inputs=PromptInputs(prompt="a bell", task="cover")))


def test_take_alone_equals_take_in_batch(base: LatentDiffusion):
    """Also with guidance that remembers earlier steps."""
    alone = render(base, order(guidance=5.0, seeds=(5,), steps=6))[0]
    among = render(base, order(guidance=5.0, seeds=(9, 5, 11), steps=6))[1]
    np.testing.assert_allclose(alone, among, atol=1e-5)


def test_ace_step_generations_of_one_shape_step_together_as_alone(base: LatentDiffusion):
    wanted = [order(guidance=5.0, steps=steps, seeds=(steps,)) for steps in (4, 6)]
    assert_shared_steps_equal_solo(base, wanted)


def test_ace_step_stream_equals_whole(model: LatentDiffusion):
    generation = model.begin(order())
    while not generation.sampler.done:
        model.advance([generation])
    stream = model.begin_stream(generation)
    while not stream.done:
        stream.render_piece()
    np.testing.assert_allclose(stream.waveforms.numpy(), model.decode(generation).waveforms, atol=1e-6)
    assert stream.peak == pytest.approx(10 ** (-1 / 20), abs=1e-5)


@pytest.mark.parametrize(("turbo", "steps", "guidance"), [(True, 8, 1.0), (False, 50, 7.0)])
def test_checkpoint_declares_its_sound(tmp_path: Path, turbo: bool, steps: int, guidance: float):
    found = checkpoint.inspect(checkpoints.ace_step(tmp_path / "ace", turbo=turbo, covers=turbo), "tiny", "")
    assert found.family.name == "ace-step"
    assert (found.sound.rate, found.sound.channels, found.sound.max_seconds) == (8000, 2, 600.0)
    assert (found.sound.steps, found.sound.guidance) == (steps, guidance)
    assert ("audio_tokenizer" in found.classes) == turbo
