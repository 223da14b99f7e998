"""Mixing of all voices: commands due within a block, the sum, and the events."""

from dataclasses import replace

import numpy as np

from timbred.audio import Samples, amplitude, frames_in
from timbred.errors import BadRequest, Busy
from timbred.ipc.player_messages import Moment
from timbred.player.beat_grid import BeatGrid, StartTime, move_start, resolve_moment
from timbred.player.mixer.master_bus import DcBlocker, Limiter
from timbred.player.mixer.voice import (
    EndVoice,
    Glide,
    MixerEvent,
    StartVoice,
    VoiceFinished,
    VoiceLayer,
    VoiceSource,
    VoiceStarted,
    VoiceStopped,
    WaitingVoice,
    has_attack,
)

VOICE_COUNT = 64
"""Number of voices."""

MAX_WAITING_COMMANDS = 1024
"""Commands that can wait for their beat."""

MAX_LAYERS = 2 * VOICE_COUNT
"""Simultaneous sounds, including those that fade out; above this number the oldest of these fade out faster."""

DEFAULT_CROSSFADE_S = 0.03
"""Seconds of the crossfade between two sounds on a voice, if none is requested."""
DEFAULT_FADE_OUT_S = 0.01
"""Seconds of the fade when a voice is stopped, if none is requested."""
DEFAULT_GLIDE_S = 0.01
"""Seconds in which gain, pan and speed change, if none are requested."""
MIN_FADE_S = 0.002
"""Seconds below which an end or a change would click."""


