"""Recipes: the words that describe a sound, drawn at random, and the rendering of the sound.

Three-way attributes are -1, 0 or 1; 0 is "ordinary" and never named in a caption.
"""

from dataclasses import dataclass, field

import numpy as np

from training.synthesis import envelopes, filters, oscillators, room
from training.synthesis.controls import Controls
from training.synthesis.kinds import KINDS, Kind, Span
from training.synthesis.oscillators import RATE, Signal

FLAGS = ("distorted", "metallic", "noisy", "warm", "airy", "detuned")
PEAK = 0.9
ATTRIBUTE_CHANCE = 0.3


@dataclass(frozen=True)
class Recipe:
    """The attributes of one sound.

    Attributes:
        kind: a key of KINDS.
        samples: window length in samples.
        seed: seed of the rendering.
        length, pitch, brightness, edge, motion, space: -1, 0, 1 (short/long, low/high, dark/bright,
            punchy or fast/soft or slow, falling/rising, dry/reverberant).
        note: MIDI note of a pitched kind, else None.
        flags: character words that apply.
    """

    kind: str
    samples: int
    seed: int
    length: int = 0
    pitch: int = 0
    brightness: int = 0
    edge: int = 0
    motion: int = 0
    space: int = 0
    note: int | None = None
    flags: tuple[str, ...] = field(default=())


def _draw_attribute(random: np.random.Generator, applies: bool, chance: float = ATTRIBUTE_CHANCE) -> int:
    """Return -1 or 1 with probability `chance` in total, else 0."""
    if not applies or random.uniform() >= chance:
        return 0
    return int(random.choice((-1, 1)))


def draw(random: np.random.Generator, samples: int, kind: str | None = None) -> Recipe:
    """Draw a recipe for a window of `samples`, of a given kind or a random one."""
    name = kind or str(random.choice(list(KINDS)))
    row = KINDS[name]
    seconds = samples / RATE
    length = _draw_attribute(random, True, 0.4)
    if length > 0 and seconds < 0.9:
        length = 0
    pitch = _draw_attribute(random, True, 0.5 if row.pitched else 0.25)
    low, high = row.notes[pitch + 1]
    flags = tuple(flag for flag in row.flags if random.uniform() < 0.085)
    edge = _draw_attribute(random, row.edge and not (length < 0 and row.slow_attack[1] > 0.1), ATTRIBUTE_CHANCE)
    return Recipe(
        kind=name,
        samples=samples,
        seed=int(random.integers(2**31)),
        length=length,
        pitch=pitch,
        brightness=_draw_attribute(random, row.brightness, 0.4),
        edge=edge,
        motion=_draw_attribute(random, row.motion, 0.25),
        space=_draw_attribute(random, row.space, 0.22),
        note=int(random.integers(int(low), int(high) + 1)) if row.pitched else None,
        flags=flags,
    )


def _seconds(random: np.random.Generator, row: Kind, length: int, window: float) -> float:
    span: Span | None = row.lengths[length + 1]
    if span is None:
        return window * random.uniform(0.86, 0.98) if row.sustained and length == 0 else window
    return random.uniform(*span)


def render(recipe: Recipe) -> np.ndarray:
    """Render a sound: float32 (samples,), peak 0.9, first onset at t = 0. Equal recipes give equal sounds."""
    row = KINDS[recipe.kind]
    random = np.random.default_rng(recipe.seed)
    window = recipe.samples / RATE
    attack = random.uniform(*row.attack)
    if recipe.edge > 0:
        attack = random.uniform(*row.slow_attack)
    elif recipe.edge < 0:
        attack = min(attack, random.uniform(0.0005, 0.006))
    low, high = row.notes[recipe.pitch + 1]
    brightness = random.uniform(0.8, 1.0) * recipe.brightness if recipe.brightness else random.uniform(-0.12, 0.12)
    controls = Controls(
        random=random,
        samples=recipe.samples,
        note=float(recipe.note) if recipe.note is not None else random.uniform(low, high),
        seconds=_seconds(random, row, recipe.length, window),
        attack_seconds=min(attack, 0.45 * window),
        edge=recipe.edge,
        motion=recipe.motion,
        brightness=brightness,
        detuned="detuned" in recipe.flags,
    )
    signal = row.make(controls)
    signal = _colour(filters.tilt(signal, brightness * row.tilt), recipe, random)
    if recipe.space > 0:
        signal = room.reverberate(signal, random.uniform(1.2, 2.2), random.uniform(0.6, 0.9), random)
    elif recipe.space == 0 and random.uniform() < 0.25:
        signal = room.reverberate(signal, random.uniform(0.15, 0.3), random.uniform(0.1, 0.25), random)
    signal = envelopes.fade_edges(filters.high_pass(signal, 22.0, 1))
    return (PEAK * signal / (np.max(np.abs(signal)) + 1e-9)).astype(np.float32)


def _follow(signal: Signal) -> Signal:
    """Return the signal's envelope, for noise that follows it."""
    return np.maximum(filters.low_pass(np.abs(signal), 40.0, 1), 0.0)


def _colour(signal: Signal, recipe: Recipe, random: np.random.Generator) -> Signal:
    """Apply the character words in a fixed order."""
    samples = len(signal)
    if "detuned" in recipe.flags and recipe.kind not in ("pad", "lead", "drone"):
        time = np.arange(samples, dtype=np.float64)
        sharp = np.interp(time * 2.0 ** (random.uniform(28, 45) / 1200), time, signal, right=0.0)
        signal = signal + sharp
    if "metallic" in recipe.flags:
        ring = oscillators.sine(random.uniform(700, 1400), samples)
        signal = signal + 1.2 * signal * ring
        for frequency in random.uniform(900, 5200, 4):
            signal = signal + 0.9 * filters.resonance(signal, float(frequency), 45.0)
    if "distorted" in recipe.flags:
        signal = filters.low_pass(filters.saturate(signal, random.uniform(9, 25)), 11_000, 1)
    if "warm" in recipe.flags:
        signal = filters.low_pass(filters.saturate(signal, 1.6), random.uniform(1800, 2600), 1)
    if "noisy" in recipe.flags:
        hiss = filters.band_pass(oscillators.white_noise(samples, random), 900, 9000, 1)
        signal = signal + random.uniform(2.5, 4.0) * hiss * _follow(signal)
    if "airy" in recipe.flags:
        breath = filters.high_pass(oscillators.white_noise(samples, random), 6500, 2)
        signal = filters.high_shelf(signal, 5500, 7.0) + random.uniform(1.0, 1.8) * breath * _follow(signal)
    return signal
