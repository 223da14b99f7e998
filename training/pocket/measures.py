"""Measures of sounds for the evaluation. The input is mono, float, at 44.1 kHz."""

import itertools

import numpy as np
from numpy.typing import NDArray

from timbred.models.pocket import SAMPLE_RATE

Samples = NDArray[np.floating]


def harmonics_to_noise(samples: Samples, low_hertz: float = 60.0, high_hertz: float = 2000.0) -> float:
    """Return the median over frames of the harmonics-to-noise ratio in decibels (Boersma 1993).

    Frames are 6 periods of the lowest pitch long. Autocorrelations are divided by the window's autocorrelation.
    """
    length = int(6 * SAMPLE_RATE / low_hertz)
    size = 2 ** int(np.ceil(np.log2(2 * length)))
    window = np.hanning(length)
    own = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2)
    own /= own[0]
    shortest, longest = int(SAMPLE_RATE / high_hertz), int(SAMPLE_RATE / low_hertz)
    ratios: list[float] = []
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
        curvature = below - 2 * middle + above
        top = middle - 0.125 * (above - below) ** 2 / curvature if curvature < 0 else middle
        share = float(np.clip(top, 1e-4, 1 - 1e-5))
        ratios.append(10 * np.log10(share / (1 - share)))
    return float(np.median(ratios)) if ratios else float("-inf")


def spectrum(samples: Samples, size: int = 2**17) -> tuple[Samples, Samples]:
    """Return the power spectrum of the whole sound with a Hann window, and the frequencies in hertz."""
    part = samples[:size]
    power = np.abs(np.fft.rfft(part * np.hanning(len(part)), size)) ** 2
    return power, np.fft.rfftfreq(size, 1 / SAMPLE_RATE)


def log_spectral_distance(first: Samples, second: Samples, floor_db: float = -70.0) -> float:
    """Return the RMS difference in decibels of levels in 48 bands every 12 ms, where `first` isn't silent."""
    levels = [_levels(samples) for samples in (first, second)]
    count = min(len(level) for level in levels)
    top = float(levels[0].max())
    pair = [np.maximum(level[:count], top + floor_db) for level in levels]
    audible = pair[0] > top + floor_db + 10
    return float(np.sqrt(np.mean((pair[0] - pair[1])[audible] ** 2)))


