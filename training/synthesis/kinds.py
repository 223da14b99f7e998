"""The table of kinds: their attributes, lengths, pitches, and synthesis functions.

Lengths are ranges (low, high) in seconds for short, ordinary and long; None is the length of the window. Notes are
MIDI ranges (low, high) for low, ordinary and high; unpitched kinds are shifted relative to note 60.
"""

from collections.abc import Callable
from dataclasses import dataclass

from training.synthesis import drums, textures, tonal
from training.synthesis.controls import Controls
from training.synthesis.oscillators import Signal

Span = tuple[float, float]

UNPITCHED: tuple[Span, Span, Span] = ((50.0, 53.0), (58.5, 61.5), (67.0, 70.0))


@dataclass(frozen=True)
class Kind:
    """One row of the table.

    Attributes:
        make: synthesis function.
        lengths: seconds for short, ordinary, long; None is the length of the window.
        attack: ordinary rise time in seconds.
        slow_attack: rise time of slow or soft sounds.
        notes: MIDI ranges for low, ordinary, high.
        pitched: True if note names apply.
        flags: character words that apply.
        edge, motion, brightness, space: True if these attributes apply.
        tilt: share of the brightness that is applied by shelves; the rest is part of the synthesis.
    """

    make: Callable[[Controls], Signal]
    lengths: tuple[Span, Span | None, Span | None]
    attack: Span = (0.0005, 0.001)
    slow_attack: Span = (0.012, 0.025)
    notes: tuple[Span, Span, Span] = UNPITCHED
    pitched: bool = False
    flags: tuple[str, ...] = ("distorted", "metallic", "noisy", "warm", "airy")
    edge: bool = True
    motion: bool = False
    brightness: bool = True
    space: bool = True
    tilt: float = 1.0

    @property
    def sustained(self) -> bool:
        """True if its ordinary length is that of the window."""
        return self.lengths[1] is None


TONAL_FLAGS = ("distorted", "metallic", "noisy", "warm", "airy", "detuned")
BASS_NOTES: tuple[Span, Span, Span] = ((28.0, 34.0), (35.0, 43.0), (45.0, 52.0))
MIDDLE_NOTES: tuple[Span, Span, Span] = ((38.0, 45.0), (52.0, 62.0), (72.0, 82.0))
BELL_NOTES: tuple[Span, Span, Span] = ((52.0, 58.0), (66.0, 76.0), (84.0, 94.0))
SLOW: Span = (0.35, 0.55)

