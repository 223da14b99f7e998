"""What a kind's function is told: the numbers that a recipe's words have been turned into."""

from dataclasses import dataclass

import numpy as np

from training.synthesis import envelopes
from training.synthesis.oscillators import RATE, Signal, midi_to_hertz


@dataclass
class Controls:
    """Numbers for one sound.

    Attributes:
        random: the sound's own random generator.
        samples: window length in samples.
        note: MIDI note (unpitched kinds: 60, shifted by +-8 for low and high).
        seconds: how long it sounds: time to -60 dB of a struck sound, held time of a sustained one.
        attack_seconds: rise time.
        edge: -1 fast or punchy, 0 ordinary, 1 slow or soft.
        motion: -1 falls in pitch, 0 stays, 1 rises.
        brightness: -1 dark .. 1 bright.
        detuned: whether the oscillators beat against each other.
    """

    random: np.random.Generator
    samples: int
    note: float
    seconds: float
    attack_seconds: float
    edge: int = 0
    motion: int = 0
    brightness: float = 0.0
    detuned: bool = False

    @property
    def window_seconds(self) -> float:
        """The window's length in seconds."""
        return self.samples / RATE

    @property
    def hertz(self) -> float:
        """The note's frequency."""
        return midi_to_hertz(self.note)

    @property
    def shift(self) -> float:
        """Frequency ratio that an unpitched kind's pitch word asks for (1 at note 60)."""
        return 2.0 ** ((self.note - 60.0) / 12.0)

    @property
    def pitch_curve(self) -> Signal:
        """Frequency per sample in hertz: the note, gliding an octave over the sound if `motion` asks for it."""
        span = min(self.seconds, self.window_seconds)
        return envelopes.glide(self.samples, self.hertz, self.hertz * 2.0**self.motion, span)

    def between(self, low: float, high: float) -> float:
        """A uniform random number."""
        return float(self.random.uniform(low, high))

    def struck(self, fraction: float = 1.0) -> Signal:
        """Envelope of a struck sound: immediate (or `attack_seconds` when soft), then decay."""
        return envelopes.attack(self.samples, self.attack_seconds) * envelopes.decay(
            self.samples, self.seconds * fraction
        )

    def held(self, release_seconds: float = 0.25) -> Signal:
        """Envelope of a sustained sound: rise, hold, release."""
        return envelopes.attack(self.samples, self.attack_seconds) * envelopes.hold(
            self.samples, self.seconds, release_seconds
        )
