"""Sound as input: the analysis, the way from a given sound, and parts that are made anew."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.families.test_latent_diffusion import loudened, order, ours
from timbred.audio import Clip, SampleRate
from timbred.dsp.splice import EditedPart, OriginalAudio, splice
from timbred.engine.codecs.mel import (
    Analysis,
    analysis_of,
    bands_between,
    filter_bank,
    log_mel,
    match_mel_level,
    region_weights,
)
from timbred.engine.diffusion.init_audio import encode_samples
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import InitAudio, Repaint
from timbred.models import checkpoint
from timbred.models.families import AUDIOLDM

RATE = 16000
PUBLISHED = Analysis(16000, 160, 1024, 64, 0.0, 8000.0)


def sine(hertz: float, rate: int = RATE, seconds: float = 0.5) -> torch.Tensor:
    moments = torch.arange(int(rate * seconds)) / rate
    return torch.sin(2 * torch.pi * hertz * moments)


@pytest.fixture(scope="module", params=["audioldm2", "audioldm"])
def model(request: pytest.FixtureRequest) -> LatentDiffusion:
    folder: Path = request.getfixturevalue(request.param)
    found = checkpoint.inspect(folder, "tiny", "")
    return loudened(make_resident(found, "tiny", torch.device("cpu"), torch.float32, lambda _: None))


@pytest.mark.parametrize("hertz", [110.0, 440.0, 1000.0, 3000.0, 7000.0])
def test_analysis_of_a_sine_is_loudest_in_its_own_band(hertz: float):
    picture = log_mel(sine(hertz), PUBLISHED)
    assert picture.shape == (50, 64)
    loudest = int(picture[25].argmax())
    first, last = bands_between(PUBLISHED, hertz / 1.3, hertz * 1.3)
    assert first <= loudest <= last


def test_analysis_filters_have_equal_area():
    """Slaney's normalisation: in Hz, every triangle that has enough bins sums up to about one."""
    areas = filter_bank(PUBLISHED).sum(dim=0) * (8000 / 512)
    assert areas[20:].numpy() == pytest.approx(np.ones(44), abs=0.05)


def test_analysis_of_silence_is_at_the_floor():
    assert log_mel(torch.zeros(8000), PUBLISHED).unique().item() == pytest.approx(np.log(1e-5))


def given(strength: float, *repaint: Repaint) -> InitAudio:
    samples = (0.5 * sine(440.0)).numpy().astype("<f4").tobytes()
    return InitAudio(samples=samples, strength=strength, repaint=repaint)


def codec_round_trip(model: LatentDiffusion) -> torch.Tensor:
    return encode_samples(0.5 * sine(440.0), 0.5, model.codec)


@pytest.mark.parametrize("scheduler", AUDIOLDM.schedulers)
def test_init_audio_with_a_little_strength_changes_little(model: LatentDiffusion, scheduler: str):
    start = codec_round_trip(model)

    def distance(strength: float) -> float:
        run = model.begin(order(init_audio=given(strength), steps=12, scheduler=scheduler))
        while not run.sampler.done:
            model.advance([run])
        return float((run.sampler.latents - start).norm() / start.norm())

    little, much = distance(0.1), distance(0.9)
    assert np.isfinite([little, much]).all()
    assert little < much


@pytest.mark.parametrize("scheduler", [name for name in AUDIOLDM.schedulers if name != "heun"])
def test_init_audio_keeps_the_unchanged_part_bit_identical(model: LatentDiffusion, scheduler: str):
    """Outside the part that is made anew, the latents at the end are those of the given sound."""
    part = Repaint(start=0.2, end=0.3, low=0.0, high=96_000.0)
    run = model.begin(order(init_audio=given(1.0, part), steps=6, scheduler=scheduler))
    while not run.sampler.done:
        model.advance([run])
    start = codec_round_trip(model)
    rows = RATE / 160 / 4
    first, last = int(0.2 * rows), int(np.ceil(0.3 * rows))
    assert torch.equal(run.sampler.latents[:, :, :first], start[:, :, :first])
    assert torch.equal(run.sampler.latents[:, :, last:], start[:, :, last:])
    assert not torch.allclose(run.sampler.latents[:, :, first:last], start[:, :, first:last])


