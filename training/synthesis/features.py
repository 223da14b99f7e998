"""Measures of a sound. The input is (samples,) float, -1..1, at the synthesis's rate."""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

from training.synthesis.oscillators import RATE

Samples = NDArray[np.floating]
FRAME = 1024
HOP = 256


def envelope(samples: Samples, seconds: float = 0.005) -> Samples:
    """Return the RMS level of consecutive segments of `seconds`."""
    size = max(1, int(seconds * RATE))
    count = len(samples) // size
    return np.sqrt(np.mean(np.square(samples[: count * size].reshape(count, size)), axis=1) + 1e-12)


def spectrogram(samples: Samples) -> Samples:
    """Return the power of Hann-windowed frames, (frames, FRAME / 2 + 1)."""
    padded = np.pad(samples, (0, FRAME))
    starts = np.arange(0, len(samples), HOP)
    frames = padded[starts[:, None] + np.arange(FRAME)[None]] * np.hanning(FRAME)
    return np.abs(np.fft.rfft(frames, axis=1)) ** 2


def _frequencies() -> Samples:
    return np.fft.rfftfreq(FRAME, 1 / RATE)


def peak(samples: Samples) -> float:
    """Return the largest absolute sample."""
    return float(np.max(np.abs(samples)))


def centroid(samples: Samples) -> float:
    """Return the magnitude-weighted mean frequency of the average spectrum in hertz."""
    magnitude = np.sqrt(spectrogram(samples).mean(0))
    return float((magnitude * _frequencies()).sum() / (magnitude.sum() + 1e-12))


def centroid_movement(samples: Samples) -> float:
    """Return the octaves by which the centroid rises from the first to the last third of the audible part."""
    power = spectrogram(samples)
    loudness = power.sum(1)
    audible = power[loudness > 1e-3 * loudness.max()]
    third = max(1, len(audible) // 3)
    centroids = [
        (np.sqrt(part.mean(0)) * _frequencies()).sum() / np.sqrt(part.mean(0)).sum()
        for part in (audible[:third], audible[-third:])
    ]
    return float(np.log2(centroids[1] / centroids[0]))


def attack_seconds(samples: Samples) -> float:
    """Return the time until the level, smoothed over 20 ms, first reaches 70 % of its maximum."""
    level = np.convolve(envelope(samples), np.ones(4) / 4, "full")[: -3 or None]
    return float(np.argmax(level >= 0.7 * level.max()) * 0.005)


def length_seconds(samples: Samples) -> float:
    """Return the time after which the level stays below -26 dB of its maximum."""
    level = envelope(samples, 0.01)
    return float((np.flatnonzero(level >= 0.05 * level.max())[-1] + 1) * 0.01)


def onset_seconds(samples: Samples) -> float:
    """Return the time of the first sample above 2 % of the peak."""
    return float(np.argmax(np.abs(samples) >= 0.02 * peak(samples)) / RATE)


def unsteadiness(samples: Samples) -> float:
    """Return the coefficient of variation of the level in 50 ms segments, from 10 % to 80 % of the sound; 0: steady."""
    middle = samples[int(0.1 * len(samples)) : int(0.8 * len(samples))]
    level = envelope(middle, 0.05)
    return float(level.std() / (level.mean() + 1e-12))


def loudest_segment(samples: Samples, seconds: float = 0.35) -> Samples:
    """Return the segment that starts 30 ms after the loudest moment, where a pitch is clearest."""
    start = int(np.argmax(envelope(samples, 0.02)) * 0.02 * RATE) + int(0.03 * RATE)
    size = int(seconds * RATE)
    start = max(0, min(start, len(samples) - size))
    return samples[start : start + size]


def pitch(samples: Samples) -> float:
    """Return the fundamental frequency in hertz, 25..2500: the shortest period with a high autocorrelation."""
    part = loudest_segment(samples)
    part = part - part.mean()
    size = 2 ** int(np.ceil(np.log2(2 * len(part))))
    correlation = np.fft.irfft(np.abs(np.fft.rfft(part, size)) ** 2)[: len(part)]
    correlation = correlation / (correlation[0] + 1e-12)
    correlation *= len(part) / (len(part) - np.arange(len(part)) + 1.0)
    shortest, longest = RATE // 2500, min(RATE // 25, len(part) // 2)
    window = correlation[shortest:longest]
    peaks, _ = find_peaks(window)
    if not len(peaks):
        return float(RATE / (shortest + int(np.argmax(window))))
    good = int(peaks[window[peaks] >= 0.85 * window[peaks].max()][0])
    below, middle, above = (float(value) for value in window[good - 1 : good + 2])
    curvature = min(below - 2.0 * middle + above, -1e-12)
    offset = 0.5 * (below - above) / curvature  # vertex of the parabola through the three values
    return float(RATE / (shortest + good + offset))


def inharmonicity(samples: Samples) -> float:
    """Return the share of the twelve strongest peaks' power that fits no harmonic series, 0 (harmonic) to 1."""
    part = loudest_segment(samples, 0.5)
    size = 2**16
    power = np.abs(np.fft.rfft(part * np.hanning(len(part)), size)) ** 2
    frequencies = np.fft.rfftfreq(size, 1 / RATE)
    peaks, _ = find_peaks(power, distance=int(20 * size / RATE), height=power.max() * 1e-4)
    strongest = peaks[np.argsort(power[peaks])[-12:]]
    peaks_hertz, weight = frequencies[strongest], np.sqrt(power[strongest])
    best = 0.0
    # every strong peak may be one of the first four harmonics
    for base in {peak_hertz / order for peak_hertz in peaks_hertz for order in (1, 2, 3, 4)}:
        if base < 30:
            continue
        order = np.maximum(1, np.round(peaks_hertz / base))
        fits = np.abs(peaks_hertz - order * base) < 0.012 * peaks_hertz + 3
        # a low base fits any peaks, so the expected share of random fits is subtracted
        chance = min(1.0, 2 * (0.012 * peaks_hertz.mean() + 3) / base)
        best = max(best, float((weight[fits].sum() / weight.sum() - chance) / (1 - chance + 1e-9)))
    return 1.0 - best


def spectral_entropy(samples: Samples) -> float:
    """Return the entropy of the average power over third-octave bands, 0 (one band) to 1 (all equal)."""
    power = spectrogram(samples).mean(0)
    edges = 50.0 * 2.0 ** (np.arange(0, 26) / 3)
    index = np.digitize(_frequencies(), edges)
    bands = np.array([power[index == band].sum() for band in range(1, 26)])
    share = bands / (bands.sum() + 1e-12) + 1e-9
    return float(-(share * np.log(share)).sum() / np.log(25))


def fullness(samples: Samples) -> float:
    """Return the RMS level divided by the peak; clipping raises it."""
    return float(np.sqrt(np.mean(np.square(samples))) / (peak(samples) + 1e-12))


def low_share(samples: Samples) -> float:
    """Return the share of power below 200 Hz."""
    power = spectrogram(samples).sum(0)
    return float(power[_frequencies() < 200].sum() / (power.sum() + 1e-12))
