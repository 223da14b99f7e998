"""The player's one loop: orders in, a block mixed whenever the device has taken one, events out.

One thread, so that nothing else in the process holds Python's lock while a block is due. What may block (opening a
device, giving large memory back) is done by helpers.
"""

import gc
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import zmq

from timbred import __version__, errors
from timbred.audio import Samples
from timbred.ipc import player_messages
from timbred.player.beat_grid import BeatGrid
from timbred.player.mixer.commands import EndVoice, StartVoice, VoiceBegan, VoiceOver, VoiceStopped
from timbred.player.mixer.mixer import Mixer
from timbred.player.mixer.source import VoiceSource
from timbred.player.process import devices
from timbred.player.process.ableton_link import LinkSession
from timbred.player.process.realtime import hold_memory, raise_priority
from timbred.player.process.ring_output import BLOCK, DeviceTime, Output

log = logging.getLogger("timbred.player")

LOOK_EVERY = 1.0
"""Seconds between looks for a device that isn't there."""

STUCK_AFTER = 2.0
"""Seconds without a frame taken after which a device counts as gone."""

PAUSED_AFTER_S = 1.0
"""Time between two looks at the device after which this process did not run: the device is given its time anew."""

FADED_WITHIN = 0.5
"""Seconds after which nothing of a sound that was exchanged is mixed any more."""

FADE_WITHIN = 0.4
"""Seconds at the end to fade out, and for the device to take that."""

CLOSE_WITHIN = 2.0
"""Seconds for the driver to close the device: usually a tenth."""

LARGEST_BLOCK = 8 * BLOCK
"""Frames that are mixed at a time at most."""

IDLE_MS, SHORTEST_MS = 50, 1


@dataclass(frozen=True)
class PlayerOptions:
    """How the player was started. `lead`, `heartbeat` and `link_offset` in seconds."""

    address: str
    token: str
    device: str
    channels: int
    lead: float
    limit: bool
    heartbeat: float
    tempo: float
    beats_per_bar: float
    link: bool
    link_offset: float
    link_start_stop: bool


class AudioDeviceLost(Exception):
    """The open device stopped taking frames."""


