"""Sounds with a note: each function returns (samples,) for its `Controls`."""

import numpy as np

from training.synthesis import envelopes, filters, oscillators
from training.synthesis.controls import Controls
from training.synthesis.oscillators import RATE, Signal


def _cutoff(c: Controls, harmonics: float) -> float:
    """Return the filter's cutoff in hertz: `harmonics` times the note at neutral brightness, +-2 octaves."""
    return float(np.clip(c.hertz * harmonics * 4.0**c.brightness, 120, 14_000))


def bass(c: Controls) -> Signal:
    """Bass: saw or square, sub sine, falling filter."""
    curve = c.pitch_curve
    if c.random.uniform() < 0.5:
        source = oscillators.saw(curve, c.samples)
    else:
        source = oscillators.pulse(curve, c.samples, c.between(0.3, 0.5))
    cutoff = _cutoff(c, 6)
    filtered = filters.sweep(source, envelopes.settle(c.samples, 2.5 * cutoff, cutoff, 0.12))
    return (filtered + 0.6 * oscillators.sine(curve, c.samples)) * c.held(0.12)


def pluck(c: Controls) -> Signal:
    """Plucked string (Karplus-Strong): guitar, harp, koto."""
    excitation = oscillators.white_noise(400, c.random)
    if c.brightness <= 0.3:
        excitation = np.convolve(excitation, np.ones(5) / 5, "same")
    # gain per period that reaches -60 dB after `seconds`
    damping = float(np.clip(10 ** (-3 / (c.seconds * c.hertz)), 0.5, 0.9995))
    string = oscillators.plucked_string(c.hertz, c.samples, damping, excitation)
    return string * c.struck(1.2) + {-1: 0.3, 0: 0.0, 1: 0.0}[c.edge] * oscillators.white_noise(
        c.samples, c.random
    ) * envelopes.decay(c.samples, 0.02)


def pad(c: Controls) -> Signal:
    """Pad: detuned saws, sometimes a fifth or a chord, through a slow filter."""
    intervals = [(0, 12), (0, 7, 12), (0, 4, 7), (0, 3, 7)][int(c.random.integers(4))]
    cents = c.between(30, 45) if c.detuned else c.between(5, 10)
    curve = c.pitch_curve
    total = np.zeros(c.samples)
    for interval in intervals:
        total += oscillators.supersaw(curve * 2.0 ** (interval / 12), c.samples, 3, cents, c.random)
    cutoff = _cutoff(c, 6)
    movement = 2.0 ** (0.5 * envelopes.wander(c.samples, 1.0, c.random))
    return filters.sweep(total, cutoff * movement) * c.held(0.5)


def lead(c: Controls) -> Signal:
    """Lead: bright saw or pulse with vibrato."""
    vibrato = 2.0 ** (0.12 / 12 * 2 * np.sin(2 * np.pi * c.between(4.5, 6) * np.arange(c.samples) / RATE))
    curve = c.pitch_curve * vibrato
    if c.detuned:
        source = oscillators.supersaw(curve, c.samples, 5, c.between(25, 40), c.random)
    elif c.random.uniform() < 0.5:
        source = oscillators.saw(curve, c.samples)
    else:
        source = oscillators.pulse(curve, c.samples, c.between(0.15, 0.5))
    return filters.low_pass(source, _cutoff(c, 14), 2) * c.held(0.15)


def bell(c: Controls) -> Signal:
    """Bell, chime: inharmonic partials, of which high ones decay faster, and FM at an irrational ratio."""
    ratios = np.array([0.56, 1.0, 1.19, 1.71, 2.0, 2.74, 3.0, 3.76, 4.07]) * c.random.uniform(0.99, 1.01, 9)
    amplitudes = np.array([0.6, 1.0, 0.8, 0.6, 0.7, 0.5, 0.35, 0.3, 0.25])
    decays = c.seconds * np.array([1.0, 0.95, 0.8, 0.75, 0.6, 0.45, 0.4, 0.3, 0.25])
    ringing = oscillators.partials(ratios * c.hertz, amplitudes, decays, c.samples)
    index = c.between(1.0, 2.0) * envelopes.decay(c.samples, c.seconds * 0.5)
    modulated = oscillators.frequency_modulation(c.hertz, 1.414, index, c.samples)
    return ringing + 0.6 * modulated * c.struck()


def organ(c: Controls) -> Signal:
    """Organ: drawbar sines at 1/2, 1, 3/2, 2, 3, 4 ... of the note, steady."""
    total = np.zeros(c.samples)
    curve = c.pitch_curve
    for ratio in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0):
        level = c.between(0.3, 1.0) * ratio ** (0.8 * c.brightness - 0.4)
        total += level * oscillators.sine(curve * ratio, c.samples, c.between(0, 1))
    return total * c.held(0.08)


def brass(c: Controls) -> Signal:
    """Brass stab: saws whose filter opens with the attack."""
    source = oscillators.supersaw(c.pitch_curve, c.samples, 3, c.between(6, 12), c.random)
    cutoff = _cutoff(c, 9)
    swell = envelopes.attack(c.samples, max(0.06, c.attack_seconds))
    return filters.sweep(source, cutoff * (0.25 + 0.75 * swell)) * c.held(0.2)


def drone(c: Controls) -> Signal:
    """Drone: low detuned saws through a slowly moving filter."""
    cents = c.between(25, 40) if c.detuned else c.between(4, 9)
    source = oscillators.supersaw(c.hertz, c.samples, 4, cents, c.random)
    source += 0.6 * oscillators.sine(c.hertz, c.samples) + 0.3 * oscillators.saw(c.hertz * 1.5, c.samples)
    movement = 2.0 ** (0.3 * envelopes.wander(c.samples, 0.8, c.random))
    return filters.sweep(source, _cutoff(c, 7) * movement) * c.held(0.3)


def siren(c: Controls) -> Signal:
    """Siren, alarm: a tone swept up and down."""
    rate = c.between(0.8, 2.5)
    wave = np.sin(2 * np.pi * rate * np.arange(c.samples) / RATE - np.pi / 2)
    curve = c.hertz * 2.0 ** (0.6 * (wave + 1))
    source = (
        oscillators.pulse(curve, c.samples, 0.5) if c.random.uniform() < 0.5 else oscillators.triangle(curve, c.samples)
    )
    return filters.low_pass(source, _cutoff(c, 12), 2) * c.held(0.1)
