"""Noises and effects: each function returns (samples,) for its `Controls`."""

import numpy as np

from training.synthesis import envelopes, filters, oscillators
from training.synthesis.controls import Controls
from training.synthesis.oscillators import RATE, Signal


def riser(c: Controls) -> Signal:
    """Riser, sweep: band-passed noise whose centre rises (or falls: a downlifter), and a gliding tone."""
    low, high = 250 * c.shift, 7000 * c.shift
    start, stop = (high, low) if c.motion < 0 else (low, high)
    span = min(c.seconds, c.window_seconds)
    centre = envelopes.glide(c.samples, start, stop, span)
    noise = filters.sweep(2.5 * oscillators.white_noise(c.samples, c.random), centre, "band", 1.5)
    tone = c.between(0.0, 0.35) * filters.low_pass(oscillators.saw(centre / 4, c.samples), 6000)
    position = np.minimum(np.arange(c.samples) / RATE / span, 1.0)
    swell = 0.3 + 0.7 * position if c.motion >= 0 else 1.0 - 0.7 * position
    return (noise + tone) * swell * c.held(0.12)


def rain(c: Controls) -> Signal:
    """Rain: steady high noise and many drops."""
    bed = filters.high_pass(oscillators.coloured_noise(c.samples, 0.7, c.random), 900 * c.shift, 1)
    drops = oscillators.grains(c.samples, 220, 0.012, 2000 * c.shift, 9000, c.random)
    return (bed + 0.5 * drops) * c.held(0.3)


def wind(c: Controls) -> Signal:
    """Wind: noise through a band-pass with random centre frequency and level."""
    centre = 480 * c.shift * 2.0 ** (0.8 * envelopes.wander(c.samples, 1.5, c.random))
    gusts = 0.65 + 0.35 * envelopes.wander(c.samples, 1.5, c.random)
    noise = oscillators.coloured_noise(c.samples, 0.5, c.random)
    return (filters.sweep(noise, centre, "band", 1.35) * 2 + 0.12 * noise) * gusts * c.held(0.4)


def zap(c: Controls) -> Signal:
    """Laser, zap: a tone that falls (or rises) several octaves fast."""
    high, low = c.between(3500, 6000) * c.shift, c.between(120, 250) * c.shift
    start, stop = (low, high) if c.motion > 0 else (high, low)
    curve = envelopes.glide(c.samples, start, stop, 0.8 * c.seconds)
    tone = oscillators.pulse(curve, c.samples) if c.random.uniform() < 0.4 else oscillators.sine(curve, c.samples)
    return tone * c.held(0.06) * envelopes.decay(c.samples, 2.5 * c.seconds)


def bubble(c: Controls) -> Signal:
    """Bubble, water drop: short sines that rise in pitch, one or a few."""
    total = np.zeros(c.samples)
    count = int(c.random.integers(1, 4)) if c.seconds < 0.5 else int(c.random.integers(4, 9))
    for index in range(count):
        start = 0 if index == 0 else int(c.between(0.05, 0.9) * min(c.seconds * 1.5, c.window_seconds) * RATE)
        length = c.samples - start
        if length < 64:
            continue
        base = c.between(500, 1000) * c.shift
        tone = oscillators.sine(envelopes.glide(length, base, base * c.between(1.8, 2.6), 0.09), length)
        total[start:] += c.between(0.6, 1.0) * tone * envelopes.attack(length, 0.003) * envelopes.decay(length, 0.18)
    return total


def crackle(c: Controls) -> Signal:
    """Vinyl crackle, fire: sparse clicks over quiet hiss."""
    clicks = oscillators.grains(c.samples, 35, 0.004, 1500 * c.shift, 7000 * c.shift, c.random)
    clicks[:200] += 0.7 * oscillators.white_noise(200, c.random)
    hiss = filters.band_pass(oscillators.white_noise(c.samples, c.random), 400, 5000, 1)
    return (clicks + 0.04 * hiss) * c.held(0.2)


def noise(c: Controls) -> Signal:
    """White noise: a burst or a steady hiss."""
    return oscillators.white_noise(c.samples, c.random) * c.held(0.1)
