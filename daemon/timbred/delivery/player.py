"""The daemon's handle on the player process: plays, stops and changes voices, and tells the clients what they hear.

What is to sound is remembered here with its samples, so that it goes on where it was when the device comes back or
the process had to be started again.
"""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np

from timbred import errors
from timbred.clip import Clip, Samples
from timbred.config import Config
from timbred.delivery import wire
from timbred.delivery.clock import read_moment
from timbred.processes.child import Child, Trade
from timbred.protocol import messages as m
from timbred.protocol.exchange import ClientId, Outbox

log = logging.getLogger(__name__)

PLAYER_PROGRAM = (sys.executable, "-m", "timbred.delivery.playback")
"""The command that starts a player."""

HEARTBEAT = 0.25
PATIENCE = 10.0
"""Seconds without a sign of life after which the player is started again."""

OPENED_WITHIN = 20.0
"""Seconds for which a first `play` waits until it is known whether there is a device."""

RESUME_FADE = 0.01
LOUDEST_SAMPLE = 1000.0
"""Full scales (60 dB over): beyond it a file holds a fault, not sound."""

FRAMES_WRAP = 2**31
"""Device frames are told modulo this, for OSC's integers."""


class Listener(Protocol):
    """Who hears what becomes of a play."""

    def began(self, order: wire.Play, told: wire.Playing) -> None:
        """It sounds; more than once when it is a piece that is repeated."""
        ...

    def over(self, order: wire.Play, frame: int, reason: str, also: ClientId | None) -> None:
        """It sounds no more. `also` is whoever ended it."""
        ...

    def refused(self, order: wire.Play, error: errors.TimbredError) -> None:
        """It never sounded."""
        ...


@dataclass(frozen=True)
class Asker:
    """The listener of a `play`: tells the client that asked for it."""

    outbox: Outbox
    client: ClientId
    take: str

    def began(self, order: wire.Play, told: wire.Playing) -> None:
        event = m.Playing(voice=order.voice, take=self.take, frame=told_frame(told.frame), beat=told.beat)
        self.outbox.send(self.client, event)

    def over(self, order: wire.Play, frame: int, reason: str, also: ClientId | None) -> None:
        event = m.Ended(voice=order.voice, take=self.take, frame=told_frame(frame), reason=reason)
        for client in dict.fromkeys((self.client, also or self.client)):
            self.outbox.send(client, event)

    def refused(self, order: wire.Play, error: errors.TimbredError) -> None:
        self.outbox.send(self.client, m.Fail(id="play", code=error.code, message=str(error)))


@dataclass
class Sounding:
    """A play that has not ended: what was ordered, where it is, and who listens. `parts` are its samples; those of a
    sound that is still being made come one by one. `source` is what they were made from, for `made_for` a speed."""

    order: wire.Play
    parts: list[memoryview]
    listener: Listener
    source: Clip | None = None
    made_for: float = 1.0
    began: bool = False


