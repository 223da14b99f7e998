"""Level: integrated loudness (ITU-R BS.1770-4, by pyloudnorm) or peak."""

import numpy as np

from timbred.audio import Clip, Decibels, Lufs, Samples, amplitude
from timbred.render_settings import RenderSettings, bits_of

SILENCE_DBFS = -120.0
"""Peak below which a clip counts as silent: raising it would only raise rounding errors."""

BLOCK_S = 0.4
"""Length of the blocks that BS.1770 measures."""


def level(clip: Clip, settings: RenderSettings) -> Clip:
    """Bring the clip to the requested loudness or peak by one gain for the whole clip.

    If loudness is requested, `peak` is its ceiling: a gain that would raise the loudest sample above it is reduced, and
    the sound stays quieter than requested rather than being compressed. With `peak` off the ceiling is full scale, and
    32-bit float files have none. A silent clip is returned unchanged.
    """
    peak = float(np.abs(clip.samples).max(initial=0.0))
    if peak < amplitude(SILENCE_DBFS):
        return clip
    if settings.loudness is not None:
        gain = min(_gain_to_loudness(clip, settings.loudness), _ceiling(settings) / peak)
    elif settings.peak is not None:
        gain = amplitude(settings.peak) / peak
    else:
        return clip
    return clip.with_samples(clip.samples * np.float64(gain))


def measure_loudness(samples: Samples, rate: int) -> Lufs | None:
    """Return the integrated loudness of samples of shape (frames, channels); None for silence.

    A sound shorter than one block of 0.4 s is repeated: padding it with silence would measure the silence. The
    standard's absolute gate of -70 LUFS is applied relative to the sound's own peak, so that a very quiet sound has a
    loudness too.
    """
    from pyloudnorm import Meter  # imports scipy, which takes most of a second

    peak = float(np.abs(samples).max(initial=0.0))
    if peak < amplitude(SILENCE_DBFS):
        return None
    repeats = int(np.ceil(BLOCK_S * rate / samples.shape[0])) if samples.shape[0] < BLOCK_S * rate else 1
    repeated = np.tile(samples.astype(np.float64) / peak, (repeats, 1))
    loudness = float(Meter(rate, block_size=BLOCK_S).integrated_loudness(repeated))
    return Lufs(loudness + measure_peak(samples)) if np.isfinite(loudness) else None


def measure_peak(samples: Samples) -> Decibels:
    """Return the level of the loudest sample in dBFS; -inf for digital silence."""
    peak = float(np.abs(samples).max(initial=0.0))
    return Decibels(20.0 * float(np.log10(peak)) if peak > 0 else -np.inf)


def _gain_to_loudness(clip: Clip, target: Lufs) -> float:
    loudness = measure_loudness(clip.samples, clip.rate)
    return 1.0 if loudness is None else amplitude(target - loudness)


def _ceiling(settings: RenderSettings) -> float:
    if settings.peak is not None:
        return amplitude(settings.peak)
    return np.inf if bits_of(settings) == 32 else 1.0
