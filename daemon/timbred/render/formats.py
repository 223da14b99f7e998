"""What each kind of file can hold, and the check that a request keeps to it."""

import math
from dataclasses import dataclass

from timbred.errors import BadRequest
from timbred.render.settings import RenderSettings

LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
"""Hz that a file may have."""


@dataclass(frozen=True)
class Container:
    """One kind of file: libsndfile's names for it, and which bits it holds (none: it has no bits)."""

    extension: str
    major: str
    subtypes: dict[int | None, str]
    usual_bits: int | None


_PCM: dict[int | None, str] = {16: "PCM_16", 24: "PCM_24"}

CONTAINERS: dict[str, Container] = {
    "wav": Container("wav", "WAV", {**_PCM, 32: "FLOAT"}, 24),
    "flac": Container("flac", "FLAC", _PCM, 24),
    "aiff": Container("aiff", "AIFF", {**_PCM, 32: "FLOAT"}, 24),
    "ogg": Container("ogg", "OGG", {None: "VORBIS"}, None),
}
"""Every format by its name on the wire."""


def bits_of(settings: RenderSettings) -> int | None:
    """The bits that the file will have; None for a format without bits."""
    return settings.bits or CONTAINERS[settings.format].usual_bits


def check(file_format: str, bits: int | None, rate: int, channels: int | None) -> None:
    """Refuse what no file of this format can hold. `bits` and `channels` None: not asked for.

    Raises:
        BadRequest: naming the value, and what is allowed.
    """
    container = CONTAINERS.get(file_format)
    if container is None:
        raise BadRequest(f"format: got {file_format!r}, allowed is one of {', '.join(CONTAINERS)}")
    if bits is not None and bits not in container.subtypes:
        raise BadRequest(f"bits: got {bits} with format {file_format}, allowed is {_bits_allowed(container)}")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise BadRequest(f"rate: got {rate}, allowed is {LOWEST_RATE} to {HIGHEST_RATE} Hz")
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


def _bits_allowed(container: Container) -> str:
    words = [str(bits) for bits in container.subtypes if bits is not None]
    return " or ".join(words) if words else "none: leave bits out, its samples have no fixed width"
