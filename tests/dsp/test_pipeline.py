"""The whole chain."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dsp.sounds import clip, decibels, noise, peak, tone
from timbred.audio import Decibels, Lufs, SampleRate, Seconds
from timbred.dsp.pipeline import PIPELINE_STEPS, run_pipeline
from timbred.errors import BadRequest, ModelError
from timbred.render_settings import RenderSettings


def test_pipeline_steps_have_the_documented_order() -> None:
    assert [step.name for step in PIPELINE_STEPS] == [
        "trim",
        "fit",
        "loop",
        "fade",
        "resample",
        "channels",
        "level",
        "dither",
    ]


@settings(deadline=None, max_examples=80)
@given(
    seconds=st.floats(0.01, 2.0),
    made=st.floats(0.001, 2.0),
    rate_in=st.sampled_from([16_000, 32_000, 44_100]),
    rate=st.integers(8_000, 96_000),
    loop=st.booleans(),
    trim=st.booleans(),
    channels=st.sampled_from([None, 1, 2]),
)
def test_run_pipeline_gives_the_exact_length_with_any_settings(
    seconds: float, made: float, rate_in: int, rate: int, loop: bool, trim: bool, channels: int | None
) -> None:
    wanted = RenderSettings(
        seconds=Seconds(seconds),
        rate=SampleRate(rate),
        loop=loop,
        trim=trim,
        channels=channels,  # type: ignore[arg-type]
    )
    done = run_pipeline(noise(made, rate_in), wanted)
    assert done.samples.shape == (round(seconds * rate), channels or 1)
    assert done.rate == rate
    assert np.isfinite(done.samples).all()


def test_run_pipeline_keeps_the_peak_after_resampling_mixing_and_dithering() -> None:
    sound = noise(0.3, 16_000, channels=2)
    for rate, channels in ((48_000, 1), (44_100, 2), (8_000, 1)):
        wanted = RenderSettings(rate=SampleRate(rate), channels=channels, bits=16, peak=Decibels(-3.0))  # type: ignore[arg-type]
        assert decibels(peak(run_pipeline(sound, wanted).samples)) == pytest.approx(-3.0, abs=0.01)


def test_run_pipeline_copies_mono_to_stereo_and_averages_stereo_to_mono() -> None:
    mono = tone(500, 0.1, 48_000)
    both = run_pipeline(mono, RenderSettings(channels=2, peak=None)).samples
    assert (both[:, 0] == both[:, 1]).all()
    assert peak(both) == pytest.approx(0.5, abs=1e-3)
    opposed = noise(0.1, 48_000)
    wide = opposed.with_samples(np.hstack([opposed.samples, -opposed.samples]))
    assert not run_pipeline(wide, RenderSettings(channels=1, peak=None)).samples.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_run_pipeline_reports_non_finite_samples_as_model_error(bad: float) -> None:
    with pytest.raises(ModelError, match="NaN or infinity"):
        run_pipeline(clip([0.0, bad, 0.0], 8_000), RenderSettings())


def test_run_pipeline_reports_missing_samples_as_model_error() -> None:
    with pytest.raises(ModelError, match="no samples"):
        run_pipeline(clip([], 8_000), RenderSettings())


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        (RenderSettings(seconds=Seconds(0.0)), "seconds: got 0.0"),
        (RenderSettings(seconds=Seconds(1e-9)), "seconds"),
        (RenderSettings(seconds=Seconds(float("nan"))), "seconds: got nan"),
        (RenderSettings(fade_in=Seconds(-1.0)), "fade_in: got -1.0"),
        (RenderSettings(fade_out=Seconds(float("inf"))), "fade_out: got inf"),
        (RenderSettings(loudness=Lufs(3.0)), "loudness: got 3.0"),
        (RenderSettings(peak=Decibels(0.1)), "peak: got 0.1"),
        (RenderSettings(format="flac", bits=32), "bits: got 32 with format flac, allowed is 16 or 24"),
        (RenderSettings(format="ogg", bits=24), "bits: got 24 with format ogg, allowed is none"),
        (RenderSettings(rate=SampleRate(7_999)), "rate: got 7999, allowed is 8000 to 192000"),
        (RenderSettings(format="flac", rate=SampleRate(100_003)), "rate: got 100003 with format flac"),
        (RenderSettings(format="mp3"), "format: got 'mp3', allowed is one of wav, flac, aiff, ogg"),  # type: ignore[arg-type]
        (RenderSettings(channels=3), "channels: got 3, allowed is 1 or 2"),  # type: ignore[arg-type]
    ],
)
def test_run_pipeline_names_settings_that_cannot_be_applied(wanted: RenderSettings, named: str) -> None:
    with pytest.raises(BadRequest) as caught:
        run_pipeline(tone(500, 0.1, 48_000), wanted)
    assert named in str(caught.value)
