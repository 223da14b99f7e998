"""Loops: time is a circle in the network, the decoder and the vocoder, and lengths come out exactly."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.loaded import POCKET, TINY_MODELS, LoadedModel, loaded_model
from benchmarks.loop_seams import MAX_FLUX_RATIO, RATE_HZ, Seam, measure_seam, render_loop
from tests.engine.families.test_latent_diffusion import loudened, order
from timbred.engine.batching import circular_time, is_circular
from timbred.engine.codecs.mel import Analysis
from timbred.engine.codecs.mel_vae import count_loop_rows
from timbred.engine.compile.compiled_calls import CALLS_BEFORE_COMPILING, CompileQueue
from timbred.engine.diffusion.generation import Generation
from timbred.engine.diffusion.looping import (
    CUT_CROSSFADE_S,
    MAX_RESAMPLED_FRACTION,
    MAX_ROTATION_S,
    has_attack,
    plan_circle_lengths,
    resample_circle,
    rotate_to_calm,
    shorten_circle,
    stretch_mel,
)
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import PromptInputs
from timbred.models import checkpoint
from timbred.models.families import AUDIOLDM

ANALYSIS = Analysis(16000, 160, 1024, 16, 0.0, 8000.0)


@pytest.fixture(scope="module", params=["audioldm2", "audioldm"])
def model(request: pytest.FixtureRequest) -> LatentDiffusion:
    folder: Path = request.getfixturevalue(request.param)
    found = checkpoint.inspect(folder, "tiny", "")
    return loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))


def evaluated(model: LatentDiffusion, run: Generation, latents: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.denoiser(latents, torch.full((len(latents),), 300), run.conditioning)


def test_circular_time_treats_all_moments_alike_in_the_network(model: LatentDiffusion):
    """Latents turned by as many rows as the network halves give the same, turned."""
    run = model.begin(order(seconds=1.3, loop=True, guidance=3.0))
    latents = torch.cat([run.sampler.latents] * 2)
    unit = 2 ** (len(model.pipeline.unet.config.block_out_channels) - 1)
    assert latents.shape[2] % unit == 0
    with circular_time(torch.ones(1)):
        still, turned = evaluated(model, run, latents), evaluated(model, run, latents.roll(unit, 2))
    assert torch.allclose(turned.roll(-unit, 2), still, atol=1e-5)
    assert not torch.allclose(evaluated(model, run, latents), still, atol=1e-3)
    assert not is_circular()


def test_circular_time_leaves_other_rows(model: LatentDiffusion):
    run = model.begin(order(seconds=0.6, loop=True, guidance=3.0))
    latents = torch.cat([run.sampler.latents] * 2)
    plain = evaluated(model, run, latents)
    with circular_time(torch.tensor([0.0, 1.0])):
        mixed = evaluated(model, run, latents)
    with circular_time(torch.ones(1)):
        around = evaluated(model, run, latents)
    assert torch.allclose(mixed[0], plain[0], atol=1e-5)
    assert torch.allclose(mixed[1], around[1], atol=1e-5)


def made(model: LatentDiffusion, circular: tuple[bool, ...], seconds: float) -> Generation:
    """A loop of which it is given which takes go around."""
    seeds = tuple(range(1, 1 + len(circular)))
    run = model.begin(order(seconds=seconds, loop=True, steps=2, seeds=seeds, inputs=PromptInputs(prompt="rain")))
    run.circular, run.loop_kinds_known = circular, True
    while not run.sampler.done:
        model.advance([run])
    return run


@pytest.mark.parametrize("seconds", [0.2, 0.5, 0.517, 1.2345])
def test_looping_has_its_exact_length_and_no_seam(model: LatentDiffusion, seconds: float):
    sounds = model.decode(made(model, (True,), seconds))
    frames = round(seconds * model.latent_layout.rate)
    assert sounds.looped == (True,)
    around = sounds.mono[0, :frames]
    assert around.shape == (frames,)
    following = sounds.mono[0, frames:]
    assert np.array_equal(following, around[np.arange(len(following)) % frames])
    assert np.abs(around).max() > 1e-4
    assert measure_seam(around, has_attack=False).step <= 1


def test_looping_latents_sound_equal_from_any_start(model: LatentDiffusion):
    """Decoder and vocoder know no beginning; in ours the noise is laid along the loop, so its mel is compared."""
    run = made(model, (True,), 1.0)
    with torch.inference_mode():
        mel = model.codec.decode_mel(run.sampler.latents, torch.ones(1))
        turned = model.codec.decode_mel(run.sampler.latents.roll(2, 2), torch.ones(1))
    assert torch.allclose(turned.roll(-2 * model.latent_layout.frames_per_row, 1), mel, atol=1e-4)


def test_looping_and_plain_takes_come_from_one_request(model: LatentDiffusion):
    sounds = model.decode(made(model, (True, False), 0.5))
    alone = [model.decode(made(model, (kind,), 0.5)) for kind in (True, False)]
    assert sounds.looped == (True, False)
    assert np.abs(sounds.mono[0] - alone[0].mono[0]).max() < 1e-4
    assert sounds.mono.shape[1] >= 0.5 * model.latent_layout.rate


@pytest.mark.parametrize("scheduler", AUDIOLDM.schedulers)
def test_looping_works_with_every_scheduler(model: LatentDiffusion, scheduler: str):
    run = model.begin(order(seconds=0.5, loop=True, steps=4, scheduler=scheduler))
    laid_out = list[bool]()
    while not run.sampler.done:
        model.advance([run])
        laid_out.append(run.loop_kinds_known)
    assert laid_out[-1]
    assert np.isfinite(model.decode(run).mono).all()


def test_looping_shares_calls_with_loops_alone(model: LatentDiffusion):
    loop, other = (model.begin(order(seconds=0.64, loop=kind)) for kind in (True, False))
    assert loop.shape != other.shape
    assert loop.shape == model.begin(order(seconds=0.64, loop=True, guidance=1.0)).shape


@given(
    seconds=st.floats(0.05, 20), rate=st.sampled_from([16000, 32000]), factor=st.sampled_from([4, 8]),
    unit=st.sampled_from([1, 2, 4, 8]),
)  # fmt: skip
def test_count_loop_rows_suffices_and_is_even_on_all_levels(seconds: float, rate: int, factor: int, unit: int):
    hop = rate // 100
    rows = count_loop_rows(seconds, rate, factor, hop, unit)
    assert rows % unit == 0
    assert rows * factor * hop >= seconds * rate - 1
    assert (rows - unit) * factor * hop < seconds * rate


def spectrogram(levels: list[float]) -> torch.Tensor:
    """Log mel of given powers in dB, ten frames each."""
    rows = torch.tensor(levels).repeat_interleave(10)
    return (rows / 20 * float(np.log(10)))[:, None].expand(-1, 16).clone()


def test_looping_starts_at_a_beginning_that_is_louder_than_the_end():
    assert has_attack(spectrogram([0.0, -20.0, -40.0, -60.0]), ANALYSIS)
    assert has_attack(spectrogram([0.0, -5.0, -12.0, -12.0]), ANALYSIS)
    assert not has_attack(spectrogram([-3.0, 0.0, -3.0, -6.0]), ANALYSIS)
    assert not has_attack(spectrogram([-40.0, -20.0, 0.0, -3.0]), ANALYSIS)
    assert not has_attack(spectrogram([0.0])[:1], ANALYSIS)


def test_looping_stretches_a_circle_without_a_seam():
    turns = torch.arange(40) / 40
    mel = torch.stack([torch.sin(2 * torch.pi * (turns + place / 4)) for place in range(4)], dim=-1)[None]
    assert stretch_mel(mel, 40) is mel
    expected = torch.arange(53) / 53
    assert torch.allclose(stretch_mel(mel, 53)[0, :, 0], torch.sin(2 * torch.pi * expected), atol=2e-3)


@given(st.integers(40, 400), st.integers(-3, 3))
def test_looping_fits_a_circle_to_any_number_of_frames(count: int, more: int):
    """A sine of whole cycles is one of whole cycles after, to rounding."""
    sine = np.sin(2 * np.pi * 5 * np.arange(count) / count).astype(np.float32)[None]
    frames = count + more
    expected = np.sin(2 * np.pi * 5 * np.arange(frames) / frames)
    assert np.abs(resample_circle(sine, frames)[0] - expected).max() < 1e-5


@given(st.integers(1600, 200_000), st.sampled_from([160, 320]))
def test_looping_uses_as_many_frames_as_keep_the_pitch(frames: int, hop: int):
    counts = plan_circle_lengths(frames, hop)
    if len(counts) == 1:
        assert abs(1200 * np.log2(counts[0] * hop / frames)) < 3.1
    else:
        assert all(count * hop >= frames for count in counts)


def circle(frames: int, *cycles: int) -> np.ndarray:
    turns = np.arange(frames) / frames
    tones = [0.2 * np.sin(2 * np.pi * (count * turns + count / 7)) for count in cycles]
    return np.asarray(np.sum(tones, axis=0), dtype=np.float32)


@pytest.mark.parametrize("frames", [16_000 + 160, 16_000 + 40, 30_055, 40_123])
@pytest.mark.parametrize("hertz", [(110,), (220, 330, 440), (261, 329, 415)])
def test_looping_cut_keeps_the_pitch(frames: int, hertz: tuple[int, ...]):
    """All but a crossfade of the result is the circle's own, sample by sample; there it is alike."""
    found: list[tuple[np.ndarray, np.ndarray, float]] = []
    for count in [count * 320 for count in plan_circle_lengths(frames, 320)]:
        whole = circle(count, *(round(one * count / 32_000) for one in hertz))
        found.append((whole, *shorten_circle(whole, frames, 32_000)))
    whole, made, alike = max(found, key=lambda one: one[2])
    assert alike > 0.7
    assert abs(1200 * np.log2(len(made) / frames)) < 3.1
    left_out, fade = len(whole) - len(made), round(CUT_CROSSFADE_S * 32_000)
    same_before = np.cumprod(made == whole[: len(made)]).sum()
    same_after = np.cumprod(made[::-1] == whole[::-1][: len(made)]).sum()
    assert same_before + same_after + fade >= len(made)
    assert left_out >= 0
    assert np.abs(np.diff(made)).max() <= 1.1 * np.abs(np.diff(whole)).max()
    assert abs(float(made[0] - made[-1])) <= np.abs(np.diff(whole)).max()
    levels = [float(np.mean(made[place : place + 800] ** 2)) for place in range(0, len(made) - 800, 400)]
    usual = [float(np.mean(whole[place : place + 800] ** 2)) for place in range(0, len(whole) - 800, 400)]
    assert min(levels) > 0.6 * min(usual)
    assert max(levels) < 1.6 * max(usual)


