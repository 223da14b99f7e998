"""Parameters of the synthesis functions, derived from the words of a recipe."""

from dataclasses import dataclass

import numpy as np

from training.synthesis import envelopes
from training.synthesis.oscillators import RATE, Signal, midi_to_hertz


@dataclass
class Controls:
    """Parameters of one sound.

    Attributes:
        random: random generator of this sound.
        samples: window length in samples.
        note: MIDI note (unpitched kinds: 60, shifted by +-8 for low and high).
        seconds: length: time to -60 dB of a struck sound, held time of a sustained one.
        attack_seconds: rise time.
        edge: -1 fast or punchy, 0 ordinary, 1 slow or soft.
        motion: -1 falls in pitch, 0 constant, 1 rises.
        brightness: -1 dark .. 1 bright.
        detuned: True if the oscillators have different frequencies.
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
        """Frequency ratio of an unpitched kind for its pitch word (1 at note 60)."""
        return 2.0 ** ((self.note - 60.0) / 12.0)

    @property
    def pitch_curve(self) -> Signal:
        """Frequency per sample in hertz: the note, with a glide of an octave in the direction of `motion`."""
        span = min(self.seconds, self.window_seconds)
        return envelopes.glide(self.samples, self.hertz, self.hertz * 2.0**self.motion, span)

    def between(self, low: float, high: float) -> float:
        """Return a uniform random number."""
        return float(self.random.uniform(low, high))

    def struck(self, fraction: float = 1.0) -> Signal:
        """Return the envelope of a struck sound: attack, then decay."""
        return envelopes.attack(self.samples, self.attack_seconds) * envelopes.decay(
            self.samples, self.seconds * fraction
        )

    def held(self, release_seconds: float = 0.25) -> Signal:
        """Return the envelope of a sustained sound: attack, hold, release."""
        return envelopes.attack(self.samples, self.attack_seconds) * envelopes.hold(
            self.samples, self.seconds, release_seconds
        )
