"""The measures, on signals whose answers are known."""

import numpy as np
import pytest

from training.synthesis import features
from training.synthesis.oscillators import RATE

TIME = np.arange(2 * RATE) / RATE


def sine(hertz: float) -> np.ndarray:
    """Two seconds of a sine."""
    return 0.5 * np.sin(2 * np.pi * hertz * TIME)


def test_features_centroid_of_a_sine_is_its_frequency() -> None:
    assert features.centroid(sine(2000)) == pytest.approx(2000, rel=0.03)


def test_features_pitch_of_tones_is_found() -> None:
    assert features.pitch(sine(110)) == pytest.approx(110, rel=0.01)
    rich = sum(sine(220 * order) / order for order in range(1, 12))
    assert features.pitch(np.asarray(rich)) == pytest.approx(220, rel=0.01)


def test_features_length_and_attack_of_a_burst_are_found() -> None:
    burst = np.zeros(2 * RATE)
    burst[: RATE // 2] = np.random.default_rng(0).standard_normal(RATE // 2) * 0.2
    assert features.length_seconds(burst) == pytest.approx(0.5, abs=0.02)
    assert features.attack_seconds(burst) < 0.05
    assert features.attack_seconds(sine(300) * np.minimum(1, TIME)) == pytest.approx(0.7, abs=0.05)


def test_features_noise_is_steady_and_even_and_a_decay_is_not() -> None:
    noise = np.random.default_rng(0).standard_normal(2 * RATE) * 0.2
    assert features.unsteadiness(noise) < 0.1
    assert features.unsteadiness(noise * np.exp(-5 * TIME)) > 0.5
    assert features.spectral_entropy(noise) > 0.7 > features.spectral_entropy(sine(500))


def test_features_inharmonicity_separates_a_bell_from_a_string() -> None:
    string = np.asarray(sum(sine(200 * order) for order in (1, 2, 3, 4, 5)))
    bell = np.asarray(sum(sine(200 * order) for order in (1, 1.19, 1.71, 2.74, 3.76)))
    assert features.inharmonicity(string) < 0.2 < features.inharmonicity(bell)


def test_features_centroid_of_a_rising_sweep_rises() -> None:
    sweep = 0.5 * np.sin(2 * np.pi * 200 * TIME * (1 + TIME))
    assert features.centroid_movement(sweep) > 0.5
    assert features.centroid_movement(sweep[::-1].copy()) < -0.5
