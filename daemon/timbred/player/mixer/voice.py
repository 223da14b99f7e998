"""One sound on a voice: its samples and read position, gain and speed ramps, fades, and mixing.

No value changes in a step. The commands to the mixer, and the events that it reports, are defined here too.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from timbred.audio import Samples, amplitude, frames_in
from timbred.dsp.fades import catmull_rom, raised_cosine
from timbred.ipc.player_messages import Handover
from timbred.player.beat_grid import StartTime

NEIGHBOUR_OFFSETS = np.arange(-1, 3)
"""Frames around a position that interpolation needs."""

ATTACK_LOSS_RATIO = 0.7
"""Factor below which a fade in that lowers the peak, or its square the steepest step, takes off an attack."""

COMPARED_FADE_LENGTHS = 3
"""Lengths of the fade, from the beginning, in which peak and steepest step are compared."""


@dataclass(eq=False)
class VoiceSource:
    """Samples to play.

    Attributes:
        samples: shape (frames, channels), float32.
        rate: in Hz at speed 1.
        loop: True if the sound repeats without a gap.
        ready_frames: the frames that have arrived while the sound is still being rendered; None if all have.
    """

    samples: Samples
    rate: float
    loop: bool = False
    ready_frames: int | None = None

    def add(self, samples: Samples) -> None:
        """Store the next frames of a sound that is being rendered."""
        first = self.frames if self.ready_frames is None else self.ready_frames
        last = min(self.frames, first + samples.shape[0])
        self.samples[first:last] = samples[: last - first]
        self.ready_frames = None if last == self.frames else last

    @property
    def frames(self) -> int:
        """Frames of the whole sound."""
        return self.samples.shape[0]

    @property
    def channels(self) -> int:
        """Channels of the sound."""
        return self.samples.shape[1]


def has_attack(sound: VoiceSource, position: int, frames: int) -> bool:
    """Return whether an equal-power fade in over `frames`, from `position` on, would take off an attack.

    This is so if the loudest or the steepest place is within the fade and no similar one follows it.
    """
    ready_frames = sound.frames if sound.ready_frames is None else sound.ready_frames
    positions = np.arange(position, position + COMPARED_FADE_LENGTHS * frames)
    beginning = sound.samples[positions % sound.frames if sound.loop else positions[positions < ready_frames]]
    if beginning.shape[0] < 2:
        return False
    gains = np.sin(0.5 * np.pi * np.minimum(1.0, np.arange(1, beginning.shape[0] + 1) / frames))
    levels, steps = np.abs(beginning).max(axis=1), np.abs(np.diff(beginning, axis=0)).max(axis=1)
    is_softer = (levels * gains).max() < ATTACK_LOSS_RATIO * levels.max()
    is_duller = (steps * gains[1:]).max() < ATTACK_LOSS_RATIO**2 * steps.max()
    return bool(is_softer or is_duller)


@dataclass
class ReadResult:
    """Frames that were read ahead at a steady `step`, from `first` on; `used_frames` of them were returned."""

    first: float
    step: float
    block: Samples
    used_frames: int = 0

    @property
    def position(self) -> float:
        """The position after the frames that were used."""
        return self.first + self.step * self.used_frames


class ReadHead:
    """A read position in a sound, in its frames."""

    def __init__(self, sound: VoiceSource, position: float = 0.0) -> None:
        self.sound = sound
        self.position = position
        self._read_ahead: ReadResult | None = None

    @property
    def at_end(self) -> bool:
        """True after the last frame of a sound that isn't a loop."""
        return not self.sound.loop and self.position >= self.sound.frames

    @property
    def ahead(self) -> float:
        """Frames of the sound that can be read from here on; infinite if all have arrived."""
        return (
            math.inf
            if self.sound.ready_frames is None
            else self.sound.ready_frames - self.position - NEIGHBOUR_OFFSETS[-1]
        )

    def read(self, frames: int) -> Samples:
        """Return the next frames unchanged; fewer at the end of the sound. Needs a whole position."""
        sound, begin = self.sound, int(self.position)
        end = begin + frames
        if end <= sound.frames:
            block = sound.samples[begin:end]
        elif sound.loop:
            block = sound.samples[np.arange(begin, end) % sound.frames]
        else:
            block = sound.samples[begin:]
        self._move_to(begin + block.shape[0])
        return block

    def read_at(self, steps: NDArray[np.float64]) -> Samples:
        """Return a frame after each of `steps` (in frames of the sound), interpolated between frames."""
        positions = self.position + np.concatenate(([0.0], np.cumsum(steps)))
        count = len(steps) if self.sound.loop else int(np.searchsorted(positions[:-1], self.sound.frames))
        block = self._interpolate(positions[:count])
        self._move_to(float(positions[count]))
        return block

    def read_steadily(self, frames: int, step: float, ahead: int) -> Samples:
        """Return the next frames, each `step` after the one before, as `read_at` does; fewer at the end of the sound.

        They are read `ahead` at a time, as a call costs more than the frames; of a sound that is being rendered only
        the requested ones.
        """
        result = self._read_ahead
        if result is None or not self._fits(result, frames, step):
            result = self._read_ahead = self._fill_read_ahead(
                max(frames, ahead) if self.sound.ready_frames is None else frames, step
            )
        block = result.block[result.used_frames : result.used_frames + frames]
        result.used_frames += block.shape[0]
        self._move_to(result.position)
        return block

    def _fits(self, result: ReadResult, frames: int, step: float) -> bool:
        """Return whether the frames that were read ahead continue from here and suffice."""
        is_continued = result.step == step and self._wrap(result.position) == self.position
        return is_continued and result.used_frames + frames <= result.block.shape[0]

    def _fill_read_ahead(self, frames: int, step: float) -> ReadResult:
        positions = self.position + step * np.arange(frames, dtype=np.float64)
        count = frames if self.sound.loop else int(np.searchsorted(positions, self.sound.frames))
        return ReadResult(self.position, step, self._interpolate(positions[:count]))

    def _wrap(self, position: float) -> float:
        return position % self.sound.frames if self.sound.loop else position

    def _move_to(self, position: float) -> None:
        self.position = self._wrap(position)

    def _interpolate(self, positions: NDArray[np.float64]) -> Samples:
        whole = positions.astype(np.int64)
        fraction = (positions - whole).astype(np.float32)[:, None]
        before, this, after, next_ = self._neighbours(whole)
        return catmull_rom(before, this, after, next_, fraction).astype(np.float32, copy=False)

    def _neighbours(self, whole: NDArray[np.int64]) -> list[Samples]:
        sound = self.sound
        if len(whole) and whole[0] >= 1 and whole[-1] + 2 < sound.frames:
            return [sound.samples.take(whole + neighbour, axis=0) for neighbour in NEIGHBOUR_OFFSETS]
        indexes_by_offset = [whole + neighbour for neighbour in NEIGHBOUR_OFFSETS]
        if sound.loop:
            return [sound.samples[indexes % sound.frames] for indexes in indexes_by_offset]
        is_inside = [(indexes >= 0) & (indexes < sound.frames) for indexes in indexes_by_offset]
        return [
            sound.samples[np.clip(indexes, 0, sound.frames - 1)] * inside[:, None]
            for indexes, inside in zip(indexes_by_offset, is_inside, strict=True)
        ]


