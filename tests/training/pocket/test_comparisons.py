"""The comparisons and their score."""

from collections.abc import Sequence

import numpy as np

from training.pocket.comparisons import Sound, comparison_score, comparisons, prompts_for
from training.pocket.words import HELD_OUT_TEMPLATES
from training.synthesis.oscillators import RATE


def burst(seconds: float) -> Sound:
    """Noise of a length at the beginning of two seconds."""
    samples = np.zeros(2 * RATE, np.float32)
    count = round(seconds * RATE)
    samples[:count] = 0.3 * np.random.default_rng(0).standard_normal(count)
    return samples


def test_comparison_score_counts_comparisons_that_are_right() -> None:
    def equal(prompts: Sequence[str]) -> list[Sound]:
        return [burst(1.0) for _ in prompts]

    def by_length(prompts: Sequence[str]) -> list[Sound]:
        return [burst(1.0 if "long" in prompt else 0.2) for prompt in prompts]

    lengths = sum(comparison.first.startswith("a long") for comparison in comparisons())
    assert comparison_score(equal, 2) == 0.0
    assert comparison_score(by_length, 2) >= lengths / len(comparisons())


def test_prompts_for_seeds_are_different_held_out_wordings() -> None:
    prompts = prompts_for("a bell", len(HELD_OUT_TEMPLATES))
    assert sorted(prompts) == sorted(template.format("a bell") for template in HELD_OUT_TEMPLATES)