KINDS: dict[str, Kind] = {
    "kick": Kind(drums.kick, ((0.10, 0.14), (0.30, 0.45), (1.0, 1.5)), tilt=0.55),
    "snare": Kind(drums.snare, ((0.09, 0.13), (0.28, 0.40), (0.9, 1.3)), tilt=0.9),
    "clap": Kind(drums.clap, ((0.08, 0.12), (0.30, 0.42), (0.9, 1.3)), tilt=0.9),
    "closed hi-hat": Kind(drums.closed_hat, ((0.035, 0.05), (0.09, 0.14), (0.22, 0.28))),
    "open hi-hat": Kind(drums.open_hat, ((0.35, 0.45), (0.7, 1.0), (1.6, 2.2))),
    "cymbal": Kind(drums.cymbal, ((0.5, 0.7), (1.6, 2.2), (3.2, 4.5))),
    "tom": Kind(drums.tom, ((0.14, 0.2), (0.4, 0.6), (1.2, 1.7)), motion=True, tilt=0.7),
    "rim": Kind(drums.rim, ((0.03, 0.045), (0.09, 0.13), (0.3, 0.45))),
    "shaker": Kind(drums.shaker, ((0.05, 0.07), (0.14, 0.2), (0.5, 0.7)), edge=False),
    "cowbell": Kind(drums.cowbell, ((0.1, 0.14), (0.35, 0.5), (1.1, 1.6)), tilt=0.9),
    "impact": Kind(drums.impact, ((0.4, 0.55), (1.5, 2.1), (3.2, 4.5)), tilt=0.6),
    "bass": Kind(
        tonal.bass,
        ((0.10, 0.16), (0.6, 0.9), None),
        (0.003, 0.006),
        (0.25, 0.4),
        BASS_NOTES,
        True,
        TONAL_FLAGS,
        motion=True,
        tilt=0.5,
    ),
    "pluck": Kind(
        tonal.pluck,
        ((0.12, 0.18), (0.7, 1.1), (2.2, 3.2)),
        (0.0005, 0.001),
        (0.02, 0.03),
        MIDDLE_NOTES,
        True,
        TONAL_FLAGS,
        tilt=0.9,
    ),
    "pad": Kind(
        tonal.pad,
        ((0.25, 0.35), None, None),
        (0.25, 0.4),
        (0.7, 0.9),
        MIDDLE_NOTES,
        True,
        TONAL_FLAGS,
        motion=True,
        tilt=0.5,
    ),
    "lead": Kind(
        tonal.lead,
        ((0.12, 0.18), (0.7, 1.0), None),
        (0.004, 0.01),
        SLOW,
        ((43.0, 50.0), (57.0, 67.0), (76.0, 86.0)),
        True,
        TONAL_FLAGS,
        motion=True,
        tilt=0.6,
    ),
    "bell": Kind(
        tonal.bell,
        ((0.25, 0.35), (1.8, 2.4), (3.5, 5.0)),
        (0.0005, 0.001),
        (0.02, 0.03),
        BELL_NOTES,
        True,
        ("distorted", "noisy", "warm", "airy", "detuned"),
        tilt=0.8,
    ),
    "organ": Kind(
        tonal.organ,
        ((0.15, 0.22), None, None),
        (0.008, 0.015),
        SLOW,
        MIDDLE_NOTES,
        True,
        TONAL_FLAGS,
        tilt=0.6,
    ),
    "brass": Kind(
        tonal.brass,
        ((0.15, 0.22), (0.6, 0.9), None),
        (0.02, 0.04),
        SLOW,
        MIDDLE_NOTES,
        True,
        TONAL_FLAGS,
        tilt=0.5,
    ),
    "drone": Kind(
        tonal.drone,
        ((0.3, 0.4), None, None),
        (0.05, 0.1),
        (0.5, 0.8),
        BASS_NOTES,
        True,
        TONAL_FLAGS,
        tilt=0.6,
    ),
    "siren": Kind(
        tonal.siren,
        ((0.3, 0.4), None, None),
        (0.01, 0.02),
        SLOW,
        MIDDLE_NOTES,
        False,
        ("distorted", "metallic", "noisy"),
        edge=False,
        tilt=0.7,
    ),
    "riser": Kind(
        textures.riser,
        ((0.4, 0.5), None, None),
        (0.01, 0.02),
        SLOW,
        flags=("distorted", "metallic", "airy"),
        edge=False,
        motion=True,
        tilt=0.6,
    ),
    "rain": Kind(
        textures.rain,
        ((0.3, 0.4), None, None),
        (0.01, 0.03),
        SLOW,
        flags=("metallic", "warm"),
        tilt=0.8,
    ),
    "wind": Kind(
        textures.wind,
        ((0.3, 0.4), None, None),
        (0.03, 0.06),
        SLOW,
        flags=("metallic", "airy", "distorted"),
        tilt=0.8,
    ),
    "zap": Kind(
        textures.zap,
        ((0.09, 0.13), (0.3, 0.45), (1.0, 1.4)),
        (0.001, 0.002),
        flags=("distorted", "metallic", "noisy"),
        edge=False,
        motion=True,
        tilt=0.7,
    ),
    "bubble": Kind(
        textures.bubble,
        ((0.15, 0.25), (0.3, 0.45), (1.2, 1.6)),
        flags=("metallic", "warm", "airy"),
        edge=False,
        tilt=0.7,
    ),
    "crackle": Kind(
        textures.crackle,
        ((0.3, 0.4), None, None),
        (0.001, 0.002),
        flags=("warm", "distorted"),
        edge=False,
        tilt=0.8,
    ),
    "noise": Kind(
        textures.noise,
        ((0.12, 0.2), None, None),
        (0.002, 0.004),
        SLOW,
        flags=("distorted", "metallic"),
        tilt=1.0,
    ),
}
