"""A sound heard in pieces is the finished take, at the device's rate."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timbred.audio import Clip, Decibels, Lufs, SampleRate, Samples, Seconds
from timbred.dsp.pipeline import StreamedSound, StreamPiece, can_stream, run_pipeline
from timbred.render_settings import RenderSettings

RATE = 16000


def sound(frames: int = 9000) -> Samples:
    chance = np.random.default_rng(5)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(frames) / RATE) + 0.02 * chance.standard_normal(frames)
    return tone.astype(np.float32)[:, None]


def pieces(samples: Samples, edges: list[int], peak: float) -> list[StreamPiece]:
    frames = samples.shape[0]
    whole = [0, *edges, frames]
    return [
        StreamPiece(samples[first:last], RATE, first, frames, peak, last == frames)
        for first, last in itertools.pairwise(whole)
    ]


def received(parts: list[StreamPiece], wanted: RenderSettings, rate: int) -> tuple[Samples, StreamedSound]:
    early = StreamedSound(wanted, parts[0], rate)
    return np.concatenate([early.process(part) for part in parts]), early


@pytest.mark.parametrize("rate", [16000, 44100, 48000, 96000])
@pytest.mark.parametrize("seconds", [None, 0.3, 0.5625])
@pytest.mark.parametrize("channels", [None, 2])
def test_streamed_sound_pieces_equal_the_finished_take(rate: int, seconds: float | None, channels: int | None):
    wanted = RenderSettings(
        rate=SampleRate(rate),
        seconds=None if seconds is None else Seconds(seconds),
        channels=None if channels is None else 2,
        bits=32,
        peak=None,
        fade_in=Seconds(0.01),
        fade_out=Seconds(0.1),
    )
    samples = sound()
    found, early = received(pieces(samples, [500, 1500, 4000], 1.0), wanted, rate)
    expected = run_pipeline(Clip(samples, SampleRate(RATE)), wanted).samples
    assert found.shape == expected.shape == (early.frames, channels or 1)
    assert early.done
    assert np.abs(found - expected).max() < 1e-4


def test_streamed_sound_has_the_gain_of_the_finished_take():
    """Where the loudest spot was found, by the peak that was asked for; resampling moves it a little."""
    samples = sound()
    wanted = RenderSettings(rate=SampleRate(48000), peak=Decibels(-6.0))
    found, _ = received(pieces(samples, [700], float(np.abs(samples).max())), wanted, 48000)
    expected = run_pipeline(Clip(samples, SampleRate(RATE)), wanted).samples
    assert np.abs(found).max() == pytest.approx(np.abs(expected).max(), rel=0.1)


def test_streamed_sound_keeps_silence():
    samples = np.zeros((1000, 1), dtype=np.float32)
    found, _ = received(pieces(samples, [300], 0.0), RenderSettings(), 48000)
    assert not found.any()


@settings(max_examples=40, deadline=None)
@given(edges=st.lists(st.integers(1, 2999), unique=True, max_size=8).map(sorted), rate=st.sampled_from([16000, 48000]))
def test_streamed_sound_is_independent_of_piece_lengths(edges: list[int], rate: int):
    samples = sound(3000)
    wanted = RenderSettings(rate=SampleRate(rate), peak=None)
    one, _ = received(pieces(samples, edges, 1.0), wanted, rate)
    other, _ = received(pieces(samples, [], 1.0), wanted, rate)
    assert one.shape == other.shape
    assert np.abs(one - other).max() < 1e-6


@settings(max_examples=60, deadline=None)
@given(
    edges=st.lists(st.integers(1, 2999), unique=True, max_size=8).map(sorted),
    kind=st.sampled_from(["tone", "drum", "reversed", "short"]),
    fades=st.sampled_from([{}, {"fade_in": Seconds(0.02)}, {"fade_out": Seconds(0.05)}, {"fade_in": Seconds(0.3)}]),
)
def test_streamed_sound_has_the_automatic_fades_of_the_finished_take(
    edges: list[int], kind: str, fades: dict[str, Seconds]
):
    moments = np.arange(3000) / RATE
    wave = np.cos(2 * np.pi * 130 * moments) * (np.exp(-60 * moments) if kind != "tone" else 1.0)
    samples = (wave[::-1] if kind == "reversed" else wave)[:, None].astype(np.float32)
    if kind == "short":
        samples, edges = samples[:200], [edge for edge in edges if edge < 200]
    wanted = replace(RenderSettings(rate=SampleRate(RATE), peak=None, bits=32), **fades)
    found, _ = received(pieces(np.ascontiguousarray(samples), edges, 1.0), wanted, RATE)
    expected = run_pipeline(Clip(np.ascontiguousarray(samples), SampleRate(RATE)), wanted).samples
    assert np.array_equal(found, expected)


def test_streamed_sound_refuses_a_piece_out_of_order():
    first, second, _ = pieces(sound(), [500, 1500], 1.0)
    early = StreamedSound(RenderSettings(), first, 48000)
    with pytest.raises(ValueError, match="begins with frame 500; the next one is 0"):
        early.process(second)


def test_can_stream_refuses_settings_that_need_the_whole_sound():
    assert can_stream(RenderSettings())
    for late in ({"trim": True}, {"loop": True}, {"loudness": Lufs(-14.0)}):
        assert not can_stream(replace(RenderSettings(), **late))
