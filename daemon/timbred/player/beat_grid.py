"""Conversion between beats and frames, and the frame of a moment. Nothing here reads a clock."""

import math
from dataclasses import dataclass, replace

from timbred.errors import BadRequest
from timbred.ipc.player_messages import Moment

GRID_TOLERANCE_BEATS = 1e-6
"""Beats within which a moment counts as on the grid: far below one frame, above rounding."""

MAX_CORRECTION_BEATS = 0.02
"""Beats by which a correction may move the grid; a larger change is a new grid."""


@dataclass(frozen=True)
class BeatGrid:
    """A straight line through (`frame`, `beat`): `bpm` beats a minute at `rate` frames a second.

    >>> BeatGrid(rate=48000, bpm=120).frame_of(4)
    96000
    """

    rate: float
    bpm: float
    frame: float = 0.0
    beat: float = 0.0
    beats_per_bar: float = 4.0

    @property
    def frames_per_beat(self) -> float:
        """Frames of one beat, not rounded."""
        return 60.0 * self.rate / self.bpm

    def beat_at(self, frame: float) -> float:
        """Return the beat of a frame."""
        return self.beat + (frame - self.frame) / self.frames_per_beat

    def frame_of(self, beat: float) -> int:
        """Return the frame nearest to a beat."""
        return round(self.frame + (beat - self.beat) * self.frames_per_beat)

    def with_tempo(self, bpm: float, beats_per_bar: float, frame: float) -> "BeatGrid":
        """Return a grid of another tempo from `frame` on; the beat at that frame is unchanged."""
        return replace(self, bpm=bpm, beats_per_bar=beats_per_bar, frame=frame, beat=self.beat_at(frame))

    def with_link_beat(self, frame: float, beat: float, bpm: float) -> "BeatGrid":
        """Return the grid of a Link session, which has `beat` at `frame`."""
        return replace(self, bpm=bpm, frame=frame, beat=beat)

    def at_rate(self, rate: float, frame: float) -> "BeatGrid":
        """Return the grid for a device of another rate, whose frame 0 is `frame` here."""
        return replace(self, rate=rate, frame=0.0, beat=self.beat_at(frame))


@dataclass(frozen=True)
class StartTime:
    """A start that is fixed to `beat`; `unit` is its grid in beats, 0 for a beat given by its number."""

    beat: float
    unit: float


def resolve_moment(moment: Moment, grid: BeatGrid, frame: int) -> StartTime | None:
    """Return when a moment comes, as seen from `frame`, the next one that isn't mixed yet; None for now.

    Raises:
        BadRequest: the beat is past.
    """
    if moment.kind == "now":
        return None
    beat = grid.beat_at(frame)
    if moment.kind == "number":
        if grid.frame_of(moment.number) < frame:
            raise BadRequest(
                f"at: beat {moment.number:g} is past; the current beat is {beat:.2f}; choose a later one, or bar"
            )
        return StartTime(moment.number, 0.0)
    unit = 1.0 if moment.kind == "beat" else grid.beats_per_bar
    return StartTime(math.ceil(beat / unit - GRID_TOLERANCE_BEATS) * unit, unit)


def move_start(start: StartTime, before: BeatGrid, after: BeatGrid, frame: int) -> StartTime:
    """Return a start time after the grid has changed at `frame`.

    A new tempo keeps beats, so nothing changes. When the count of beats jumps (a Link session was joined), a start on a
    beat or a bar keeps about its distance, on the new grid. A beat given by its number is unchanged.
    """
    jump = after.beat_at(frame) - before.beat_at(frame)
    if abs(jump) < MAX_CORRECTION_BEATS or start.unit == 0.0:
        return start
    nearest = math.floor((start.beat + jump) / start.unit + 0.5) * start.unit
    earliest = math.ceil(after.beat_at(frame) / start.unit - GRID_TOLERANCE_BEATS) * start.unit
    return replace(start, beat=max(nearest, earliest))


def read_moment(text: str) -> Moment:
    """Parse `now`, `beat`, `bar`, or the number of a beat, counted from 0.

    >>> read_moment("16")
    Moment(kind='number', number=16.0)

    Raises:
        BadRequest: anything else.
    """
    name = text.strip().lower()
    match name:
        case "now" | "beat" | "bar":
            return Moment(kind=name)
        case _:
            return Moment(kind="number", number=_parse_beat(name))


def _parse_beat(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and 0 <= number < 1e9):
        raise BadRequest(f"at: got {text!r}, allowed is now, beat, bar or the number of a beat, from 0")
    return number
