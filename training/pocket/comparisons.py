"""Comparisons of sounds by simple measures: a snare is brighter than a kick, a long pad longer than a short one.

They show whether adjectives and notes of a prompt are heard, but not whether a sound is the named instrument.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.pocket.words import HELD_OUT_TEMPLATES
from training.synthesis import features

Sound = NDArray[np.float32]

RenderPrompts = Callable[[Sequence[str]], Sequence[Sound]]
"""Renders a sound of two seconds for each prompt: (samples,), at the synthesis's rate."""


@dataclass(frozen=True)
class Comparison:
    """A comparison: `measure(first)` has to exceed `factor` times `measure(second)`, or times the number `second`.

    `first` and `second` are words of prompts.
    """

    measure: Callable[[Sound], float]
    first: str
    second: str | float
    factor: float = 1.0


KINDS = (
    Comparison(features.centroid, "a snare drum", "a kick drum"),
    Comparison(features.centroid, "a hi-hat", "a snare drum"),
    Comparison(features.centroid, "a hi-hat", "a tom"),
    Comparison(features.low_share, "a kick drum", "a hand clap"),
    Comparison(features.low_share, "a bass", "a bell"),
    Comparison(features.low_share, "a boom", "a shaker"),
    Comparison(features.attack_seconds, "a pad", "a plucked string", 1.5),
    Comparison(features.length_seconds, "an open hi-hat", "a hi-hat", 1.5),
    Comparison(features.length_seconds, "a crash cymbal", "a rimshot", 2.0),
    Comparison(features.centroid_movement, "a riser", 0.4),
    Comparison(features.centroid_movement, "a riser", "rain"),
    Comparison(features.centroid_movement, "rain", "a laser gun"),
    Comparison(features.inharmonicity, "a bell", "an organ"),
    Comparison(features.inharmonicity, "a bell", "a synth lead"),
    Comparison(features.length_seconds, "a bell", "a rimshot", 2.0),
    Comparison(features.unsteadiness, "a snare drum", "rain", 2.0),
    Comparison(features.length_seconds, "rain", 1.6),
    Comparison(features.unsteadiness, "a plucked string", "a drone", 2.0),
    Comparison(features.spectral_entropy, "wind", "a kick drum"),
)
"""Comparisons of different kinds."""


def comparisons() -> list[Comparison]:
    """Return all comparisons."""
    listed = list(KINDS)
    for noun in ("kick", "snare", "open hat", "pluck", "bell", "pad", "lead", "tom", "bass"):
        listed.append(Comparison(features.length_seconds, f"a long {noun}", f"a short {noun}", 1.3))
    for noun in ("snare", "pluck", "bell", "pad", "lead", "rain", "bass", "open hat", "noise", "organ"):
        listed.append(Comparison(features.centroid, f"a bright {noun}", f"a dark {noun}"))
    for noun, low, high in (("pluck", "c3", "c5"), ("lead", "a3", "a5"), ("organ", "d3", "d5"), ("bass", "e1", "e2")):
        listed.append(Comparison(features.pitch, f"a {noun} on {high}", f"a {noun} on {low}", 1.2))
    for noun in ("pluck", "bell", "lead", "organ", "tom"):
        listed.append(Comparison(features.centroid, f"a high {noun}", f"a low {noun}"))
    for noun in ("pad", "organ", "lead"):
        slow, fast = (f"a {noun} with a {speed} attack" for speed in ("slow", "fast"))
        listed.append(Comparison(features.attack_seconds, slow, fast, 1.3))
    for noun in ("kick", "bass"):
        listed.append(Comparison(features.fullness, f"a distorted {noun}", f"a {noun}"))
    for noun in ("bell", "organ"):
        listed.append(Comparison(features.spectral_entropy, f"a distorted {noun}", f"a {noun}"))
    for noun in ("kick", "snare", "pluck"):
        listed.append(Comparison(features.length_seconds, f"a {noun} with lots of reverb", f"a dry {noun}", 1.1))
    for noun in ("lead", "organ"):
        listed.append(Comparison(features.spectral_entropy, f"a noisy {noun}", f"a {noun}"))
    return listed


def prompts_for(words: str, seeds: int) -> list[str]:
    """Return one prompt for each seed, in different held-out wordings."""
    start = sum(map(ord, words))
    return [HELD_OUT_TEMPLATES[(start + seed) % len(HELD_OUT_TEMPLATES)].format(words) for seed in range(seeds)]


def comparison_score(render: RenderPrompts, seeds: int) -> float:
    """Return the share of correct comparisons; each is made with one sound for each seed, and printed if it fails."""
    rendered: dict[str, Sequence[Sound]] = {}

    def measured(comparison: Comparison, words: str | float) -> list[float]:
        if not isinstance(words, str):
            return [words] * seeds
        if words not in rendered:
            rendered[words] = render(prompts_for(words, seeds))
        return [comparison.measure(sound) for sound in rendered[words]]

    results: list[bool] = []
    for comparison in comparisons():
        pairs = zip(measured(comparison, comparison.first), measured(comparison, comparison.second), strict=True)
        right = [first > comparison.factor * second for first, second in pairs]
        results += right
        if not all(right):
            name = comparison.measure.__name__
            print(
                f"{sum(right)} of {seeds}: {name} of {comparison.first} above that of {comparison.second}", flush=True
            )
    return sum(results) / len(results)
