"""Values on their way: gains that glide and fades of equal power, sample by sample, never a step."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from timbred.audio import Samples, amplitude, frames_in
from timbred.dsp.crossfade import raised_cosine
from timbred.ipc.player_messages import Handover
from timbred.player.beat_grid import StartTime
from timbred.player.mixer.commands import StartVoice
from timbred.player.mixer.source import ReadHead, VoiceSource

Values = NDArray[np.float64]


class Glide:
    """Values that move to new ones along half a cosine. Shape (values,); a block is (frames, values)."""

    def __init__(self, values: Values) -> None:
        self.now = values
        self.target = values
        self._from = values
        self._length = 0
        self._done = 0

    @property
    def moving(self) -> bool:
        return self._done < self._length

    def to(self, target: Values, frames: int) -> None:
        """Set out for `target`, to be there after `frames` frames."""
        self._from, self.target = self.now, target
        self._length, self._done = max(1, frames), 0

    def scale(self, factor: float) -> None:
        """Count in another unit from now on."""
        self.now, self.target, self._from = (values * factor for values in (self.now, self.target, self._from))

    def take(self, frames: int) -> Values:
        """The next block's values."""
        passed = np.minimum(np.arange(self._done + 1, self._done + frames + 1), self._length) / self._length
        share = raised_cosine(np.pi * passed)[:, None]
        values = self._from + (self.target - self._from) * share
        self._done += frames
        self.now = values[-1] if self.moving else self.target
        return values


class Fade:
    """A fade in or out of equal power: two that run together keep the sum of their powers at 1."""

    def __init__(self, frames: int, rising: bool) -> None:
        self.frames = max(1, frames)
        self.rising = rising
        self.done = 0

    @property
    def left(self) -> int:
        return max(0, self.frames - self.done)

    def take(self, frames: int) -> Values:
        """The next block's factors, shape (frames, 1): from above 0 to exactly 1, or the other way to exactly 0."""
        passed = np.minimum(np.arange(self.done + 1, self.done + frames + 1) / self.frames, 1.0)
        self.done += frames
        shape = np.sin(0.5 * np.pi * (passed if self.rising else 1.0 - passed))
        return shape[:, None]


def balance(gain: float, pan: float, outputs: int) -> Values:
    """The factor of each output channel: `gain` in dB, `pan` from left -1 to right 1.

    In the middle both are exactly the gain, so that a sound goes out as it is; towards a side the other one
    falls along a quarter of a cosine. One output takes no pan.

    >>> balance(0.0, 0.0, 2).tolist()
    [1.0, 1.0]
    """
    factor = amplitude(gain)
    if outputs == 1:
        return np.array([factor])
    left = min(1.0, math.cos(max(0.0, pan) * math.pi / 2))
    right = min(1.0, math.cos(max(0.0, -pan) * math.pi / 2))
    return np.array([factor * left, factor * right])


STARVED_FADE_SECONDS = 0.01
"""Seconds of the fade before a sound that is being made has no more frames, and when it has some again."""

ONE = 1e-9
"""A step so near to one frame is one: a frame would be gained or lost in hours."""

CANCELLING = -0.5
"""Correlation of two channels below which one output gets their difference: their mean would be next to silence."""

CORRELATED_FRAMES = 48_000
"""Frames, spread over the sound, from which the correlation is taken."""

RESUMED_WITH = 0.25
"""Seconds of sound that must be there to go on with it."""

AHEAD, APART, KINDS = 320, 64, 8
"""Frames that are read ahead between the frames of a sound: `AHEAD` and more, by the voice, so that not all voices read
in the same block."""

Reason = Literal["finished", "stopped", "replaced"]


