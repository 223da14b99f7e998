"""Amplitude envelopes and curves over time: arrays of shape (samples,), 0..1, times in seconds."""

import numpy as np

from training.synthesis.oscillators import RATE, Signal


def decay(samples: int, seconds: float) -> Signal:
    """Return an exponential decay from 1, at -60 dB after `seconds`."""
    return np.exp(-6.908 * np.arange(samples) / RATE / max(seconds, 1e-3))


def attack(samples: int, seconds: float) -> Signal:
    """Return a raised-cosine rise to 1 over `seconds`, then 1. The value at t = 0 is above 0."""
    rise = max(8, int(seconds * RATE))
    curve = np.ones(samples)
    count = min(rise, samples)
    curve[:count] = 0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 1) / rise)
    return np.maximum(curve, 0.02 * np.minimum(1.0, (np.arange(samples) + 1) / (0.003 * RATE)))


def hold(samples: int, seconds: float, release_seconds: float) -> Signal:
    """Return 1 for `seconds`, then a decay to -60 dB over `release_seconds`."""
    held = min(samples, int(seconds * RATE))
    curve = np.ones(samples)
    if held < samples:
        curve[held:] = decay(samples - held, release_seconds)
    return curve


def glide(samples: int, start: float, stop: float, seconds: float) -> Signal:
    """Return an exponential glide of frequencies from `start` to `stop` hertz over `seconds`, then `stop`."""
    position = np.minimum(np.arange(samples) / RATE / max(seconds, 1e-4), 1.0)
    return start * (stop / start) ** position


def settle(samples: int, start: float, stop: float, seconds: float) -> Signal:
    """Return an exponential fall from `start` to `stop` with time constant `seconds`, as in a drum's pitch drop."""
    return stop + (start - stop) * np.exp(-np.arange(samples) / RATE / max(seconds, 1e-4))


def wander(samples: int, per_second: float, random: np.random.Generator) -> Signal:
    """Return a smooth random curve, mean 0, about -1..1, with `per_second` independent points per second."""
    count = max(4, int(samples / RATE * per_second) + 4)
    points = random.uniform(-1, 1, count)
    position = np.linspace(0, count - 1.001, samples)
    index = position.astype(int)
    mix = 0.5 - 0.5 * np.cos(np.pi * (position - index))
    return points[index] * (1 - mix) + points[index + 1] * mix


def fade_edges(signal: Signal, stop_seconds: float = 0.008) -> Signal:
    """Fade in over half a millisecond and out over `stop_seconds`, to avoid clicks at the window's edges."""
    faded = signal.copy()
    start = 16
    faded[:start] *= np.linspace(0.1, 1, start)
    stop = int(stop_seconds * RATE)
    faded[-stop:] *= np.linspace(1, 0, stop)
    return faded
