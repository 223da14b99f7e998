"""Units carried in types, so that a frame count is never taken for seconds."""

from typing import NewType

Seconds = NewType("Seconds", float)
"""A length or moment in seconds."""

Frames = NewType("Frames", int)
"""A count of sample frames: one sample of every channel."""

SampleRate = NewType("SampleRate", int)
"""Frames a second (Hz)."""

Decibels = NewType("Decibels", float)
"""A gain or a level relative to full scale (dB, dBFS)."""

Lufs = NewType("Lufs", float)
"""Integrated loudness, ITU-R BS.1770."""

Bpm = NewType("Bpm", float)
"""Tempo in beats a minute."""

Megabytes = NewType("Megabytes", float)
"""Memory in units of 1,000,000 bytes."""


def frames_in(seconds: float, rate: int) -> Frames:
    """The number of frames nearest to `seconds` at `rate`.

    >>> frames_in(0.5, 48_000)
    24000
    """
    return Frames(round(seconds * rate))


def bars_to_seconds(bars: float, bpm: float, beats_per_bar: float) -> Seconds:
    """How long `bars` last at a tempo.

    >>> bars_to_seconds(2, 120, 4)
    4.0
    """
    return Seconds(bars * beats_per_bar * 60.0 / bpm)


def amplitude(decibels: float) -> float:
    """The linear factor of a gain in dB.

    >>> amplitude(-20.0)
    0.1
    """
    return 10.0 ** (decibels / 20.0)