class Player:
    """Implements `processes.child.ChildUser`. Runs on the event loop."""

    def __init__(self, outbox: Outbox, config: Config, program: tuple[str, ...] = PLAYER_PROGRAM) -> None:
        self.outbox = outbox
        self.device: wire.Opened | None = None
        self.last = wire.Beat(frame=0, beat=0.0, bpm=config["tempo"], peers=0, underruns=0)
        self.on_tempo: Callable[[float], None] = lambda _bpm: None
        self.on_rate: Callable[[int], None] = lambda _rate: None
        self._tempo = wire.Tempo(bpm=config["tempo"], beats_per_bar=config["beats_per_bar"])
        self._level = wire.Level(gain=config["player.gain"])
        self._link = bool(config["link"])
        self._max_gain = float(config["player.max_gain"])
        self._no_device = ""
        self._closed = False
        self._known = asyncio.Event()
        self._plays: dict[int, Sounding] = {}
        self._stops: dict[int, tuple[ClientId, wire.Stop]] = {}
        self._also_told: dict[int, ClientId] = {}
        self._numbers = 0
        self._underruns_before = 0
        self._late_before = 0
        self._last_came = time.monotonic()
        self._child = Child(_trade(config, program), self)

    # life

    def start(self) -> None:
        """Start the process and keep it alive."""
        self._child.start()

    def end_all(self) -> None:
        """Tell the clients that everything ends: the daemon stops, and takes no more plays."""
        self._closed = True
        self.device = None
        self._known.set()
        for number in list(self._plays):
            self._over(number, self.last.frame, "stopped")

    async def stop(self, patience: float) -> None:
        """End the process, and what sounds with it."""
        self.end_all()
        await self._child.stop(patience)

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def rate(self) -> int | None:
        """The device's rate in Hz; None without a device."""
        return self.device.rate if self.device else None

    @property
    def voices_playing(self) -> int:
        return len({play.order.voice for play in self._plays.values() if play.began})

    @property
    def underruns(self) -> int:
        """Times that the device ran out of sound since the daemon's start."""
        return self._underruns_before + self.last.underruns

    @property
    def late(self) -> int:
        """Blocks that the device's driver called late, whoever's fault it was, since the daemon's start."""
        return self._late_before + self.last.late

    @property
    def lead(self) -> float:
        """How far sound is mixed ahead now, in seconds: as set, or more after underruns; 0 without a device."""
        return self.last.lead if self.device else 0.0

    async def opened(self) -> wire.Opened:
        """The device, once it is known whether there is one.

        Raises:
            NoAudioDevice: there is none; says why and what to do.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._known.wait(), OPENED_WITHIN)
        if self.device is None:
            raise self._without()
        return self.device

    def _without(self) -> errors.TimbredError:
        if self._closed:
            return errors.ShuttingDown("timbred is stopping; play again once it is back")
        return errors.NoAudioDevice(self._no_device or "the player isn't ready yet; play again in a second")

    # what clients ask

    def beat_now(self) -> float:
        """The beat that is mixed now.

        Raises:
            NoAudioDevice: there is no device, and it is the device's clock that counts.
        """
        if self.device is None:
            raise self._without()
        return self.last.beat + (time.monotonic() - self._last_came) * self.last.bpm / 60.0

    def has(self, voice: int) -> bool:
        """Whether something sounds or waits on a voice, or on any with 0."""
        return any(voice in (0, play.order.voice) for play in self._plays.values())

    def check(self, keys: m.PlayKeys) -> None:
        """Whether something could be played so, as far as is known.

        Raises:
            BadRequest: a louder gain than allowed, a moment that can't be read.
            NoAudioDevice: there is no device.
        """
        self._check_gain(keys.gain)
        read_moment(keys.at or "now")
        if self._known.is_set() and self.device is None:
            raise self._without()

    def play(
        self, client: ClientId, voice: int, take: str, clip: Clip, loop: bool, keys: m.PlayKeys,
        rate: float | None = None, source: Clip | None = None,
    ) -> int:  # fmt: skip
        """Sound a clip, at the device's rate, on a voice, and tell the client. Its number is returned. One that was
        made ready for `keys.speed` has another `rate` at speed 1, and comes with its `source`.

        Raises: as `sound`.
        """
        listener = Asker(self.outbox, client, take)
        return self.sound(listener, voice, clip, loop, keys, rate=rate, source=source)

    def sound(
        self, listener: Listener, voice: int, clip: Clip, loop: bool, keys: m.PlayKeys,
        handover: wire.Handover | None = None, follows: bool = False, whole: int | None = None,
        rate: float | None = None, source: Clip | None = None,
    ) -> int:  # fmt: skip
        """Sound a clip, at the device's rate, on a voice. Its number is returned. For `handover` and `follows` see
        `wire.Play`. With `whole` the clip is the beginning of a sound of so many frames, and `add` brings the rest.

        Raises:
            BadRequest: a louder gain than allowed, a moment that can't be read.
            BadAudio: an empty clip, or one that is far too loud to be sound.
            NoAudioDevice: there is no device.
        """
        self._check_gain(keys.gain)
        samples = _checked(clip)
        at = read_moment(keys.at or "now")
        if self.device is None:
            raise self._without()
        self._numbers += 1
        order = wire.Play(
            play=self._numbers, voice=voice, rate=rate or clip.rate, channels=clip.channels, at=at, loop=loop,
            gain=min(0.0, self._max_gain) if keys.gain is None else keys.gain,
            pan=keys.pan or 0.0, speed=1.0 if keys.speed is None else keys.speed,
            out=keys.out or 1, fade=keys.fade, handover=handover, follows=follows, whole=whole,
        )  # fmt: skip
        self._plays[order.play] = Sounding(order, [samples], listener, source, order.speed)
        self._child.send(order, samples)
        return order.play

    def add(self, number: int, samples: Samples) -> None:
        """The next samples of a sound that is still being made, (frames, channels). One that has ended takes none."""
        play = self._plays.get(number)
        if play is not None and len(samples):
            part = np.ascontiguousarray(samples, dtype="<f4").data.cast("B")
            play.parts.append(part)
            self._child.send(wire.More(play=number), part)

    def of_another_speed(self, voice: int, speed: float) -> list[tuple[int, Clip, bool]]:
        """What sounds on a voice and wasn't made ready for this speed: its number, its source, whether it is a loop."""
        return [
            (number, play.source, play.order.loop)
            for number, play in self._plays.items()
            if play.order.voice == voice and play.source is not None and play.made_for != speed
        ]

    def exchange(self, number: int, samples: Samples, rate: float, speed: float) -> None:
        """The same sound, made ready for another speed. One that has ended takes none."""
        play = self._plays.get(number)
        if play is None:
            return
        part = np.ascontiguousarray(samples, dtype="<f4").data.cast("B")
        play.order = msgspec.structs.replace(
            play.order, rate=rate, position=play.order.position * rate / play.order.rate
        )
        play.parts, play.made_for = [part], speed
        self._child.send(wire.Exchange(play=number, rate=rate), part)

    def break_off(self, number: int) -> None:
        """No more comes of a sound: it ends."""
        if number not in self._plays:
            return
        if self.device is None:
            self._over(number, self.last.frame, "stopped")
        else:
            self._child.send(wire.BreakOff(play=number))

    def stop_voice(self, client: ClientId, request: m.Stop) -> None:
        """End a voice, or all with `*`; without a player at once.

        Raises:
            BadRequest: a silent voice, a moment that can't be read.
        """
        voice = 0 if request.voice == "*" else request.voice
        at = read_moment(request.at or "now")
        affected = [number for number, play in self._plays.items() if voice in (0, play.order.voice)]
        if voice and not affected:
            raise errors.BadRequest(f"voice: {voice} is silent; nothing to stop")
        if self.device is None:
            self._stop_here(client, affected)
            return
        self._numbers += 1
        order = wire.Stop(stop=self._numbers, voice=voice, at=at, fade=request.fade)
        self._stops[order.stop] = (client, order)
        self._child.send(order)

    def order_of(self, play: int) -> wire.Play | None:
        """A play that has not ended, as it sounds now."""
        found = self._plays.get(play)
        return found.order if found else None

    def change(self, client: ClientId, request: m.Set) -> None:
        """Change a sounding voice.

        Raises:
            BadRequest: a silent voice, a louder gain than allowed, nothing to change.
        """
        voice = request.voice
        self._check_gain(request.gain)
        if request.gain is None and request.pan is None and request.speed is None:
            raise errors.BadRequest("set: nothing to change; name @gain, @pan or @speed")
        found = [play for play in self._plays.values() if play.order.voice == voice]
        if not found:
            raise errors.BadRequest(f"voice: {voice} is silent; play something on it first")
        asked = {"gain": request.gain, "pan": request.pan, "speed": request.speed}
        if self.device is None:  # it goes on so once the device is back
            named = {key: value for key, value in asked.items() if value is not None}
            for play in found:
                play.order = msgspec.structs.replace(play.order, **named)
        else:
            self._child.send(wire.Change(voice=voice, fade=request.fade, **asked))
        self.outbox.send(client, m.Acknowledged(id="set"))

    def set_tempo(self, bpm: float | None = None, beats_per_bar: float | None = None) -> None:
        """Set the session's tempo or meter; what is still to come moves.

        Raises:
            BadRequest: Link is on, and its session has the tempo.
        """
        if bpm is not None and self._link:
            raise errors.BadRequest(
                "tempo: Link is on, so its session has the tempo; set it there, or start without link"
            )
        self._tempo = wire.Tempo(
            bpm=self._tempo.bpm if bpm is None else bpm,
            beats_per_bar=self._tempo.beats_per_bar if beats_per_bar is None else beats_per_bar,
        )
        self._child.send(self._tempo)

    def set_level(self, gain: float) -> None:
        """Set the gain of everything that plays, in dB."""
        self._level = wire.Level(gain=gain)
        self._child.send(self._level)

    def _check_gain(self, gain: float | None) -> None:
        if gain is not None and gain > self._max_gain:
            raise errors.BadRequest(
                f"gain: got {gain:g} dB, allowed is -120 to {self._max_gain:g}; player.max_gain says so, to spare ears"
            )

    def _stop_here(self, client: ClientId, affected: list[int]) -> None:
        for number in affected:
            self._also_told[number] = client
            self._over(number, self.last.frame, "stopped")
        if not affected:
            self.outbox.send(client, m.Acknowledged(id="stop"))

    # the process's life

    def child_up(self, ready: Any) -> None:
        self._child.send(msgspec.structs.replace(self._tempo, beat=self.last.beat))
        self._child.send(self._level)

    def child_down(self, reason: str) -> None:
        self.device = None
        if not self._no_device:
            self._no_device = f"the player process ended ({reason}) and is started again; play again in a second"
        self._underruns_before += self.last.underruns
        self._late_before += self.last.late
        self.last = msgspec.structs.replace(self.last, underruns=0, late=0)
        stops, self._stops = self._stops, {}
        for client, order in stops.values():
            affected = [number for number, play in self._plays.items() if order.voice in (0, play.order.voice)]
            self._stop_here(client, affected)

    def child_said(self, message: Any, payload: Sequence[memoryview]) -> None:
        match message:
            case wire.Beat():
                self._beat(message)
            case wire.Playing():
                self._playing(message)
            case wire.Ended():
                self._over(message.play, message.frame, message.reason)
            case wire.Stopping():
                self._stopping(message)
            case wire.Refused():
                self._refused(message)
            case wire.Opened():
                self._opened(message)
            case wire.NoDevice():
                self._without_device(message.reason)
            case wire.DeviceLost():
                self._beat(message.last)
                self._without_device(message.reason)
            case _:
                log.error("the player said what it shouldn't: %s", type(message).__name__)

    def _opened(self, message: wire.Opened) -> None:
        if self._closed:
            return
        self.device = message
        self._no_device = ""
        self.on_rate(message.rate)
        self._known.set()
        log.info(
            "playing on %s at %d Hz, blocks of %d frames, %.1f ms ahead%s",
            message.device, message.rate, message.block, message.lead * 1000,
            "" if message.raised else " (without raised priority)",
        )  # fmt: skip
        for play in self._plays.values():
            order = play.order
            if play.began:
                order = msgspec.structs.replace(order, at=wire.Moment(), fade=RESUME_FADE, follows=False)
            self._child.send(order, *([b"".join(play.parts)] if len(play.parts) > 1 else play.parts))

    def _without_device(self, reason: str) -> None:
        self.device = None
        self._no_device = reason
        self._known.set()
        log.warning("%s", reason)

    def _beat(self, message: wire.Beat) -> None:
        if message.bpm != self.last.bpm and self._link:
            self.on_tempo(message.bpm)
        self.last = message
        self._last_came = time.monotonic()
        for at in message.positions:
            play = self._plays.get(at.play)
            if play is not None:
                play.order = msgspec.structs.replace(
                    play.order, position=at.position, gain=at.gain, pan=at.pan, speed=at.speed
                )

    def _playing(self, message: wire.Playing) -> None:
        play = self._plays.get(message.play)
        if play is None or (play.began and not message.repeated):
            return
        play.began = True
        play.listener.began(play.order, message)

    def _over(self, number: int, frame: int, reason: str) -> None:
        play = self._plays.pop(number, None)
        also = self._also_told.pop(number, None)
        if play is None:
            return
        play.listener.over(play.order, frame, reason, also)

    def _stopping(self, message: wire.Stopping) -> None:
        client, _ = self._stops.pop(message.stop, (None, None))
        if client is None:
            return
        for number in message.plays:
            self._also_told[number] = client
        if not message.plays:
            self.outbox.send(client, m.Acknowledged(id="stop"))

    def _refused(self, message: wire.Refused) -> None:
        error = errors.from_code(message.code, message.message)
        play = self._plays.get(message.play or 0)
        if play is not None and play.began:  # it sounded on the device before, and can't on this one
            log.warning("voice %d is over: %s", play.order.voice, error)
            self._over(play.order.play, self.last.frame, "stopped")
        elif play is not None:
            del self._plays[play.order.play]
            play.listener.refused(play.order, error)
        if message.stop is not None and message.stop in self._stops:
            client, _ = self._stops.pop(message.stop)
            self.outbox.send(client, m.Fail(id="stop", code=error.code, message=str(error)))


