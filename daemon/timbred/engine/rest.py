"""How long the engine rests after its work, so that pictures on the same device stay smooth."""

import math

LONGEST = 1.0
"""Seconds that one rest lasts at most: a cancellation waits no longer than that."""


def rest_after(busy: float, frame_rate: float) -> float:
    """Seconds of rest after `busy` seconds of work: as long again, in whole frames, and at least one frame.

    A render loop of `frame_rate` frames a second so has the device for half of the time or more, and for at least one
    whole frame between any two steps.

    >>> rest_after(0.040, 50.0), rest_after(0.001, 50.0)
    (0.04, 0.02)
    """
    frames = max(1, math.ceil(round(busy * frame_rate, 6)))
    return min(LONGEST, frames / frame_rate)