@dataclass(frozen=True)
class StartVoice:
    """Start a sound on a voice.

    Attributes:
        play: the number of the play.
        voice: 1 to 64.
        sound: the samples.
        gain: in dB.
        pan: -1 (left) to 1 (right).
        speed: relative to the sound's rate.
        out: the first output channel, from 1.
        fade: length of the fade in and of the crossfade in seconds; None for the default.
        position: the frame of the sound to start from.
        handover: for a segment of continuous playback: when the next one begins.
    """

    play: int
    voice: int
    sound: VoiceSource
    gain: float = 0.0
    pan: float = 0.0
    speed: float = 1.0
    out: int = 1
    fade: float | None = None
    position: float = 0.0
    handover: Handover | None = None


@dataclass(frozen=True)
class EndVoice:
    """End a voice, or every voice with 0; `fade` in seconds."""

    stop: int
    voice: int
    fade: float | None = None


@dataclass
class WaitingVoice:
    """A command with its start time; `start_time` is None if it is due now."""

    order: StartVoice | EndVoice
    start_time: StartTime | None


@dataclass(frozen=True)
class VoiceStarted:
    """The first sample of a play is output at this frame; `repeated` if it was played before."""

    play: int
    frame: int
    beat: float
    repeated: bool = False


@dataclass(frozen=True)
class VoiceFinished:
    """The last sample of a play was output before this frame."""

    play: int
    frame: int
    reason: Literal["finished", "stopped", "replaced"]


