"""Crossfades, correlation and interpolation that the pipeline, the engine and the mixer share."""

import numpy as np
import pytest
import torch

from timbred.dsp.fades import (
    catmull_rom,
    correlate,
    crossfade,
    mean_power,
    normalize_correlation,
    raised_cosine,
    sliding_sum,
)

FRAMES = 4_800


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((FRAMES, 1))


def test_raised_cosine_rises_from_0_to_1() -> None:
    assert raised_cosine(np.array([0.0, np.pi / 2, np.pi])) == pytest.approx([0.0, 0.5, 1.0])


def test_catmull_rom_passes_through_the_inner_values_and_follows_a_parabola() -> None:
    places = np.linspace(0.0, 1.0, 11)
    before, start, end, after = (np.full(11, float(place) ** 2) for place in (-1, 0, 1, 2))
    assert catmull_rom(before, start, end, after, places) == pytest.approx(places**2)


def test_catmull_rom_is_equal_for_arrays_and_tensors() -> None:
    values = np.random.default_rng(0).standard_normal((4, 64, 2)).astype(np.float32)
    position = np.random.default_rng(4).random((64, 1), np.float32)
    before, start, end, after = (torch.from_numpy(value) for value in values)
    expected = catmull_rom(before, start, end, after, torch.from_numpy(position)).numpy()
    assert catmull_rom(values[0], values[1], values[2], values[3], position) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("gains", ["sine", "linear"])
@pytest.mark.parametrize("alike", [False, True])
def test_crossfade_keeps_power_constant(gains: str, alike: bool) -> None:
    first, second = noise(1), noise(1 if alike else 2)
    share = (np.arange(FRAMES)[:, None] + 0.5) / FRAMES
    fade_out, fade_in = (
        (np.cos(share * np.pi / 2), np.sin(share * np.pi / 2)) if gains == "sine" else (1 - share, share)
    )
    power_sum = 1.0 if gains == "sine" else fade_out**2 + fade_in**2
    mixed = crossfade(first, second, fade_out, fade_in, correlate(first, second), power_sum)
    powers = np.mean(mixed.reshape(6, -1) ** 2, axis=1)
    assert np.abs(10 * np.log10(powers)).max() < 0.8
    if alike:
        assert mixed == pytest.approx(first)


def test_correlate_is_1_for_equal_signals_and_0_for_unrelated_opposite_and_silent_ones() -> None:
    signal = noise(1)
    assert correlate(signal, 3 * signal) == pytest.approx(1.0)
    assert correlate(signal, noise(2)) < 0.05
    assert correlate(signal, -signal) == 0.0
    assert correlate(signal, 0 * signal) == 0.0
    stereo = np.hstack((signal, signal))
    assert correlate(stereo, np.hstack((signal, -signal)), axis=0) == pytest.approx([1.0, 0.0])


def test_sliding_sum_finds_the_offset_of_equal_signals() -> None:
    signal, length = noise(1)[:, 0], 200
    other = noise(2)[:, 0]
    other[1_000:1_200] = signal[1_000:1_200]
    products = sliding_sum(signal * other, length)
    energies = sliding_sum(signal**2, length) * sliding_sum(other**2, length)
    correlation = normalize_correlation(products, energies)
    assert correlation.shape == (FRAMES - length + 1,)
    assert int(correlation.argmax()) == 1_000
    assert correlation.max() == pytest.approx(1.0)


def test_mean_power_of_nothing_is_0() -> None:
    assert mean_power(np.ones((4, 2))) == 1.0
    assert mean_power(np.zeros((0, 2)), axis=0).tolist() == [0.0, 0.0]
    assert mean_power(np.zeros((0,)), axis=0) == 0.0