def told_frame(frame: int) -> int:
    """A frame of the device as clients are told."""
    return frame % FRAMES_WRAP


def _checked(clip: Clip) -> memoryview:
    if clip.frames == 0:
        raise errors.BadAudio("take: the sound is empty")
    samples = np.ascontiguousarray(clip.samples, dtype="<f4")
    if not float(np.abs(samples).max()) <= LOUDEST_SAMPLE:
        raise errors.BadAudio("take: its samples are more than 60 dB over full scale or not numbers; export it again")
    return samples.data.cast("B")


def _trade(config: Config, program: tuple[str, ...]) -> Trade:
    options = {
        "device": config["player.device"],
        "channels": config["player.channels"],
        "lead": config["player.lead"] / 1000,
        "limit": int(config["player.limiter"]),
        "heartbeat": HEARTBEAT,
        "tempo": config["tempo"],
        "beats-per-bar": config["beats_per_bar"],
        "link": int(config["link"]),
        "link-offset": config["link.offset"] / 1000,
        "link-start-stop": int(config["link.start_stop"]),
        "log-level": config["log.level"],
    }
    return Trade(
        name="player",
        command=(*program, *(f"--{name}={value}" for name, value in options.items())),
        introduction=wire.Ready,
        wire_version=wire.WIRE_VERSION,
        encode=wire.encode,
        decode=wire.read_in_daemon,
        quit=wire.Quit(),
        patience=PATIENCE,
        environment={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
