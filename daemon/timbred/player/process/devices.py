"""Audio output devices, and output through a ring buffer that rtmixer's C callback reads, with the device's clock."""

import json
import sys
from collections import deque
from dataclasses import asdict, dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from timbred.audio import Samples, frames_in
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


MAX_OBSERVATIONS = 400
"""Observations that are kept: some seconds of them, as a device's clock drifts."""


class DeviceClock:
    """Estimates which frame the device outputs at a given time.

    The device's frame counter moves in steps, and a step is always observed some time after it happened, never before.
    So the earliest observations are the accurate ones.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._starts: deque[float] = deque(maxlen=MAX_OBSERVATIONS)
        self._frames = -1

    def observe(self, frames: int, moment: float) -> None:
        """Record that the device had taken `frames` in all at `moment` (seconds)."""
        if frames == self._frames:
            return
        if self._frames >= 0:  # at this step it began to play the frames after the previous ones
            self._starts.append(moment - self._frames / self.rate)
        self._frames = frames

    @property
    def is_settled(self) -> bool:
        """True if there are enough observations."""
        return len(self._starts) >= 20

    def frame_at(self, moment: float) -> float:
        """Return the frame that the device takes at `moment` (seconds). Needs `is_settled`."""
        return (moment - min(self._starts)) * self.rate

    def restart(self) -> None:
        """Discard all observations: frames were skipped."""
        self._starts.clear()
        self._frames = -1


BLOCK_FRAMES = 64
"""Frames that are mixed at a time."""

MAX_DEVICE_BLOCK_FRAMES = 8192
"""Largest block of a device, in frames, for which the ring has room."""

LEAD_GROWTH = 1.5
"""Factor by which the lead grows after an underrun."""

MAX_LEAD_RATIO = 4.0
"""Largest lead, as a multiple of the requested one."""

POLL_LEAD_SHARE = 0.25
"""Share of the lead that may pass between two checks of the ring."""

SAMPLE_BYTES = 4
"""Size of a float32 sample."""


class Output:
    """One output stream. Frames are counted from the first that was written.

    Args:
        device: the device to open.
        channels: output channels to open, at most those of the device.
        lead: how far the ring is filled beyond the device's block, in seconds.

    Attributes:
        underruns: times that the ring ran empty.
        late: blocks that the driver requested late, for any reason.
        frames_written: frames written to the ring in all.

    Raises:
        NoAudioDevice: the device can't be opened.
    """

    def __init__(self, device: AudioDevice, channels: int, lead: float) -> None:
        audio = portaudio()
        import rtmixer

        self.device = device
        self.channels = min(channels, device.channels)
        try:
            self._stream: Any = rtmixer.Mixer(
                device=device.number, channels=self.channels, blocksize=0, samplerate=device.rate, latency="low"
            )
            self.rate = round(self._stream.samplerate)
            self.latency = float(self._stream.latency)
            self._lead = frames_in(lead, self.rate)
            self._max_lead = round(MAX_LEAD_RATIO * self._lead)
            self._ring: Any = rtmixer.RingBuffer(SAMPLE_BYTES * self.channels, _power_of_two(self._max_lead))
            self._stream.start()
        except audio.PortAudioError as error:
            raise NoAudioDevice(f"{device.name} can't be opened: {error}") from error
        self.underruns = 0
        self.late = 0
        self._underflows_seen = 0
        self.frames_written = 0
        self._action: Any = None

    @property
    def block(self) -> int:
        """Frames in one block of the device; 0 until it has taken one."""
        return 0 if self._action is None else int(self._action.stats.max_blocksize)

    @property
    def frames_taken(self) -> int:
        """Frames that the device has taken in all."""
        return self.frames_written - int(self._ring.read_available)

    @property
    def frames_missing(self) -> int:
        """Frames to write now to fill the lead."""
        block = self.block or frames_in(self.latency, self.rate)  # the driver's figure until the first block is taken
        return max(0, self._lead + min(block, MAX_DEVICE_BLOCK_FRAMES) - int(self._ring.read_available))

    @property
    def lead(self) -> float:
        """Seconds of audio mixed ahead; it grows after an underrun."""
        return self._lead / self.rate

    @property
    def poll_interval(self) -> float:
        """Seconds until the next check of the ring: at most a block is taken, and most of the lead is left."""
        block = frames_in(self.latency, self.rate) if not self.block else self.block
        return min(block / self.rate, POLL_LEAD_SHARE * self.lead)

    @property
    def is_running(self) -> bool:
        """True while the stream is active."""
        return bool(self._stream.active)

    def write(self, block: Samples) -> None:
        """Write the next frames to the ring, shape (frames, channels)."""
        self._ring.write(block)
        self.frames_written += block.shape[0]

    def close(self) -> None:
        """Close the device."""
        self._stream.close(ignore_errors=True)

    def resume(self) -> bool:
        """Start the callback's reading, or restart it after an underrun. Returns False after an underrun."""
        if self._action is None:
            self._action = self._stream.play_ringbuffer(self._ring)
            return True
        underflows = int(self._action.stats.output_underflows)
        self.late += max(0, underflows - self._underflows_seen)
        self._underflows_seen = underflows
        if self._action in self._stream.actions:
            return True
        self.underruns += 1
        self._lead = min(self._max_lead, round(self._lead * LEAD_GROWTH))
        self._underflows_seen = 0
        self._action = self._stream.play_ringbuffer(self._ring)
        return False


def _power_of_two(lead: int) -> int:
    return 1 << (lead + 2 * MAX_DEVICE_BLOCK_FRAMES).bit_length()
