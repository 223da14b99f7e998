"""Effects that prompts ask for, on stereo audio, (2, samples) float32 at 44.1 kHz, and on bands.

An effect draws its parameters from a seed. The bands of a sketch are synthesised, changed and analysed again.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.codecs.bands import HOP, Frames, analyse, loudest_level, synthesise
from timbred.models.pocket import SAMPLE_RATE

Audio = NDArray[np.float32]
Random = np.random.Generator


def _filtered(audio: Audio, kind: str, hertz: float, order: int = 2) -> Audio:
    """Apply the magnitudes of a Butterworth filter, "lowpass" or "highpass", without its phases."""
    length = _fast_length(audio.shape[1] + SAMPLE_RATE // 10)
    ratio = np.fft.rfftfreq(length, 1 / SAMPLE_RATE) / hertz
    if kind == "highpass":
        ratio = 1 / np.maximum(ratio, 1e-9)
    response = 1 / np.sqrt(1 + ratio ** (2 * order))
    return np.fft.irfft(np.fft.rfft(audio, length) * response, length)[:, : audio.shape[1]].astype(np.float32)


def _convolved(audio: Audio, response: NDArray[np.floating]) -> Audio:
    """Convolve each channel with its response; keeps the length."""
    length = _fast_length(audio.shape[1] + response.shape[1])
    product = np.fft.rfft(audio, length) * np.fft.rfft(response, length)
    return np.fft.irfft(product, length)[:, : audio.shape[1]].astype(np.float32)


def _fast_length(least: int) -> int:
    """Return a length of at least so many samples whose transform is fast: a power of two, or 3/4 of one."""
    power = 1 << (least - 1).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= least else power


def _shelf(audio: Audio, hertz: float, decibels: float) -> Audio:
    """Change the level above `hertz`."""
    above = _filtered(audio, "highpass", hertz, 1)
    return (audio + (10 ** (decibels / 20) - 1) * above).astype(np.float32)


def reverb(audio: Audio, random: Random) -> Audio:
    """Add the reverb of a hall: decaying noise, uncorrelated in the two channels, with highs that decay faster."""
    seconds = random.uniform(1.2, 3.0)
    length = int(seconds * SAMPLE_RATE)
    time = np.arange(length) / SAMPLE_RATE
    response = random.standard_normal((2, length)).astype(np.float32)
    bright, dark = response, _filtered(response, "lowpass", random.uniform(1500, 3500), 1)
    fall = 10 ** (-3 * time / seconds)
    response = bright * fall**2 + 1.5 * dark * fall
    delay = int(random.uniform(0.005, 0.03) * SAMPLE_RATE)
    response = np.pad(response, ((0, 0), (delay, 0)))
    wet = _convolved(audio, response)
    wet *= np.sqrt(np.mean(audio**2) / (np.mean(wet**2) + 1e-12))
    return (audio + random.uniform(0.45, 0.9) * wet).astype(np.float32)


def delay(audio: Audio, random: Random) -> Audio:
    """Add echoes at equal intervals that alternate between the channels."""
    distance = int(random.uniform(0.14, 0.38) * SAMPLE_RATE)
    feedback = random.uniform(0.35, 0.6)
    out, echo = audio.copy(), audio
    for _ in range(6):
        echo = feedback * np.pad(echo, ((0, 0), (distance, 0)))[::-1, : audio.shape[1]]
        out += echo
    return out.astype(np.float32)


def distortion(audio: Audio, random: Random) -> Audio:
    """Clip softly with high gain."""
    driven = audio / (np.max(np.abs(audio)) + 1e-9) * random.uniform(8, 25)
    return _filtered(np.tanh(driven).astype(np.float32), "lowpass", 9000, 1)


def dark(audio: Audio, random: Random) -> Audio:
    """Reduce the treble."""
    return _shelf(_filtered(audio, "lowpass", random.uniform(900, 2200), 1), 2000, -9)


def bright(audio: Audio, random: Random) -> Audio:
    """Raise the treble."""
    return _shelf(audio, random.uniform(1800, 3000), random.uniform(9, 14))


def muffled(audio: Audio, random: Random) -> Audio:
    """Apply a steep low-pass."""
    return _filtered(audio, "lowpass", random.uniform(350, 800), 4)


def telephone(audio: Audio, random: Random) -> Audio:
    """Reduce to mono and to the band of a telephone."""
    mono = np.repeat(audio.mean(0, keepdims=True), 2, 0)
    narrow = _filtered(_filtered(mono, "highpass", random.uniform(350, 500), 3), "lowpass", 3200, 3)
    return np.tanh(3 * narrow / (np.max(np.abs(narrow)) + 1e-9)).astype(np.float32)


def lofi(audio: Audio, random: Random) -> Audio:
    """Reduce sample rate and resolution, add noise, and remove the treble."""
    hold = int(random.integers(4, 9))
    peak = np.max(np.abs(audio)) + 1e-9
    coarse = np.repeat(audio[:, ::hold], hold, axis=-1)[:, : audio.shape[1]] / peak
    levels = 2.0 ** random.integers(5, 8)
    coarse = np.round(coarse * levels) / levels
    hiss = random.standard_normal(audio.shape) * 0.004
    return _filtered((coarse + hiss).astype(np.float32), "lowpass", random.uniform(3000, 6000), 2)


def backwards(audio: Audio, random: Random) -> Audio:
    """Reverse the sound without the silence at its end."""
    del random
    level = np.abs(audio).max(0)
    last = np.flatnonzero(level > 0.01 * (level.max() + 1e-9))
    end = int(last[-1]) + 1 if len(last) else audio.shape[1]
    reversed_audio = audio[:, :end][:, ::-1]
    return np.pad(reversed_audio, ((0, 0), (0, audio.shape[1] - end))).astype(np.float32)


def _whole_turns(rate: float, period_s: float | None) -> float:
    """Return the nearest rate, in hertz, with whole turns in a period, at least one; without a period, the same."""
    return rate if period_s is None else max(1, round(rate * period_s)) / period_s


def chorus(audio: Audio, random: Random, period_s: float | None = None) -> Audio:
    """Add a detuned copy to each channel; it repeats after a period, if there is one."""
    time = np.arange(audio.shape[1])
    copies: list[NDArray[np.floating]] = []
    for side in (0, 1):
        rate = _whole_turns(random.uniform(0.4, 1.2), period_s)
        depth = random.uniform(0.0012, 0.0025) * SAMPLE_RATE
        late = depth * (1.2 + np.sin(2 * np.pi * (rate * time / SAMPLE_RATE + 0.25 * side)))
        copies.append(np.interp(time - late, time, audio[side], left=0.0))
    return (0.7 * audio + 0.7 * np.stack(copies)).astype(np.float32)


def tremolo(audio: Audio, random: Random, period_s: float | None = None) -> Audio:
    """Modulate the level periodically, with whole turns in a period, if there is one."""
    time = np.arange(audio.shape[1]) / SAMPLE_RATE
    wave = 0.5 - 0.5 * np.cos(2 * np.pi * _whole_turns(random.uniform(4, 8), period_s) * time + np.pi)
    return (audio * (0.15 + 0.85 * wave)).astype(np.float32)


def fade_in(audio: Audio, random: Random) -> Audio:
    """Fade in slowly."""
    rise = int(random.uniform(0.35, 0.6) * audio.shape[1])
    curve = np.ones(audio.shape[1])
    curve[:rise] = np.linspace(0, 1, rise) ** 1.5
    return (audio * curve).astype(np.float32)


def noisy(audio: Audio, random: Random) -> Audio:
    """Add hiss that follows the level."""
    level = _filtered(np.abs(audio), "lowpass", 30, 1)
    hiss = _filtered(random.standard_normal(audio.shape).astype(np.float32), "highpass", 900, 1)
    return (audio + random.uniform(1.0, 2.0) * hiss * np.maximum(level, 0)).astype(np.float32)


def wide(audio: Audio, random: Random) -> Audio:
    """Delay the right channel by some milliseconds."""
    late = int(random.uniform(0.009, 0.017) * SAMPLE_RATE)
    mono = audio.mean(0)
    return np.stack((mono, np.pad(mono, (late, 0))[: len(mono)])).astype(np.float32)


EFFECTS: dict[str, Callable[[Audio, Random], Audio]] = {
    "dark": dark,
    "bright": bright,
    "muffled": muffled,
    "telephone": telephone,
    "distortion": distortion,
    "lofi": lofi,
    "chorus": chorus,
    "tremolo": tremolo,
    "noisy": noisy,
    "fade in": fade_in,
    "backwards": backwards,
    "wide": wide,
    "delay": delay,
    "reverb": reverb,
}
"""All effects, in the order in which they are applied."""

SEAM_FRAMES = 16
"""Frames on each side of a circle's seam that are analysed together with those of the other side: a long window."""


