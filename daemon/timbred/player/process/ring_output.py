"""When a frame is heard: a line through what the device was seen to have taken. Pure."""

from collections import deque
from typing import Any

from timbred.audio import Samples, frames_in
from timbred.errors import NoAudioDevice
from timbred.player.process.devices import AudioDevice, portaudio

WINDOW = 400
"""Observations that are remembered: some seconds of them, for a device's clock drifts."""


class DeviceTime:
    """Learns which frame the device is at, at which moment.

    Whoever asks the device sees a staircase, and always late: a step is seen some time after it happened, never
    before. So the earliest steps are the true ones.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._starts: deque[float] = deque(maxlen=WINDOW)
        self._frames = -1

    def saw(self, frames: int, moment: float) -> None:
        """The device had taken `frames` in all at `moment` (seconds)."""
        if frames == self._frames:
            return
        if self._frames >= 0:  # with this step it began to play what follows those it had before
            self._starts.append(moment - self._frames / self.rate)
        self._frames = frames

    @property
    def settled(self) -> bool:
        """Whether enough was seen to rely on."""
        return len(self._starts) >= 20

    def frame_at(self, moment: float) -> float:
        """The frame that goes into the device at `moment`. Needs `settled`."""
        return (moment - min(self._starts)) * self.rate

    def restart(self) -> None:
        """Forget: frames were skipped."""
        self._starts.clear()
        self._frames = -1


BLOCK = 64
"""Frames that are mixed at a time."""

LARGEST_DEVICE_BLOCK = 8192

WIDENED = 1.5
"""Factor by which the lead grows when the ring ran dry: a machine that was too busy once will be so again."""

WIDEST = 4.0
"""Times the lead that was asked for, at most."""

RESTED = 0.25
"""Part of the lead that may go by between two looks at the ring."""

SAMPLE_BYTES = 4


class Output:
    """One stream. Frames are counted from the first that was handed over."""

    def __init__(self, device: AudioDevice, channels: int, lead: float) -> None:
        """`lead` is how far the ring is filled beyond what the device takes at once, in seconds.

        Raises:
            NoAudioDevice: the device can't be opened.
        """
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
            self._widest = round(WIDEST * self._lead)
            self._ring: Any = rtmixer.RingBuffer(SAMPLE_BYTES * self.channels, _power_of_two(self._widest))
            self._stream.start()
        except audio.PortAudioError as error:
            raise NoAudioDevice(f"{device.name} can't be opened: {error}") from error
        self.underruns = 0
        """Times that the ring ran dry."""
        self.late = 0
        """Blocks that the driver says came late, whoever's fault it was."""
        self._flagged = 0
        self.handed_over = 0
        """Frames put into the ring in all."""
        self._action: Any = None

    @property
    def block(self) -> int:
        """Frames that the device takes at once; 0 while that isn't known."""
        return 0 if self._action is None else int(self._action.stats.max_blocksize)

    @property
    def taken(self) -> int:
        """Frames that the device has taken in all."""
        return self.handed_over - int(self._ring.read_available)

    @property
    def missing(self) -> int:
        """Frames that may be handed over now to be the lead ahead again."""
        block = self.block or frames_in(self.latency, self.rate)  # until the first is taken: as the driver says
        return max(0, self._lead + min(block, LARGEST_DEVICE_BLOCK) - int(self._ring.read_available))

    @property
    def lead(self) -> float:
        """How far sound is mixed ahead now, in seconds; it grows when the ring runs dry."""
        return self._lead / self.rate

    @property
    def rest(self) -> float:
        """Seconds that may pass before the ring is looked at again: within them the device takes a block at most, and
        most of the lead is left to mix the next one in."""
        block = frames_in(self.latency, self.rate) if not self.block else self.block
        return min(block / self.rate, RESTED * self.lead)

    @property
    def is_running(self) -> bool:
        return bool(self._stream.active)

    def hand_over(self, block: Samples) -> None:
        """Put the next frames into the ring. Shape (frames, channels)."""
        self._ring.write(block)
        self.handed_over += block.shape[0]

    def close(self) -> None:
        """Give the device back."""
        self._stream.close(ignore_errors=True)

    def keep_going(self) -> bool:
        """Let the callback take from the ring; after it ran dry, again. False if it ran dry since last asked."""
        if self._action is None:
            self._action = self._stream.play_ringbuffer(self._ring)
            return True
        flagged = int(self._action.stats.output_underflows)
        self.late += max(0, flagged - self._flagged)
        self._flagged = flagged
        if self._action in self._stream.actions:
            return True
        self.underruns += 1
        self._lead = min(self._widest, round(self._lead * WIDENED))
        self._flagged = 0
        self._action = self._stream.play_ringbuffer(self._ring)
        return False


def _power_of_two(lead: int) -> int:
    return 1 << (lead + 2 * LARGEST_DEVICE_BLOCK).bit_length()
