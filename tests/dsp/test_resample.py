"""Resampling: exact lengths, right pitch and level, nothing shifted, no seam in loops."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dsp.sounds import clip, decibels, noise, seam_is_smooth, tone
from timbred.audio import SampleRate, Seconds
from timbred.dsp.pipeline import resample
from timbred.render_settings import RenderSettings

RATES = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000]


def to(rate: int, seconds: float | None = None) -> RenderSettings:
    return RenderSettings(rate=SampleRate(rate), seconds=None if seconds is None else Seconds(seconds))


@pytest.mark.parametrize("rate_in", [16_000, 44_100, 96_000])
@pytest.mark.parametrize("rate_out", [22_050, 48_000])
def test_resample_keeps_time_frequency_and_level_of_a_sine(rate_in: int, rate_out: int) -> None:
    done = resample(tone(1_000, 1.0, rate_in), to(rate_out))
    ideal = tone(1_000, 1.0, rate_out)
    inside = slice(rate_out // 10, -rate_out // 10)
    difference = done.samples[inside] - ideal.samples[inside]
    assert decibels(float(np.sqrt(np.mean(difference**2)))) < -90


def test_resample_removes_what_the_lower_rate_cannot_hold() -> None:
    done = resample(tone(7_000, 1.0, 48_000), to(8_000))
    assert decibels(float(np.abs(done.samples[800:-800]).max())) < -90


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5_000), st.sampled_from(RATES), st.sampled_from(RATES))
def test_resample_rounds_the_length_to_the_nearest_frame(frames: int, rate_in: int, rate_out: int) -> None:
    done = resample(clip(np.ones(frames), rate_in), to(rate_out))
    assert done.rate == rate_out
    assert done.frames == max(1, round(frames * rate_out / rate_in))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(200, 20_000),
    st.sampled_from(RATES),
    st.sampled_from(RATES),
    st.integers(1, 20),
    st.floats(0, 2 * np.pi),
)
def test_resample_keeps_a_loop_seamless(frames: int, rate_in: int, rate_out: int, cycles: int, phase: float) -> None:
    """A sine of whole cycles goes round before; it must be the same sine of whole cycles after."""
    turns = np.arange(frames) / frames
    loop = replace(clip(0.5 * np.sin(2 * np.pi * cycles * turns + phase), rate_in), loop=True)
    done = resample(loop, to(rate_out)).samples[:, 0]
    if done.size < cycles * 4:
        return  # more cycles than the lower rate can hold
    ideal = 0.5 * np.sin(2 * np.pi * cycles * np.arange(done.size) / done.size + phase)
    assert np.abs(done - ideal).max() < 1e-4
    assert seam_is_smooth(done[:, None])


def test_resample_of_a_noise_loop_is_independent_of_its_start() -> None:
    loop = replace(noise(0.5, 16_000, channels=2), loop=True)
    turned = loop.with_samples(np.roll(loop.samples, 1_000, axis=0))
    one, other = resample(loop, to(48_000)).samples, resample(turned, to(48_000)).samples
    assert np.abs(np.roll(one, 3_000, axis=0) - other).max() < 1e-5


def test_resample_to_the_same_rate_returns_the_clip() -> None:
    sound = noise(0.1, 48_000)
    assert resample(sound, to(48_000)) is sound
