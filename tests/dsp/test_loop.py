"""Loops: exact lengths, and no step where the end meets the start."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dsp.sounds import clip, noise, seam_is_smooth, tone
from timbred.audio import SampleRate, Seconds
from timbred.dsp.pipeline import crossfade_ends, loop, run_pipeline
from timbred.render_settings import RenderSettings


def looped(seconds: float | None, rate: int) -> RenderSettings:
    return RenderSettings(loop=True, seconds=None if seconds is None else Seconds(seconds), rate=SampleRate(rate))


@settings(deadline=None, max_examples=40)
@given(st.floats(0.2, 1.5), st.floats(40, 400), st.floats(0.0, 1.0), st.sampled_from([16_000, 22_050, 32_000]))
def test_loop_seam_is_no_larger_than_steps_inside(seconds: float, hertz: float, surplus: float, rate: int) -> None:
    sound = tone(hertz, seconds + surplus, rate)
    done = run_pipeline(sound, looped(seconds, 48_000))
    assert done.loop
    assert done.frames == round(seconds * 48_000)
    assert seam_is_smooth(done.samples)


def test_loop_keeps_power_constant_through_the_seam() -> None:
    unlike = noise(3.0, 16_000)
    done = loop(unlike, looped(2.0, 16_000)).samples
    assert np.mean(done[:4_000] ** 2) == pytest.approx(np.mean(done[4_000:] ** 2), rel=0.1)
    alike = tone(100, 3.0, 16_000)
    steady = loop(alike, looped(2.0, 16_000)).samples
    assert np.abs(steady).max() <= 0.5 + 1e-4


def test_loop_without_a_length_takes_the_seam_from_the_end() -> None:
    done = loop(tone(101.3, 2.0, 16_000), looped(None, 16_000))
    assert done.frames == 28_000
    assert seam_is_smooth(done.samples)


def test_loop_leaves_a_clip_that_is_a_loop() -> None:
    ready = replace(noise(1.0, 16_000), loop=True)
    assert (loop(ready, looped(1.0, 16_000)).samples == ready.samples).all()
    assert (loop(ready, looped(None, 16_000)).samples == ready.samples).all()


def test_loop_pads_a_short_clip_with_silence_and_fades_its_edges() -> None:
    done = loop(clip(np.full(8_000, 0.5), 16_000), looped(1.0, 16_000))
    assert done.frames == 16_000
    assert np.abs(np.diff(done.samples[:, 0])).max() < 0.05
    assert done.samples[0] == done.samples[-1] == 0


def test_loop_keeps_an_attack_on_the_first_beat() -> None:
    moments = np.arange(48_000) / 16_000
    hit = clip(np.exp(-4 * moments) * np.cos(2 * np.pi * 200 * moments), 16_000)
    done = loop(hit, looped(2.0, 16_000)).samples
    assert np.abs(done[:160]).max() > 0.95
    assert seam_is_smooth(done)


def test_loop_is_off_by_default() -> None:
    assert not loop(noise(0.1, 16_000), RenderSettings()).loop


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 400), st.data())
def test_crossfade_ends_keeps_the_length_for_any_shape(frames: int, data: st.DataObject) -> None:
    seam = data.draw(st.integers(1, frames // 2))
    samples = noise(1.0, 1_000).samples
    done = crossfade_ends(samples, frames, seam, 2)
    assert done.shape == (frames, 1)
    assert done[0] == pytest.approx(samples[frames], abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(1, 300))
def test_loop_handles_a_few_frames(frames: int, wanted: int) -> None:
    done = run_pipeline(noise(frames / 8_000, 8_000), looped(wanted / 8_000, 8_000))
    assert done.frames == wanted
    assert np.isfinite(done.samples).all()
