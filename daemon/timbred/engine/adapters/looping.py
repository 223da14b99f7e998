"""What is particular about loops: which ones go around, and how their lengths come out exactly.

Two kinds of sound are looped. One goes on (a pad, rain): there time is a circle while it is denoised, decoded and
vocoded, and the seam is a place like any other. Another has a beginning of its own (a kick, a bell): made on a circle
it would have none, and a model that learnt that sounds begin where they begin then makes next to nothing of them. So
the model lays the sound out with its own beginning and end in the first steps; if it begins far louder than it ends,
it stays so, and what is left of the end dies away under the next beginning; else it is begun anew, going around.
(Going around only from there on, a slow beginning would stay in it as a hole.)
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.adapters.spectrogram import Analysis, energy

LAID_OUT = 0.15
"""Part of the steps after which it shows whether a sound has a beginning of its own."""

EDGE = 0.15
"""Seconds at both ends that are compared."""

BEGINS = 10.0
"""A beginning of so many times the power of the end (10 dB) is one."""


def rows_of_loop(seconds: float, rate: int, frames_a_row: int, hop: int, unit: int) -> int:
    """Rows of latents for a loop: enough for its length, and a multiple of what the network halves rows by, for only
    then the circle is even on all its levels."""
    rows = math.ceil(seconds * rate / hop / frames_a_row - 1e-9)
    return max(1, math.ceil(rows / unit)) * unit


def begins(mel: torch.Tensor, analysis: Analysis) -> bool:
    """Whether a sound, log mel of shape (frames, bands), begins far louder than it ends."""
    levels = energy(mel, analysis)
    edge = min(len(levels) // 2, max(2, round(EDGE * analysis.rate / analysis.hop)))
    return edge > 0 and float(levels[:edge].max()) > BEGINS * float(levels[-edge:].mean())


def stretched(mel: torch.Tensor, frames: int) -> torch.Tensor:
    """A circle of mel frames, (takes, frames, bands), in another number of them: slower or faster, at the same pitch.
    Catmull-Rom curves through the frames."""
    count = mel.shape[1]
    if count == frames:
        return mel
    places = torch.arange(frames, device=mel.device, dtype=torch.float64) * (count / frames)
    before = places.floor().long()
    x = (places - before).to(mel.dtype)[None, :, None]
    one, two, three, four = (mel[:, (before + offset) % count] for offset in (-1, 0, 1, 2))
    slope, next_slope = (three - one) / 2, (four - two) / 2
    return (
        (2 * x**3 - 3 * x**2 + 1) * two
        + (x**3 - 2 * x**2 + x) * slope
        + (3 * x**2 - 2 * x**3) * three
        + (x**3 - x**2) * next_slope
    )


def fitted(loops: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """Circles of samples, (takes, frames), in exactly so many frames: by less than a mel frame's part of their length
    higher or lower."""
    count = loops.shape[1]
    if count == frames:
        return loops
    spectrum = np.fft.rfft(loops.astype(np.float64), axis=1)
    bins = min(spectrum.shape[1], frames // 2 + 1)
    kept = spectrum[:, :bins]
    if min(count, frames) % 2 == 0:
        kept[:, -1] = 0  # at half the rate a sine and its mirror image are one
    return (np.fft.irfft(kept, frames, axis=1) * (frames / count)).astype(np.float32)
