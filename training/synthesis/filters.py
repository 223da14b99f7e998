"""Causal filters. Frequencies are in hertz, gains in decibels."""

import numpy as np
from scipy.signal import butter, sosfilt

from training.synthesis.oscillators import RATE, Signal

NYQUIST = RATE / 2


def _clip(frequency: float) -> float:
    return float(np.clip(frequency, 20.0, 0.95 * NYQUIST))


def low_pass(signal: Signal, frequency: float, order: int = 2) -> Signal:
    """Apply a Butterworth low-pass."""
    return np.asarray(sosfilt(butter(order, _clip(frequency), "low", fs=RATE, output="sos"), signal))


def high_pass(signal: Signal, frequency: float, order: int = 2) -> Signal:
    """Apply a Butterworth high-pass."""
    return np.asarray(sosfilt(butter(order, _clip(frequency), "high", fs=RATE, output="sos"), signal))


def band_pass(signal: Signal, low: float, high: float, order: int = 2) -> Signal:
    """Apply a Butterworth band-pass between `low` and `high`."""
    low = _clip(low)
    return np.asarray(
        sosfilt(butter(order, (low, max(_clip(high), low * 1.05)), "band", fs=RATE, output="sos"), signal)
    )


def resonance(signal: Signal, frequency: float, quality: float) -> Signal:
    """Apply a two-pole band-pass of unit peak gain (Robert Bristow-Johnson's cookbook)."""
    angle = 2 * np.pi * _clip(frequency) / RATE
    alpha = np.sin(angle) / (2 * quality)
    sos = np.array([[alpha, 0.0, -alpha, 1 + alpha, -2 * np.cos(angle), 1 - alpha]])
    sos /= sos[0, 3]
    return np.asarray(sosfilt(sos, signal))


def high_shelf(signal: Signal, frequency: float, gain_decibels: float) -> Signal:
    """Apply a high shelf of slope 1 (Robert Bristow-Johnson's cookbook)."""
    amplitude = 10 ** (gain_decibels / 40)
    angle = 2 * np.pi * _clip(frequency) / RATE
    cosine, alpha = np.cos(angle), np.sin(angle) / np.sqrt(2)
    root = 2 * np.sqrt(amplitude) * alpha
    above, below = amplitude + 1, amplitude - 1
    sos = np.array(
        [
            [
                amplitude * (above + below * cosine + root),
                -2 * amplitude * (below + above * cosine),
                amplitude * (above + below * cosine - root),
                above - below * cosine + root,
                2 * (below - above * cosine),
                above - below * cosine - root,
            ]
        ]
    )
    sos /= sos[0, 3]
    return np.asarray(sosfilt(sos, signal))


def sweep(signal: Signal, cutoff: Signal, shape: str = "low", width: float = 1.6) -> Signal:
    """Apply a filter with a time-varying `cutoff`, by crossfades between fixed filters half an octave apart.

    Args:
        signal: samples to filter.
        cutoff: hertz for each sample.
        width: ratio of a band's edges to its centre.
        shape: "low" for a low-pass, "band" for a band-pass from cutoff / width to cutoff * width.
    """
    octave = np.log2(np.clip(cutoff, 30.0, 0.9 * NYQUIST))
    first, last = np.floor(octave.min() * 2) / 2, np.ceil(octave.max() * 2) / 2
    total = np.zeros_like(signal)
    for centre in np.arange(first, last + 0.25, 0.5):
        weight = np.clip(1 - np.abs(octave - centre) / 0.5, 0, 1)
        if not weight.any():
            continue
        frequency = 2.0**centre
        if shape == "low":
            filtered = low_pass(signal, frequency, 4)
        else:
            filtered = band_pass(signal, frequency / width, frequency * width)
        total += weight * filtered
    return total


def tilt(signal: Signal, amount: float) -> Signal:
    """Change the brightness by `amount`, -1 (dark) to 1 (bright), with cascaded shelves; 0 has no effect."""
    if amount < 0:
        darker = high_shelf(signal, 350.0, 13.0 * amount)
        darker = high_shelf(darker, 1200.0, 17.0 * amount)
        return high_shelf(darker, 4000.0, 14.0 * amount)
    brighter = high_shelf(signal, 500.0, 6.0 * amount)
    brighter = high_shelf(brighter, 1500.0, 10.0 * amount)
    return high_shelf(brighter, 4500.0, 10.0 * amount)


def saturate(signal: Signal, drive: float) -> Signal:
    """Normalise the peak and clip with a hyperbolic tangent, `drive` 1 (mild) to 30 (square)."""
    peak = np.max(np.abs(signal)) + 1e-12
    return np.tanh(drive * signal / peak)
