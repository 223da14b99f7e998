"""Loops: time is a circle in the network, the decoder and the vocoder, and lengths come out exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.loop_seams import seam_of
from tests.engine.test_equal_to_diffusers import loudened, order
from timbred.engine import checkpoint
from timbred.engine.adapters.families import make_resident
from timbred.engine.adapters.latent_diffusion import LatentDiffusion, Run
from timbred.engine.adapters.looping import begins, fitted, rows_of_loop, stretched
from timbred.engine.adapters.spectrogram import Analysis
from timbred.engine.adapters.wrapping import goes_around, going_around
from timbred.engine.sampling import SCHEDULERS
from timbred.engine.wire import Words

ANALYSIS = Analysis(16000, 160, 1024, 16, 0.0, 8000.0, slaney=True, reflected=True)


@pytest.fixture(scope="module", params=["audioldm2", "audioldm"])
def model(request: pytest.FixtureRequest) -> LatentDiffusion:
    folder: Path = request.getfixturevalue(request.param)
    found = checkpoint.inspect(folder, "tiny", "")
    return loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))


def evaluated(model: LatentDiffusion, run: Run, latents: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.network(latents, torch.full((len(latents),), 300), run.conditioning)


def test_the_network_treats_all_moments_alike(model: LatentDiffusion):
    """Latents turned by as many rows as the network halves give the same, turned."""
    run = model.begin(order(seconds=1.3, loop=True, guidance=3.0))
    latents = torch.cat([run.sampling.latents] * 2)
    unit = 2 ** (len(model.pipeline.unet.config.block_out_channels) - 1)
    assert latents.shape[2] % unit == 0
    with going_around(torch.ones(1)):
        still, turned = evaluated(model, run, latents), evaluated(model, run, latents.roll(unit, 2))
    assert torch.allclose(turned.roll(-unit, 2), still, atol=1e-5)
    assert not torch.allclose(evaluated(model, run, latents), still, atol=1e-3)
    assert not goes_around()


def test_rows_that_stay_are_not_touched_by_those_that_go_around(model: LatentDiffusion):
    run = model.begin(order(seconds=0.6, loop=True, guidance=3.0))
    latents = torch.cat([run.sampling.latents] * 2)
    plain = evaluated(model, run, latents)
    with going_around(torch.tensor([0.0, 1.0])):
        mixed = evaluated(model, run, latents)
    with going_around(torch.ones(1)):
        around = evaluated(model, run, latents)
    assert torch.allclose(mixed[0], plain[0], atol=1e-5)
    assert torch.allclose(mixed[1], around[1], atol=1e-5)


def made(model: LatentDiffusion, circular: tuple[bool, ...], seconds: float) -> Run:
    """A loop of which it is given which takes go around."""
    seeds = tuple(range(1, 1 + len(circular)))
    run = model.begin(order(seconds=seconds, loop=True, steps=2, seeds=seeds, words=Words(prompt="rain")))
    run.circular, run.laid_out = circular, True
    while not run.sampling.done:
        model.advance([run])
    return run


@pytest.mark.parametrize("seconds", [0.2, 0.5, 0.517, 1.2345])
def test_a_loop_that_goes_around_has_its_exact_length_and_no_seam(model: LatentDiffusion, seconds: float):
    sounds = model.finish(made(model, (True,), seconds))
    frames = round(seconds * model.rate)
    assert sounds.looped == (True,)
    around = sounds.waveforms[0, :frames]
    assert around.shape == (frames,)
    following = sounds.waveforms[0, frames:]
    assert np.array_equal(following, around[np.arange(len(following)) % frames])
    assert np.abs(around).max() > 1e-4
    assert seam_of(around, begins=False).step <= 1


def test_a_circle_of_latents_sounds_the_same_wherever_it_begins(model: LatentDiffusion):
    """Decoder and vocoder know no beginning; in ours the noise is laid along the loop, so its mel is compared."""
    run = made(model, (True,), 1.0)
    with torch.inference_mode(), going_around(torch.ones(1)):
        mel = model.spectrogram(run.sampling.latents)
        turned = model.spectrogram(run.sampling.latents.roll(2, 2))
    assert torch.allclose(turned.roll(-2 * model.factor, 1), mel, atol=1e-4)


def test_takes_of_both_kinds_come_from_one_request(model: LatentDiffusion):
    sounds = model.finish(made(model, (True, False), 0.5))
    alone = [model.finish(made(model, (kind,), 0.5)) for kind in (True, False)]
    assert sounds.looped == (True, False)
    assert np.abs(sounds.waveforms[0] - alone[0].waveforms[0]).max() < 1e-4
    assert sounds.waveforms.shape[1] >= 0.5 * model.rate


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_lays_a_loop_out(model: LatentDiffusion, scheduler: str):
    run = model.begin(order(seconds=0.5, loop=True, steps=4, scheduler=scheduler))
    laid_out = list[bool]()
    while not run.sampling.done:
        model.advance([run])
        laid_out.append(run.laid_out)
    assert laid_out[-1]
    assert np.isfinite(model.finish(run).waveforms).all()


def test_loops_share_calls_with_loops_alone(model: LatentDiffusion):
    loop, other = (model.begin(order(seconds=0.64, loop=kind)) for kind in (True, False))
    assert loop.shape != other.shape
    assert loop.shape == model.begin(order(seconds=0.64, loop=True, guidance=1.0)).shape


@given(
    seconds=st.floats(0.05, 20), rate=st.sampled_from([16000, 32000]), factor=st.sampled_from([4, 8]),
    unit=st.sampled_from([1, 2, 4, 8]),
)  # fmt: skip
def test_rows_are_enough_and_even_on_all_levels(seconds: float, rate: int, factor: int, unit: int):
    hop = rate // 100
    rows = rows_of_loop(seconds, rate, factor, hop, unit)
    assert rows % unit == 0
    assert rows * factor * hop >= seconds * rate - 1
    assert (rows - unit) * factor * hop < seconds * rate


def spectrogram(levels: list[float]) -> torch.Tensor:
    """Log mel of given powers in dB, ten frames each."""
    rows = torch.tensor(levels).repeat_interleave(10)
    return (rows / 20 * float(np.log(10)))[:, None].expand(-1, 16).clone()


def test_what_begins_louder_than_it_ends_has_a_beginning():
    assert begins(spectrogram([0.0, -20.0, -40.0, -60.0]), ANALYSIS)
    assert begins(spectrogram([0.0, -5.0, -12.0, -12.0]), ANALYSIS)
    assert not begins(spectrogram([-3.0, 0.0, -3.0, -6.0]), ANALYSIS)
    assert not begins(spectrogram([-40.0, -20.0, 0.0, -3.0]), ANALYSIS)
    assert not begins(spectrogram([0.0])[:1], ANALYSIS)


def test_a_circle_is_stretched_without_a_seam():
    turns = torch.arange(40) / 40
    mel = torch.stack([torch.sin(2 * torch.pi * (turns + place / 4)) for place in range(4)], dim=-1)[None]
    assert stretched(mel, 40) is mel
    expected = torch.arange(53) / 53
    assert torch.allclose(stretched(mel, 53)[0, :, 0], torch.sin(2 * torch.pi * expected), atol=2e-3)


@given(st.integers(40, 400), st.integers(-3, 3))
def test_a_circle_of_samples_fits_any_number_of_frames(count: int, more: int):
    """A sine of whole cycles is one of whole cycles after, to rounding."""
    sine = np.sin(2 * np.pi * 5 * np.arange(count) / count).astype(np.float32)[None]
    frames = count + more
    expected = np.sin(2 * np.pi * 5 * np.arange(frames) / frames)
    assert np.abs(fitted(sine, frames)[0] - expected).max() < 1e-5


def test_the_preview_of_a_loop_is_one(model: LatentDiffusion):
    run = model.begin(order(seconds=0.5, loop=True, steps=6))
    model.advance([run])
    model.advance([run])
    assert model.preview(run).looped == run.circular[:1]