def mono_shares(sound: VoiceSource) -> Samples:
    """The factors, (2, 1), with which the channels of a stereo sound are summed for one output."""
    there = sound.samples if sound.ready is None else sound.samples[: sound.ready]
    left, right = there[:: max(1, there.shape[0] // CORRELATED_FRAMES)].T.astype(np.float64)
    product, power = float(left @ right), math.sqrt(float(left @ left) * float(right @ right))
    return np.array([[0.5], [-0.5 if product < CANCELLING * power else 0.5]], np.float32)


class VoiceLayer:
    """`out` is the first output channel, from 0; `outputs` how many there are of the device's, 1 or 2.

    A piece of an endless sound has a `handover`, and with beats in it a `due` beat. One that `goes_on` fades out while
    another layer has its play already.
    """

    def __init__(
        self, play: int, voice: int, sound: VoiceSource, position: float, gain: float, pan: float, speed: float,
        out: int, outputs: int, rate: int, handover: Handover | None = None, due: StartTime | None = None,
    ) -> None:  # fmt: skip
        self.play = play
        self.voice = voice
        self.head = ReadHead(sound, position)
        self.gain, self.pan, self.speed = gain, pan, speed
        self.out = out
        self.outputs = outputs
        self.rate = rate
        self.handover = handover
        self.due = due
        self.goes_on = False
        self.reason: Reason = "finished"
        self._gains = Glide(balance(gain, pan, outputs))
        self._step = Glide(np.array([speed * sound.rate / rate]))
        self._mono = mono_shares(sound) if outputs == 1 and sound.channels == 2 else None
        self._fades: list[Fade] = []
        self._ebb: Fade | None = None
        self._dry = False
        self._before: tuple[ReadHead, Fade] | None = None
        self.dried = 0
        """Times that it stood still, for what it was to sound hadn't been made."""

    @property
    def leaving(self) -> bool:
        """Whether it fades out."""
        return any(not fade.rising for fade in self._fades)

    @property
    def over(self) -> bool:
        return self.head.at_end or any(not fade.rising and not fade.left for fade in self._fades)

    @property
    def left(self) -> int:
        """Frames of the device until the sound's end, at the present speed."""
        return max(0, math.ceil((self.head.sound.frames - self.head.position) / float(self._step.now[0])))

    @property
    def overlap(self) -> int:
        """Frames of the crossfade into what follows: as asked, at most half of the sound, and what is left of it."""
        if self.handover is None:
            return 0
        half = self.head.sound.frames / float(self._step.now[0]) / 2
        return min(frames_in(self.handover.overlap, self.rate), int(half), self.left)

    def again(self) -> StartVoice:
        """This piece from its beginning."""
        return StartVoice(
            self.play, self.voice, self.head.sound, self.gain, self.pan, self.speed, self.out + 1,
            handover=self.handover,
        )  # fmt: skip

    def fade_in(self, frames: int) -> None:
        if frames > 0:
            self._fades.append(Fade(frames, rising=True))

    def fade_out(self, frames: int, reason: Reason) -> None:
        """Leave within `frames`; a fade out that ends sooner goes on."""
        if min((fade.left for fade in self._fades if not fade.rising), default=frames + 1) > frames:
            self._fades.append(Fade(frames, rising=False))
            self.reason = reason

    def change(self, gain: float | None, pan: float | None, speed: float | None, frames: int) -> None:
        """Glide to new values within `frames`; None leaves as it is."""
        if gain is not None or pan is not None:
            self.gain = self.gain if gain is None else gain
            self.pan = self.pan if pan is None else pan
            self._gains.to(balance(self.gain, self.pan, self.outputs), frames)
        if speed is not None:
            self.speed = speed
            self._step.to(np.array([speed * self.head.sound.rate / self.rate]), frames)

    def exchange(self, sound: VoiceSource) -> None:
        """Go on in the same sound, made ready for another speed."""
        ratio = sound.rate / self.head.sound.rate
        position = min(sound.frames - 1, round(self.head.position * ratio))
        self._before = self.head, Fade(frames_in(STARVED_FADE_SECONDS, self.rate), rising=True)
        self.head = ReadHead(sound, float(position))
        self._step.scale(ratio)

    def mix_into(self, out: Samples) -> int:
        """Add the next frames to `out`, shape (frames, channels of the device).

        Returns the frames added; fewer than there are when the sound is over.
        """
        frames = min([out.shape[0], *(fade.left for fade in self._fades if not fade.rising)])
        if self.head.sound.ready is None and self._ebb is None and not self._dry:
            return self._mix(out, frames)
        return self._mix_what_is_there(out, frames)

    def _mix_what_is_there(self, out: Samples, frames: int) -> int:
        """Add frames of a sound that is still being made. It fades out before it has no more, and in when it has."""
        ebb = frames_in(STARVED_FADE_SECONDS, self.rate)
        done = 0
        while done < frames:
            part = frames - done
            there = self.head.ahead / float(self._step.now[0])
            if self._dry and there >= frames_in(RESUMED_WITH, self.rate):
                self._dry = False
                self._fades.append(Fade(ebb, rising=True))
            if self._dry:
                for fade in self._fades:
                    fade.take(part)
                return frames
            if self._ebb is None and there < part + ebb:
                self._ebb = Fade(max(1, min(ebb, int(there))), rising=False)
            if self._ebb is not None:
                part = min(part, self._ebb.left)
            used = self._mix(out[done:], part)
            done += used
            if self._ebb is not None and not self._ebb.left:
                self._ebb, self._dry = None, True
                self.dried += 1
            elif used < part:
                return done
        return done

    def _mix(self, out: Samples, frames: int) -> int:
        block = self._read(frames)
        used = block.shape[0]
        place = out[:used, self.out : self.out + self.outputs]
        place += self._shaped(block, used)
        return used

    def _read(self, frames: int) -> Samples:
        steps = self._step.take(frames)[:, 0] if self._step.moving else float(self._step.now[0])
        block = self._read_by(self.head, frames, steps)
        return block if self._before is None else self._blended(*self._before, block, steps)

    def _read_by(self, head: ReadHead, frames: int, steps: Values | float) -> Samples:
        if isinstance(steps, np.ndarray):
            return head.read_at(steps)
        if abs(steps - 1.0) < ONE and float(head.position).is_integer():
            return head.read(frames)
        return head.read_steadily(frames, steps, AHEAD + APART * (self.voice % KINDS))

    def _blended(self, before: ReadHead, fade: Fade, block: Samples, steps: Values | float) -> Samples:
        """From the sound that was exchanged to the one that is there now: both are the same, so by a straight sum."""
        used = block.shape[0]
        ratio = before.sound.rate / self.head.sound.rate
        old = self._read_by(before, used, steps * ratio)
        missing = used - old.shape[0]
        share = (fade.take(used) ** 2).astype(np.float32)
        if not fade.left:
            self._before = None
        return (np.pad(old, ((0, missing), (0, 0))) * (1.0 - share) + block * share).astype(np.float32)

    def _shaped(self, block: Samples, used: int) -> Samples:
        if self._mono is not None:
            block = block @ self._mono
        if not used:
            return block
        gains = self._gains.take(used) if self._gains.moving else self._gains.now
        for fade in self._fades:
            gains = gains * fade.take(used)
        if self._ebb is not None:
            gains = gains * self._ebb.take(used)
        self._fades = [fade for fade in self._fades if fade.left or not fade.rising]
        return block * gains.astype(np.float32)