@dataclass(frozen=True)
class VoiceStopped:
    """An `EndVoice` was carried out on these plays."""

    stop: int
    plays: tuple[int, ...]


MixerEvent = VoiceStarted | VoiceFinished | VoiceStopped


Values = NDArray[np.float64]


class Glide:
    """Values that move to new ones along half a cosine. Shape (values,); a block has shape (frames, values)."""

    def __init__(self, values: Values) -> None:
        self.current = values
        self.target = values
        self._from = values
        self._length = 0
        self._done = 0

    @property
    def moving(self) -> bool:
        """True until the target is reached."""
        return self._done < self._length

    def move_to(self, target: Values, frames: int) -> None:
        """Move to `target` within `frames` frames."""
        self._from, self.target = self.current, target
        self._length, self._done = max(1, frames), 0

    def scale(self, factor: float) -> None:
        """Multiply current and target values, for a change of unit."""
        self.current, self.target, self._from = (values * factor for values in (self.current, self.target, self._from))

    def advance(self, frames: int) -> Values:
        """Return the values of the next block."""
        passed = np.minimum(np.arange(self._done + 1, self._done + frames + 1), self._length) / self._length
        fraction = raised_cosine(np.pi * passed)[:, None]
        values = self._from + (self.target - self._from) * fraction
        self._done += frames
        self.current = values[-1] if self.moving else self.target
        return values


class Fade:
    """An equal-power fade in or out: two simultaneous ones keep the sum of their powers at 1."""

    def __init__(self, frames: int, rising: bool) -> None:
        self.frames = max(1, frames)
        self.rising = rising
        self.mixed_frames = 0

    @property
    def frames_left(self) -> int:
        """Frames until the end of the fade."""
        return max(0, self.frames - self.mixed_frames)

    def advance(self, frames: int) -> Values:
        """Return the gains of the next block, (frames, 1): from above 0 to exactly 1, or down to exactly 0."""
        passed = np.minimum(np.arange(self.mixed_frames + 1, self.mixed_frames + frames + 1) / self.frames, 1.0)
        self.mixed_frames += frames
        shape = np.sin(0.5 * np.pi * (passed if self.rising else 1.0 - passed))
        return shape[:, None]


def balance(gain: float, pan: float, outputs: int) -> Values:
    """Return the gain of each output channel, for `gain` in dB and `pan` from -1 (left) to 1 (right).

    In the middle both are exactly the gain; towards one side the other falls along a quarter of a cosine. A single
    output ignores the pan.

    >>> balance(0.0, 0.0, 2).tolist()
    [1.0, 1.0]
    """
    factor = amplitude(gain)
    if outputs == 1:
        return np.array([factor])
    left = min(1.0, math.cos(max(0.0, pan) * math.pi / 2))
    right = min(1.0, math.cos(max(0.0, -pan) * math.pi / 2))
    return np.array([factor * left, factor * right])


STARVED_FADE_S = 0.01
"""Length of the fade before a sound that is being rendered runs out of frames, and after it resumes."""

UNIT_STEP_TOLERANCE = 1e-9
"""Distance from 1 up to which a step counts as one frame: a frame would be gained or lost in hours."""

OPPOSITE_CORRELATION = -0.5
"""Correlation of two channels below which one output gets their difference: the mean would be near silence."""

CORRELATED_FRAMES = 48_000
"""Frames, spread over the sound, from which the correlation is computed."""

RESUME_AFTER_S = 0.25
"""Seconds of sound that must have arrived before playback resumes."""

READ_AHEAD_FRAMES, READ_AHEAD_STEP_FRAMES, READ_AHEAD_KINDS = 320, 64, 8
"""Frames read ahead while interpolating; they differ by voice, so that not all voices read in the same block."""

Reason = Literal["finished", "stopped", "replaced"]