def _levels(samples: Samples) -> Samples:
    """Return levels in decibels in 48 bands every 512 samples."""
    size, hop = 2048, 512
    count = max(1, 1 + (len(samples) - size) // hop)
    padded = np.pad(samples, (0, size))
    frames = padded[np.arange(count)[:, None] * hop + np.arange(size)] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    edges = np.geomspace(60, 18_000, 49)
    bands = [power[:, (hertz >= low) & (hertz < high)].sum(1) for low, high in itertools.pairwise(edges)]
    return 10 * np.log10(np.stack(bands, 1) + 1e-12)


def note_hertz(note: float) -> float:
    """Return the frequency of a MIDI note."""
    return 440.0 * 2 ** ((note - 69) / 12)


def _peak_near(power: Samples, frequencies: Samples, hertz: float, cents: float) -> float:
    """Return the frequency of the strongest peak within some cents, interpolated by a parabola of the logarithms."""
    width = 2 ** (cents / 1200)
    inside = np.flatnonzero((frequencies > hertz / width) & (frequencies < hertz * width))
    top = int(inside[np.argmax(power[inside])])
    below, middle, above = np.log(power[top - 1 : top + 2] + 1e-30)
    curvature = below - 2 * middle + above
    shift = 0.5 * (below - above) / curvature if curvature < 0 else 0.0
    return float(frequencies[top] + shift * (frequencies[1] - frequencies[0]))


def note_cents(samples: Samples, note: int, partials: int = 8) -> float:
    """Return the deviation of a note's partials in cents: the median over partials, weighted by their strength."""
    power, frequencies = spectrum(samples)
    base = note_hertz(note)
    cents, weights = list[float](), list[float]()
    for partial in range(1, partials + 1):
        hertz = partial * base
        if hertz > 8000:
            break
        peak_hertz = _peak_near(power, frequencies, hertz, min(80.0, 800.0 / partial))
        cents.append(1200 * np.log2(peak_hertz / hertz))
        weights.append(float(_near(power, frequencies, hertz, 80)))
    order = np.argsort(cents)
    total = np.cumsum(np.array(weights)[order])
    return float(np.array(cents)[order][np.searchsorted(total, total[-1] / 2)])


def _near(power: Samples, frequencies: Samples, hertz: float, cents: float) -> float:
    width = 2 ** (cents / 1200)
    return float(power[(frequencies > hertz / width) & (frequencies < hertz * width)].sum())


def harmonic_share(samples: Samples, note: int, cents: float = 40.0) -> float:
    """Return the share of energy within some cents, or 6 Hz, of the multiples of a note's frequency."""
    power, frequencies = spectrum(samples)
    base = note_hertz(note)
    multiple = np.maximum(1, np.round(frequencies / base))
    distance = np.abs(frequencies - multiple * base)
    near = distance < np.maximum(6.0, multiple * base * (2 ** (cents / 1200) - 1))
    # limits the width to half of each interval, where multiples are closer than the width
    near &= distance < 0.25 * base
    return float(power[near].sum() / (power.sum() + 1e-20))


def chroma(samples: Samples) -> Samples:
    """Return the strengths of the 12 pitch classes from 60 to 1,000 Hz, by amplitude over frequency."""
    power, frequencies = spectrum(samples)
    inside = (frequencies > 60) & (frequencies < 1000)
    notes = 69 + 12 * np.log2(frequencies[inside] / 440)
    strength = np.sqrt(power[inside]) / frequencies[inside]
    off = np.abs(notes - np.round(notes))
    classes = np.round(notes).astype(int) % 12
    return np.array([strength[(classes == pitch) & (off < 0.3)].max() for pitch in range(12)])


def envelope(samples: Samples, seconds: float = 0.01) -> Samples:
    """Return the RMS level of consecutive segments of `seconds`."""
    size = int(seconds * SAMPLE_RATE)
    count = max(1, len(samples) // size)
    cut = np.pad(samples, (0, max(0, count * size - len(samples))))[: count * size]
    return np.sqrt(np.mean(cut.reshape(count, size) ** 2, axis=1) + 1e-16)


def lasting_seconds(samples: Samples, decibels: float = -20.0) -> float:
    """Return the time after which the level stays below its median over the first half by `decibels`."""
    level = envelope(samples)
    reference = float(np.median(level[: max(1, len(level) // 2)]))
    loud = np.flatnonzero(level > reference * 10 ** (decibels / 20))
    return 0.01 * (int(loud[-1]) + 1) if len(loud) else 0.0


def onsets(samples: Samples) -> tuple[Samples, Samples]:
    """Return times in seconds and strengths of the onsets: rises of log levels in bands over 8 ms."""
    size, hop = 1024, 128
    padded = np.pad(samples, (size // 2, size))
    count = len(samples) // hop
    frames = padded[np.arange(count)[:, None] * hop + np.arange(size)] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = np.unique(np.geomspace(1, size // 2, 25).astype(int))
    bands = np.stack([power[:, low:high].sum(1) for low, high in itertools.pairwise(edges)], 1)
    level = np.log10(bands / bands.max() + 1e-4)
    before = np.pad(level, ((3, 0), (0, 0)), mode="edge")[:-3]
    rise = np.maximum(level - before, 0).mean(1)
    peaks: list[int] = []
    for frame in range(len(rise)):
        neighbours = rise[max(0, frame - 12) : frame + 13]
        if rise[frame] == neighbours.max() and rise[frame] > max(0.12, 0.25 * rise.max()):
            peaks.append(frame)
    onset_frames = np.array(peaks, int)
    return onset_frames * hop / SAMPLE_RATE, rise[onset_frames] if len(onset_frames) else np.array([])


def grid_share(samples: Samples, bpm: float, swing: float = 0.0, tolerance_seconds: float = 0.015) -> float:
    """Return the share of the onsets' strength on the sixteenths (and swung sixteenths) of a tempo, best shift."""
    times, strengths = onsets(samples)
    if not len(times):
        return 0.0
    step = 60.0 / bpm / 4
    best = 0.0
    for shift in np.arange(-0.012, 0.013, 0.002):
        position = (times + shift) / step
        distance = np.abs(position - np.round(position))
        if swing:
            distance = np.minimum(distance, np.abs(position - swing - np.round(position - swing)))
        best = max(best, float(strengths[distance * step <= tolerance_seconds].sum() / strengths.sum()))
    return best


def tempo_error(samples: Samples, bpm: float) -> float:
    """Return the relative deviation of the tempo that fits the onsets best, within 8 % of the requested one."""
    times, strengths = onsets(samples)
    if len(times) < 3:
        return float("inf")
    factors = np.linspace(0.92, 1.08, 321)
    scores: list[float] = []
    for factor in factors:
        phase = 2 * np.pi * times * factor * bpm / 60 * 4
        scores.append(float(np.abs((strengths * np.exp(1j * phase)).sum())))
    return float(abs(factors[int(np.argmax(scores))] - 1))


def seam(samples: Samples) -> float:
    """Return the jump at a loop's seam relative to the largest jump within the loop."""
    jumps = np.abs(np.diff(samples))
    return float(abs(samples[0] - samples[-1]) / (jumps.max() + 1e-12))


def frechet(first: Samples, second: Samples) -> float:
    """Return the Fréchet distance of two sets of vectors (sounds, dimensions), with regularised covariances."""
    centres = [rows.mean(0) for rows in (first, second)]
    spreads = [np.cov(rows, rowvar=False) + 1e-4 * np.eye(rows.shape[1]) for rows in (first, second)]
    values, vectors = np.linalg.eigh(spreads[0])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ spreads[1] @ root)
    shared = np.sqrt(np.maximum(product, 0)).sum()
    return float(((centres[0] - centres[1]) ** 2).sum() + np.trace(spreads[0]) + np.trace(spreads[1]) - 2 * shared)
