"""Tempo, key and downbeat of sounds whose music is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dsp.sounds import clip, noise, tone
from timbred.audio import Clip
from timbred.dsp.measurement import (
    ANALYSIS_RATE_HZ,
    OCTAVE_FIT,
    Measurement,
    key_fit,
    measure,
    mode_profile,
    score_fit,
    tempo_fit,
)
from timbred.music import MODES, key_name, read_key

RATE = ANALYSIS_RATE_HZ


def clicks(bpm: float, seconds: float = 6.0, first: float = 0.0, accent_every: int = 4, rate: int = RATE) -> Clip:
    """Clicks at a tempo from `first` seconds on, each `accent_every`th of them low and loud."""
    samples = np.zeros(round(seconds * rate))
    moments = np.arange(round(0.03 * rate)) / rate
    for number in range(int((seconds - first) * bpm / 60) + 1):
        at = round((first + number * 60 / bpm) * rate)
        hertz, level = (100, 0.9) if number % accent_every == 0 else (1000, 0.5)
        click = level * np.sin(2 * np.pi * hertz * moments) * np.exp(-80 * moments)
        samples[at : at + len(click)] += click[: max(0, len(samples) - at)]
    return clip(samples, rate)


def note(midi: int, seconds: float) -> np.ndarray:
    moments = np.arange(round(seconds * RATE)) / RATE
    hertz = 440 * 2 ** ((midi - 69) / 12)
    partials = sum(np.sin(2 * np.pi * hertz * partial * moments) / partial**1.5 for partial in range(1, 6))
    return 0.1 * partials * np.exp(-1.5 * moments) * np.minimum(1, moments / 0.01)


def cadence(tonic: int, mode: str) -> Clip:
    third = 4 if mode == "major" else 3
    chords = ((0, third, 7, 12), (5, 5 + third, 12, 17), (7, 11, 14, 19), (0, third, 7, 12))
    return clip(np.concatenate([sum(note(48 + tonic + step, 0.6) for step in chord) for chord in chords]), RATE)


def scale(tonic: int, mode: str) -> Clip:
    steps = (0, 2, 4, 5, 7, 9, 11) if mode == "major" else (0, 2, 3, 5, 7, 8, 11)
    notes = [*((step, 0.25) for step in steps), (12, 0.5), *((step, 0.25) for step in steps[:0:-1]), (0, 0.75)]
    return clip(np.concatenate([note(60 + tonic + step, seconds) for step, seconds in notes]), RATE)


@pytest.mark.parametrize("bpm", [60, 66.6, 75, 90, 97, 110, 120, 133.7, 150, 165, 180])
@pytest.mark.parametrize("first", [0.0, 0.31])
def test_measure_finds_tempo_and_downbeat_of_clicks(bpm: float, first: float):
    measured = measure(clicks(bpm, first=first))
    assert measured.tempo == pytest.approx(bpm, rel=0.003)
    assert measured.downbeat == pytest.approx(first, abs=0.02)


def test_measure_finds_the_downbeat_of_other_meters():
    measured = measure(clicks(120, accent_every=3), beats_per_bar=3)
    assert measured.downbeat == pytest.approx(0.0, abs=0.02)
    assert "beat on each downbeat" in measure(clicks(120), beats_per_bar=3.5).reasons["downbeat"]


def test_measure_names_no_downbeat_where_all_beats_are_equal():
    measured = measure(clicks(120, accent_every=1))
    assert measured.tempo == pytest.approx(120, rel=0.003)
    assert (measured.downbeat, measured.reasons["downbeat"]) == (
        None,
        "no beat of the bar is stronger than the others",
    )


@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("tonic", range(12))
def test_measure_finds_the_key_of_chords_and_scales(tonic: int, mode: str):
    assert measure(cadence(tonic, mode)).key == key_name(tonic, mode)
    assert measure(scale(tonic, mode)).key == key_name(tonic, mode)


def test_measure_follows_a_tuning_beside_440_hertz():
    detuned = cadence(2, "minor").with_samples(cadence(2, "minor").samples, rate=round(RATE * 2 ** (0.4 / 12)))
    assert measure(detuned).key == "D minor"


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (clip(np.zeros(4 * RATE), RATE), "silent"),
        (clip(np.zeros(0), RATE), "silent"),
        (clip([0.5], RATE), "shorter"),
        (tone(440, 0.1, 48000), "shorter"),
        (noise(4, 48000, channels=2), "no "),
        (noise(8, 16000), "no "),
        (clip(np.full(4 * RATE, 0.3), RATE), ""),
    ],
    ids=["silence", "nothing", "a sample", "short", "noise", "long noise", "offset"],
)
def test_measure_says_why_nothing_is_measured(sound: Clip, reason: str):
    measured = measure(sound)
    assert measured.values == {}
    assert set(measured.reasons) == {"tempo", "key", "downbeat"}
    assert all(reason in text and "failed" not in text for text in measured.reasons.values())


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 60_000),
    st.sampled_from([8000, 22050, 48000, 192000]),
    st.floats(1e-6, 8.0),
    st.integers(0, 3),
    st.sampled_from([1, 2]),
)
def test_measure_has_a_value_or_a_reason_for_every_sound(
    frames: int, rate: int, level: float, seed: int, channels: int
):
    measured = measure(noise(frames / rate, rate, level, channels, seed))
    assert set(measured.values) | set(measured.reasons) == {"tempo", "key", "downbeat"}
    assert not set(measured.values) & set(measured.reasons)
    assert not any("failed" in reason for reason in measured.reasons.values())


def test_tempo_fit_counts_octaves_almost_as_the_tempo_itself():
    assert tempo_fit(97.0, 97.0) == 1.0
    assert tempo_fit(48.5, 97.0) == tempo_fit(194.0, 97.0) == OCTAVE_FIT
    assert 0 < tempo_fit(100.0, 97.0) < OCTAVE_FIT
    assert tempo_fit(130.0, 97.0) == 0.0


def test_key_fit_is_best_for_the_own_key():
    chroma = measure(cadence(0, "minor")).chroma
    fits = {
        (tonic, mode): key_fit(chroma, read_key(key_name(tonic, mode)))
        for tonic in range(12)
        for mode in ("major", "minor")
    }
    assert max(fits, key=fits.__getitem__) == (0, "minor")
    assert key_fit((), read_key("C minor")) == 0.0


@pytest.mark.parametrize("mode", MODES)
def test_mode_profile_is_strongest_on_the_tonic(mode: str):
    assert int(np.argmax(mode_profile(mode))) == 0


def test_mode_profile_prefers_the_degrees_of_the_mode():
    dorian, minor = mode_profile("dorian"), mode_profile("minor")
    assert (dorian[9], dorian[8]) == (minor[8], minor[9])


def test_score_fit_is_the_mean_of_what_was_asked():
    measured = Measurement(tempo=60.0, chroma=tuple(np.roll(mode_profile("minor"), 0)))
    assert score_fit(measured, 60.0, read_key("C minor")) == pytest.approx(1.0)
    assert score_fit(measured, 90.0, read_key("C minor")) == pytest.approx(0.5)
    assert score_fit(Measurement(), 90.0, None) == 0.0