@given(seed=st.integers(0, 99), frames=st.integers(400, 20_000))
def test_looping_cuts_a_circle_where_it_is_calm(seed: int, frames: int):
    chance = np.random.default_rng(seed)
    noise = chance.standard_normal(frames).astype(np.float32)
    turned = rotate_to_calm(noise, 32_000)
    by = next(by for by in range(-641, 642) if np.array_equal(np.roll(noise, by), turned))
    assert abs(by) <= MAX_ROTATION_S * 32_000 + 40


def test_looping_does_not_cut_at_a_click():
    samples = circle(32_000, 200, 300)
    samples[:20] += 1.0
    turned = rotate_to_calm(samples, 32_000)
    assert np.abs(np.concatenate([turned[-100:], turned[:100]])).max() < 0.5
    assert measure_seam(turned, has_attack=False).plain < 0.1 * measure_seam(samples, has_attack=False).plain


@given(seed=st.integers(0, 99), frames=st.integers(1600, 20_000), more=st.integers(0, 900))
def test_looping_cuts_any_circle(seed: int, frames: int, more: int):
    noise = np.random.default_rng(seed).standard_normal(frames + more).astype(np.float32)
    made, alike = shorten_circle(noise, frames, 32_000)
    assert abs(len(made) - frames) <= max(1, MAX_RESAMPLED_FRACTION * frames)
    assert -1.001 <= alike <= 1.001
    assert np.mean(made**2) == pytest.approx(np.mean(noise**2), rel=0.2)


