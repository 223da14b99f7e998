"""What stays of a given sound stays to the bit; what was made anew has its level and balance, and no join is heard."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from timbred.audio import Clip, SampleRate, Samples, frames_in
from timbred.dsp.pipeline import find_polarities, mix_to_mono, resample
from timbred.dsp.splice import CONTINUE_CROSSFADE_S, SHIFT_RANGE_S, EditedPart, OriginalAudio, splice, splice_parts
from timbred.render_settings import RenderSettings

RATE = SampleRate(48_000)
MODEL = SampleRate(32_000)


def clip(samples: Samples, rate: int = RATE) -> Clip:
    return Clip(np.ascontiguousarray(samples.reshape(len(samples), -1), dtype=np.float32), SampleRate(rate))


def tone(hertz: float, seconds: float, rate: int, level: float = 0.3, turn: float = 0.0) -> Samples:
    moments = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * (hertz * moments + turn))).astype(np.float32)


def noise(seconds: float, rate: int, level: float = 0.1, seed: int = 0) -> Samples:
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def stereo(seconds: float = 2.0) -> Samples:
    return np.stack([tone(220, seconds, RATE), 0.5 * tone(330, seconds, RATE) + noise(seconds, RATE, 0.01)], axis=1)


def power(samples: NDArray[Any]) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


def largest_step(samples: Samples) -> float:
    return float(np.abs(np.diff(samples, axis=0)).max())


def test_splice_keeps_a_continued_sound_bit_identical_up_to_the_join():
    there = stereo()
    made = clip(tone(220, 1.5, MODEL), MODEL)
    whole = splice(made, OriginalAudio(clip(there), EditedPart(2.0, 3.0)), RATE, first=round(1.5 * MODEL))
    assert (whole.frames, whole.channels, whole.rate) == (3 * RATE, 2, RATE)
    joined = 2 * RATE - frames_in(CONTINUE_CROSSFADE_S, RATE)
    assert np.array_equal(whole.samples[:joined], there[:joined])
    assert not np.array_equal(whole.samples[: 2 * RATE], there)


@pytest.mark.parametrize("turn", [0.0, 0.25, 0.5, 0.81])
@pytest.mark.parametrize("hertz", [150.0, 220.0, 1234.5])
def test_splice_aligns_the_phase_of_a_continued_tone(hertz: float, turn: float):
    """Made at another moment of its period, and half as loud: what follows is the same tone at the same level."""
    made = clip(tone(hertz, 1.5, MODEL, 0.2, turn), MODEL)
    whole = splice(
        made, OriginalAudio(clip(tone(hertz, 2.0, RATE)), EditedPart(2.0, 3.0)), RATE, first=round(1.5 * MODEL)
    )
    received = whole.samples[:, 0]
    inside = received[: round(1.8 * RATE)]
    assert largest_step(received[: -frames_in(SHIFT_RANGE_S, RATE)]) < 1.03 * largest_step(inside)
    levels = [power(received[place : place + 2400]) for place in range(0, len(received) - 4800, 2400)]
    assert max(levels) < 1.1 * min(levels)


def test_splice_keeps_the_channel_balance_of_the_original():
    loud = noise(3.0, RATE)
    there = np.stack([loud, 0.25 * loud], axis=1)[: 2 * RATE]
    made = clip(noise(1.5, MODEL, 0.08, 3), MODEL)
    whole = splice(made, OriginalAudio(clip(there), EditedPart(2.0, 3.0)), RATE, first=round(1.5 * MODEL)).samples
    left, right = power(whole[2 * RATE :, 0]), power(whole[2 * RATE :, 1])
    assert left / right == pytest.approx(16, rel=0.01)
    assert left == pytest.approx(power(there[:, 0]), rel=0.4)


def test_splice_at_another_rate_only_converts_the_original():
    there = stereo(1.0)[: RATE // 2]
    whole = splice(
        clip(tone(220, 1.0, MODEL), MODEL), OriginalAudio(clip(there), EditedPart(0.5, 1.0)), SampleRate(96_000)
    )
    assert whole.rate == 96_000
    assert whole.frames == 96_000
    converted = resample(clip(there), RenderSettings(rate=SampleRate(96_000))).samples
    joined = 48_000 - frames_in(CONTINUE_CROSSFADE_S, 96_000)
    assert np.array_equal(whole.samples[:joined], converted[:joined])


def test_splice_replaces_the_edited_part_alone():
    there, made = stereo(), clip(noise(2.0, MODEL), MODEL)
    whole = splice(made, OriginalAudio(clip(there), EditedPart(0.5, 1.25)), RATE).samples
    start, end = RATE // 2, RATE * 5 // 4
    assert whole.shape == there.shape
    assert np.array_equal(whole[:start], there[:start])
    assert np.array_equal(whole[end:], there[end:])
    assert not np.allclose(whole[start + 2000 : end - 2000], there[start + 2000 : end - 2000], atol=0.01)


def test_splice_parts_replaces_several_parts_and_keeps_the_rest():
    there, made = stereo(), clip(noise(2.0, MODEL), MODEL)
    parts = [EditedPart(0.25, 0.5), EditedPart(1.0, 1.25)]
    whole = splice_parts(made, clip(there), parts, RATE).samples
    changed = np.zeros(len(there), dtype=bool)
    for part in parts:
        first, last = round(part.start * RATE), round(part.end * RATE)
        changed[first:last] = True
        assert not np.allclose(whole[first + 2000 : last - 2000], there[first + 2000 : last - 2000], atol=0.01)
    assert np.array_equal(whole[~changed], there[~changed])


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.5), (1.5, 2.0), (0.0, 2.0)])
def test_splice_replaces_a_part_at_either_end(start: float, end: float):
    there, made = stereo(), clip(noise(2.0, MODEL), MODEL)
    whole = splice(made, OriginalAudio(clip(there), EditedPart(start, end)), RATE).samples
    first, last = round(start * RATE), round(end * RATE)
    assert np.array_equal(whole[:first], there[:first])
    assert np.array_equal(whole[last:], there[last:])
    assert power(whole[first : first + 480]) > 0
    assert power(whole[last - 480 : last]) > 0


@pytest.mark.parametrize("frames", [44_099, 44_100, 44_101, 44_117])
@pytest.mark.parametrize("rate", [32_000, 48_000, 96_000])
def test_splice_of_a_part_up_to_the_end_is_no_continuation_at_any_rate(frames: int, rate: int):
    there = clip(noise(1.5, 44_100)[:frames], 44_100)
    made = clip(noise(there.seconds, MODEL, seed=1), MODEL)
    whole = splice(made, OriginalAudio(there, EditedPart(0.5, there.seconds)), SampleRate(rate))
    converted = resample(there, RenderSettings(rate=SampleRate(rate))).samples
    assert whole.frames == len(converted)
    assert np.array_equal(whole.samples[: rate // 2], converted[: rate // 2])
    assert not np.allclose(whole.samples[rate * 6 // 10 :], converted[rate * 6 // 10 :], atol=0.01)


def test_splice_reads_nothing_far_from_the_part():
    there = noise(20.0, RATE)
    whole = splice(
        clip(noise(20.0, MODEL, seed=1), MODEL), OriginalAudio(clip(there), EditedPart(9.0, 9.5)), RATE
    ).samples[:, 0]
    changed = np.flatnonzero(whole != there)
    assert 9 * RATE <= changed[0] < 9.1 * RATE
    assert 9.4 * RATE < changed[-1] < 9.5 * RATE


def test_splice_adds_new_highs_over_original_lows():
    lows, highs = tone(300, 2.0, RATE), tone(7000, 2.0, RATE, 0.1)
    made = clip(tone(300, 2.0, MODEL, 0.3, 0.4) + tone(9000, 2.0, MODEL, 0.1), MODEL)
    whole = splice(made, OriginalAudio(clip(lows + highs), EditedPart(0.0, 2.0, low=4000)), RATE).samples[:, 0]
    spectrum = np.abs(np.fft.rfft(whole * np.hanning(len(whole)))) / len(whole) * 4
    assert spectrum[600] == pytest.approx(0.3, rel=0.01)
    assert spectrum[14_000] < 1e-3
    assert spectrum[18_000] == pytest.approx(0.1, rel=0.05)
    middle = slice(RATE // 2, -RATE // 2)
    without = whole - tone(9000, 2.0, RATE, float(spectrum[18_000]))
    assert np.abs(np.fft.rfft((without - lows)[middle])[:2000]).max() / RATE < 1e-3, "the lows keep their phases"


def test_splice_of_a_band_keeps_the_other_frequencies_bit_identical():
    there, made = stereo(), clip(noise(2.0, MODEL), MODEL)
    whole = splice(made, OriginalAudio(clip(there), EditedPart(0.5, 1.0, low=1000, high=4000)), RATE).samples
    assert np.array_equal(whole[: RATE // 2], there[: RATE // 2])
    assert np.array_equal(whole[RATE:], there[RATE:])


def test_splice_does_not_exceed_a_loud_original():
    there, made = clip(noise(2.0, RATE, 0.05)), clip(20 * noise(1.5, MODEL, 0.05, 5), MODEL)
    whole = splice(made, OriginalAudio(there, EditedPart(2.0, 3.0)), RATE, first=round(1.5 * MODEL)).samples
    assert np.abs(whole).max() <= 0.9


def test_splice_of_a_preview_has_the_length_of_the_preview():
    made = clip(tone(220, 1.0, MODEL), MODEL)
    whole = splice(made, OriginalAudio(clip(stereo()), EditedPart(2.0, 9.0)), RATE, first=round(1.5 * MODEL))
    assert whole.frames == round(2.5 * RATE)


@settings(max_examples=40, deadline=None)
@given(
    there=st.integers(1, 6000), more=st.integers(1, 6000), overlap=st.integers(0, 3000),
    channels=st.integers(1, 8), rate=st.sampled_from([8000, 44_100, 48_000]),
    level=st.sampled_from([0.0, 1e-7, 0.5, 3.0]),
)  # fmt: skip
def test_splice_gives_exact_lengths_and_finite_values_for_any_input(
    there: int, more: int, overlap: int, channels: int, rate: int, level: float
):
    samples = level * np.random.default_rng(there).standard_normal((there, channels))
    given_sound = clip(samples.astype(np.float32).reshape(there, channels), 48_000)
    seconds = (there + more) / 48_000
    first = round(there / 48_000 * MODEL)
    first -= min(first, overlap)
    made = clip(noise(max(1, round(seconds * MODEL) - first) / MODEL, MODEL), MODEL)
    whole = splice(made, OriginalAudio(given_sound, EditedPart(there / 48_000, seconds)), SampleRate(rate), first)
    assert whole.channels == channels
    assert abs(whole.frames - round(seconds * rate)) <= 1
    assert np.isfinite(whole.samples).all()


def inverted(gain: float, seconds: float = 2.0) -> NDArray[np.float32]:
    """A stereo sound whose right channel is `gain` times the left one, with a trace of noise of its own."""
    left = tone(220, seconds, RATE) + noise(seconds, RATE, 0.01)
    return np.stack([left, gain * left + noise(seconds, RATE, 3e-5, 9)], axis=1)


def channel_levels(samples: NDArray[Any]) -> list[float]:
    return [10 * float(np.log10(power(samples[:, channel]) + 1e-20)) for channel in range(samples.shape[1])]


def made_from(there: Samples, seconds: float, level: float, seed: int = 4) -> Clip:
    """A sound as a model makes it of the mono sound that it is given: alike, at a level of its own."""
    given_mono = mix_to_mono(there, find_polarities(there))
    rate_up = resample(clip(given_mono.astype(np.float32)), RenderSettings(rate=MODEL)).samples[:, 0]
    whole = np.resize(rate_up, round(seconds * MODEL))
    return clip((level * whole + noise(seconds, MODEL, 1e-4, seed)).astype(np.float32), MODEL)


@pytest.mark.parametrize("gain", [1.0, 0.5, -0.3, -0.5, -0.9, -0.95, -0.99, -1.0])
def test_splice_matches_the_power_of_each_channel_at_any_polarity(gain: float):
    there = inverted(gain)
    continued = splice(made_from(there, 3.0, 0.7), OriginalAudio(clip(there), EditedPart(2.0, 3.0)), RATE).samples
    repainted = splice(made_from(there, 2.0, 0.7), OriginalAudio(clip(there), EditedPart(0.8, 1.2)), RATE).samples
    for new in (continued[2 * RATE + 4800 : 3 * RATE - 4800], repainted[RATE - 4800 : RATE + 4800]):
        assert channel_levels(new) == pytest.approx(channel_levels(there), abs=1.0)
        assert float(np.sum(new[:, 0] * new[:, 1])) * gain > 0, "the polarity is kept too"


@pytest.mark.parametrize("count", [1, 2, 3, 6, 8])
def test_splice_of_many_channels_keeps_samples_and_level_of_each(count: int):
    """The fourth is silent, as the effects' channel of a film often is; each has its own polarity and level."""
    loud = noise(2.0, RATE, 0.1)
    gains = [1.0, -0.8, 0.5, 0.0, -0.3, 0.2, 0.9, -1.0][:count]
    there = np.stack([gain * loud + abs(gain) * noise(2.0, RATE, 0.02, 20 + n) for n, gain in enumerate(gains)], axis=1)
    there = there.astype(np.float32)
    whole = splice(made_from(there, 3.0, 0.5), OriginalAudio(clip(there), EditedPart(2.0, 3.0)), RATE).samples
    joined = 2 * RATE - frames_in(CONTINUE_CROSSFADE_S, RATE)
    assert np.array_equal(whole[:joined], there[:joined].astype(np.float32))
    new = whole[2 * RATE + 4800 : 3 * RATE - 4800]
    for channel, gain in enumerate(gains):
        if gain == 0:
            assert not whole[:, channel].any()
        else:
            assert channel_levels(new)[channel] == pytest.approx(channel_levels(there)[channel], abs=1.5)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8), st.integers(0, 1_000))
