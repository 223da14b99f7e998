"""Settings of postprocessing and of the file, their defaults and their validation."""

import math
from dataclasses import dataclass
from typing import Literal

from timbred.audio import Decibels, Frames, Lufs, SampleRate, Seconds, frames_in
from timbred.errors import BadRequest

AUTOMATIC_FADE_IN_S = Seconds(0.002)
AUTOMATIC_FADE_OUT_S = Seconds(0.01)
"""Maximum lengths of automatic fades; see `timbred.dsp.fades`."""

DEFAULT_PEAK_DBFS = Decibels(-1.0)
DEFAULT_RATE_HZ = SampleRate(48_000)

FileFormat = Literal["wav", "flac", "aiff", "ogg"]
"""File formats; see `CONTAINERS_BY_FORMAT`."""


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """Postprocessing of a clip before it is written.

    Attributes:
        seconds: exact length; None keeps the clip's length.
        trim: cut silence at both ends first.
        fade_in, fade_out: seconds, applied exactly; None is automatic (`timbred.dsp.fades`). A loop has none.
        loudness: target loudness in LUFS (BS.1770); `peak` is then the ceiling.
        peak: target peak level in dBFS; None leaves the level unchanged.
        rate: sample rate of the file in Hz.
        channels: number of channels of the file; None keeps the clip's channels.
        format: format of the file.
        bits: bits per sample, 32 is float; None is the format's default (24; Vorbis has none).
        loop: True for a seamless loop.
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
        """Exact number of frames of the file; None without a requested length."""
        return None if self.seconds is None else frames_in(self.seconds, self.rate)


MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 192_000
"""Range of a file's sample rate."""


@dataclass(frozen=True)
class FileContainer:
    """A file format: libsndfile's names for it, and its bits per sample; None is a format without fixed bits."""

    extension: str
    major: str
    subtypes: dict[int | None, str]
    default_bits: int | None


_PCM_SUBTYPES: dict[int | None, str] = {16: "PCM_16", 24: "PCM_24"}

CONTAINERS_BY_FORMAT: dict[str, FileContainer] = {
    "wav": FileContainer("wav", "WAV", {**_PCM_SUBTYPES, 32: "FLOAT"}, 24),
    "flac": FileContainer("flac", "FLAC", _PCM_SUBTYPES, 24),
    "aiff": FileContainer("aiff", "AIFF", {**_PCM_SUBTYPES, 32: "FLOAT"}, 24),
    "ogg": FileContainer("ogg", "OGG", {None: "VORBIS"}, None),
}
"""All formats by their names on the wire."""


def bits_of(settings: RenderSettings) -> int | None:
    """Return the bits per sample of the file; None for a format without fixed bits."""
    return settings.bits or CONTAINERS_BY_FORMAT[settings.format].default_bits


def check(file_format: str, bits: int | None, rate: int, channels: int | None) -> None:
    """Check that a file of this format can have these properties; None means the default.

    Raises:
        BadRequest: It can't; names the value and the allowed ones.
    """
    container = CONTAINERS_BY_FORMAT.get(file_format)
    if container is None:
        raise BadRequest(f"format: got {file_format!r}, allowed is one of {', '.join(CONTAINERS_BY_FORMAT)}")
    if bits is not None and bits not in container.subtypes:
        raise BadRequest(f"bits: got {bits} with format {file_format}, allowed is {_bits_allowed(container)}")
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise BadRequest(f"rate: got {rate}, allowed is {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
    if file_format == "flac" and rate > 0xFFFF and rate % 10:
        raise BadRequest(f"rate: got {rate} with format flac, allowed above 65535 Hz are multiples of 10; or use wav")
    if channels not in (None, 1, 2):
        raise BadRequest(f"channels: got {channels}, allowed is 1 or 2")


def check_settings(settings: RenderSettings) -> None:
    """Check settings before any work is done for them.

    Raises:
        BadRequest: It can't; names the value and the allowed ones.
    """
    check(settings.format, settings.bits, settings.rate, settings.channels)
    for name in ("fade_in", "fade_out"):
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise BadRequest(f"{name}: got {value}, allowed is 0 or more seconds")
    for name in ("loudness", "peak"):
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and value <= 0):
            raise BadRequest(f"{name}: got {value}, allowed is a level up to 0, or off")
    if settings.seconds is None:
        return
    if not (math.isfinite(settings.seconds) and settings.seconds > 0 and settings.frames):
        raise BadRequest(f"seconds: got {settings.seconds}, allowed is at least one frame of the file")


def _bits_allowed(container: FileContainer) -> str:
    names = [str(bits) for bits in container.subtypes if bits is not None]
    return " or ".join(names) if names else "none: omit bits, its samples have no fixed width"
