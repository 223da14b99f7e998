"""Settings of postprocessing and of the file, with their defaults."""

import math
from dataclasses import dataclass
from typing import Literal

from timbred.audio import Decibels, Frames, Lufs, SampleRate, Seconds, frames_in
from timbred.errors import BadRequest

AUTOMATIC_FADE_IN_S = Seconds(0.002)
AUTOMATIC_FADE_OUT_S = Seconds(0.01)
"""Seconds that fades last at most where none is asked for; see `timbred.dsp.trim_fade`."""

DEFAULT_PEAK_DBFS = Decibels(-1.0)
DEFAULT_RATE_HZ = SampleRate(48_000)

FileFormat = Literal["wav", "flac", "aiff", "ogg"]
"""The kinds of file there are; `timbred.render_settings` says what each can hold."""


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """Postprocessing of a clip before it is written.

    Attributes:
        seconds: exact length; None keeps the clip's own.
        trim: cut silence at both ends first.
        fade_in, fade_out: seconds, applied exactly; None is automatic (`timbred.dsp.trim_fade`). A loop has none.
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
    peak: Decibels | None = DEFAULT_PEAK_DBFS
    rate: SampleRate = DEFAULT_RATE_HZ
    channels: Literal[1, 2] | None = None
    format: FileFormat = "wav"
    bits: Literal[16, 24, 32] | None = None
    loop: bool = False

    @property
    def frames(self) -> Frames | None:
        """The exact number of frames of the file, when a length was asked for."""
        return None if self.seconds is None else frames_in(self.seconds, self.rate)


MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 192_000
"""Hz that a file may have."""


@dataclass(frozen=True)
class FileContainer:
    """One kind of file: libsndfile's names for it, and which bits it holds (none: it has no bits)."""

    extension: str
    major: str
    subtypes: dict[int | None, str]
    usual_bits: int | None


_PCM_SUBTYPES: dict[int | None, str] = {16: "PCM_16", 24: "PCM_24"}

CONTAINERS_BY_FORMAT: dict[str, FileContainer] = {
    "wav": FileContainer("wav", "WAV", {**_PCM_SUBTYPES, 32: "FLOAT"}, 24),
    "flac": FileContainer("flac", "FLAC", _PCM_SUBTYPES, 24),
    "aiff": FileContainer("aiff", "AIFF", {**_PCM_SUBTYPES, 32: "FLOAT"}, 24),
    "ogg": FileContainer("ogg", "OGG", {None: "VORBIS"}, None),
}
"""Every format by its name on the wire."""


def bits_of(settings: RenderSettings) -> int | None:
    """The bits that the file will have; None for a format without bits."""
    return settings.bits or CONTAINERS_BY_FORMAT[settings.format].usual_bits


def check(file_format: str, bits: int | None, rate: int, channels: int | None) -> None:
    """Refuse what no file of this format can hold. `bits` and `channels` None: not asked for.

    Raises:
        BadRequest: naming the value, and what is allowed.
    """
    container = CONTAINERS_BY_FORMAT.get(file_format)
    if container is None:
        raise BadRequest(f"format: got {file_format!r}, allowed is one of {', '.join(CONTAINERS_BY_FORMAT)}")
    if bits is not None and bits not in container.subtypes:
        raise BadRequest(f"bits: got {bits} with format {file_format}, allowed is {_bits_allowed(container)}")
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise BadRequest(f"rate: got {rate}, allowed is {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
    if file_format == "flac" and rate > 0xFFFF and rate % 10:
        raise BadRequest(f"rate: got {rate} with format flac, allowed above 65535 Hz are multiples of 10; or take wav")
    if channels not in (None, 1, 2):
        raise BadRequest(f"channels: got {channels}, allowed is 1 or 2")


def check_settings(settings: RenderSettings) -> None:
    """Refuse settings that can't be carried out, before any work is done for them.

    Raises:
        BadRequest: naming the value, and what is allowed.
    """
    check(settings.format, settings.bits, settings.rate, settings.channels)
    for name in ("fade_in", "fade_out"):
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise BadRequest(f"{name}: got {value}, allowed are seconds from 0")
    for name in ("loudness", "peak"):
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and value <= 0):
            raise BadRequest(f"{name}: got {value}, allowed is a level up to 0, or off")
    if settings.seconds is None:
        return
    if not (math.isfinite(settings.seconds) and settings.seconds > 0 and settings.frames):
        raise BadRequest(f"seconds: got {settings.seconds}, allowed is at least one frame of the file")


def _bits_allowed(container: FileContainer) -> str:
    words = [str(bits) for bits in container.subtypes if bits is not None]
    return " or ".join(words) if words else "none: leave bits out, its samples have no fixed width"
