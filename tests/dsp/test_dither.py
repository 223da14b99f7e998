"""Dither at 16 bits."""

import numpy as np
import pytest

from tests.dsp.sounds import RECIPE, clip, decibels, tone
from timbred.audio import Clip
from timbred.dsp.pipeline import STEPS_16_BIT, dither
from timbred.render_settings import RenderSettings

SIXTEEN = RenderSettings(bits=16)


def test_dither_has_the_noise_floor_of_a_triangular_distribution() -> None:
    """Rounding (1/12 step squared) and the noise (1/6) make an error of half a step: -96.3 dBFS."""
    sound = tone(997, 1.0, 48_000)
    error = dither(sound, SIXTEEN).samples.astype(np.float64) - sound.samples
    assert decibels(float(np.sqrt(np.mean(error**2)))) == pytest.approx(decibels(0.5 / STEPS_16_BIT), abs=0.2)
    assert abs(float(np.mean(error))) < 0.01 / STEPS_16_BIT


def test_dither_preserves_a_sound_below_one_step() -> None:
    quiet = tone(1_000, 1.0, 48_000, level=0.4 / STEPS_16_BIT)
    assert not np.rint(quiet.samples * STEPS_16_BIT).any()
    received = dither(quiet, SIXTEEN).samples[:, 0]
    found = 2 * abs(np.mean(received * np.exp(-2j * np.pi * 1_000 * np.arange(48_000) / 48_000)))
    assert found == pytest.approx(0.4 / STEPS_16_BIT, rel=0.1)


def test_dither_gives_grid_samples_and_repeats_them() -> None:
    sound = tone(997, 0.1, 48_000, level=1.0)
    seeded = Clip(sound.samples, sound.rate, RECIPE)
    later = Clip(sound.samples, sound.rate, {**RECIPE, "created": "2030-01-01T00:00:00Z"})
    other = Clip(sound.samples, sound.rate, {**RECIPE, "seed": 8})
    one, again, third = (dither(each, SIXTEEN).samples for each in (seeded, later, other))
    assert (np.rint(one * STEPS_16_BIT) == one * STEPS_16_BIT).all()
    assert one.max() <= (STEPS_16_BIT - 1) / STEPS_16_BIT
    assert (one == again).all()
    assert (one != third).any()


@pytest.mark.parametrize("wanted", [RenderSettings(), RenderSettings(bits=32), RenderSettings(format="ogg")])
def test_dither_applies_to_16_bits_only(wanted: RenderSettings) -> None:
    sound = tone(997, 0.1, 48_000)
    assert dither(sound, wanted) is sound


def test_dither_keeps_digital_silence() -> None:
    assert not dither(clip(np.zeros(100), 8_000), SIXTEEN).samples.any()