def test_looping_preview_is_a_loop(model: LatentDiffusion):
    run = model.begin(order(seconds=0.5, loop=True, steps=6))
    model.advance([run])
    model.advance([run])
    assert model.preview(run).looped == run.circular[:1]


def forbidden(*_inputs: object) -> torch.Tensor:
    pytest.fail("the plain call was used")


@pytest.mark.parametrize("family", ["audioldm2", "audioldm"])
def test_looping_uses_compiled_calls(
    family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Calls whose rows go around are prepared like others, beside them, and give the same."""
    folder: Path = request.getfixturevalue(family)
    found = checkpoint.inspect(folder, "tiny", "")
    fast = loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))
    kinds = ((True,), (False,))
    expected = [made(fast, circular, 0.64).sampler.latents for circular in kinds]
    workshop = CompileQueue("auto", torch.device("cpu"), tmp_path)
    fast.use_compile_queue(workshop)
    for _ in range(CALLS_BEFORE_COMPILING):
        made(fast, (True,), 0.64)
    workshop.wait()
    assert (workshop.counts.packed, workshop.counts.failed) == (1, 0)
    monkeypatch.setattr(fast.denoiser.compiled_calls, "call_plain", forbidden)
    for circular, latents in zip(kinds, expected, strict=True):
        assert torch.allclose(made(fast, circular, 0.64).sampler.latents, latents, atol=1e-4)


@pytest.fixture(scope="module")
def embedded() -> Iterator[LoadedModel]:
    with loaded_model(POCKET) as loaded:
        yield loaded


@pytest.mark.parametrize(
    ("prompt", "seconds"), [("warm pad c3", 0.5), ("violin c4", 0.515), ("church organ c3", 0.905)]
)
def test_looping_of_the_embedded_model_has_no_seam(embedded: LoadedModel, prompt: str, seconds: float):
    """As files at 48 kHz; `python -m benchmarks loop_seams` has twenty."""
    samples, around = render_loop(embedded, prompt, seconds, seed=4)
    assert around
    assert samples.shape == (round(seconds * RATE_HZ), 2)
    for seam in (measure_seam(channel, has_attack=False) for channel in samples.T):
        assert seam.step <= 1
        assert seam.flux <= MAX_FLUX_RATIO
        assert seam.plain <= MAX_FLUX_RATIO


@pytest.mark.parametrize("name", TINY_MODELS)
def test_looping_of_waveform_families_has_no_seam(name: str):
    """The seam of a tiny model's loop is one position of its noise among others."""
    seams: list[Seam] = []
    with loaded_model(name) as loaded:
        for seed, seconds in enumerate((0.25, 0.3, 0.4, 0.45, 0.475, 0.5)):
            samples, around = render_loop(loaded, "rain", seconds, seed)
            assert around
            assert samples.shape == (round(seconds * RATE_HZ), 2)
            seams += [measure_seam(channel, has_attack=False) for channel in samples.T]
    assert 0.25 < np.mean([seam.rank for seam in seams]) < 0.75
    assert np.mean([seam.step for seam in seams]) <= 1
