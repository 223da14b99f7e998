"""What is new comes at the level of what it follows, unless the sound itself would have gone up or down."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timbred.engine.codecs.mel import Analysis, amplify_mel, frame_power
from timbred.engine.diffusion.init_audio import CORRECTED_AFTER_S, CORRECTION_FADE_S, MAX_CORRECTION_DB, level_curve

SECOND = 100.0
KNOWN, ALL = 250, 500
PUBLISHED = Analysis(16000, 160, 1024, 64, 0.0, 8000.0)


def powers(levels: torch.Tensor) -> torch.Tensor:
    """Of levels in decibels, (frames,), the powers of one take."""
    return 10.0 ** (levels[None] / 10.0)


def after_evening(levels: torch.Tensor) -> torch.Tensor:
    """Levels in decibels, (frames,), of which the first `KNOWN` were there, as they are heard."""
    window = powers(levels)
    return levels + level_curve(window[:, :KNOWN], window, SECOND)[0]


def a_step(decibels: float, ramp: int = 60) -> torch.Tensor:
    """A steady level that becomes another around the end of what is known."""
    places = torch.arange(ALL)
    return decibels * ((places - KNOWN + ramp // 2) / ramp).clamp(0, 1)


def swelling(decibels: float, frames: float) -> torch.Tensor:
    return decibels * torch.sin(2 * math.pi * torch.arange(ALL) / frames)


@pytest.mark.parametrize("decibels", [-9.0, -3.0, 4.0, 8.0])
def test_level_curve_continues_a_steady_sound_at_its_level(decibels: float):
    received = after_evening(a_step(decibels))
    assert received.abs().max() < 0.25 * abs(decibels)
    assert received[KNOWN + round((CORRECTED_AFTER_S + CORRECTION_FADE_S) * SECOND) :].abs().max() < 0.3
    assert torch.equal(received[:200], torch.zeros(200)), "what was there long before stays"


def test_level_curve_fills_a_gap_at_the_join():
    hole = -3.0 * torch.exp(-(((torch.arange(ALL) - KNOWN - 10.0) / 25.0) ** 2))
    received = after_evening(hole)
    assert received.min() > -1.0
    assert received.max() < 0.5


def test_level_curve_leaves_a_sound_that_swells():
    levels = swelling(6.0, 73.0)
    assert (after_evening(levels) - levels).abs().max() < 1.5


@pytest.mark.parametrize("slope", [-0.2, -0.05, 0.05])
def test_level_curve_continues_a_rise_or_decay(slope: float):
    levels = slope * torch.arange(ALL)
    assert (after_evening(levels) - levels).abs().max() < 0.5


def test_level_curve_leaves_another_sound():
    silence = a_step(-50.0)
    assert torch.equal(after_evening(silence), silence)
    struck = torch.where(torch.arange(ALL) < KNOWN, -60.0, -0.3 * (torch.arange(ALL) - KNOWN))
    assert torch.equal(after_evening(struck), struck)


def test_level_curve_is_separate_for_each_take():
    steps = torch.stack([a_step(6.0), a_step(-4.0)])
    both = 10.0 ** (steps / 10.0)
    together = level_curve(both[:, :KNOWN], both, SECOND)
    for index, step in enumerate(steps):
        assert torch.allclose(step + together[index], after_evening(step), atol=1e-5)


@given(known=st.integers(1, 300), new=st.integers(1, 300), seed=st.integers(0, 99), level=st.floats(0, 1e4))
def test_level_curve_is_finite_and_bounded_for_any_window(known: int, new: int, seed: int, level: float):
    window = level * torch.rand(2, known + new, generator=torch.Generator().manual_seed(seed)) ** 8
    gain = level_curve(window[:, :known], window, SECOND)
    assert gain.shape == window.shape
    assert gain.isfinite().all()
    assert gain.abs().max() <= MAX_CORRECTION_DB


@pytest.mark.parametrize("decibels", [-12.0, 0.0, 5.0])
def test_amplify_mel_raises_a_spectrogram_by_the_given_decibels(decibels: float):
    silent = math.log(1e-5)
    mel = torch.full((1, 8, 64), silent / 2.5)
    there = frame_power(amplify_mel(mel, torch.full((1, 8, 1), decibels))) / frame_power(mel)
    assert 10.0 * there.log10() == pytest.approx(torch.full((1, 8), decibels), abs=0.01)
    floor = torch.full((1, 8, 64), silent)
    assert torch.equal(amplify_mel(floor, torch.full((1, 8, 1), -12.0)), floor)