def mono_gains(sound: VoiceSource) -> Samples:
    """Return the gains, (2, 1), with which the channels of a stereo sound are summed for one output."""
    available = sound.samples if sound.ready_frames is None else sound.samples[: sound.ready_frames]
    left, right = available[:: max(1, available.shape[0] // CORRELATED_FRAMES)].T.astype(np.float64)
    product, power = float(left @ right), math.sqrt(float(left @ left) * float(right @ right))
    return np.array([[0.5], [-0.5 if product < OPPOSITE_CORRELATION * power else 0.5]], np.float32)


class VoiceLayer:
    """One sound on a voice; during a crossfade a voice has two.

    Args:
        play: the number of the play.
        voice: 1 to 64.
        sound: the samples.
        position: the frame to start from.
        gain: in dB.
        pan: -1 (left) to 1 (right).
        speed: relative to the sound's rate.
        out: the first output channel, from 0.
        outputs: output channels used, 1 or 2.
        rate: the device's, in Hz.
        handover: for a segment of continuous playback: when the next one begins.
        handover_time: the beat of the handover, if it has one.

    Attributes:
        is_continued: True if it fades out while another layer continues its play.
        starvation_count: times that playback paused because the frames had not been rendered yet.
    """

    def __init__(
        self, play: int, voice: int, sound: VoiceSource, position: float, gain: float, pan: float, speed: float,
        out: int, outputs: int, rate: int, handover: Handover | None = None, handover_time: StartTime | None = None,
    ) -> None:  # fmt: skip
        self.play = play
        self.voice = voice
        self.head = ReadHead(sound, position)
        self.gain, self.pan, self.speed = gain, pan, speed
        self.out = out
        self.outputs = outputs
        self.rate = rate
        self.handover = handover
        self.handover_time = handover_time
        self.is_continued = False
        self.reason: Reason = "finished"
        self._gains = Glide(balance(gain, pan, outputs))
        self._step = Glide(np.array([speed * sound.rate / rate]))
        self._mono_gains = mono_gains(sound) if outputs == 1 and sound.channels == 2 else None
        self._fades: list[Fade] = []
        self._starved_fade: Fade | None = None
        self._is_starved = False
        self._exchanged: tuple[ReadHead, Fade] | None = None
        self.starvation_count = 0

    @property
    def is_fading_out(self) -> bool:
        """True while it fades out."""
        return any(not fade.rising for fade in self._fades)

    @property
    def is_over(self) -> bool:
        """True after its last frame."""
        return self.head.at_end or any(not fade.rising and not fade.frames_left for fade in self._fades)

    @property
    def left(self) -> int:
        """Frames of the device until the sound's end, at the present speed."""
        return max(0, math.ceil((self.head.sound.frames - self.head.position) / float(self._step.current[0])))

    @property
    def overlap(self) -> int:
        """Frames of the crossfade into the next segment: at most half of the sound, and what is left of it."""
        if self.handover is None:
            return 0
        half = self.head.sound.frames / float(self._step.current[0]) / 2
        return min(frames_in(self.handover.overlap, self.rate), int(half), self.left)

    def repeat_command(self) -> StartVoice:
        """Return the command that starts this segment from its beginning."""
        return StartVoice(
            self.play, self.voice, self.head.sound, self.gain, self.pan, self.speed, self.out + 1,
            handover=self.handover,
        )  # fmt: skip

    def fade_in(self, frames: int) -> None:
        """Fade in over `frames`; 0 starts at full gain."""
        if frames > 0:
            self._fades.append(Fade(frames, rising=True))

    def fade_out(self, frames: int, reason: Reason) -> None:
        """Fade out within `frames`; a fade out that ends sooner continues."""
        if min((fade.frames_left for fade in self._fades if not fade.rising), default=frames + 1) > frames:
            self._fades.append(Fade(frames, rising=False))
            self.reason = reason

    def change(self, gain: float | None, pan: float | None, speed: float | None, frames: int) -> None:
        """Move to new values within `frames`; None leaves a value unchanged."""
        if gain is not None or pan is not None:
            self.gain = self.gain if gain is None else gain
            self.pan = self.pan if pan is None else pan
            self._gains.move_to(balance(self.gain, self.pan, self.outputs), frames)
        if speed is not None:
            self.speed = speed
            self._step.move_to(np.array([speed * self.head.sound.rate / self.rate]), frames)

    def exchange(self, sound: VoiceSource) -> None:
        """Continue at the same place in the same sound, resampled for another speed."""
        ratio = sound.rate / self.head.sound.rate
        position = min(sound.frames - 1, round(self.head.position * ratio))
        self._exchanged = self.head, Fade(frames_in(STARVED_FADE_S, self.rate), rising=True)
        self.head = ReadHead(sound, float(position))
        self._step.scale(ratio)

    def mix_into(self, out: Samples) -> int:
        """Add the next frames to `out`, shape (frames, channels of the device).

        Returns:
            The frames added; fewer than in `out` when the sound is over.
        """
        frames = min([out.shape[0], *(fade.frames_left for fade in self._fades if not fade.rising)])
        if self.head.sound.ready_frames is None and self._starved_fade is None and not self._is_starved:
            return self._mix(out, frames)
        return self._mix_rendered_part(out, frames)

    def _mix_rendered_part(self, out: Samples, frames: int) -> int:
        """Add frames of a sound that is being rendered, with a fade before and after each gap."""
        fade_frames = frames_in(STARVED_FADE_S, self.rate)
        done = 0
        while done < frames:
            part = frames - done
            available = self.head.ahead / float(self._step.current[0])
            if self._is_starved and available >= frames_in(RESUME_AFTER_S, self.rate):
                self._is_starved = False
                self._fades.append(Fade(fade_frames, rising=True))
            if self._is_starved:
                for fade in self._fades:
                    fade.advance(part)
                return frames
            if self._starved_fade is None and available < part + fade_frames:
                self._starved_fade = Fade(max(1, min(fade_frames, int(available))), rising=False)
            if self._starved_fade is not None:
                part = min(part, self._starved_fade.frames_left)
            used = self._mix(out[done:], part)
            done += used
            if self._starved_fade is not None and not self._starved_fade.frames_left:
                self._starved_fade, self._is_starved = None, True
                self.starvation_count += 1
            elif used < part:
                return done
        return done

    def _mix(self, out: Samples, frames: int) -> int:
        block = self._read(frames)
        used = block.shape[0]
        target = out[:used, self.out : self.out + self.outputs]
        target += self._apply_gains(block, used)
        return used

    def _read(self, frames: int) -> Samples:
        steps = self._step.advance(frames)[:, 0] if self._step.moving else float(self._step.current[0])
        block = self._read_by(self.head, frames, steps)
        return block if self._exchanged is None else self._crossfade_exchanged(*self._exchanged, block, steps)

    def _read_by(self, head: ReadHead, frames: int, steps: Values | float) -> Samples:
        if isinstance(steps, np.ndarray):
            return head.read_at(steps)
        if abs(steps - 1.0) < UNIT_STEP_TOLERANCE and float(head.position).is_integer():
            return head.read(frames)
        ahead = READ_AHEAD_FRAMES + READ_AHEAD_STEP_FRAMES * (self.voice % READ_AHEAD_KINDS)
        return head.read_steadily(frames, steps, ahead)

    def _crossfade_exchanged(self, before: ReadHead, fade: Fade, block: Samples, steps: Values | float) -> Samples:
        """Crossfade from the exchanged sound linearly, as both are the same."""
        used = block.shape[0]
        ratio = before.sound.rate / self.head.sound.rate
        old = self._read_by(before, used, steps * ratio)
        missing = used - old.shape[0]
        share = (fade.advance(used) ** 2).astype(np.float32)
        if not fade.frames_left:
            self._exchanged = None
        return (np.pad(old, ((0, missing), (0, 0))) * (1.0 - share) + block * share).astype(np.float32)

    def _apply_gains(self, block: Samples, used: int) -> Samples:
        if self._mono_gains is not None:
            block = block @ self._mono_gains
        if not used:
            return block
        gains = self._gains.advance(used) if self._gains.moving else self._gains.current
        for fade in self._fades:
            gains = gains * fade.advance(used)
        if self._starved_fade is not None:
            gains = gains * self._starved_fade.advance(used)
        self._fades = [fade for fade in self._fades if fade.frames_left or not fade.rising]
        return block * gains.astype(np.float32)
