"""Struck sounds without a musical note: each function returns (samples,) for its `Controls`."""

import numpy as np

from training.synthesis import envelopes, filters, oscillators
from training.synthesis.controls import Controls
from training.synthesis.oscillators import RATE, Signal

SQUARE_RATIOS = np.array([2.0, 3.0, 4.16, 5.43, 6.79, 8.21])


def _click(c: Controls, seconds: float, low: float, high: float) -> Signal:
    """Return a burst of filtered noise at t = 0."""
    noise = oscillators.white_noise(c.samples, c.random) * envelopes.decay(c.samples, seconds)
    return filters.band_pass(noise, low, high, 1)


def _metal(c: Controls, base: float) -> Signal:
    """Return six inharmonic square waves, the source of analogue cymbals."""
    total = np.zeros(c.samples)
    for ratio in SQUARE_RATIOS * c.random.uniform(0.97, 1.03, 6):
        total += oscillators.pulse(base * ratio, c.samples, start=c.between(0, 1))
    return total / 6


def kick(c: Controls) -> Signal:
    """Bass drum: a sine that drops in pitch, and a click."""
    base = c.between(44, 58) * c.shift
    sweep = envelopes.settle(c.samples, base * c.between(3.0, 5.5), base, c.between(0.018, 0.04))
    body = oscillators.sine(sweep, c.samples) * c.struck()
    click = {-1: 0.9, 0: 0.35, 1: 0.05}[c.edge] * (1 + 0.8 * max(c.brightness, 0))
    return body + click * _click(c, 0.025, 1200, 6000)


def snare(c: Controls) -> Signal:
    """Snare drum: two drum modes and noise of the wires."""
    base = c.between(170, 210) * c.shift
    sweep = envelopes.settle(c.samples, base * 1.6, base, 0.015)
    drum = oscillators.sine(sweep, c.samples) + 0.5 * oscillators.sine(1.62 * sweep, c.samples)
    wires = filters.band_pass(oscillators.white_noise(c.samples, c.random), 1300 * c.shift, 9000, 1)
    snap = {-1: 0.9, 0: 0.3, 1: 0.0}[c.edge]
    return 0.45 * drum * c.struck(0.55) + c.between(2.0, 3.0) * wires * c.struck() + snap * _click(c, 0.012, 2000, 9000)


def clap(c: Controls) -> Signal:
    """Hand clap: three quick bursts and a tail of band-passed noise."""
    noise = filters.band_pass(oscillators.white_noise(c.samples, c.random), 800 * c.shift, 2300 * c.shift, 2)
    total = np.zeros(c.samples)
    start = 0
    for _ in range(3):
        total[start:] += envelopes.decay(c.samples - start, 0.022)
        start += int(c.between(0.009, 0.014) * RATE)
    total[start:] += 0.8 * c.struck()[: c.samples - start]
    return 3 * noise * total


def closed_hat(c: Controls) -> Signal:
    """Closed hi-hat: high-passed metal and noise, short."""
    source = _metal(c, 540 * c.shift) + 0.7 * oscillators.white_noise(c.samples, c.random)
    return filters.high_pass(source, 7000, 3) * c.struck()


def open_hat(c: Controls) -> Signal:
    """Open hi-hat: the source of the closed hi-hat with a long decay."""
    source = _metal(c, 540 * c.shift) + 0.7 * oscillators.white_noise(c.samples, c.random)
    return filters.high_pass(source, 6300, 3) * (0.35 * c.struck(0.3) + c.struck())


def cymbal(c: Controls) -> Signal:
    """Crash or ride: dense metal and noise, long, with highs that decay faster."""
    source = (
        _metal(c, 410 * c.shift) + 0.5 * _metal(c, 610 * c.shift) + 1.1 * oscillators.white_noise(c.samples, c.random)
    )
    source = filters.high_pass(source, 2600, 2)
    highs = filters.high_pass(source, 7000, 2) * c.struck(0.7)
    return source * c.struck() + highs


def tom(c: Controls) -> Signal:
    """Tom-tom: a drum mode with a slower pitch drop."""
    base = c.between(100, 130) * c.shift
    stop = base * {-1: 0.6, 0: 0.9, 1: 1.6}[c.motion]
    sweep = envelopes.settle(c.samples, base * 1.5, stop, 0.05 if c.motion == 0 else 0.12)
    body = oscillators.sine(sweep, c.samples) + 0.25 * oscillators.sine(1.59 * sweep, c.samples)
    return body * c.struck() + {-1: 0.8, 0: 0.3, 1: 0.05}[c.edge] * _click(c, 0.02, 500, 4000)


def rim(c: Controls) -> Signal:
    """Rim shot, clave, wood block: two high resonances, very short."""
    base = c.between(1500, 1900) * c.shift
    time = np.array([base, base * 1.52, base * 0.31])
    return oscillators.partials(time, np.array([1.0, 0.5, 0.3]), np.full(3, c.seconds), c.samples) + 0.4 * _click(
        c, 0.01, 2000, 8000
    )


def shaker(c: Controls) -> Signal:
    """Shaker, maraca: band-passed noise with a short swell."""
    noise = filters.band_pass(oscillators.white_noise(c.samples, c.random), 4500 * c.shift, 11_000, 2)
    return noise * envelopes.attack(c.samples, max(0.018, c.attack_seconds)) * envelopes.decay(c.samples, c.seconds)


def cowbell(c: Controls) -> Signal:
    """Cowbell: two square waves a detuned fifth apart, band-passed."""
    base = c.between(530, 560) * c.shift
    tone = oscillators.pulse(base, c.samples) + oscillators.pulse(base * 1.48, c.samples)
    return filters.band_pass(tone, 700 * c.shift, 3500 * c.shift, 1) * (0.5 * c.struck(0.3) + 0.5 * c.struck())


def impact(c: Controls) -> Signal:
    """Cinematic impact, boom: a falling sub and a rumble with a long tail."""
    base = c.between(34, 44) * c.shift
    sub = oscillators.sine(envelopes.settle(c.samples, base * 3, base, 0.15), c.samples)
    rumble = filters.low_pass(oscillators.coloured_noise(c.samples, 1.0, c.random), 700, 2)
    return sub * c.struck() + 1.2 * rumble * c.struck(0.6) + 0.5 * _click(c, 0.06, 300, 3000)
