"""What may be played: not too loud, and sound at all. Pure."""

import numpy as np

from timbred import errors
from timbred.clip import Clip

LOUDEST_SAMPLE = 1000.0
"""Full scales (60 dB over): beyond it a file holds a fault, not sound."""


def check_gain(gain: float | None, most: float) -> None:
    """Whether a gain, in dB, is allowed.

    Raises:
        BadRequest: it is louder than `player.max_gain`.
    """
    if gain is not None and gain > most:
        raise errors.BadRequest(
            f"gain: got {gain:g} dB, allowed is -120 to {most:g}; player.max_gain says so, to spare ears"
        )


def check_sound(clip: Clip) -> None:
    """Whether a clip can be sounded.

    Raises:
        BadAudio: it is empty, or far too loud to be sound.
    """
    if clip.frames == 0:
        raise errors.BadAudio("take: the sound is empty")
    if not float(np.abs(clip.samples).max()) <= LOUDEST_SAMPLE:
        raise errors.BadAudio("take: its samples are more than 60 dB over full scale or not numbers; export it again")