class PlayerLoop:
    """The device, the mixer, and the line to the daemon."""

    def __init__(self, options: PlayerOptions) -> None:
        self.options = options
        self.output: Output | None = None
        self.mixer: Mixer | None = None
        self.grid = BeatGrid(48_000, options.tempo, beats_per_bar=options.beats_per_bar)
        self.link = self._joined_link()
        self._link_played = False
        self._context = zmq.Context()
        self._line = self._context.socket(zmq.PAIR)
        self._line.linger = 1000
        self._line.connect(options.address)
        self._opened: queue.SimpleQueue[Output | errors.TimbredError] = queue.SimpleQueue()
        self._last_look = -LOOK_EVERY
        self._looking = False
        self._level = 0.0
        self._reason = ""
        self._sounds: dict[int, VoiceSource] = {}
        self._forgotten: queue.SimpleQueue[VoiceSource] = queue.SimpleQueue()
        self._last_beat = 0.0
        self._progress = (0, 0.0)
        self._watched = 0.0
        self._announced = False
        self._raised = False
        self._alone = threading.Event()

    def run(self) -> None:
        """Play until told to quit, or alone.

        Raises:
            DeviceGone: the device went away; the daemon knows, and starts another process.
        """
        threading.Thread(target=self._forget, name="forget", daemon=True).start()
        self._send(
            player_messages.PlayerReady(
                token=self.options.token,
                wire_version=player_messages.WIRE_VERSION,
                version=__version__,
                pid=os.getpid(),
            )
        )
        gc.freeze()
        gc.disable()  # a collection would come in the midst of a block; nothing here makes cycles
        poller = zmq.Poller()
        poller.register(self._line, zmq.POLLIN)
        while True:
            poller.poll(self._rest())
            for message, payload in self._arrived():
                if isinstance(message, player_messages.QuitPlayer):
                    self._end()
                    return
                self._take_in(message, payload)
            if self._alone.is_set():
                self._end()
                return
            if self.output is None:
                self._look_for_device()
            else:
                self._tend(self.output)
            self._beat_when_due()

    def _rest(self) -> int:
        """Milliseconds to wait for orders: until the ring needs us; with Link, to see when the device takes a block."""
        if self.output is None:
            return IDLE_MS
        return SHORTEST_MS if self.link else max(SHORTEST_MS, int(self.output.rest * 1000))

    def daemon_gone(self) -> None:
        """From any thread: nobody will say any more what to play, so it ends."""
        self._alone.set()

    def close(self) -> None:
        """Send what waits, and end the line."""
        if self._alone.is_set():
            self._line.linger = 0
        self._line.close()
        self._context.term()

    def _end(self) -> None:
        """Fade out what sounds, and take leave of the device and its driver: a JACK server may stand still, for
        everybody, until it notices that a client went without a word."""
        if self.output is not None and self.mixer is not None:
            self._fall_silent(self.output, self.mixer)
        if self._looking and not self._looked():
            return  # another thread is in the driver, and doesn't come out
        closing = threading.Thread(target=self._close_device, name="close-device", daemon=True)
        closing.start()
        closing.join(CLOSE_WITHIN)

    def _fall_silent(self, output: Output, mixer: Mixer) -> None:
        """Fade out what sounds, and let the device take it."""
        mixer.stop(EndVoice(0, 0), player_messages.Moment())
        deadline = time.monotonic() + FADE_WITHIN
        last: int | None = None
        while time.monotonic() < deadline and (last is None or output.taken < last):
            self._fill(output, mixer)
            if last is None and not mixer.layers:
                last = output.handed_over + mixer.latency
            time.sleep(0.001)

    def _looked(self) -> bool:
        """Whether the device that is just being opened, or looked for in vain, is so now."""
        try:
            found = self._opened.get(timeout=CLOSE_WITHIN)
        except queue.Empty:
            return False
        if isinstance(found, Output):
            self.output = found
        return True

    def _close_device(self) -> None:
        if self.output is not None:
            self.output.close()
        devices.let_go()

    # the line

    def _send(self, message: player_messages.PlayerMessage) -> None:
        self._line.send(player_messages.encode(message))

    def _arrived(self) -> Iterator[tuple[player_messages.ToPlayer, list[zmq.Frame]]]:
        while True:
            try:
                head, *payload = self._line.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            yield player_messages.read_in_player(head.bytes), payload

    def _take_in(self, message: player_messages.ToPlayer, payload: list[zmq.Frame]) -> None:
        try:
            match message:
                case player_messages.PlayVoice():
                    self._play(message, payload)
                case player_messages.AppendSamples():
                    self._more(message, payload)
                case player_messages.ReplaceSamples():
                    self._exchange(message, payload)
                case player_messages.EndStream():
                    self._mixer().break_off(message.play)
                case player_messages.StopVoice():
                    self._mixer().stop(EndVoice(message.stop, message.voice, message.fade), message.at)
                case player_messages.ChangeVoice():
                    self._mixer().change(message.voice, message.gain, message.pan, message.speed, message.fade)
                case player_messages.SetTempo():
                    self._tempo(message)
                case player_messages.SetLevel(gain=gain):
                    self._level = gain
                    if self.mixer is not None:
                        self.mixer.set_level(gain)
                case player_messages.QuitPlayer():
                    raise AssertionError("the loop sees it first")
        except errors.TimbredError as error:
            number = {"play": getattr(message, "play", None), "stop": getattr(message, "stop", None)}
            self._send(player_messages.PlayRefused(code=error.code, message=str(error), **number))

    def _mixer(self) -> Mixer:
        if self.mixer is None:
            raise errors.NoAudioDevice(self._reason or "the sound device is being opened; play again in a second")
        return self.mixer

    def _play(self, order: player_messages.PlayVoice, payload: list[zmq.Frame]) -> None:
        sound = _sound(order, payload)
        start = StartVoice(
            play=order.play, voice=order.voice, sound=sound, gain=order.gain, pan=order.pan, speed=order.speed,
            out=order.out, fade=order.fade, position=order.position, handover=order.handover,
        )  # fmt: skip
        if order.follows:
            self._mixer().follow_up(start)
        else:
            self._mixer().play(start, order.at)
        self._sounds[order.play] = sound

    def _more(self, order: player_messages.AppendSamples, payload: list[zmq.Frame]) -> None:
        sound = self._sounds.get(order.play)
        if sound is not None:  # else it was stopped meanwhile
            sound.add(_samples(payload, sound.channels))

    def _exchange(self, order: player_messages.ReplaceSamples, payload: list[zmq.Frame]) -> None:
        before = self._sounds.get(order.play)
        if before is not None and before.ready is None:
            self._sounds[order.play] = sound = VoiceSource(_samples(payload, before.channels), order.rate, before.loop)
            self._mixer().exchange(order.play, sound)
            self._forgotten.put(before)

    def _tempo(self, order: player_messages.SetTempo) -> None:
        frame = self.mixer.frame if self.mixer else 0
        if order.beat is not None:
            self.grid = BeatGrid(self.grid.rate, order.bpm, frame, order.beat, order.beats_per_bar)
        else:
            self.grid = self.grid.with_tempo(order.bpm, order.beats_per_bar, frame)
        if self.link is not None:
            self.link.set_meter(order.beats_per_bar)
        if self.mixer is not None:
            self.mixer.follow(self.grid)

    # the device

    def _look_for_device(self) -> None:
        if not self._opened.empty():
            self._looking = False
            found = self._opened.get()
            if isinstance(found, Output):
                self._begin(found)
            elif str(found) != self._reason:
                self._reason = str(found)
                self._send(player_messages.DeviceUnavailable(reason=self._reason))
        elif not self._looking and time.monotonic() - self._last_look >= LOOK_EVERY:
            self._looking = True
            self._last_look = time.monotonic()
            threading.Thread(target=self._open, name="open-device", daemon=True).start()

    def _open(self) -> None:
        try:
            if self._reason:
                devices.look_again()
            device = devices.find(devices.output_devices(), self.options.device)
            self._opened.put(Output(device, self.options.channels, self.options.lead))
        except errors.TimbredError as error:
            self._opened.put(error)
        except Exception as error:  # noqa: BLE001  whatever a driver does, the daemon hears of it
            self._opened.put(errors.NoAudioDevice(f"the sound device can't be opened: {error}"))

    def _begin(self, output: Output) -> None:
        self.output = output
        self.grid = self.grid.at_rate(output.rate, self.grid.frame)
        self.mixer = Mixer(output.rate, output.channels, self.grid, self.options.limit, self._level)
        self._device_time = DeviceTime(output.rate)
        self._watched = time.monotonic()
        self._progress = (0, self._watched)
        self._announced = False
        self._raised = raise_priority()
        hold_memory()
        self._fill(output, self.mixer)
        output.keep_going()

    def _announce(self, output: Output) -> None:
        """Say that the device is open, once it has taken its first block."""
        self._announced = True
        self._send(
            player_messages.DeviceOpened(
                device=output.device.name, rate=output.rate, channels=output.channels, block=output.block,
                latency=output.latency, lead=self.options.lead, raised=self._raised,
            )
        )  # fmt: skip

    def _tend(self, output: Output) -> None:
        mixer = self._mixer()
        if not output.keep_going():
            log.warning(
                "the device ran out of sound: %d times now; from here on it is mixed %.1f ms ahead",
                output.underruns, output.lead * 1000,
            )  # fmt: skip
            self._device_time.restart()
        self._watch(output)
        if self.link is not None:
            self._follow_link(self.link, output, mixer)
        self._fill(output, mixer)
        self._tell(mixer)
        if not self._announced and output.block:
            self._announce(output)

    def _fill(self, output: Output, mixer: Mixer) -> None:
        while (missing := output.missing) >= BLOCK:
            # the further behind, the larger the block: it costs less a frame
            output.hand_over(mixer.render(min(missing // BLOCK * BLOCK, LARGEST_BLOCK)))

    def _watch(self, output: Output) -> None:
        now, taken = time.monotonic(), output.taken
        if now - self._watched > PAUSED_AFTER_S:
            self._progress = (taken, now)
            self._device_time.restart()
        self._watched = now
        self._device_time.saw(taken, now)
        if taken != self._progress[0]:
            self._progress = (taken, now)
        if not output.is_running or now - self._progress[1] > STUCK_AFTER:
            reason = f"{output.device.name} went away; it is opened again when it returns"
            self._send(player_messages.DeviceLost(reason=reason, last=self._state()))
            raise AudioDeviceLost(reason)

    def _tell(self, mixer: Mixer) -> None:
        for happened in mixer.happened():
            match happened:
                case VoiceBegan():
                    self._send(
                        player_messages.VoicePlaying(
                            play=happened.play, frame=happened.frame, beat=happened.beat, repeated=happened.repeated
                        )
                    )
                case VoiceOver():
                    self._send(
                        player_messages.VoiceEnded(play=happened.play, frame=happened.frame, reason=happened.reason)
                    )
                    self._forgotten.put(self._sounds.pop(happened.play))
                case VoiceStopped():
                    self._send(player_messages.VoiceStopping(stop=happened.stop, plays=happened.plays))

    def _forget(self) -> None:
        """Giving a large memory back takes longer than a block lasts. What is still faded out is held till then."""
        while True:
            held = [self._forgotten.get()]
            while not self._forgotten.empty():
                held.append(self._forgotten.get())
            time.sleep(FADED_WITHIN)
            del held

    # the clock

    def _joined_link(self) -> LinkSession | None:
        if not self.options.link:
            return None
        try:
            return LinkSession(self.options.tempo, self.options.beats_per_bar)
        except errors.BadRequest as error:
            log.warning("%s; the session's own tempo is used", error)
            return None

    def _follow_link(self, link: LinkSession, output: Output, mixer: Mixer) -> None:
        if not self._device_time.settled:
            return
        moment, beat, bpm = link.now()
        heard = self._device_time.frame_at(moment - output.latency + self.options.link_offset)
        self.grid = self.grid.through(heard, beat, bpm)
        mixer.follow(self.grid)
        stopped = self._link_played and not link.playing
        self._link_played = link.playing
        if stopped and self.options.link_start_stop:
            mixer.stop(EndVoice(0, 0), player_messages.Moment())

    # signs of life

    def _beat_when_due(self) -> None:
        now = time.monotonic()
        if now - self._last_beat >= self.options.heartbeat:
            self._last_beat = now
            self._send(self._state())

    def _state(self) -> player_messages.PlayerHeartbeat:
        frame = self.mixer.frame if self.mixer else 0
        layers = [layer for layer in (self.mixer.layers if self.mixer else []) if not layer.leaving]
        return player_messages.PlayerHeartbeat(
            frame=frame,
            beat=self.grid.beat_at(frame),
            bpm=self.grid.bpm,
            peers=self.link.peers if self.link else 0,
            underruns=self.output.underruns if self.output else 0,
            late=self.output.late if self.output else 0,
            lead=self.output.lead if self.output else 0.0,
            positions=tuple(
                player_messages.Position(
                    play=layer.play, position=layer.head.position, gain=layer.gain, pan=layer.pan, speed=layer.speed
                )
                for layer in layers
            ),
        )


def _sound(order: player_messages.PlayVoice, payload: list[zmq.Frame]) -> VoiceSource:
    samples = _samples(payload, order.channels)
    if order.whole is None:
        return VoiceSource(samples, order.rate, order.loop)
    sound = VoiceSource(np.zeros((order.whole, order.channels), np.float32), order.rate, order.loop, ready=0)
    sound.add(samples)
    return sound


def _samples(payload: list[zmq.Frame], channels: int) -> Samples:
    return np.frombuffer(payload[0].buffer, dtype="<f4").reshape(-1, channels)
