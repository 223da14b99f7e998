"""The sound devices there are, and the one that is meant."""

import json
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from timbred.errors import BadRequest, NoAudioDevice

INSTALL_PORTAUDIO = (
    "install PortAudio (Debian and Ubuntu: apt install libportaudio2; macOS and Windows have it with the package "
    "sounddevice)"
)
INSTALL_PACKAGES = "install the Python packages sounddevice and rtmixer: pip install sounddevice rtmixer"


@dataclass(frozen=True)
class AudioDevice:
    """One output device. `rate` is its own, in Hz; `latency` in seconds, as its driver says."""

    number: int
    name: str
    driver: str
    channels: int
    rate: int
    latency: float
    is_default: bool


def portaudio() -> ModuleType:
    """The sounddevice module.

    Raises:
        NoAudioDevice: it, rtmixer or PortAudio isn't installed; says what to install.
    """
    try:
        import sounddevice

        import_module("rtmixer")
    except ImportError as error:
        raise NoAudioDevice(f"sound can't be played ({error}): {INSTALL_PACKAGES}, then start timbred again") from error
    except OSError as error:
        raise NoAudioDevice(
            f"sound can't be played ({error}): {INSTALL_PORTAUDIO}, then start timbred again"
        ) from error
    return sounddevice


def output_devices() -> list[AudioDevice]:
    """Every device that can play, as PortAudio saw them when it was started.

    Raises:
        NoAudioDevice: PortAudio isn't installed, or fails.
    """
    audio = portaudio()
    try:
        drivers: list[dict[str, Any]] = list(audio.query_hostapis())
        found: list[dict[str, Any]] = list(audio.query_devices())
    except audio.PortAudioError as error:
        raise NoAudioDevice(f"the sound devices can't be listed: {error}") from error
    default = _default(drivers, int(audio.default.device[1]))
    return [
        AudioDevice(
            number=number,
            name=str(device["name"]),
            driver=str(drivers[device["hostapi"]]["name"]),
            channels=int(device["max_output_channels"]),
            rate=round(device["default_samplerate"]),
            latency=float(device["default_low_output_latency"]),
            is_default=number == default,
        )
        for number, device in enumerate(found)
        if device["max_output_channels"] > 0
    ]


def _default(drivers: list[dict[str, Any]], chosen: int) -> int:
    """The number of the system's device: the user's own choice, or the first driver's that has one."""
    if chosen >= 0:
        return chosen
    return next((int(one["default_output_device"]) for one in drivers if one["default_output_device"] >= 0), -1)


def find(devices: list[AudioDevice], wanted: str) -> AudioDevice:
    """The device that is meant: by number, whole name, or a part of its name; empty is the system's.

    Raises:
        NoAudioDevice: there is none; lists those there are.
        BadRequest: several are meant.
    """
    if not devices:
        raise NoAudioDevice("this machine has no sound device that can play; plug one in, or start a JACK server")
    if not wanted:
        return next((device for device in devices if device.is_default), devices[0])
    if wanted.isdecimal():
        matching = [device for device in devices if device.number == int(wanted)]
    else:
        whole = [device for device in devices if device.name.lower() == wanted.lower()]
        part = [device for device in devices if wanted.lower() in f"{device.name}, {device.driver}".lower()]
        matching = whole or part
    if not matching:
        names = "; ".join(f"{device.number} {device.name}" for device in devices)
        raise NoAudioDevice(f"player.device: there is no device {wanted!r} now; there are: {names}")
    if len(matching) > 1:
        names = "; ".join(f"{device.number} {device.name} ({device.driver})" for device in matching)
        raise BadRequest(f"player.device: {wanted!r} fits several devices: {names}; name one by its number")
    return matching[0]


def let_go() -> None:
    """End PortAudio in this process; it starts again when it is asked something after `look_again`."""
    audio = sys.modules.get("sounddevice")
    while audio is not None and audio._initialized:
        audio._terminate()


def look_again() -> None:
    """Let PortAudio see what was plugged in since. Only while nothing is open."""
    audio = portaudio()
    audio._terminate()
    audio._initialize()


def listing() -> dict[str, object]:
    """`devices`, or the `error` that says what to install."""
    try:
        return {"devices": [asdict(device) for device in output_devices()]}
    except NoAudioDevice as error:
        return {"error": str(error)}


if __name__ == "__main__":
    json.dump(listing(), sys.stdout)