class Mixer:
    """Mixes blocks of any length for one device.

    Frames are counted from the first one that was mixed, with the limiter's delay included, so that they are the
    device's own.

    Args:
        rate: the device's, in Hz.
        channels: output channels of the device.
        grid: the beat grid.
        limit: False switches the limiter off.
        gain: of the sum, in dB.

    Attributes:
        following: by voice, the segment that starts at the handover of the present one.
    """

    def __init__(self, rate: int, channels: int, grid: BeatGrid, limit: bool = True, gain: float = 0.0) -> None:
        self.rate = rate
        self.channels = channels
        self.grid = grid
        self.limiter = Limiter(rate, channels) if limit else None
        self.offset_remover = DcBlocker(rate, channels)
        self.latency = self.limiter.latency if self.limiter else 0
        self.frame = self.latency
        self.layers: list[VoiceLayer] = []
        self.waiting_commands: list[WaitingVoice] = []
        self.following: dict[int, StartVoice] = {}
        self._level = Glide(np.array([amplitude(gain)]))
        self._events: list[MixerEvent] = []

    # orders

    def play(self, start: StartVoice, at: Moment) -> None:
        """Start a voice at a moment, and fade out its present sound.

        Without a requested fade the new sound is faded in meanwhile, unless it begins with an attack.

        Raises:
            BadRequest: the beat is past, or the sound has more channels than there are outputs from `out` on.
            Busy: too many commands wait already.
        """
        self._check_channels(start)
        self._wait(start, at)

    def follow_up(self, start: StartVoice) -> None:
        """Start a segment of continuous playback when the present one on its voice hands over.

        Without a present segment it ends before it began, with the same reason: stopped, or replaced by another sound.

        Raises:
            BadRequest: the sound has more channels than there are outputs from `out` on.
        """
        self._check_channels(start)
        before = self.following.pop(start.voice, None)
        if before is not None:
            self._events.append(VoiceFinished(before.play, self.frame, "replaced"))
        if self._has_segment(start.voice):
            self.following[start.voice] = start
        else:
            is_replaced = any(layer.voice == start.voice and not layer.is_fading_out for layer in self.layers)
            self._events.append(VoiceFinished(start.play, self.frame, "replaced" if is_replaced else "stopped"))

    def _has_segment(self, voice: int) -> bool:
        starts = (waiting.order for waiting in self.waiting_commands if isinstance(waiting.order, StartVoice))
        layers = (layer for layer in self.layers if not layer.is_fading_out)
        return any(item.voice == voice and item.handover is not None for item in (*starts, *layers))

    def stop(self, end: EndVoice, at: Moment) -> None:
        """End a voice, or all, at a moment. `now` also cancels what waits for these voices.

        Raises:
            BadRequest: the beat is past.
            Busy: too many commands wait already.
        """
        self._wait(end, at)

    def exchange(self, play: int, sound: VoiceSource) -> None:
        """Continue the same sound, resampled for another speed; a play that still waits begins with it."""
        for layer in self.layers:
            if layer.play == play:
                layer.exchange(sound)
        for waiting in self.waiting_commands:
            if isinstance(waiting.order, StartVoice) and waiting.order.play == play:
                waiting.order = replace(waiting.order, sound=sound)

    def end_early(self, play: int) -> None:
        """Fade out one play; if it still waits it is cancelled."""
        for layer in self.layers:
            if layer.play == play:
                layer.fade_out(self._fade_frames(None, DEFAULT_FADE_OUT_S), "stopped")
        orders = [
            item.order
            for item in self.waiting_commands
            if isinstance(item.order, StartVoice) and item.order.play == play
        ]
        self.waiting_commands = [waiting for waiting in self.waiting_commands if waiting.order not in orders]
        self._events.extend(VoiceFinished(play, self.frame, "stopped") for _ in orders)

    def change(
        self, voice: int, gain: float | None, pan: float | None, speed: float | None, fade: float | None
    ) -> bool:
        """Change a voice's values gradually; plays that wait begin with them. Returns False if it is silent."""
        frames = self._fade_frames(fade, DEFAULT_GLIDE_S)
        layers = [layer for layer in self.layers if layer.voice == voice and not layer.is_fading_out]
        for layer in layers:
            layer.change(gain, pan, speed, frames)
        for waiting in self.waiting_commands:  # a following segment takes these over when it begins
            if isinstance(waiting.order, StartVoice) and waiting.order.voice == voice:
                waiting.order = with_present_values(waiting.order, gain, pan, speed)
        return bool(layers)

    def set_level(self, gain: float) -> None:
        """Change the gain of the sum gradually, in dB. The limiter follows it."""
        self._level.move_to(np.array([amplitude(gain)]), self._fade_frames(DEFAULT_GLIDE_S, DEFAULT_GLIDE_S))

    def follow(self, grid: BeatGrid) -> None:
        """Use another beat grid from now on; commands that wait move with it."""
        for waiting in self.waiting_commands:
            if waiting.start_time is not None:
                waiting.start_time = move_start(waiting.start_time, self.grid, grid, self.frame)
        for layer in self.layers:
            if layer.handover_time is not None:
                layer.handover_time = move_start(layer.handover_time, self.grid, grid, self.frame)
        self.grid = grid

    def _wait(self, order: StartVoice | EndVoice, at: Moment) -> None:
        if len(self.waiting_commands) >= MAX_WAITING_COMMANDS:
            raise Busy(
                f"{MAX_WAITING_COMMANDS} plays wait for their beat already; stop some, or send this one later", 1.0
            )
        self.waiting_commands.append(WaitingVoice(order, resolve_moment(at, self.grid, self.frame)))

    def _check_channels(self, start: StartVoice) -> None:
        channels, free = start.sound.channels, self.channels - start.out + 1
        if free < 1:
            raise BadRequest(f"out: got {start.out}, the device has {self.channels} channels; choose a lower one")
        if channels > 2 or (channels > free and start.out > 1):
            raise BadRequest(
                f"take: it has {channels} channels, and the device has {free} from channel {start.out} on; "
                "a voice plays one or two: mix it down, or choose another @out"
            )

    # sound

    def render(self, frames: int) -> Samples:
        """Return the next frames, shape (frames, channels), float32."""
        block = np.zeros((frames, self.channels), np.float32)
        rendered_frames = 0
        while rendered_frames < frames:
            until = self._carry_out(frames - rendered_frames)
            self._mix(block[rendered_frames : rendered_frames + until])
            rendered_frames += until
        level = self._level.advance(frames) if self._level.moving else self._level.current
        block = self.offset_remover.process(block * level.astype(np.float32))
        return self.limiter.process(block) if self.limiter else block

    def take_events(self) -> list[MixerEvent]:
        """Return the events since the last call, in order."""
        events, self._events = self._events, []
        return events

    def _carry_out(self, frames: int) -> int:
        """Carry out the commands due on this frame, and return the frames until the next one is due."""
        until = self._orders_due(frames) if self.waiting_commands else frames
        segments = [layer for layer in self.layers if layer.handover and not layer.is_fading_out]
        return min([until, *(self._hand_over(segment) for segment in segments)])

    def _orders_due(self, frames: int) -> int:
        timed = [(self._frame_of(waiting), waiting) for waiting in self.waiting_commands]
        now = [
            waiting
            for frame, waiting in sorted(timed, key=lambda timed_command: timed_command[0])
            if frame <= self.frame
        ]
        self.waiting_commands = [waiting for frame, waiting in timed if frame > self.frame]
        for waiting in now:
            self._begin(waiting.order) if isinstance(waiting.order, StartVoice) else self._end(waiting.order, waiting)
        return min([frames, *(frame - self.frame for frame, _ in timed if frame > self.frame)])

    def _frame_of(self, waiting: WaitingVoice) -> int:
        return self.frame if waiting.start_time is None else self.grid.frame_of(waiting.start_time.beat)

    def _begin(self, start: StartVoice) -> None:
        layer = self._layer(start, self.grid.beat_at(self.frame))
        before = [other for other in self.layers if other.voice == start.voice and not other.is_fading_out]
        crossfade = self._fade_frames(start.fade, DEFAULT_CROSSFADE_S)
        for other in before:
            other.fade_out(crossfade, "replaced")
        if start.fade is not None:
            layer.fade_in(frames_in(start.fade, self.rate))
        elif before and not has_attack(start.sound, int(start.position), crossfade):
            layer.fade_in(crossfade)
        self._drop_following(start)
        self._add_layer(layer)

    def _drop_following(self, start: StartVoice) -> None:
        """Cancel the segment that was to follow; plays are numbered in the order of their requests."""
        following = self.following.get(start.voice)
        if following is not None and (start.handover is None or following.play < start.play):
            del self.following[start.voice]
            self._events.append(VoiceFinished(following.play, self.frame, "replaced"))

    def _layer(self, start: StartVoice, anchor: float) -> VoiceLayer:
        """Create a layer; `anchor` is the beat from which the next segment's beat is counted."""
        outputs = min(2, self.channels - start.out + 1)
        beats = start.handover.beats if start.handover else None
        following = None if beats is None else StartTime(anchor + beats, beats)
        return VoiceLayer(
            start.play, start.voice, start.sound, start.position, start.gain, start.pan, start.speed,
            start.out - 1, outputs, self.rate, start.handover, following,
        )  # fmt: skip

    def _add_layer(self, layer: VoiceLayer, repeated: bool = False) -> None:
        self.layers.append(layer)
        self._limit_layers()
        self._events.append(VoiceStarted(layer.play, self.frame, self.grid.beat_at(self.frame), repeated))

    def _hand_over(self, segment: VoiceLayer) -> int:
        """Start the next segment if it is due, and return the frames until the handover after it."""
        frames_left = self._until_handover(segment)
        if frames_left > 0:
            return frames_left
        start = self.following.pop(segment.voice, None)
        following = start or segment.repeat_command()
        layer = self._layer(
            with_present_values(following, segment.gain, segment.pan, segment.speed), self._anchor(segment)
        )
        crossfade = max(1, segment.overlap)
        segment.fade_out(crossfade, "replaced")
        segment.is_continued = start is None
        layer.fade_in(crossfade)
        self._add_layer(layer, repeated=start is None)
        return max(1, self._until_handover(layer))

    def _until_handover(self, segment: VoiceLayer) -> int:
        frames_left = segment.left - segment.overlap
        return (
            frames_left
            if segment.handover_time is None
            else min(frames_left, self.grid.frame_of(segment.handover_time.beat) - self.frame)
        )

    def _anchor(self, segment: VoiceLayer) -> float:
        """Return the beat that the next segment counts from: the one that was due, if it is near."""
        now = self.grid.beat_at(self.frame)
        if segment.handover_time is None:
            return now
        return segment.handover_time.beat + segment.handover_time.unit * round(
            (now - segment.handover_time.beat) / segment.handover_time.unit
        )

    def _limit_layers(self) -> None:
        fading_out = [layer for layer in self.layers if layer.is_fading_out]
        for layer in fading_out[: max(0, len(self.layers) - MAX_LAYERS)]:
            layer.fade_out(self._fade_frames(0.0, 0.0), layer.reason)

    def _end(self, end: EndVoice, waited: WaitingVoice) -> None:
        fade = self._fade_frames(end.fade, DEFAULT_FADE_OUT_S)
        sounding = [layer for layer in self.layers if end.voice in (0, layer.voice)]
        for layer in sounding:  # also those that fade out slowly: a stop takes effect immediately
            layer.fade_out(fade, "stopped")
        following = [start for voice, start in self.following.items() if end.voice in (0, voice)]
        self.following = {voice: start for voice, start in self.following.items() if start not in following}
        cancelled = [*following, *(self._cancel_waiting(end) if waited.start_time is None else [])]
        plays = dict.fromkeys((*(layer.play for layer in sounding), *(start.play for start in cancelled)))
        self._events.append(VoiceStopped(end.stop, tuple(plays)))
        self._events.extend(VoiceFinished(start.play, self.frame, "stopped") for start in cancelled)

    def _cancel_waiting(self, end: EndVoice) -> list[StartVoice]:
        """Cancel and return the commands that waited when the stop was requested; they are numbered in order."""
        orders = [
            waiting.order
            for waiting in self.waiting_commands
            if end.voice in (0, waiting.order.voice) and (end.stop == 0 or _number(waiting.order) < end.stop)
        ]
        self.waiting_commands = [waiting for waiting in self.waiting_commands if waiting.order not in orders]
        self._events.extend(VoiceStopped(order.stop, ()) for order in orders if isinstance(order, EndVoice))
        return [order for order in orders if isinstance(order, StartVoice)]

    def _mix(self, block: Samples) -> None:
        for layer in self.layers:
            used = layer.mix_into(block)
            if layer.is_over and not layer.is_continued:
                self._events.append(VoiceFinished(layer.play, self.frame + used, layer.reason))
        self.layers = [layer for layer in self.layers if not layer.is_over]
        self.frame += block.shape[0]

    def _fade_frames(self, fade: float | None, default: float) -> int:
        return frames_in(max(MIN_FADE_S, default if fade is None else fade), self.rate)


def _number(order: StartVoice | EndVoice) -> int:
    return order.play if isinstance(order, StartVoice) else order.stop


def with_present_values(start: StartVoice, gain: float | None, pan: float | None, speed: float | None) -> StartVoice:
    """Return a start command with other values; None leaves a value unchanged."""
    return replace(
        start,
        gain=start.gain if gain is None else gain,
        pan=start.pan if pan is None else pan,
        speed=start.speed if speed is None else speed,
    )
