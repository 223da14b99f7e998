"""Trimming, fitting and fading."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dsp.sounds import clip, noise, tone
from timbred.audio import Clip, SampleRate, Seconds, frames_in
from timbred.dsp.fades import ATTACK_TOLERANCE_DB, KEPT_AFTER_S, KEPT_BEFORE_S, apply_fades, fade, fit, trim
from timbred.dsp.pipeline import run_pipeline
from timbred.render_settings import AUTOMATIC_FADE_IN_S, AUTOMATIC_FADE_OUT_S, RenderSettings


def test_trim_cuts_silence_and_keeps_the_sound() -> None:
    rate = 8_000
    sound = noise(0.5, rate).samples[:, 0]
    quiet = np.concatenate([np.zeros(1_000), sound, np.zeros(3_000)])
    trimmed = trim(clip(quiet, rate), RenderSettings(trim=True))
    kept = frames_in(KEPT_BEFORE_S, rate) + sound.size + frames_in(KEPT_AFTER_S, rate)
    assert abs(trimmed.frames - kept) <= 8  # noise may begin below the threshold
    assert float(np.sum(trimmed.samples**2)) == np.float32(np.sum(sound**2))


def test_trim_is_off_by_default_and_keeps_pure_silence() -> None:
    silent = clip(np.zeros(100), 8_000)
    assert trim(silent, RenderSettings()).frames == 100
    assert trim(silent, RenderSettings(trim=True)).frames == 100


def test_fit_cuts_and_pads() -> None:
    short = tone(100, 0.5, 8_000)
    want = RenderSettings(seconds=Seconds(1.0), rate=SampleRate(8_000))
    filled = fit(short, want)
    assert filled.frames == 8_000
    assert not filled.samples[4_000:].any()
    assert fit(tone(100, 2.0, 8_000), want).frames == 8_000


def test_fit_fades_the_end_of_a_padded_sound() -> None:
    constant = clip(np.full(4_000, 0.5), 8_000)
    want = RenderSettings(seconds=Seconds(1.0), rate=SampleRate(8_000))
    filled = fit(constant, want).samples[:, 0]
    assert np.abs(np.diff(filled)).max() < 0.02
    assert filled[3_900] == 0.5


def test_fade_begins_and_ends_at_zero_and_keeps_the_middle() -> None:
    ones = clip(np.ones(1_000), 1_000, channels=2)
    done = fade(ones, RenderSettings(fade_in=Seconds(0.1), fade_out=Seconds(0.2))).samples
    assert not done[0].any()
    assert not done[-1].any()
    assert (done[100:800] == 1).all()
    assert (np.diff(done[:100, 0]) >= 0).all()
    assert (np.diff(done[-200:, 0]) <= 0).all()


def test_fade_leaves_loops() -> None:
    ones = clip(np.ones(1_000), 1_000)
    assert (fade(ones, RenderSettings(loop=True)).samples == 1).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(0, 1_000), st.integers(0, 1_000))
def test_fade_of_any_length_keeps_the_length_and_never_amplifies(frames: int, lead: int, tail: int) -> None:
    done = apply_fades(np.ones((frames, 1), np.float32), lead, tail)
    assert done.shape == (frames, 1)
    assert done.min() >= 0
    assert done.max() <= 1


RATE = 48_000


def automatic(samples: np.ndarray, rate: int = RATE, **keys: Any) -> np.ndarray:
    """Samples of shape (frames,) or (frames, channels) with the fades that nobody asked for."""
    shaped = samples.reshape(len(samples), -1).astype(np.float32)
    return fade(Clip(shaped, SampleRate(rate)), RenderSettings(**keys)).samples


def moments(seconds: float, rate: int = RATE) -> np.ndarray:
    return np.arange(round(seconds * rate)) / rate


def peak_db(samples: np.ndarray) -> float:
    return 20 * float(np.log10(np.abs(samples).max()))


def drum(begins: float, hertz: float = 900.0, seconds: float = 0.3) -> np.ndarray:
    """A decaying tone that begins at a part of its period, 0 to 1, and ends in silence."""
    t = moments(seconds)
    return np.sin(2 * np.pi * (hertz * t + begins)) * np.exp(-60 * t)


@given(st.floats(0, 1), st.floats(300, 6_000))
@settings(deadline=None, max_examples=80)
def test_fade_automatic_keeps_the_attack_of_a_drum(begins: float, hertz: float) -> None:
    hit = drum(begins, hertz).astype(np.float32)
    received = automatic(hit)[:, 0]
    attack = round(0.002 * RATE)
    assert peak_db(received[:attack]) >= peak_db(hit[:attack]) - ATTACK_TOLERANCE_DB - 0.01
    assert np.array_equal(received[attack:-480], hit[attack:-480])


@given(st.integers(0, 1_000), st.floats(5, 500))
@settings(deadline=None, max_examples=40)
def test_fade_automatic_leaves_a_burst_of_noise(seed: int, decay: float) -> None:
    """It begins with a step no larger than its own: there is no click to take away."""
    t = moments(0.2)
    burst = np.random.default_rng(seed).uniform(-1, 1, t.size) * np.exp(-decay * t)
    assert np.array_equal(automatic(burst)[:480, 0], burst[:480].astype(np.float32))


def test_fade_automatic_keeps_an_attack_in_the_first_sample() -> None:
    impulse = np.zeros(RATE // 2)
    impulse[0] = 1.0
    assert np.array_equal(automatic(impulse)[:, 0], impulse.astype(np.float32))


@given(st.floats(0.05, 0.95), st.floats(60, 2_000))
@settings(deadline=None, max_examples=80)
def test_fade_automatic_removes_the_click_of_a_tone_that_begins_within_a_period(begins: float, hertz: float) -> None:
    """Its first frame is 0, and the largest step is far below the click's, which the tone's first sample would be."""
    tone_of_it = 0.5 * np.sin(2 * np.pi * (hertz * moments(0.5) + begins))
    received = automatic(tone_of_it)[:, 0]
    own = np.abs(np.diff(tone_of_it[:96])).max()
    if abs(tone_of_it[0]) <= own:
        assert received[0] == np.float32(tone_of_it[0])
    else:
        assert received[0] == 0
        assert np.abs(np.diff(received[:200])).max() <= max(2 * own, 0.5 * abs(tone_of_it[0]))


def test_fade_automatic_takes_the_whole_time_for_a_constant_level() -> None:
    received = automatic(np.full(RATE, 0.5))[:, 0]
    lead = round(AUTOMATIC_FADE_IN_S * RATE)
    assert received[0] == 0
    assert np.abs(np.diff(received[:lead])).max() < 0.01
    assert (received[lead:-480] == 0.5).all()


def test_fade_automatic_keeps_an_attack_over_a_constant_level() -> None:
    hit = drum(0.0, 1_000) + 0.3
    received = automatic(hit)[:, 0]
    assert received[0] == 0 or received[0] == np.float32(hit[0])
    assert peak_db(received[:96]) >= peak_db(hit[:96]) - ATTACK_TOLERANCE_DB - 0.01


def test_fade_automatic_takes_the_whole_time_for_a_swelling_sound_that_begins_within_a_period() -> None:
    t = moments(0.5)
    swelling = np.cos(2 * np.pi * 50 * t) * np.minimum(1, 0.1 + 100 * t)
    assert np.array_equal(
        automatic(swelling)[:480, 0], apply_fades(swelling[:480, None].astype(np.float32), 96, 0)[:, 0]
    )


def test_fade_automatic_treats_each_channel_separately() -> None:
    """A click on the one must not soften an attack on the other, nor the other way round."""
    steady, hit = np.full(RATE // 2, 0.5), drum(0.0, 3_000, 0.5)
    both = np.stack([steady, hit], axis=1)
    received = automatic(both)
    for channel in range(2):
        assert np.array_equal(received[:, channel], automatic(both[:, channel])[:, 0])
    assert received[0, 0] == 0
    assert np.array_equal(received[:480, 1], hit[:480].astype(np.float32))


def test_fade_automatic_keeps_a_trimmed_attack() -> None:
    """1 ms is kept before the onset; a fade of 2 ms would go over it."""
    t = moments(0.8)
    silent = np.zeros(RATE // 5)
    hit = 0.25 * np.sin(2 * np.pi * 200 * t) * np.exp(-8 * t)
    hit[:24] += 0.75
    sound = np.concatenate([silent, hit])[:, None].astype(np.float32)
    received = run_pipeline(Clip(sound, SampleRate(RATE)), RenderSettings(trim=True, peak=None, bits=32)).samples[:, 0]
    kept = frames_in(KEPT_BEFORE_S, RATE)
    onset = int(np.flatnonzero(np.abs(received) > 0.5)[0])
    assert onset == kept
    assert np.array_equal(received[onset : onset + 4_800], hit[:4_800].astype(np.float32))


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.002, 0.05])
def test_fade_with_a_requested_length_is_exact(seconds: float) -> None:
    hit = drum(0.2)[:, None].astype(np.float32)
    wanted = RenderSettings(fade_in=Seconds(seconds), fade_out=Seconds(0.0))
    received = fade(Clip(hit, SampleRate(RATE)), wanted).samples
    lead = frames_in(seconds, RATE)
    assert np.array_equal(received, apply_fades(hit, lead, 0))
    assert np.array_equal(received[lead:], hit[lead:])


def test_fade_automatic_keeps_the_climax_of_a_reversed_drum() -> None:
    hit = drum(0.1)[::-1].astype(np.float32)
    received = automatic(hit)[:, 0]
    assert peak_db(received[-480:]) >= peak_db(hit[-480:]) - ATTACK_TOLERANCE_DB - 0.01


@given(st.integers(0, 1_000))
@settings(deadline=None, max_examples=20)
def test_fade_automatic_fades_out_a_sound_that_lasts_to_the_end(seed: int) -> None:
    steady = np.random.default_rng(seed).uniform(-0.5, 0.5, RATE // 4)
    tail = frames_in(AUTOMATIC_FADE_OUT_S, RATE)
    expected = apply_fades(steady[:, None].astype(np.float32), 0, tail)[:, 0]
    assert np.array_equal(automatic(steady, fade_in=Seconds(0.0))[:, 0], expected)
