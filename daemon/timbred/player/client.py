"""The daemon's client of the player process: starts it, sends it plays, stops and changes, and handles its events."""

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
from timbred.player.beat_grid import read_moment
from timbred.player.session import (
    ActivePlay,
    ActivePlays,
    DeviceState,
    PendingStops,
    PlaybackSettings,
    PlayerStatus,
    PlayListener,
    RequestListener,
    check_gain,
    check_sound,
    encode_samples,
)
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox
from timbred.protocol.keys import PlaybackKeys
from timbred.task_supervision import Supervisor

PLAYER_PROGRAM = python_command("timbred.player.process")
"""The command that starts a player."""

HEARTBEAT_INTERVAL_S = 0.25
"""Seconds between the player's heartbeats."""


def player_spec(config: Config, program: tuple[str, ...]) -> ProcessSpec:
    """Return the specification of a player process with these settings; `program` is the command that starts it."""
    options = {
        "device": config["player.device"],
        "channels": config["player.channels"],
        "lead": config["player.lead"] / 1000,
        "limit": int(config["player.limiter"]),
        "heartbeat": HEARTBEAT_INTERVAL_S,
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
        ready_type=player_messages.PlayerReady,
        refusal_type=player_messages.PlayerCannotStart,
        wire_version=player_messages.WIRE_VERSION,
        encode=player_messages.encode,
        decode=player_messages.read_in_daemon,
        quit_message=player_messages.QuitPlayer(),
        timeout_s=config["player.patience"],
        environment={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )


log = logging.getLogger(__name__)

SUCCESS_AFTER_S = 0.25
"""Seconds with an open device after which a player process counts as successful: when it ends the next one is started
immediately, as long as its device plays again each time."""


class PlayerClient:
    """The player process and everything that plays in it. Runs on the event loop.

    Implements `timbred.ipc.supervisor.ProcessObserver`.

    Args:
        outbox: sends events to clients.
        config: the settings.
        program: the command that starts a player.
        supervisor: runs background tasks.
        spare: decides about a spare process.
        on_tempo: called with the tempo of a Link session when it changes.
        on_rate: called with the device's rate when a device is opened.
    """

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
        self._status = PlayerStatus(config["tempo"])
        self._settings = PlaybackSettings(config)
        self._plays = ActivePlays()
        self._stops = PendingStops(outbox, self._plays)
        self._child = SupervisedProcess(player_spec(config, program), self, supervisor, spare)
        self._opened_at = math.inf

    # life cycle

    def start(self) -> None:
        """Start the process and keep it running."""
        self._child.start()

    def end_all(self) -> None:
        """Report the end of every play to its client: the daemon is stopping."""
        self._device.close()
        for play in self._plays:
            self._plays.play_ended(play.order.play, self.last.frame, "stopped")

    async def stop(self, timeout_s: float) -> None:
        """End all plays and the process, within `timeout_s` seconds."""
        self.end_all()
        await self._child.stop(timeout_s)

    # state

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
        """The last heartbeat."""
        return self._status.last

    @property
    def voices_playing(self) -> int:
        """The number of voices that are heard."""
        return self._plays.voices

    @property
    def underruns(self) -> int:
        """Times that the device ran out of samples since the daemon's start."""
        return self._status.underruns

    @property
    def late(self) -> int:
        """Blocks that the device's driver requested late since the daemon's start, for any reason."""
        return self._status.late

    @property
    def lead(self) -> float:
        """Seconds of audio mixed ahead: as set, or more after underruns; 0 without a device."""
        return self.last.lead if self.device else 0.0

    async def opened(self) -> player_messages.DeviceOpened:
        """Wait until it is known whether there is a device, and return it.

        Raises:
            NoAudioDevice: there is none; the message says why and what to do.
        """
        return await self._device.wait_opened()

    def beat_now(self) -> float:
        """Return the beat that is mixed now.

        Raises:
            NoAudioDevice: there is no device, whose clock counts the beats.
        """
        self._device.require()
        return self._status.now

    def has(self, voice: int) -> bool:
        """Return whether something sounds or waits on a voice, or on any with 0."""
        return bool(self._plays.plays_on_voice(voice))

    def order_of(self, play: int) -> player_messages.PlayVoice | None:
        """Return the order of a play that has not ended, with its present values."""
        active = self._plays.get(play)
        return active.order if active else None

    # requests: plays

    def check(self, keys: PlaybackKeys) -> None:
        """Check that a play with these keys is possible, as far as is known.

        Raises:
            BadRequest: a gain above `player.max_gain`, or an invalid moment.
            NoAudioDevice: there is no device.
        """
        check_gain(keys.gain, self._max_gain)
        read_moment(keys.at or "now")
        if self._device.known.is_set():
            self._device.require()

    def play(
        self, client: ClientId, voice: int, take: str, clip: Clip, loop: bool, keys: PlaybackKeys,
        rate: float | None = None, source: Clip | None = None,
    ) -> int:  # fmt: skip
        """Play a clip, at the device's rate, on a voice; its events go to the client.

        A clip that was resampled for `keys.speed` has another `rate` at speed 1, and comes with its `source`.

        Returns:
            The number of the play.

        Raises:
            BadRequest, BadAudio, NoAudioDevice: as `sound`.
        """
        listener = RequestListener(self.outbox, client, take)
        return self.sound(listener, voice, clip, loop, keys, rate=rate, source=source)

    def sound(
        self, listener: PlayListener, voice: int, clip: Clip, loop: bool, keys: PlaybackKeys,
        handover: player_messages.Handover | None = None, follows: bool = False, whole: int | None = None,
        rate: float | None = None, source: Clip | None = None,
    ) -> int:  # fmt: skip
        """Play a clip, at the device's rate, on a voice.

        Args:
            listener: gets the events.
            voice: 1 to 64.
            clip: the sound, or its beginning.
            loop: whether it repeats.
            keys: gain, pan, speed, start and output.
            handover: as in `player_messages.PlayVoice`.
            follows: as in `player_messages.PlayVoice`.
            whole: frames of the whole sound, if the clip is its beginning and `add` brings the rest.
            rate: the clip's rate at speed 1, if it isn't `clip.rate`.
            source: the clip before it was resampled for the speed.

        Returns:
            The number of the play.

        Raises:
            BadRequest: a gain above `player.max_gain`, or an invalid moment.
            BadAudio: an empty clip, or one that is far too loud.
            NoAudioDevice: there is no device.
        """
        check_gain(keys.gain, self._max_gain)
        check_sound(clip)
        moment = read_moment(keys.at or "now")
        self._device.require()
        order = player_messages.PlayVoice(
            play=next(self._numbers), voice=voice, rate=rate or clip.rate, channels=clip.channels, at=moment, loop=loop,
            gain=min(0.0, self._max_gain) if keys.gain is None else keys.gain,
            pan=keys.pan or 0.0, speed=1.0 if keys.speed is None else keys.speed,
            out=keys.out or 1, fade=keys.fade, handover=handover, follows=follows, whole=whole,
        )  # fmt: skip
        samples = encode_samples(clip.samples)
        self._plays.add(ActivePlay(order, [samples], listener, source, order.speed))
        self._child.send(order, samples)
        return order.play

    def add(self, number: int, samples: Samples) -> None:
        """Append samples, (frames, channels), to a sound that is being rendered. Does nothing if it has ended."""
        play = self._plays.get(number)
        if play is not None and len(samples):
            part = encode_samples(samples)
            play.parts.append(part)
            self._child.send(player_messages.AppendSamples(play=number), part)

    def plays_for_other_speed(self, voice: int, speed: float) -> list[tuple[int, Clip, bool]]:
        """Return the plays on a voice that were resampled for another speed: number, source, and whether it loops."""
        return [
            (play.order.play, play.source, play.order.loop)
            for play in self._plays.plays_on_voice(voice)
            if play.source is not None and play.source_speed != speed
        ]

    def exchange(self, number: int, samples: Samples, rate: float, speed: float) -> None:
        """Replace the samples of a play by those for another speed. Does nothing if it has ended."""
        play = self._plays.get(number)
        if play is not None:
            part = encode_samples(samples)
            play.exchange(part, rate, speed)
            self._child.send(player_messages.ReplaceSamples(play=number, rate=rate), part)

    def end_early(self, number: int) -> None:
        """End a sound of which no more samples come.

        If the player process is lost before it has ended the play, the play ends then.
        """
        play = self._plays.get(number)
        if play is None:
            return
        play.end_requested = True
        if self.device is None:
            self._plays.play_ended(number, self.last.frame, "stopped")
        else:
            self._child.send(player_messages.EndStream(play=number))

    # requests: voices and the sum

    def stop_voice(self, client: ClientId, request: m.Stop) -> None:
        """Stop a voice, or all with `*`; immediately without a player.

        Raises:
            BadRequest: a silent voice, or an invalid moment.
        """
        voice = 0 if request.voice == "*" else request.voice
        moment = read_moment(request.at or "now")
        affected = self._plays.plays_on_voice(voice)
        if voice and not affected:
            raise errors.BadRequest(f"voice: {voice} is silent; nothing to stop")
        if self.device is None:
            self._stops.end_plays(client, affected, self.last.frame)
            return
        order = player_messages.StopVoice(stop=next(self._numbers), voice=voice, at=moment, fade=request.fade)
        self._stops.expect(client, order)
        self._child.send(order)

    def change(self, client: ClientId, request: m.Set) -> None:
        """Change a voice that plays.

        Raises:
            BadRequest: a silent voice, a gain above `player.max_gain`, or nothing to change.
        """
        voice = request.voice
        check_gain(request.gain, self._max_gain)
        if request.gain is None and request.pan is None and request.speed is None:
            raise errors.BadRequest("set: nothing to change; send @gain, @pan or @speed")
        plays = self._plays.plays_on_voice(voice)
        if not plays:
            raise errors.BadRequest(f"voice: {voice} is silent; play something on it first")
        changes = {"gain": request.gain, "pan": request.pan, "speed": request.speed}
        set_values = {key: value for key, value in changes.items() if value is not None}
        if self.device is None or not self._child.send(
            player_messages.ChangeVoice(voice=voice, fade=request.fade, **changes)
        ):
            for play in plays:  # takes effect once the device is back
                play.change(**set_values)
        self.outbox.send(client, m.Acknowledged(id="set"))

    def set_tempo(self, bpm: float | None = None, beats_per_bar: float | None = None) -> None:
        """Set the session's tempo or meter; starts that wait for a beat move with it.

        Raises:
            BadRequest: Link is on, so its session sets the tempo.
        """
        self._child.send(self._settings.set_tempo(bpm, beats_per_bar))

    def set_level(self, gain: float) -> None:
        """Set the gain of the sum, in dB."""
        self._child.send(self._settings.set_level(gain))

    # callbacks of the process

    def child_ready(self, ready: Any) -> None:
        """Send the settings to a new process."""
        self._device.process_started()
        log.info("player ready, pid %d", ready.pid)
        for message in self._settings.for_new_process(self.last.beat):
            self._child.send(message)

    def child_lost(self, reason: str) -> None:
        """Handle the end of the process; plays continue in the next one."""
        self._device.process_ended(reason)
        self._status.process_ended()
        self._stops.process_ended(self.last.frame)
        self._plays.process_ended(self.last.frame, self._status.heartbeat_age_s - self.last.lead)

    def child_cannot_start(self, reason: str) -> None:
        """Refuse the plays that were not heard yet. Those that were continue once there is a player again."""
        self._device.cannot_start(reason)
        error = self._device.error
        for play in self._plays:
            if not play.has_started:
                self._plays.play_refused(play.order.play, self.last.frame, error)

    # messages of the process

    def child_message_received(self, message: Any, payload: Sequence[memoryview]) -> None:
        """Handle a message from the process."""
        match message:
            case player_messages.PlayerHeartbeat():
                self._beat(message)
            case player_messages.VoicePlaying():
                self._plays.play_started(message)
            case player_messages.VoiceEnded():
                self._plays.play_ended(message.play, message.frame, message.reason)
            case player_messages.VoiceStopping():
                self._stops.stop_started(message)
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
                log.error("unexpected message from the player: %s", type(message).__name__)

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
            self._child.send(*play.restart_message())

    def _without_device(self, reason: str) -> None:
        self._device.missing(reason)
        log.warning("%s", reason)

    def _beat(self, message: player_messages.PlayerHeartbeat) -> None:
        if message.bpm != self.last.bpm and self._settings.link:
            self._on_tempo(message.bpm)
        self._status.update(message)
        self._plays.update_positions(message.positions)
        if self.device is not None and time.monotonic() - self._opened_at > SUCCESS_AFTER_S:
            self._child.record_success()

    def _refused(self, message: player_messages.PlayRefused) -> None:
        error = errors.from_code(message.code, message.message)
        if message.play is not None:
            self._plays.play_refused(message.play, self.last.frame, error)
        if message.stop is not None:
            self._stops.stop_refused(message.stop, error)