PERIODIC: dict[str, Callable[[Audio, Random, float | None], Audio]] = {"chorus": chorus, "tremolo": tremolo}
"""Effects with a movement that has to fit into a loop."""


def apply_effects(audio: Audio, names: Sequence[str], seed: int, period_s: float | None = None) -> Audio:
    """Apply effects in order; their parameters are drawn with the seed. `period_s` is the length of a loop."""
    random = np.random.default_rng((seed, 1))
    for name in names:
        audio = PERIODIC[name](audio, random, period_s) if name in PERIODIC else EFFECTS[name](audio, random)
    return audio


def change_frames(frames: Frames, names: Sequence[str], seed: int, circle: bool = False) -> Frames:
    """Return the bands of a sound, (frames, bands), with effects, at the level of its loudest frame.

    In a circle, what sounds beyond the end is heard from the beginning on.
    """
    count = len(frames.energy)
    audio = synthesise(frames, count * HOP, seed, circle=circle).numpy()
    if not circle:
        changed = analyse(torch.from_numpy(apply_effects(audio, names, seed)), count)
    else:
        twice = np.concatenate((audio, audio), 1)
        turns = apply_effects(twice, names, seed, count * HOP / SAMPLE_RATE)[:, count * HOP :]
        seam = min(SEAM_FRAMES, count)
        around = np.concatenate((turns[:, -seam * HOP :], turns, turns[:, : seam * HOP]), 1)
        parts = vars(analyse(torch.from_numpy(around), count + 2 * seam)).values()
        changed = Frames(*(part[seam : seam + count] for part in parts))
    return changed.amplified(loudest_level(frames.energy) - loudest_level(changed.energy))
