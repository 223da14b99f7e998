"""A loop: the exact length, and an end that meets the start without a seam."""

from dataclasses import replace

import numpy as np

from timbred.audio import Clip, Samples, frames_in
from timbred.dsp.trim_fade import rise, with_fades
from timbred.render_settings import RenderSettings

LONGEST_SEAM = 0.25
"""Seconds of crossfade at most (and never over half the loop): longer ones smear rhythms."""

SHORTEST_SEAM = 0.005
"""Seconds of surplus below which a crossfade would click."""

ATTACK = 4.0
"""A start of over this many times the power of what follows the end (6 dB) is an attack."""

ENTRY = 0.002
"""Seconds in which an attack comes in."""

OWN_SURPLUS = 4
"""With no length asked for, at most one part in so many of the clip is given up for its seam."""


def loop(clip: Clip, settings: RenderSettings) -> Clip:
    """Make the clip go round, if asked: exact length at the clip's own rate, `loop` set. One that does already is left
    as it is.

    Frames after the loop's end are crossfaded into its start, so that what follows the last frame is
    what followed it in the sound itself. Without such a surplus the ends are bent towards each other
    over a few milliseconds. A clip shorter than the loop is followed
    by silence, and both its edges faded. With no length asked for, the surplus is taken from the clip's
    own end, at most a quarter of it.
    """
    if not settings.loop or clip.loop:
        return clip
    if settings.frames is None:
        wanted = clip.frames - _own_surplus(clip)
    else:
        wanted = max(1, round(settings.frames * clip.rate / settings.rate))
    return replace(clip.with_samples(_closed(clip, wanted, settings)), loop=True)


def _own_surplus(clip: Clip) -> int:
    return min(frames_in(LONGEST_SEAM, clip.rate), clip.frames // OWN_SURPLUS)


def _closed(clip: Clip, wanted: int, settings: RenderSettings) -> Samples:
    surplus = clip.frames - wanted
    if surplus < 0:
        return np.pad(with_fades(clip.samples, settings, clip.rate), ((0, -surplus), (0, 0)))
    seam = min(surplus, frames_in(LONGEST_SEAM, clip.rate), wanted // 2)
    if seam < frames_in(SHORTEST_SEAM, clip.rate):
        return bent(clip.samples[:wanted], frames_in(SHORTEST_SEAM, clip.rate))
    return crossfaded(clip.samples, wanted, seam, frames_in(ENTRY, clip.rate))


def crossfaded(samples: Samples, frames: int, seam: int, entry: int) -> Samples:
    """The first `frames`, with the `seam` frames that follow them faded out over the start.

    The power stays even through the seam however alike both parts are: plain sine and cosine curves for
    unlike ones, and for like ones the same curves divided by the bump that their likeness would make.
    A start far louder than what follows the end is an attack: it comes in at once, within `entry`
    frames, and the old sound dies away under it.
    """
    following, start = samples[frames : frames + seam], samples[:seam]
    steps = np.arange(seam)[:, None] * (np.pi / 2)
    leaving = np.cos(steps / seam)
    if _power(start) > ATTACK * _power(following):
        entering = np.sin(np.minimum(steps / max(entry, 1), np.pi / 2))
        blend = following * leaving + start * entering
    else:
        entering = np.sin(steps / seam)
        bump = 1.0 + 2.0 * _likeness(following, start) * leaving * entering
        blend = (following * leaving + start * entering) / np.sqrt(bump)
    return np.concatenate([blend.astype(np.float32), samples[seam:frames]])


def _power(samples: Samples) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


def _likeness(one: Samples, other: Samples) -> float:
    """The correlation of two pieces of sound, 0 (unlike) to 1 (the same)."""
    energy = float(np.sqrt(np.sum(np.square(one, dtype=np.float64)) * np.sum(np.square(other, dtype=np.float64))))
    return max(0.0, float(np.sum(one * other, dtype=np.float64)) / energy) if energy > 0 else 0.0


def bent(samples: Samples, reach: int) -> Samples:
    """The same samples with the jump from end to start spread over `reach` frames on either side."""
    reach = min(reach, samples.shape[0] // 2)
    if reach < 2:
        return samples
    jump = samples[0] - (2 * samples[-1] - samples[-2])
    curve = rise(reach)[:, None] * (jump / 2)
    result = samples.copy()
    result[-reach:] += curve
    result[:reach] -= curve[::-1]
    return result
