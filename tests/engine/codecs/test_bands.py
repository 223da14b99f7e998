import numpy as np
import pytest
import torch

from timbred.engine.codecs.bands import CHANNELS, Frames, analyse, synthesise
from timbred.models.pocket import SAMPLE_RATE
from training.pocket.features import from_bytes, to_bytes
from training.pocket.measures import harmonics_to_noise, log_spectral_distance, spectrum

SECONDS = 1.5
SAMPLES = int(SECONDS * SAMPLE_RATE)
TIME = np.arange(SAMPLES) / SAMPLE_RATE
MIDDLE = slice(SAMPLES // 5, SAMPLES * 4 // 5)


def tone(hertz: float, partials: int = 12) -> np.ndarray:
    numbers = np.arange(1, partials + 1)[:, None]
    numbers = numbers[numbers[:, 0] * hertz < 18_000]
    return 0.3 * (np.sin(2 * np.pi * numbers * hertz * TIME) / numbers).sum(0)


def resynthesise(left: np.ndarray, right: np.ndarray | None = None) -> np.ndarray:
    audio = torch.from_numpy(np.stack((left, left if right is None else right)).astype(np.float32))
    stored = from_bytes(torch.from_numpy(to_bytes(analyse(audio).stacked())))
    return synthesise(Frames.unstacked(stored), SAMPLES).numpy()


@pytest.mark.parametrize("hertz", [65.4, 110.0, 261.63, 701.0, 1046.5, 2093.0])
def test_bands_resynthesis_keeps_pitch_and_harmonicity(hertz: float) -> None:
    made = resynthesise(tone(hertz)).mean(0)
    power, frequencies = spectrum(made[MIDDLE])
    near = (frequencies > 0.7 * hertz) & (frequencies < 1.4 * hertz)
    found = float(frequencies[near][np.argmax(power[near])])
    assert abs(1200 * np.log2(found / hertz)) < 8
    assert harmonics_to_noise(made[MIDDLE]) > 18


def test_bands_resynthesis_keeps_a_glide_continuous() -> None:
    phase = 2 * np.pi * np.cumsum(220 * 2 ** (TIME / SECONDS)) / SAMPLE_RATE
    made = resynthesise(0.5 * np.sin(phase)).mean(0)
    level = np.sqrt(np.convolve(made**2, np.ones(1024) / 1024, "same"))[MIDDLE]
    assert level.min() > 0.7 * level.max()


def test_bands_resynthesis_keeps_level_and_colour_of_noise() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLES)
    made = resynthesise(noise).mean(0)
    assert abs(20 * np.log10(made.std() / noise.std())) < 1.5
    assert log_spectral_distance(noise, made) < 4.5
    assert harmonics_to_noise(made[MIDDLE]) < 3


def test_bands_resynthesis_keeps_the_time_of_a_click() -> None:
    click = np.zeros(SAMPLES)
    click[22_050:22_150] = np.random.default_rng(1).standard_normal(100)
    made = resynthesise(click).mean(0)
    centre = (np.arange(SAMPLES) * made**2).sum() / (made**2).sum()
    assert abs(centre - 22_100) < 0.012 * SAMPLE_RATE


def test_bands_resynthesis_keeps_channels_separate() -> None:
    made = resynthesise(tone(220.0), 0.1 * tone(220.0))
    assert 6 < np.sqrt((made[0] ** 2).mean() / (made[1] ** 2).mean()) < 14


def test_bands_resynthesis_keeps_unrelated_channels_unrelated() -> None:
    random = np.random.default_rng(2)
    apart = resynthesise(random.standard_normal(SAMPLES), random.standard_normal(SAMPLES))
    same = random.standard_normal(SAMPLES)
    together = resynthesise(same, same)
    assert np.corrcoef(apart)[0, 1] < 0.4
    assert np.corrcoef(together)[0, 1] > 0.95


def test_analyse_puts_silence_at_the_floor() -> None:
    frames = analyse(torch.zeros(2, 4096))
    assert float(frames.energy.max()) == -96
    assert frames.stacked().shape == (16, CHANNELS)
    assert float(synthesise(frames, 4096).abs().max()) == 0


def test_synthesise_repeats_with_its_seed() -> None:
    frames = analyse(torch.randn(2, 8192, generator=torch.Generator().manual_seed(0)))
    first, again, other = (synthesise(frames, 8192, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_synthesise_of_a_circle_keeps_its_beginning_and_has_no_seam() -> None:
    time = torch.arange(44_100) / 44_100
    tone = 0.3 * torch.sin(2 * torch.pi * 331.7 * time)
    tone[:22_050] *= torch.exp(-6 * time[:22_050])
    frames = analyse(torch.stack((tone, tone)))
    samples = 44_100 - 77
    loop = synthesise(frames, samples, circle=True)
    assert loop.shape == (2, samples)
    jumps = loop.diff(dim=1).abs().amax()
    assert float((loop[:, 0] - loop[:, -1]).abs().max()) < 1.5 * float(jumps)
    twice = torch.cat((loop, loop), 1)[:, samples - 2048 : samples + 2048]
    assert float(twice.diff(dim=1).abs().amax()) <= 1.5 * float(jumps)
    levels = loop.square().unfold(1, 256, 256).mean((0, 2))
    assert float(levels[0]) > 0.5 * float(levels[4]), "the beginning isn't faded in"
