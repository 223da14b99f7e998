import numpy as np
import pytest

from timbred.models.pocket import SAMPLE_RATE
from training.pocket import measures

TIME = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE


def tone(note: float, noise: float = 0.0) -> np.ndarray:
    base = measures.note_hertz(note)
    numbers = np.arange(1, 9)[:, None]
    made = (np.sin(2 * np.pi * numbers * base * TIME) / numbers).sum(0)
    return made + noise * np.random.default_rng(0).standard_normal(len(TIME)) * made.std()


@pytest.mark.parametrize(("noise", "low", "high"), [(0.0, 35, 51), (0.1, 17, 22), (0.316, 8, 12), (1.0, -3, 3)])
def test_measures_harmonics_to_noise_is_the_mixed_ratio(noise: float, low: float, high: float) -> None:
    assert low < measures.harmonics_to_noise(tone(57, noise)) < high


@pytest.mark.parametrize("note", [36, 48, 60, 72, 84])
def test_measures_cents_and_share_find_the_note(note: int) -> None:
    assert abs(measures.note_cents(tone(note), note)) < 3
    assert measures.note_cents(tone(note + 0.4), note) == pytest.approx(40, abs=6)
    assert measures.harmonic_share(tone(note), note) > 0.9
    assert measures.harmonic_share(tone(note + 1.5), note) < 0.6 or note < 48
    noise = np.random.default_rng(1).standard_normal(len(TIME))
    assert measures.harmonic_share(noise, note) < 0.6


def test_measures_chroma_finds_a_chord() -> None:
    made = tone(48) + tone(51) + tone(55)
    assert set(np.argsort(measures.chroma(made))[-3:].tolist()) == {0, 3, 7}


def test_measures_lasting_separates_held_from_struck() -> None:
    held = tone(60) * (TIME < 1.8)
    struck = tone(60) * np.exp(-8 * TIME)
    assert measures.lasting_seconds(held) == pytest.approx(1.8, abs=0.05)
    assert measures.lasting_seconds(struck) < 1.0


def clicks(bpm: float, jitter: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(2)
    made = np.zeros(len(TIME))
    step = 60 / bpm / 2
    for index in range(int(2 / step)):
        start = int((index * step + jitter * random.uniform(-1, 1)) * SAMPLE_RATE)
        start = max(0, start)
        length = min(2000, len(made) - start)
        made[start : start + length] += random.standard_normal(length) * np.exp(-np.arange(length) / 300)
    return made


def test_measures_grid_and_tempo_are_found() -> None:
    steady, loose = clicks(97), clicks(97, 0.06)
    assert measures.grid_share(steady, 97) > 0.95
    assert measures.grid_share(loose, 97) < 0.7
    assert measures.tempo_error(steady, 97) < 0.01
    assert measures.tempo_error(clicks(97 * 1.04), 97) > 0.02


def test_measures_seam_finds_a_jump() -> None:
    whole = np.sin(2 * np.pi * 5 * TIME)
    assert measures.seam(whole) < 1
    assert measures.seam(whole[: int(1.05 * SAMPLE_RATE)]) > 10


def test_measures_frechet_is_zero_for_equal_sets_and_grows_with_distance() -> None:
    random = np.random.default_rng(3)
    rows = random.standard_normal((200, 8))
    assert measures.frechet(rows, rows) == pytest.approx(0, abs=1e-6)
    assert measures.frechet(rows, rows + 1) == pytest.approx(8, rel=0.01)
    assert measures.frechet(rows, 2 * rows) > 3