@settings(max_examples=60, deadline=None)
def test_find_polarities_prevents_cancellation_in_mix_to_mono(gains: list[float], seed: int):
    """Of channels that are one sound at several levels, the sum is as loud as all levels together."""
    loud = noise(0.1, RATE, 0.1, seed)
    samples = np.stack([gain * loud for gain in gains], axis=1).astype(np.float32)
    summed = mix_to_mono(samples, find_polarities(samples))
    expected = float(np.mean(np.abs(gains)))
    assert power(summed) == pytest.approx(expected**2 * power(loud), rel=1e-3, abs=1e-12)


def test_mix_to_mono_sums_unrelated_channels_unchanged():
    samples = np.stack([noise(1.0, RATE, 0.1, seed) for seed in range(4)], axis=1)
    assert (find_polarities(samples) == 1).all()
    assert np.allclose(mix_to_mono(samples, find_polarities(samples)), samples.mean(axis=1), atol=1e-7)


def test_splice_keeps_channels_of_part_rendered_in_stereo():
    """Different sounds in both channels stay in them, at the level of the original."""
    there = 0.3 * stereo()
    left, right = noise(2.0, MODEL, 0.02, 7), noise(2.0, MODEL, 0.06, 8)
    made = clip(np.stack([left, right], axis=1), MODEL)
    whole = splice(made, OriginalAudio(clip(there), EditedPart(0.5, 1.25)), RATE).samples
    first, last = round(0.6 * RATE), round(1.15 * RATE)
    part = whole[first:last]
    assert np.array_equal(whole[: RATE // 2], there[: RATE // 2])
    assert np.array_equal(whole[round(1.25 * RATE) :], there[round(1.25 * RATE) :])
    assert power(part[:, 1]) / power(part[:, 0]) == pytest.approx(9.0, rel=0.1)
    assert power(part) == pytest.approx(power(there), rel=0.15)
    assert abs(float(np.corrcoef(part[:, 0], part[:, 1])[0, 1])) < 0.1


def test_splice_keeps_channels_of_continuation_rendered_in_stereo():
    there = stereo()
    made = clip(np.stack([noise(1.5, MODEL, 0.05, 7), noise(1.5, MODEL, 0.05, 8)], axis=1), MODEL)
    whole = splice(made, OriginalAudio(clip(there), EditedPart(2.0, 3.0)), RATE, first=round(1.5 * MODEL)).samples
    assert np.array_equal(whole[:RATE], there[:RATE])
    after = whole[2 * RATE :]
    assert abs(float(np.corrcoef(after[:, 0], after[:, 1])[0, 1])) < 0.1


@pytest.mark.parametrize("channels", [1, 3])
def test_splice_mixes_stereo_render_for_original_of_other_channels(channels: int):
    there = np.stack([noise(2.0, RATE, 0.1, 3)] * channels, axis=1)
    made = clip(np.stack([noise(2.0, MODEL, 0.1, 7), noise(2.0, MODEL, 0.1, 8)], axis=1), MODEL)
    whole = splice(made, OriginalAudio(clip(there), EditedPart(0.5, 1.25)), RATE).samples
    assert whole.shape == there.shape
    part = whole[round(0.6 * RATE) : round(1.15 * RATE)]
    assert power(part) == pytest.approx(power(there), rel=0.4)
    assert np.allclose(part, part[:, :1])
