"""Trimming, fitting and fading."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.render.sounds import clip, noise, tone
from timbred.render.edges import KEPT_AFTER, KEPT_BEFORE, fade, faded, fit, trim
from timbred.render.settings import RenderSettings
from timbred.units import SampleRate, Seconds, frames_in


def test_trim_cuts_silence_and_keeps_the_sound() -> None:
    rate = 8_000
    sound = noise(0.5, rate).samples[:, 0]
    quiet = np.concatenate([np.zeros(1_000), sound, np.zeros(3_000)])
    trimmed = trim(clip(quiet, rate), RenderSettings(trim=True))
    kept = frames_in(KEPT_BEFORE, rate) + sound.size + frames_in(KEPT_AFTER, rate)
    assert abs(trimmed.frames - kept) <= 8  # noise may begin below the threshold
    assert float(np.sum(trimmed.samples**2)) == np.float32(np.sum(sound**2))


def test_trim_is_off_by_default_and_keeps_pure_silence() -> None:
    silent = clip(np.zeros(100), 8_000)
    assert trim(silent, RenderSettings()).frames == 100
    assert trim(silent, RenderSettings(trim=True)).frames == 100


def test_fit_cuts_and_fills() -> None:
    short = tone(100, 0.5, 8_000)
    want = RenderSettings(seconds=Seconds(1.0), rate=SampleRate(8_000))
    filled = fit(short, want)
    assert filled.frames == 8_000
    assert not filled.samples[4_000:].any()
    assert fit(tone(100, 2.0, 8_000), want).frames == 8_000


def test_a_sound_that_is_filled_up_ends_softly() -> None:
    constant = clip(np.full(4_000, 0.5), 8_000)
    want = RenderSettings(seconds=Seconds(1.0), rate=SampleRate(8_000))
    filled = fit(constant, want).samples[:, 0]
    assert np.abs(np.diff(filled)).max() < 0.02
    assert filled[3_900] == 0.5


def test_fades_begin_and_end_at_zero_and_leave_the_middle() -> None:
    ones = clip(np.ones(1_000), 1_000, channels=2)
    done = fade(ones, RenderSettings(fade_in=Seconds(0.1), fade_out=Seconds(0.2))).samples
    assert not done[0].any()
    assert not done[-1].any()
    assert (done[100:800] == 1).all()
    assert (np.diff(done[:100, 0]) >= 0).all()
    assert (np.diff(done[-200:, 0]) <= 0).all()


def test_a_loop_has_no_fades() -> None:
    ones = clip(np.ones(1_000), 1_000)
    assert (fade(ones, RenderSettings(loop=True)).samples == 1).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(0, 1_000), st.integers(0, 1_000))
def test_fades_of_any_length_keep_the_length_and_never_amplify(frames: int, lead: int, tail: int) -> None:
    done = faded(np.ones((frames, 1), np.float32), lead, tail)
    assert done.shape == (frames, 1)
    assert done.min() >= 0
    assert done.max() <= 1
