"""Loops of an exact length whose end meets the start without a seam."""

from dataclasses import replace

import numpy as np

from timbred.audio import Clip, Samples, frames_in
from timbred.dsp.crossfade import correlate, crossfade, mean_power
from timbred.dsp.trim_fade import add_fades, fade_curve
from timbred.render_settings import RenderSettings

MAX_CROSSFADE_S = 0.25
"""Longest crossfade, also limited to half the loop: longer ones smear rhythms."""

MIN_CROSSFADE_S = 0.005
"""Surplus below which a crossfade would click; the ends are then bent over the same time."""

ATTACK_POWER_RATIO = 4.0
"""A start of more than this many times the power of the audio after the end (6 dB) is an attack."""

ATTACK_FADE_S = 0.002
"""Length of an attack's fade in."""

SURPLUS_DIVISOR = 4
"""Without a requested length, at most one part in so many of the clip is used for the crossfade."""


def loop(clip: Clip, settings: RenderSettings) -> Clip:
    """Turn the clip into a loop of the exact length at the clip's own rate, and set its `loop`.

    A clip that already loops, or settings that ask for no loop, leave the clip unchanged.

    Frames after the loop's end are crossfaded into its start, so that the audio continues across the end. With too few
    such frames both ends are bent towards each other over a few milliseconds. A clip that is shorter than the loop is
    faded at both edges and followed by silence. Without a requested length, up to a quarter of the clip is used for the
    crossfade.
    """
    if not settings.loop or clip.loop:
        return clip
    if settings.frames is None:
        frames = clip.frames - _default_surplus(clip)
    else:
        frames = max(1, round(settings.frames * clip.rate / settings.rate))
    return replace(clip.with_samples(_close(clip, frames, settings)), loop=True)


def _default_surplus(clip: Clip) -> int:
    return min(frames_in(MAX_CROSSFADE_S, clip.rate), clip.frames // SURPLUS_DIVISOR)


def _close(clip: Clip, frames: int, settings: RenderSettings) -> Samples:
    surplus = clip.frames - frames
    if surplus < 0:
        return np.pad(add_fades(clip.samples, settings, clip.rate), ((0, -surplus), (0, 0)))
    length = min(surplus, frames_in(MAX_CROSSFADE_S, clip.rate), frames // 2)
    if length < frames_in(MIN_CROSSFADE_S, clip.rate):
        return bend_ends(clip.samples[:frames], frames_in(MIN_CROSSFADE_S, clip.rate))
    return crossfade_ends(clip.samples, frames, length, frames_in(ATTACK_FADE_S, clip.rate))


def crossfade_ends(samples: Samples, frames: int, length: int, attack_fade: int) -> Samples:
    """Return the first `frames`, with the `length` frames after them faded out over the start.

    Sine and cosine gains are corrected by the correlation of both parts, so that the power stays even. A start that is
    far louder than the audio after the end is an attack: it fades in within `attack_fade` frames, while the audio after
    the end fades out at the normal rate.
    """
    following, start = samples[frames : frames + length], samples[:length]
    steps = np.arange(length)[:, None] * (np.pi / 2)
    fade_out = np.cos(steps / length)
    if mean_power(start) > ATTACK_POWER_RATIO * mean_power(following):
        fade_in = np.sin(np.minimum(steps / max(attack_fade, 1), np.pi / 2))
        blend = following * fade_out + start * fade_in
    else:
        fade_in = np.sin(steps / length)
        blend = crossfade(following, start, fade_out, fade_in, correlate(following, start))
    return np.concatenate([blend.astype(np.float32), samples[length:frames]])


def bend_ends(samples: Samples, reach: int) -> Samples:
    """Spread the step from the end to the start over `reach` frames on either side."""
    reach = min(reach, samples.shape[0] // 2)
    if reach < 2:
        return samples
    step = samples[0] - (2 * samples[-1] - samples[-2])
    curve = fade_curve(reach)[:, None] * (step / 2)
    result = samples.copy()
    result[-reach:] += curve
    result[:reach] -= curve[::-1]
    return result
