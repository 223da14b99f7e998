"""All voices together: who starts where in a block, what they sum to, and what happened."""

from dataclasses import replace

import numpy as np

from timbred.audio import Samples, amplitude, frames_in
from timbred.errors import BadRequest, Busy
from timbred.ipc.player_messages import Moment
from timbred.player.beat_grid import BeatGrid, StartTime, due, moved
from timbred.player.mixer.commands import (
    EndVoice,
    Happening,
    StartVoice,
    VoiceBegan,
    VoiceOver,
    VoiceStopped,
    WaitingVoice,
)
from timbred.player.mixer.master_bus import DcBlocker, Limiter
from timbred.player.mixer.source import VoiceSource, has_attack
from timbred.player.mixer.voice import Glide, VoiceLayer

VOICES = 64
MOST_WAITING = 1024
"""Orders that may wait for their beat."""

MOST_LAYERS = 2 * VOICES
"""Sounds at once, those that fade out included; beyond, the oldest of these leave sooner."""

USUAL_CROSSFADE = 0.03
USUAL_FADE_OUT = 0.01
USUAL_GLIDE = 0.01
SHORTEST_FADE = 0.002
"""Seconds; below it, an end or a change would click."""


class Mixer:
    """Mixes blocks of any length for one device.

    Frames count what went out of the mixer since it was made; that of the limiter's delay is counted in, so they
    are the device's own.
    """

    def __init__(self, rate: int, channels: int, grid: BeatGrid, limit: bool = True, gain: float = 0.0) -> None:
        """`gain` is that of everything, in dB."""
        self.rate = rate
        self.channels = channels
        self.grid = grid
        self.limiter = Limiter(rate, channels) if limit else None
        self.offset_remover = DcBlocker(rate, channels)
        self.latency = self.limiter.latency if self.limiter else 0
        self.frame = self.latency
        self.layers: list[VoiceLayer] = []
        self.waiting: list[WaitingVoice] = []
        self.following: dict[int, StartVoice] = {}
        """By voice, the piece that begins when the one that sounds gives way."""
        self._level = Glide(np.array([amplitude(gain)]))
        self._happened: list[Happening] = []

    # orders

    def play(self, start: StartVoice, at: Moment) -> None:
        """Start a voice at a moment; what it sounds till then is faded out. Without a fade of its own the new sound is
        faded in meanwhile, unless it begins with an attack: that comes in at once.

        Raises:
            BadRequest: the beat is past, or the sound has more channels than there are outputs from `out` on.
            Busy: too much waits already.
        """
        self._check_channels(start)
        self._wait(start, at)

    def follow_up(self, start: StartVoice) -> None:
        """Start a piece of an endless sound when the one before it on its voice gives way. When there is none any more,
        it is over before it began: as that one was, stopped or replaced by what sounds there now.

        Raises:
            BadRequest: the sound has more channels than there are outputs from `out` on.
        """
        self._check_channels(start)
        before = self.following.pop(start.voice, None)
        if before is not None:
            self._happened.append(VoiceOver(before.play, self.frame, "replaced"))
        if self._has_piece(start.voice):
            self.following[start.voice] = start
        else:
            taken = any(layer.voice == start.voice and not layer.leaving for layer in self.layers)
            self._happened.append(VoiceOver(start.play, self.frame, "replaced" if taken else "stopped"))

    def _has_piece(self, voice: int) -> bool:
        starts = (waiting.order for waiting in self.waiting if isinstance(waiting.order, StartVoice))
        layers = (layer for layer in self.layers if not layer.leaving)
        return any(one.voice == voice and one.handover is not None for one in (*starts, *layers))

    def stop(self, end: EndVoice, at: Moment) -> None:
        """End a voice, or all, at a moment. Without one it also takes back what waits for them.

        Raises:
            BadRequest: the beat is past.
            Busy: too much waits already.
        """
        self._wait(end, at)

    def exchange(self, play: int, sound: VoiceSource) -> None:
        """Go on in the same sound, made ready for another speed; one that still waits begins with it."""
        for layer in self.layers:
            if layer.play == play:
                layer.exchange(sound)
        for waiting in self.waiting:
            if isinstance(waiting.order, StartVoice) and waiting.order.play == play:
                waiting.order = replace(waiting.order, sound=sound)

    def break_off(self, play: int) -> None:
        """End one play, with a fade; what waits of it never sounds."""
        for layer in self.layers:
            if layer.play == play:
                layer.fade_out(self._fade_frames(None, USUAL_FADE_OUT), "stopped")
        orders = [one.order for one in self.waiting if isinstance(one.order, StartVoice) and one.order.play == play]
        self.waiting = [waiting for waiting in self.waiting if waiting.order not in orders]
        self._happened.extend(VoiceOver(play, self.frame, "stopped") for _ in orders)

    def change(
        self, voice: int, gain: float | None, pan: float | None, speed: float | None, fade: float | None
    ) -> bool:
        """Let a voice glide to other values; what waits for it begins with them. False when it is silent."""
        frames = self._fade_frames(fade, USUAL_GLIDE)
        found = [layer for layer in self.layers if layer.voice == voice and not layer.leaving]
        for layer in found:
            layer.change(gain, pan, speed, frames)
        for waiting in self.waiting:  # what follows takes these over when it begins
            if isinstance(waiting.order, StartVoice) and waiting.order.voice == voice:
                waiting.order = changed(waiting.order, gain, pan, speed)
        return bool(found)

    def set_level(self, gain: float) -> None:
        """Let everything glide to another gain, in dB. The limiter comes after it."""
        self._level.to(np.array([amplitude(gain)]), self._fade_frames(USUAL_GLIDE, USUAL_GLIDE))

    def follow(self, grid: BeatGrid) -> None:
        """Keep to another grid from now on; what still waits moves with it."""
        for waiting in self.waiting:
            if waiting.due is not None:
                waiting.due = moved(waiting.due, self.grid, grid, self.frame)
        for layer in self.layers:
            if layer.due is not None:
                layer.due = moved(layer.due, self.grid, grid, self.frame)
        self.grid = grid

    def _wait(self, order: StartVoice | EndVoice, at: Moment) -> None:
        if len(self.waiting) >= MOST_WAITING:
            raise Busy(f"{MOST_WAITING} plays wait for their beat already; stop some, or send these later", 1.0)
        self.waiting.append(WaitingVoice(order, due(at, self.grid, self.frame)))

    def _check_channels(self, start: StartVoice) -> None:
        sounded, free = start.sound.channels, self.channels - start.out + 1
        if free < 1:
            raise BadRequest(f"out: got {start.out}, but the device is open with {self.channels} channels")
        if sounded > 2 or (sounded > free and start.out > 1):
            raise BadRequest(
                f"take: it has {sounded} channels, and the device has {free} from channel {start.out} on; "
                "voices play one or two: mix it down, or choose another @out"
            )

    # sound

    def render(self, frames: int) -> Samples:
        """The next frames, shape (frames, channels), float32."""
        block = np.zeros((frames, self.channels), np.float32)
        done = 0
        while done < frames:
            until = self._carry_out(frames - done)
            self._mix(block[done : done + until])
            done += until
        level = self._level.take(frames) if self._level.moving else self._level.now
        block = self.offset_remover.process(block * level.astype(np.float32))
        return self.limiter.process(block) if self.limiter else block

    def happened(self) -> list[Happening]:
        """What happened since this was last asked, in order."""
        told, self._happened = self._happened, []
        return told

    def _carry_out(self, frames: int) -> int:
        """Carry out what is due on this frame; the frames up to the next that something is due on."""
        until = self._orders_due(frames) if self.waiting else frames
        pieces = [layer for layer in self.layers if layer.handover and not layer.leaving]
        return min([until, *(self._give_way(piece) for piece in pieces)])

    def _orders_due(self, frames: int) -> int:
        timed = [(self._frame_of(waiting), waiting) for waiting in self.waiting]
        now = [waiting for frame, waiting in sorted(timed, key=lambda one: one[0]) if frame <= self.frame]
        self.waiting = [waiting for frame, waiting in timed if frame > self.frame]
        for waiting in now:
            self._begin(waiting.order) if isinstance(waiting.order, StartVoice) else self._end(waiting.order, waiting)
        return min([frames, *(frame - self.frame for frame, _ in timed if frame > self.frame)])

    def _frame_of(self, waiting: WaitingVoice) -> int:
        return self.frame if waiting.due is None else self.grid.frame_of(waiting.due.beat)

    def _begin(self, start: StartVoice) -> None:
        layer = self._layer(start, self.grid.beat_at(self.frame))
        before = [other for other in self.layers if other.voice == start.voice and not other.leaving]
        crossfade = self._fade_frames(start.fade, USUAL_CROSSFADE)
        for other in before:
            other.fade_out(crossfade, "replaced")
        if start.fade is not None:
            layer.fade_in(frames_in(start.fade, self.rate))
        elif before and not has_attack(start.sound, int(start.position), crossfade):
            layer.fade_in(crossfade)
        self._drop_what_followed(start)
        self._sounds(layer)

    def _drop_what_followed(self, start: StartVoice) -> None:
        """What was to follow the one before; plays are numbered in the order in which they were asked for."""
        following = self.following.get(start.voice)
        if following is not None and (start.handover is None or following.play < start.play):
            del self.following[start.voice]
            self._happened.append(VoiceOver(following.play, self.frame, "replaced"))

    def _layer(self, start: StartVoice, anchor: float) -> VoiceLayer:
        """`anchor` is the beat from which an endless sound's next one is counted."""
        outputs = min(2, self.channels - start.out + 1)
        beats = start.handover.beats if start.handover else None
        following = None if beats is None else StartTime(anchor + beats, beats)
        return VoiceLayer(
            start.play, start.voice, start.sound, start.position, start.gain, start.pan, start.speed,
            start.out - 1, outputs, self.rate, start.handover, following,
        )  # fmt: skip

    def _sounds(self, layer: VoiceLayer, repeated: bool = False) -> None:
        self.layers.append(layer)
        self._hurry()
        self._happened.append(VoiceBegan(layer.play, self.frame, self.grid.beat_at(self.frame), repeated))

    def _give_way(self, piece: VoiceLayer) -> int:
        """Let a piece of an endless sound give way if it is time; the frames until the one that sounds then must."""
        left = self._until_handover(piece)
        if left > 0:
            return left
        start = self.following.pop(piece.voice, None)
        following = start or piece.again()
        layer = self._layer(changed(following, piece.gain, piece.pan, piece.speed), self._anchor(piece))
        crossfade = max(1, piece.overlap)
        piece.fade_out(crossfade, "replaced")
        piece.goes_on = start is None
        layer.fade_in(crossfade)
        self._sounds(layer, repeated=start is None)
        return max(1, self._until_handover(layer))

    def _until_handover(self, piece: VoiceLayer) -> int:
        left = piece.left - piece.overlap
        return left if piece.due is None else min(left, self.grid.frame_of(piece.due.beat) - self.frame)

    def _anchor(self, piece: VoiceLayer) -> float:
        """The beat that the next piece counts from: the one that was due, while this isn't half a piece away."""
        now = self.grid.beat_at(self.frame)
        if piece.due is None:
            return now
        return piece.due.beat + piece.due.unit * round((now - piece.due.beat) / piece.due.unit)

    def _hurry(self) -> None:
        leaving = [layer for layer in self.layers if layer.leaving]
        for layer in leaving[: max(0, len(self.layers) - MOST_LAYERS)]:
            layer.fade_out(self._fade_frames(0.0, 0.0), layer.reason)

    def _end(self, end: EndVoice, waited: WaitingVoice) -> None:
        fade = self._fade_frames(end.fade, USUAL_FADE_OUT)
        sounding = [layer for layer in self.layers if end.voice in (0, layer.voice)]
        for layer in sounding:  # those that leave slowly too: a stop is heard at once
            layer.fade_out(fade, "stopped")
        following = [start for voice, start in self.following.items() if end.voice in (0, voice)]
        self.following = {voice: start for voice, start in self.following.items() if start not in following}
        taken_back = [*following, *(self._take_back(end) if waited.due is None else [])]
        plays = dict.fromkeys((*(layer.play for layer in sounding), *(start.play for start in taken_back)))
        self._happened.append(VoiceStopped(end.stop, tuple(plays)))
        self._happened.extend(VoiceOver(start.play, self.frame, "stopped") for start in taken_back)

    def _take_back(self, end: EndVoice) -> list[StartVoice]:
        """What waited when it was asked for: orders are numbered in the order in which they come. 0 is for all."""
        orders = [
            waiting.order
            for waiting in self.waiting
            if end.voice in (0, waiting.order.voice) and (end.stop == 0 or _number(waiting.order) < end.stop)
        ]
        self.waiting = [waiting for waiting in self.waiting if waiting.order not in orders]
        self._happened.extend(VoiceStopped(order.stop, ()) for order in orders if isinstance(order, EndVoice))
        return [order for order in orders if isinstance(order, StartVoice)]

    def _mix(self, block: Samples) -> None:
        for layer in self.layers:
            used = layer.mix_into(block)
            if layer.over and not layer.goes_on:
                self._happened.append(VoiceOver(layer.play, self.frame + used, layer.reason))
        self.layers = [layer for layer in self.layers if not layer.over]
        self.frame += block.shape[0]

    def _fade_frames(self, fade: float | None, usual: float) -> int:
        return frames_in(max(SHORTEST_FADE, usual if fade is None else fade), self.rate)


def _number(order: StartVoice | EndVoice) -> int:
    return order.play if isinstance(order, StartVoice) else order.stop


def changed(start: StartVoice, gain: float | None, pan: float | None, speed: float | None) -> StartVoice:
    """A start that waits, with other values; None leaves as it is."""
    return replace(
        start,
        gain=start.gain if gain is None else gain,
        pan=start.pan if pan is None else pan,
        speed=start.speed if speed is None else speed,
    )
