"""Measures of a sound, for the evaluation. Input is float samples (samples,) at -1..1 at the model's rate."""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

from training.settings import SETTINGS

RATE = SETTINGS.mel.sample_rate
Samples = NDArray[np.floating]
FRAME = 1024
HOP = 256


def envelope(samples: Samples, seconds: float = 0.005) -> Samples:
    """Root-mean-square level every `seconds`."""
    size = max(1, int(seconds * RATE))
    count = len(samples) // size
    return np.sqrt(np.mean(np.square(samples[: count * size].reshape(count, size)), axis=1) + 1e-12)


def spectrogram(samples: Samples) -> Samples:
    """Power of Hann-windowed frames: (frames, FRAME / 2 + 1)."""
    padded = np.pad(samples, (0, FRAME))
    starts = np.arange(0, len(samples), HOP)
    frames = padded[starts[:, None] + np.arange(FRAME)[None]] * np.hanning(FRAME)
    return np.abs(np.fft.rfft(frames, axis=1)) ** 2


def _frequencies() -> Samples:
    return np.fft.rfftfreq(FRAME, 1 / RATE)


def peak(samples: Samples) -> float:
    """Largest absolute sample."""
    return float(np.max(np.abs(samples)))


def centroid(samples: Samples) -> float:
    """Magnitude-weighted mean frequency of the average spectrum, in hertz."""
    magnitude = np.sqrt(spectrogram(samples).mean(0))
    return float((magnitude * _frequencies()).sum() / (magnitude.sum() + 1e-12))


def centroid_movement(samples: Samples) -> float:
    """Octaves by which the centroid rises from the first to the last third of what sounds."""
    power = spectrogram(samples)
    loudness = power.sum(1)
    sounding = power[loudness > 1e-3 * loudness.max()]
    third = max(1, len(sounding) // 3)
    centroids = [
        (np.sqrt(part.mean(0)) * _frequencies()).sum() / np.sqrt(part.mean(0)).sum()
        for part in (sounding[:third], sounding[-third:])
    ]
    return float(np.log2(centroids[1] / centroids[0]))


def attack_seconds(samples: Samples) -> float:
    """Time until the level, smoothed over 20 ms, first reaches 70 % of its maximum."""
    level = np.convolve(envelope(samples), np.ones(4) / 4, "full")[: -3 or None]
    return float(np.argmax(level >= 0.7 * level.max()) * 0.005)


def length_seconds(samples: Samples) -> float:
    """Time until the level has fallen for good below -26 dB of its maximum."""
    level = envelope(samples, 0.01)
    return float((np.flatnonzero(level >= 0.05 * level.max())[-1] + 1) * 0.01)


def onset_seconds(samples: Samples) -> float:
    """Time until a sample first passes 2 % of the peak."""
    return float(np.argmax(np.abs(samples) >= 0.02 * peak(samples)) / RATE)


def unsteadiness(samples: Samples) -> float:
    """Deviation over mean of the level in 50 ms pieces, from 10 % to 80 % of the sound: 0 is perfectly steady."""
    middle = samples[int(0.1 * len(samples)) : int(0.8 * len(samples))]
    level = envelope(middle, 0.05)
    return float(level.std() / (level.mean() + 1e-12))


def loudest(samples: Samples, seconds: float = 0.35) -> Samples:
    """The stretch that starts 30 ms after the loudest moment (where a pitch is clearest)."""
    start = int(np.argmax(envelope(samples, 0.02)) * 0.02 * RATE) + int(0.03 * RATE)
    size = int(seconds * RATE)
    start = max(0, min(start, len(samples) - size))
    return samples[start : start + size]


def pitch(samples: Samples) -> float:
    """Fundamental frequency in hertz, 25..2500, by normalised autocorrelation; the shortest good period wins."""
    part = loudest(samples)
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
    bent = min(below - 2.0 * middle + above, -1e-12)
    finer = 0.5 * (below - above) / bent  # the top of the parabola through the three
    return float(RATE / (shortest + good + finer))


def inharmonicity(samples: Samples) -> float:
    """Share of spectral power (of the twelve strongest peaks) that fits no harmonic series: 0 harmonic .. 1."""
    part = loudest(samples, 0.5)
    size = 2**16
    power = np.abs(np.fft.rfft(part * np.hanning(len(part)), size)) ** 2
    frequencies = np.fft.rfftfreq(size, 1 / RATE)
    peaks, _ = find_peaks(power, distance=int(20 * size / RATE), height=power.max() * 1e-4)
    strongest = peaks[np.argsort(power[peaks])[-12:]]
    found, weight = frequencies[strongest], np.sqrt(power[strongest])
    best = 0.0
    # Every strong peak may be one of the first four harmonics.
    for base in {peak_hertz / order for peak_hertz in found for order in (1, 2, 3, 4)}:
        if base < 30:
            continue
        order = np.maximum(1, np.round(found / base))
        fits = np.abs(found - order * base) < 0.012 * found + 3
        # A low base fits anything: what fits by chance is taken off.
        chance = min(1.0, 2 * (0.012 * found.mean() + 3) / base)
        best = max(best, float((weight[fits].sum() / weight.sum() - chance) / (1 - chance + 1e-9)))
    return 1.0 - best


def spectral_entropy(samples: Samples) -> float:
    """Evenness of the average power over third-octave bands, 0 one band .. 1 all alike."""
    power = spectrogram(samples).mean(0)
    edges = 50.0 * 2.0 ** (np.arange(0, 26) / 3)
    index = np.digitize(_frequencies(), edges)
    bands = np.array([power[index == band].sum() for band in range(1, 26)])
    share = bands / (bands.sum() + 1e-12) + 1e-9
    return float(-(share * np.log(share)).sum() / np.log(25))


def fullness(samples: Samples) -> float:
    """Root-mean-square level over peak: clipping raises it."""
    return float(np.sqrt(np.mean(np.square(samples))) / (peak(samples) + 1e-12))


def low_share(samples: Samples) -> float:
    """Share of power under 200 Hz."""
    power = spectrogram(samples).sum(0)
    return float(power[_frequencies() < 200].sum() / (power.sum() + 1e-12))
