"""Whether a captured loop is the loop, frame by frame, and what lies between where it isn't."""

from dataclasses import dataclass

import numpy as np

from timbred.audio import Samples

SURE = 64
"""Frames that must agree to count as the loop again."""


@dataclass(frozen=True)
class Gap:
    """Frames in a row that aren't the loop's.

    `silent`: they are zeros. `skipped`: how many frames of the loop are missing after them, less than 0 when some
    come again, at most half of it; None when it doesn't come back.
    """

    first: int
    frames: int
    silent: bool
    skipped: int | None


def gaps(captured: Samples, loop: Samples) -> list[Gap]:
    """Every place where the capture, from the loop's first sound to its last, isn't the loop going round.

    Shapes are (frames, channels); no frame of the loop may be silent, nor be there twice.
    """
    sounding = np.flatnonzero(np.abs(captured).max(axis=1) > 0)
    place, end = int(sounding[0]), int(sounding[-1]) + 1
    phase = _phase_at(captured, place, loop)
    assert phase is not None, "the capture doesn't begin with the loop"
    found: list[Gap] = []
    while True:
        there = captured[place:end]
        expected = loop[(phase + np.arange(len(there))) % len(loop)]
        differing = np.flatnonzero((there != expected).any(axis=1))
        if not len(differing):
            return found
        first = place + int(differing[0])
        next_phase = (phase + int(differing[0])) % len(loop)
        again, phase = _again(captured, first, end, loop)
        silent = not captured[first:again].any()
        skipped = None if phase is None else _the_short_way(phase - next_phase, len(loop))
        found.append(Gap(first, again - first, silent, skipped))
        if phase is None:
            return found
        place = again


def _the_short_way(frames: int, around: int) -> int:
    return (frames + around // 2) % around - around // 2


def _again(captured: Samples, first: int, end: int, loop: Samples) -> tuple[int, int | None]:
    """Where after `first` the capture is the loop again, and with which frame of it."""
    for place in range(first, end - SURE):
        phase = _phase_at(captured, place, loop)
        if phase is not None:
            return place, phase
    return end, None


def _phase_at(captured: Samples, place: int, loop: Samples) -> int | None:
    part = captured[place : place + SURE]
    for phase in np.flatnonzero((loop == part[0]).all(axis=1)):
        if np.array_equal(loop[(int(phase) + np.arange(len(part))) % len(loop)], part):
            return int(phase)
    return None
