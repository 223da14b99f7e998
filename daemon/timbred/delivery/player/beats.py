"""Where the player is, and how it fares."""

import time

import msgspec

from timbred.delivery import wire

HEARTBEAT_MAX_S = 0.3
"""Seconds between two beats of a player at most: a little more than its heartbeat."""


class Beats:
    """What the player `last` said of its clock and its counters; the counters go on over its restarts."""

    def __init__(self, bpm: float) -> None:
        self.last = wire.Beat(frame=0, beat=0.0, bpm=bpm, peers=0, underruns=0)
        self._came = time.monotonic()
        self._underruns_before = 0
        self._late_before = 0

    def take(self, beat: wire.Beat) -> None:
        """A new one came."""
        self.last = beat
        self._came = time.monotonic()

    def process_ended(self) -> None:
        """The next process counts from 0."""
        self._underruns_before += self.last.underruns
        self._late_before += self.last.late
        self.last = msgspec.structs.replace(self.last, underruns=0, late=0)

    @property
    def since(self) -> float:
        """Seconds since the last one came, at most `HEARTBEAT_MAX_S`: a living process would have sent another."""
        return min(HEARTBEAT_MAX_S, time.monotonic() - self._came)

    @property
    def now(self) -> float:
        """The beat that is mixed now."""
        return self.last.beat + (time.monotonic() - self._came) * self.last.bpm / 60.0

    @property
    def underruns(self) -> int:
        """Times that the device ran out of sound since the daemon's start."""
        return self._underruns_before + self.last.underruns

    @property
    def late(self) -> int:
        """Blocks that the device's driver called late, whoever's fault it was, since the daemon's start."""
        return self._late_before + self.last.late
