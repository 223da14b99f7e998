"""The synthesis makes what its words say."""

from typing import Any

import numpy as np
import pytest

from training.synthesis import features
from training.synthesis.kinds import KINDS
from training.synthesis.recipe import PEAK, Recipe, draw, render

TWO_SECONDS = 64_000


def made(kind: str, **fields: Any) -> np.ndarray:
    """A two-second sound of `kind`."""
    low, high = KINDS[kind].notes[int(fields.get("pitch", 0)) + 1]
    note = int((low + high) / 2) if KINDS[kind].pitched else None
    recipe: dict[str, Any] = {"kind": kind, "samples": TWO_SECONDS, "seed": 3, "note": note, **fields}
    return render(Recipe(**recipe))


@pytest.mark.parametrize("kind", KINDS)
def test_render_of_every_kind_sounds_from_the_start(kind: str) -> None:
    random = np.random.default_rng(1)
    for samples in (17_920, TWO_SECONDS):
        sound = render(draw(random, samples, kind))
        assert sound.shape == (samples,)
        assert sound.dtype == np.float32
        assert np.isfinite(sound).all()
        assert features.peak(sound) == pytest.approx(PEAK, abs=0.01)
        assert features.onset_seconds(made(kind)) < 0.05


def test_render_is_equal_for_equal_recipes_and_differs_between_seeds() -> None:
    recipe = Recipe("snare", TWO_SECONDS, 5)
    assert np.array_equal(render(recipe), render(recipe))
    assert not np.array_equal(render(recipe), render(Recipe("snare", TWO_SECONDS, 6)))


@pytest.mark.parametrize("kind", ["kick", "snare", "pluck", "bell", "pad", "rain"])
def test_render_of_long_is_three_times_short(kind: str) -> None:
    long, short = (features.length_seconds(made(kind, length=way)) for way in (1, -1))
    assert long > 3 * short


@pytest.mark.parametrize("kind", ["snare", "pluck", "bell", "pad", "lead", "rain", "noise"])
def test_render_of_bright_is_brighter_than_dark(kind: str) -> None:
    bright, dark = (features.centroid(made(kind, brightness=way)) for way in (1, -1))
    assert bright > 1.25 * dark


@pytest.mark.parametrize("kind", ["pad", "organ", "lead", "drone"])
def test_render_of_slow_attacks_is_slower(kind: str) -> None:
    slow, fast = (features.attack_seconds(made(kind, edge=way)) for way in (1, -1))
    assert slow > 2 * fast


def test_render_of_drums_differs_between_kinds() -> None:
    kick, snare, hat = (features.centroid(made(kind)) for kind in ("kick", "snare", "closed hi-hat"))
    assert 1.5 * kick < snare < hat / 1.5


def test_render_of_notes_is_in_tune() -> None:
    for kind in ("pluck", "lead", "bell"):
        assert KINDS[kind].pitched
    assert features.pitch(made("pluck", note=57)) == pytest.approx(220, rel=0.01)
    assert features.pitch(made("lead", note=69)) == pytest.approx(440, rel=0.02)
