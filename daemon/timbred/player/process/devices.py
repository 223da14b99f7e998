"""Audio output devices, and the choice of one."""

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
    """An output device: `rate` in Hz and `latency` in seconds are its driver's defaults."""

    number: int
    name: str
    driver: str
    channels: int
    rate: int
    latency: float
    is_default: bool


def portaudio() -> ModuleType:
    """Import sounddevice.

    Raises:
        NoAudioDevice: sounddevice, rtmixer or PortAudio isn't installed; the message says what to install.
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
    """List all devices that can play, as PortAudio found them when it was started.

    Raises:
        NoAudioDevice: PortAudio isn't installed, or fails.
    """
    audio = portaudio()
    try:
        drivers: list[dict[str, Any]] = list(audio.query_hostapis())
        devices: list[dict[str, Any]] = list(audio.query_devices())
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
        for number, device in enumerate(devices)
        if device["max_output_channels"] > 0
    ]


def _default(drivers: list[dict[str, Any]], chosen: int) -> int:
    """Return the number of the system's default device, or that of the first driver that has one."""
    if chosen >= 0:
        return chosen
    return next(
        (int(driver["default_output_device"]) for driver in drivers if driver["default_output_device"] >= 0), -1
    )


def find_device(devices: list[AudioDevice], name: str) -> AudioDevice:
    """Return the device with this number, name, or part of a name; the system's default for an empty text.

    Raises:
        NoAudioDevice: there is none; the message lists all devices.
        BadRequest: several devices match.
    """
    if not devices:
        raise NoAudioDevice("this machine has no sound device that can play; plug one in, or start a JACK server")
    if not name:
        return next((device for device in devices if device.is_default), devices[0])
    if name.isdecimal():
        matches = [device for device in devices if device.number == int(name)]
    else:
        exact = [device for device in devices if device.name.lower() == name.lower()]
        partial = [device for device in devices if name.lower() in f"{device.name}, {device.driver}".lower()]
        matches = exact or partial
    if not matches:
        names = "; ".join(f"{device.number} {device.name}" for device in devices)
        raise NoAudioDevice(f"player.device: there is no device {name!r}; choose one of: {names}")
    if len(matches) > 1:
        names = "; ".join(f"{device.number} {device.name} ({device.driver})" for device in matches)
        raise BadRequest(f"player.device: {name!r} matches several devices: {names}; give the number of one")
    return matches[0]


def terminate() -> None:
    """Terminate PortAudio in this process; `rescan` starts it again."""
    audio = sys.modules.get("sounddevice")
    while audio is not None and audio._initialized:
        audio._terminate()


def rescan() -> None:
    """Restart PortAudio, so that it finds devices that were plugged in since. Only while no device is open."""
    audio = portaudio()
    audio._terminate()
    audio._initialize()


def list_devices() -> dict[str, object]:
    """Return the `devices`, or the `error` that says what to install."""
    try:
        return {"devices": [asdict(device) for device in output_devices()]}
    except NoAudioDevice as error:
        return {"error": str(error)}


if __name__ == "__main__":
    json.dump(list_devices(), sys.stdout)
