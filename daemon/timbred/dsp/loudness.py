"""How loud: integrated loudness (ITU-R BS.1770-4, by pyloudnorm) or peak."""

import numpy as np

from timbred.audio import Clip, Decibels, Lufs, Samples, amplitude
from timbred.render_settings import RenderSettings, bits_of

SILENCE = -120.0
"""dBFS of peak below which a clip counts as silent: raising it would only raise rounding errors."""

BLOCK = 0.4
"""Seconds that BS.1770 measures at a time."""


def level(clip: Clip, settings: RenderSettings) -> Clip:
    """Bring the clip to the loudness or the peak asked for, by one gain for the whole of it.

    Loudness wins over peak, and `peak` is then its ceiling: where the gain would lift the loudest sample
    over it, the gain stops there, and the sound stays quieter than asked rather than being squashed. With
    `peak` off the ceiling is full scale, and 32-bit float files have none. Silence is left alone.
    """
    peak = float(np.abs(clip.samples).max(initial=0.0))
    if peak < amplitude(SILENCE):
        return clip
    if settings.loudness is not None:
        gain = min(_gain_to_loudness(clip, settings.loudness), _ceiling(settings) / peak)
    elif settings.peak is not None:
        gain = amplitude(settings.peak) / peak
    else:
        return clip
    return clip.with_samples(clip.samples * np.float64(gain))


def loudness_of(samples: Samples, rate: int) -> Lufs | None:
    """Integrated loudness of samples of shape (frames, channels); None for silence.

    A sound shorter than one block of 0.4 s is measured as if repeated: padding it with silence would
    measure the silence. The standard's absolute gate of -70 LUFS is set relative to the sound's own peak,
    so that a very quiet sound has a loudness too.
    """
    from pyloudnorm import Meter  # brings scipy, which costs a start that measures nothing most of a second

    peak = float(np.abs(samples).max(initial=0.0))
    if peak < amplitude(SILENCE):
        return None
    repeats = int(np.ceil(BLOCK * rate / samples.shape[0])) if samples.shape[0] < BLOCK * rate else 1
    whole = np.tile(samples.astype(np.float64) / peak, (repeats, 1))
    measured = float(Meter(rate, block_size=BLOCK).integrated_loudness(whole))
    return Lufs(measured + peak_level(samples)) if np.isfinite(measured) else None


def peak_level(samples: Samples) -> Decibels:
    """The loudest sample in dBFS; -inf for digital silence."""
    peak = float(np.abs(samples).max(initial=0.0))
    return Decibels(20.0 * float(np.log10(peak)) if peak > 0 else -np.inf)


def _gain_to_loudness(clip: Clip, wanted: Lufs) -> float:
    measured = loudness_of(clip.samples, clip.rate)
    return 1.0 if measured is None else amplitude(wanted - measured)


def _ceiling(settings: RenderSettings) -> float:
    if settings.peak is not None:
        return amplitude(settings.peak)
    return np.inf if bits_of(settings) == 32 else 1.0
