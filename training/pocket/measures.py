"""Measures of sounds, for the evaluation: mono float samples at 44.1 kHz."""

import itertools

import numpy as np
from numpy.typing import NDArray

from training.pocket.settings import SAMPLE_RATE

Samples = NDArray[np.floating]


def harmonics_to_noise(samples: Samples, low_hertz: float = 60.0, high_hertz: float = 2000.0) -> float:
    """Median over frames of the harmonics-to-noise ratio in decibels (Boersma 1993).

    Frames are 6 periods of the lowest pitch long; autocorrelations are divided by the window's own.
    """
    length = int(6 * SAMPLE_RATE / low_hertz)
    size = 2 ** int(np.ceil(np.log2(2 * length)))
    window = np.hanning(length)
    own = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2)
    own /= own[0]
    shortest, longest = int(SAMPLE_RATE / high_hertz), int(SAMPLE_RATE / low_hertz)
    found: list[float] = []
    loudest = float(np.max(np.abs(samples))) + 1e-12
    for start in range(0, max(1, len(samples) - length), length // 4):
        frame = samples[start : start + length]
        if len(frame) < length or np.max(np.abs(frame)) < 0.02 * loudest:
            continue
        frame = (frame - frame.mean()) * window
        correlation = np.fft.irfft(np.abs(np.fft.rfft(frame, size)) ** 2)
        normal = correlation[: longest + 2] / (correlation[0] + 1e-20) / own[: longest + 2]
        peak = shortest + int(np.argmax(normal[shortest : longest + 1]))
        below, middle, above = normal[peak - 1], normal[peak], normal[peak + 1]
        bend = below - 2 * middle + above
        top = middle - 0.125 * (above - below) ** 2 / bend if bend < 0 else middle
        share = float(np.clip(top, 1e-4, 1 - 1e-5))
        found.append(10 * np.log10(share / (1 - share)))
    return float(np.median(found)) if found else float("-inf")


def spectrum(samples: Samples, size: int = 2**17) -> tuple[Samples, Samples]:
    """Power of the whole sound under a Hann window, and frequencies in hertz."""
    part = samples[:size]
    power = np.abs(np.fft.rfft(part * np.hanning(len(part)), size)) ** 2
    return power, np.fft.rfftfreq(size, 1 / SAMPLE_RATE)


def log_spectral_distance(first: Samples, second: Samples, floor_db: float = -70.0) -> float:
    """Root mean square difference in decibels of third-octave-like levels every 12 ms, where the first isn't silent."""
    levels = [_levels(samples) for samples in (first, second)]
    count = min(len(level) for level in levels)
    top = float(levels[0].max())
    pair = [np.maximum(level[:count], top + floor_db) for level in levels]
    heard = pair[0] > top + floor_db + 10
    return float(np.sqrt(np.mean((pair[0] - pair[1])[heard] ** 2)))


def _levels(samples: Samples) -> Samples:
    """Decibels in 48 bands every 512 samples."""
    size, hop = 2048, 512
    count = max(1, 1 + (len(samples) - size) // hop)
    padded = np.pad(samples, (0, size))
    frames = padded[np.arange(count)[:, None] * hop + np.arange(size)] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    edges = np.geomspace(60, 18_000, 49)
    bands = [power[:, (hertz >= low) & (hertz < high)].sum(1) for low, high in itertools.pairwise(edges)]
    return 10 * np.log10(np.stack(bands, 1) + 1e-12)
