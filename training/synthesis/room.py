"""Reverb: the direct sound plus a convolution with decaying noise. The direct sound stays at t = 0."""

import numpy as np
from scipy.signal import fftconvolve

from training.synthesis.envelopes import decay
from training.synthesis.filters import low_pass
from training.synthesis.oscillators import RATE, Signal


def reverberate(signal: Signal, seconds: float, wet: float, random: np.random.Generator) -> Signal:
    """Add a low-passed tail of `seconds` (to -60 dB) with `wet` (0..1) times the direct sound's RMS level."""
    length = min(len(signal), int(seconds * RATE))
    response = random.standard_normal(length) * decay(length, seconds)
    response[: int(0.006 * RATE)] *= 0.1
    response = low_pass(response, 6000.0, 1)
    tail = fftconvolve(signal, response)[: len(signal)]
    scale = np.sqrt(np.sum(signal**2) / (np.sum(tail**2) + 1e-12))
    return signal + wet * scale * tail
