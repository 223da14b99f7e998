"""How a sound is finished: every choice that rendering takes, with its default."""

from dataclasses import dataclass
from typing import Literal

from timbred.units import Decibels, Frames, Lufs, SampleRate, Seconds, frames_in

AUTOMATIC_FADE_IN = Seconds(0.002)
AUTOMATIC_FADE_OUT = Seconds(0.01)
"""Seconds that fades last at most where none is asked for; see `timbred.render.edges`."""

USUAL_PEAK = Decibels(-1.0)
USUAL_RATE = SampleRate(48_000)

FileFormat = Literal["wav", "flac", "aiff", "ogg"]
"""The kinds of file there are; `timbred.render.formats` says what each can hold."""


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """What to do to a clip on its way into a file.

    Attributes:
        seconds: exact length; None keeps the clip's own.
        trim: cut silence at both ends first.
        fade_in, fade_out: seconds, applied exactly; None is automatic (`timbred.render.edges`). A loop has none.
        loudness: LUFS to reach (BS.1770). It wins over `peak`, which is then the ceiling.
        peak: dBFS that the loudest sample gets; None leaves the level alone.
        rate: Hz of the file.
        channels: of the file; None keeps the clip's own.
        format: the kind of file.
        bits: of one sample, 32 is float; None is the format's usual (24; a Vorbis file has none).
        loop: make the end meet the start without a seam.
    """

    seconds: Seconds | None = None
    trim: bool = False
    fade_in: Seconds | None = None
    fade_out: Seconds | None = None
    loudness: Lufs | None = None
    peak: Decibels | None = USUAL_PEAK
    rate: SampleRate = USUAL_RATE
    channels: Literal[1, 2] | None = None
    format: FileFormat = "wav"
    bits: Literal[16, 24, 32] | None = None
    loop: bool = False

    @property
    def frames(self) -> Frames | None:
        """The exact number of frames of the file, when a length was asked for."""
        return None if self.seconds is None else frames_in(self.seconds, self.rate)
