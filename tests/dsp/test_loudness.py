"""Levels: loudness, peak, their ceiling, and silence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyloudnorm import Meter

from tests.dsp.sounds import clip, decibels, noise, peak, tone
from timbred.audio import Decibels, Lufs
from timbred.dsp.pipeline import level, measure_loudness, measure_peak
from timbred.render_settings import RenderSettings


@settings(deadline=None, max_examples=30)
@given(st.floats(-60, 0), st.floats(-80, 20), st.sampled_from([8_000, 44_100, 48_000]))
def test_level_reaches_the_requested_peak(wanted: float, before: float, rate: int) -> None:
    sound = noise(0.1, rate, level=10 ** (before / 20), channels=2)
    done = level(sound, RenderSettings(peak=Decibels(wanted)))
    assert decibels(peak(done.samples)) == pytest.approx(wanted, abs=0.01)
    assert measure_peak(done.samples) == pytest.approx(wanted, abs=0.01)


@settings(deadline=None, max_examples=20)
@given(st.floats(-50, -20), st.floats(-80, 0), st.sampled_from([16_000, 48_000]), st.integers(1, 2))
def test_level_reaches_the_requested_loudness(wanted: float, before: float, rate: int, channels: int) -> None:
    sound = noise(1.0, rate, level=10 ** (before / 20), channels=channels)
    done = level(sound, RenderSettings(loudness=Lufs(wanted)))
    assert Meter(rate).integrated_loudness(done.samples.astype(np.float64)) == pytest.approx(wanted, abs=0.1)


def test_measure_loudness_matches_the_standards_reference_tone() -> None:
    """BS.1770: a 997 Hz sine at 0 dBFS in one channel reads -3.01 LUFS."""
    reading = measure_loudness(tone(997, 2.0, 48_000, level=1.0).samples, 48_000)
    assert reading == pytest.approx(-3.01, abs=0.05)


def test_measure_loudness_is_equal_for_a_short_and_a_longer_sound() -> None:
    short, long = (measure_loudness(tone(1_000, seconds, 48_000).samples, 48_000) for seconds in (0.05, 1.0))
    assert short == pytest.approx(long, abs=0.1)


def test_level_stops_at_the_ceiling() -> None:
    click = clip(np.r_[1.0, np.zeros(47_999)], 48_000)
    done = level(click, RenderSettings(loudness=Lufs(-10.0)))
    assert decibels(peak(done.samples)) == pytest.approx(-1.0, abs=0.01)
    without = level(click, RenderSettings(loudness=Lufs(-10.0), peak=None))
    assert decibels(peak(without.samples)) == pytest.approx(0.0, abs=0.01)
    floating = level(click, RenderSettings(loudness=Lufs(-10.0), peak=None, bits=32))
    assert peak(floating.samples) > 2


@pytest.mark.parametrize("quiet", [0.0, 1e-9])
@pytest.mark.parametrize("wanted", [RenderSettings(), RenderSettings(loudness=Lufs(-14.0))])
def test_level_keeps_silence(quiet: float, wanted: RenderSettings) -> None:
    silent = clip(np.full(100, quiet), 48_000)
    assert (level(silent, wanted).samples == silent.samples).all()
    assert measure_loudness(silent.samples, 48_000) is None


def test_level_off_leaves_the_samples() -> None:
    sound = noise(0.1, 8_000)
    assert level(sound, RenderSettings(peak=None)) is sound
