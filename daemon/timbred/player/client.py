"""How the player process is started and watched."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from timbred import errors
from timbred.audio import Clip, Samples
from timbred.config import Config
from timbred.ipc import player_messages
from timbred.ipc.isolation import python_command
from timbred.ipc.supervisor import ProcessSpec, ProcessView, SparePolicy, SupervisedProcess
from timbred.player.active_plays import ActivePlay, ActivePlays, PendingStops, PlayListener, RequestListener, as_sent
from timbred.player.beat_grid import read_moment
from timbred.player.session import DeviceState, PlaybackSettings, PlayerStatus, check_gain, check_sound
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox
from timbred.protocol.keys import PlaybackKeys
from timbred.task_supervision import Supervisor

PLAYER_PROGRAM = python_command("timbred.player.process")
"""The command that starts a player."""

HEARTBEAT = 0.25
"""Seconds between the player's signs of life."""


def trade(config: Config, program: tuple[str, ...]) -> ProcessSpec:
    """A player as these settings want it. `program` is the command that starts it."""
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
    return ProcessSpec(
        name="player",
        command=(*program, *(f"--{name}={value}" for name, value in options.items())),
        introduction=player_messages.PlayerReady,
        refusal=player_messages.PlayerCannotStart,
        wire_version=player_messages.WIRE_VERSION,
        encode=player_messages.encode,
        decode=player_messages.read_in_daemon,
        quit=player_messages.QuitPlayer(),
        patience=config["player.patience"],
        environment={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )


log = logging.getLogger(__name__)

PLAYED_WELL_AFTER_S = 0.25
"""Seconds with an open device after which a player process counts as one that works: the next one is started at once
when it ends, as long as its device plays again each time."""


class PlayerClient:
    """Implements `processes.child.ChildUser`. Runs on the event loop."""

    def __init__(
        self,
        outbox: Outbox,
        config: Config,
        program: tuple[str, ...] = PLAYER_PROGRAM,
        supervisor: Supervisor | None = None,
        spare: SparePolicy | None = None,
        on_tempo: Callable[[float], None] = lambda _bpm: None,
        on_rate: Callable[[int], None] = lambda _rate: None,
    ) -> None:
        self.outbox = outbox
        self._on_tempo = on_tempo
        self._on_rate = on_rate
        self._max_gain = float(config["player.max_gain"])
        self._numbers = itertools.count(1)
        self._device = DeviceState()
        self._beats = PlayerStatus(config["tempo"])
        self._desk = PlaybackSettings(config)
        self._plays = ActivePlays()
        self._stops = PendingStops(outbox, self._plays)
        self._child = SupervisedProcess(trade(config, program), self, supervisor, spare)
        self._opened_at = math.inf

    # life

    def start(self) -> None:
        """Start the process and keep it alive."""
        self._child.start()

    def end_all(self) -> None:
        """Tell the clients that everything ends: the daemon stops, and takes no more plays."""
        self._device.close()
        for play in self._plays:
            self._plays.over(play.order.play, self.last.frame, "stopped")

    async def stop(self, patience: float) -> None:
        """End the process, and what sounds with it."""
        self.end_all()
        await self._child.stop(patience)

    # how it is

    @property
    def process(self) -> ProcessView:
        """State of the player process."""
        return self._child

    @property
    def device(self) -> player_messages.DeviceOpened | None:
        """The device that is open; None without one."""
        return self._device.now

    @property
    def rate(self) -> int | None:
        """The device's rate in Hz; None without a device."""
        return self.device.rate if self.device else None

    @property
    def last(self) -> player_messages.PlayerHeartbeat:
        """What the process last said of its clock."""
        return self._beats.last

    @property
    def voices_playing(self) -> int:
        return self._plays.voices

    @property
    def underruns(self) -> int:
        """Times that the device ran out of sound since the daemon's start."""
        return self._beats.underruns

    @property
    def late(self) -> int:
        """Blocks that the device's driver called late, whoever's fault it was, since the daemon's start."""
        return self._beats.late

    @property
    def lead(self) -> float:
        """How far sound is mixed ahead now, in seconds: as set, or more after underruns; 0 without a device."""
        return self.last.lead if self.device else 0.0

    async def opened(self) -> player_messages.DeviceOpened:
        """The device, once it is known whether there is one.

        Raises:
            NoAudioDevice: there is none; says why and what to do.
        """
        return await self._device.awaited()

    def beat_now(self) -> float:
        """The beat that is mixed now.

        Raises:
            NoAudioDevice: there is no device, and it is the device's clock that counts.
        """
        self._device.needed()
        return self._beats.now

    def has(self, voice: int) -> bool:
        """Whether something sounds or waits on a voice, or on any with 0."""
        return bool(self._plays.on(voice))

    def order_of(self, play: int) -> player_messages.PlayVoice | None:
        """A play that has not ended, as it sounds now."""
        found = self._plays.get(play)
        return found.order if found else None

    # what clients ask: plays

    def check(self, keys: PlaybackKeys) -> None:
        """Whether something could be played so, as far as is known.

        Raises:
            BadRequest: a louder gain than allowed, a moment that can't be read.
            NoAudioDevice: there is no device.
        """
        check_gain(keys.gain, self._max_gain)
        read_moment(keys.at or "now")
        if self._device.known.is_set():
            self._device.needed()

    def play(
        self, client: ClientId, voice: int, take: str, clip: Clip, loop: bool, keys: PlaybackKeys,
        rate: float | None = None, source: Clip | None = None,
    ) -> int:  # fmt: skip
        """Sound a clip, at the device's rate, on a voice, and tell the client. Its number is returned. One that was
        made ready for `keys.speed` has another `rate` at speed 1, and comes with its `source`.

        Raises: as `sound`.
        """
        listener = RequestListener(self.outbox, client, take)
        return self.sound(listener, voice, clip, loop, keys, rate=rate, source=source)

    def sound(
        self, listener: PlayListener, voice: int, clip: Clip, loop: bool, keys: PlaybackKeys,
        handover: player_messages.Handover | None = None, follows: bool = False, whole: int | None = None,
        rate: float | None = None, source: Clip | None = None,
    ) -> int:  # fmt: skip
        """Sound a clip, at the device's rate, on a voice. Its number is returned. For `handover` and `follows` see
        `wire.Play`. With `whole` the clip is the beginning of a sound of so many frames, and `add` brings the rest.

        Raises:
            BadRequest: a louder gain than allowed, a moment that can't be read.
            BadAudio: an empty clip, or one that is far too loud to be sound.
            NoAudioDevice: there is no device.
        """
        check_gain(keys.gain, self._max_gain)
        check_sound(clip)
        at = read_moment(keys.at or "now")
        self._device.needed()
        order = player_messages.PlayVoice(
            play=next(self._numbers), voice=voice, rate=rate or clip.rate, channels=clip.channels, at=at, loop=loop,
            gain=min(0.0, self._max_gain) if keys.gain is None else keys.gain,
            pan=keys.pan or 0.0, speed=1.0 if keys.speed is None else keys.speed,
            out=keys.out or 1, fade=keys.fade, handover=handover, follows=follows, whole=whole,
        )  # fmt: skip
        samples = as_sent(clip.samples)
        self._plays.add(ActivePlay(order, [samples], listener, source, order.speed))
        self._child.send(order, samples)
        return order.play

    def add(self, number: int, samples: Samples) -> None:
        """The next samples of a sound that is still being made, (frames, channels). One that has ended takes none."""
        play = self._plays.get(number)
        if play is not None and len(samples):
            part = as_sent(samples)
            play.parts.append(part)
            self._child.send(player_messages.AppendSamples(play=number), part)

    def of_another_speed(self, voice: int, speed: float) -> list[tuple[int, Clip, bool]]:
        """What sounds on a voice and wasn't made ready for this speed: its number, its source, whether it is a loop."""
        return [
            (play.order.play, play.source, play.order.loop)
            for play in self._plays.on(voice)
            if play.source is not None and play.made_for != speed
        ]

    def exchange(self, number: int, samples: Samples, rate: float, speed: float) -> None:
        """The same sound, made ready for another speed. One that has ended takes none."""
        play = self._plays.get(number)
        if play is not None:
            part = as_sent(samples)
            play.exchange(part, rate, speed)
            self._child.send(player_messages.ReplaceSamples(play=number, rate=rate), part)

    def break_off(self, number: int) -> None:
        """No more comes of a sound: it ends. If the player process is lost before it has ended it, it ends then."""
        play = self._plays.get(number)
        if play is None:
            return
        play.broken_off = True
        if self.device is None:
            self._plays.over(number, self.last.frame, "stopped")
        else:
            self._child.send(player_messages.EndStream(play=number))

    # what clients ask: voices, and all of them

    def stop_voice(self, client: ClientId, request: m.Stop) -> None:
        """End a voice, or all with `*`; without a player at once.

        Raises:
            BadRequest: a silent voice, a moment that can't be read.
        """
        voice = 0 if request.voice == "*" else request.voice
        at = read_moment(request.at or "now")
        affected = self._plays.on(voice)
        if voice and not affected:
            raise errors.BadRequest(f"voice: {voice} is silent; nothing to stop")
        if self.device is None:
            self._stops.at_once(client, affected, self.last.frame)
            return
        order = player_messages.StopVoice(stop=next(self._numbers), voice=voice, at=at, fade=request.fade)
        self._stops.expect(client, order)
        self._child.send(order)

    def change(self, client: ClientId, request: m.Set) -> None:
        """Change a sounding voice.

        Raises:
            BadRequest: a silent voice, a louder gain than allowed, nothing to change.
        """
        voice = request.voice
        check_gain(request.gain, self._max_gain)
        if request.gain is None and request.pan is None and request.speed is None:
            raise errors.BadRequest("set: nothing to change; name @gain, @pan or @speed")
        found = self._plays.on(voice)
        if not found:
            raise errors.BadRequest(f"voice: {voice} is silent; play something on it first")
        asked = {"gain": request.gain, "pan": request.pan, "speed": request.speed}
        named = {key: value for key, value in asked.items() if value is not None}
        if self.device is None or not self._child.send(
            player_messages.ChangeVoice(voice=voice, fade=request.fade, **asked)
        ):
            for play in found:  # it goes on so once the device is back
                play.change(**named)
        self.outbox.send(client, m.Acknowledged(id="set"))

    def set_tempo(self, bpm: float | None = None, beats_per_bar: float | None = None) -> None:
        """Set the session's tempo or meter; what is still to come moves.

        Raises:
            BadRequest: Link is on, and its session has the tempo.
        """
        self._child.send(self._desk.set_tempo(bpm, beats_per_bar))

    def set_level(self, gain: float) -> None:
        """Set the gain of everything that plays, in dB."""
        self._child.send(self._desk.set_level(gain))

    # the process's life

    def child_up(self, ready: Any) -> None:
        self._device.process_started()
        log.info("player ready, pid %d", ready.pid)
        for message in self._desk.for_new_process(self.last.beat):
            self._child.send(message)

    def child_down(self, reason: str) -> None:
        self._device.process_ended(reason)
        self._beats.process_ended()
        self._stops.process_ended(self.last.frame)
        self._plays.process_ended(self.last.frame, self._beats.since - self.last.lead)

    def child_cannot_start(self, reason: str) -> None:
        """Answer the plays that were not heard yet. Those that sounded go on once there is a player again."""
        self._device.cannot_start(reason)
        error = self._device.error
        for play in self._plays:
            if not play.began:
                self._plays.refused(play.order.play, self.last.frame, error)

    # what the process says

    def child_said(self, message: Any, payload: Sequence[memoryview]) -> None:
        match message:
            case player_messages.PlayerHeartbeat():
                self._beat(message)
            case player_messages.VoicePlaying():
                self._plays.began(message)
            case player_messages.VoiceEnded():
                self._plays.over(message.play, message.frame, message.reason)
            case player_messages.VoiceStopping():
                self._stops.begun(message)
            case player_messages.PlayRefused():
                self._refused(message)
            case player_messages.DeviceOpened():
                self._opened(message)
            case player_messages.DeviceUnavailable():
                self._without_device(message.reason)
            case player_messages.DeviceLost():
                self._beat(message.last)
                self._without_device(message.reason)
            case _:
                log.error("the player said what it shouldn't: %s", type(message).__name__)

    def _opened(self, message: player_messages.DeviceOpened) -> None:
        if self._device.closed:
            return
        self._device.opened(message)
        self._opened_at = time.monotonic()
        self._on_rate(message.rate)
        log.info(
            "playing on %s at %d Hz, blocks of %d frames, %.1f ms ahead%s",
            message.device, message.rate, message.block, message.lead * 1000,
            "" if message.raised else " (without raised priority)",
        )  # fmt: skip
        for play in self._plays:
            self._child.send(*play.anew())

    def _without_device(self, reason: str) -> None:
        self._device.missing(reason)
        log.warning("%s", reason)

    def _beat(self, message: player_messages.PlayerHeartbeat) -> None:
        if message.bpm != self.last.bpm and self._desk.link:
            self._on_tempo(message.bpm)
        self._beats.take(message)
        self._plays.moved(message.positions)
        if self.device is not None and time.monotonic() - self._opened_at > PLAYED_WELL_AFTER_S:
            self._child.succeeded()

    def _refused(self, message: player_messages.PlayRefused) -> None:
        error = errors.from_code(message.code, message.message)
        if message.play is not None:
            self._plays.refused(message.play, self.last.frame, error)
        if message.stop is not None:
            self._stops.refused(message.stop, error)
