"""The ceiling, and the offset: sound under the ceiling goes out as it is, none goes out above it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from timbred.audio import Samples
from timbred.player.mixer.master_bus import CEILING_DBFS, DcBlocker, Limiter

RATE = 48_000


def through(limiter: Limiter, samples: Samples, size: int = 64) -> Samples:
    silence = np.zeros((limiter.latency, samples.shape[1]), np.float32)
    padded = np.concatenate((samples, silence))
    blocks = [limiter.process(padded[begin : begin + size]) for begin in range(0, len(padded), size)]
    return np.concatenate(blocks)[limiter.latency :]


def true_peak(samples: Samples) -> float:
    """dBFS, at eight times the rate."""
    return 20 * np.log10(np.abs(resample_poly(samples.astype(np.float64), 8, 1, axis=0)).max())


@given(st.integers(8, 400), st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=12)
def test_limiter_passes_quiet_sound_unchanged(size: int, seed: int):
    samples = np.random.default_rng(seed).uniform(-0.4, 0.4, (5000, 2)).astype(np.float32)
    assert np.array_equal(through(Limiter(RATE, 2), samples, size), samples)


@pytest.mark.parametrize("hertz", [40.0, 997.0, 6000.0, 11_990.0, 17_000.0])
@pytest.mark.parametrize("level", [1.0, 4.0, 100.0])
def test_limiter_keeps_true_peaks_under_the_ceiling(hertz: float, level: float):
    moments = np.arange(RATE // 2) / RATE
    wave = level * np.sin(2 * np.pi * hertz * moments + 0.7) * np.clip(moments / 0.05, 0, 1)
    out = through(Limiter(RATE, 2), np.stack([wave, -wave], axis=1).astype(np.float32))
    assert true_peak(out) <= CEILING_DBFS + 0.02


@given(st.integers(0, 2**31 - 1), st.floats(0.5, 50.0), st.integers(16, 300))
@settings(deadline=None, max_examples=12)
def test_limiter_keeps_bursts_under_the_ceiling(seed: int, level: float, size: int):
    chance = np.random.default_rng(seed)
    gate = np.repeat(chance.random(40) < 0.4, 250)[:, None]
    samples = (gate * chance.normal(0, level, (10_000, 2))).astype(np.float32)
    out = through(Limiter(RATE, 2), samples, size)
    assert np.abs(out).max() <= 10 ** (CEILING_DBFS / 20) * 1.002


def test_limiter_moves_the_gain_without_a_step():
    moments = np.arange(RATE) / RATE
    wave = np.where(moments > 0.3, 3.0, 0.3) * np.sin(2 * np.pi * 50 * moments)
    out = through(Limiter(RATE, 1), wave[:, None].astype(np.float32))
    before_the_jump = out[: int(0.3 * RATE) - 200]
    assert np.abs(np.diff(before_the_jump[:, 0])).max() <= 0.3 * 2 * np.pi * 50 / RATE * 1.01
    assert np.abs(np.diff(out[:, 0])).max() < 0.06


def test_limiter_treats_pairs_of_channels_separately():
    samples = np.zeros((4000, 4), np.float32)
    samples[:, 0] = np.sin(np.arange(4000) / 10) * 5
    samples[:, 2] = np.sin(np.arange(4000) / 10) * 0.5
    out = through(Limiter(RATE, 4), samples)
    assert np.array_equal(out[:, 2], samples[:, 2])
    assert np.abs(out[:, 0]).max() < 0.9


def test_limiter_recovers_after_a_peak():
    limiter = Limiter(RATE, 2)
    through(limiter, np.full((1000, 2), 3.0, np.float32))
    through(limiter, np.zeros((3 * RATE, 2), np.float32))
    assert limiter.idle


def test_dc_blocker_removes_an_offset_without_a_step():
    remover = DcBlocker(RATE, 2)
    wave = 0.3 * np.sin(2 * np.pi * 100 * np.arange(20 * RATE) / RATE)
    samples = (np.stack([wave, wave], axis=1) + np.array([0.4, 0.0])).astype(np.float32)
    out = np.concatenate([remover.process(samples[begin : begin + 64]) for begin in range(0, len(samples), 64)])
    assert abs(out[-RATE:, 0].mean()) < 0.004
    assert np.abs(np.diff(out, axis=0)).max() <= np.abs(np.diff(samples, axis=0)).max() * 1.01
    assert np.array_equal(out[:, 1], samples[:, 1])


def test_dc_blocker_leaves_a_kick():
    remover = DcBlocker(RATE, 1)
    moments = np.arange(RATE // 2) / RATE
    kick = (0.9 * np.exp(-moments * 12) * np.cos(2 * np.pi * 45 * moments))[:, None].astype(np.float32)
    samples = np.concatenate([kick] * 8)
    out = np.concatenate([remover.process(samples[begin : begin + 64]) for begin in range(0, len(samples), 64)])
    assert np.array_equal(out, samples)