def test_init_audio_adds_new_highs_over_original_lows(model: LatentDiffusion):
    part = Repaint(start=0.0, end=0.5, low=4000.0, high=96_000.0)
    run = model.begin(order(init_audio=given(1.0, part), steps=6))
    while not run.sampler.done:
        model.advance([run])
    start = codec_round_trip(model)
    first = (
        bands_between(analysis_of(model.pipeline.vocoder), 4000.0, 96_000.0)[0] // model.latent_layout.frames_per_row
    )
    assert torch.equal(run.sampler.latents[..., :first], start[..., :first])
    assert not torch.allclose(run.sampler.latents[..., first:], start[..., first:])


@pytest.mark.parametrize(("strength", "steps"), [(0.0, 1), (0.3, 3), (0.5, 5), (1.0, 10)])
def test_init_audio_counts_the_steps_that_run(model: LatentDiffusion, strength: float, steps: int):
    reported: list[int] = []
    model.render(order(init_audio=given(strength), steps=10), reported.append, lambda: False)
    assert reported == list(range(1, steps + 1))


def test_init_audio_repeats_an_original_with_a_seed(model: LatentDiffusion):
    wanted = order(init_audio=given(0.6), seeds=(1, 2))
    one, two = ours(model, wanted), ours(model, wanted)
    assert np.array_equal(one, two)
    assert not np.allclose(one[0], one[1])


def test_init_audio_outside_the_part_is_as_near_as_the_codec_allows(model: LatentDiffusion):
    """Regenerate the middle of two seconds of tone and noise.

    The model's output around it differs from the init audio as much as the whole does after encoding and decoding; in
    the take, it is the init audio itself.
    """
    chance = torch.Generator().manual_seed(1)
    samples = 0.4 * sine(110.0, seconds=2.0) + 0.05 * torch.randn(2 * RATE, generator=chance)
    part = Repaint(start=0.8, end=1.2, low=0.0, high=96_000.0)
    wanted = InitAudio(samples=samples.numpy().astype("<f4").tobytes(), strength=1.0, repaint=(part,))
    run = model.begin(order(init_audio=wanted, seconds=2.0, steps=4, scheduler="dpm++2m"))
    while not run.sampler.done:
        model.advance([run])
    received = torch.from_numpy(model.decode(run).mono[0])
    latents = encode_samples(samples * run.init_gain, 2.0, model.codec)
    once = torch.from_numpy(model.codec.decode(latents)[0] / run.init_gain)
    analysis = analysis_of(model.pipeline.vocoder)
    original, through, made = (log_mel(sound, analysis) for sound in (samples, once, received))
    for outside in (slice(0, 76), slice(124, 200)):  # mel frames of 10 ms, up to where the analysis hears the part
        own_error = (through - original)[outside].abs().mean()
        assert own_error > 0
        assert (made - original)[outside].abs().mean() <= 1.25 * own_error
    given = Clip(samples.numpy()[:, None], SampleRate(RATE))
    take = splice(
        Clip(received.numpy()[:, None], SampleRate(RATE)),
        OriginalAudio(given, EditedPart(0.8, 1.2)),
        SampleRate(RATE),
    )
    assert np.array_equal(take.samples[:12_800], given.samples[:12_800])
    assert np.array_equal(take.samples[19_200:], given.samples[19_200:])
    assert not np.allclose(take.samples[13_500:18_500], given.samples[13_500:18_500], atol=0.01)


def test_init_audio_handles_the_edges_of_a_part():
    assert region_weights(8, 0, 8).tolist() == [1] * 8
    assert region_weights(8, 2, 8).tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert region_weights(8, 0, 2).tolist() == [0.5, 0.25, 0, 0, 0, 0, 0, 0]


def test_init_audio_gives_a_swelling_sound_its_level():
    analysis = PUBLISHED
    tone = 0.5 * sine(1000.0, analysis.rate, 1.0)
    swelling = 1.0 + 0.4 * torch.sin(2 * torch.pi * 3.0 * torch.arange(len(tone)) / analysis.rate)
    mel = log_mel(tone, analysis)[None]
    mended = match_mel_level(mel, (tone * swelling)[None], analysis)[0]
    middle = slice(analysis.rate // 10, -analysis.rate // 10)
    assert (mended - tone)[middle].abs().max() < 0.25 * (tone * swelling - tone)[middle].abs().max()
    assert torch.equal(match_mel_level(mel, torch.zeros(1, len(tone)), analysis), torch.zeros(1, len(tone)))
    assert float(match_mel_level(mel, 0.01 * tone[None], analysis).abs().max()) < 0.011, "at most twice as loud"
