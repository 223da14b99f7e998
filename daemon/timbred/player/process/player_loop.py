"""The player's main loop: receives commands, mixes a block whenever the device has taken one, sends events.

It runs in one thread, so that nothing else in the process holds the GIL while a block is due. Calls that may block
(opening a device, freeing large memory) run in helper threads. Where the system allows it, the thread has real-time
priority and its memory isn't swapped out.
"""

import asyncio
import ctypes
import gc
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import zmq

from timbred import __version__, errors
from timbred.audio import Samples
from timbred.ipc import player_messages
from timbred.player.beat_grid import BeatGrid
from timbred.player.mixer.mixer import Mixer
from timbred.player.mixer.voice import EndVoice, StartVoice, VoiceFinished, VoiceSource, VoiceStarted, VoiceStopped
from timbred.player.process import devices
from timbred.player.process.devices import BLOCK_FRAMES, DeviceClock, Output

REALTIME_PRIORITY = 4
"""Priority among real-time threads: above ordinary ones, below JACK (10 by default, its clients' callbacks 5)."""

NICE_VALUE = -11
"""Priority of the process where there is no real-time one."""

MLOCK_FLAGS = 1 | 2 | 4
"""MCL_CURRENT, MCL_FUTURE and MCL_ONFAULT of mlockall(2)."""


def raise_priority() -> bool:
    """Raise this thread's priority. Returns False if the system doesn't allow it."""
    return _set_realtime() or _set_nice()


def lock_memory() -> bool:
    """Lock the process's memory, as swapping it in again takes longer than a block.

    Only where there is no limit for locked memory: beyond a limit nothing more could be allocated. Returns False if it
    isn't locked.
    """
    if sys.platform != "linux" or not _can_lock_everything():
        return False
    return ctypes.CDLL(None, use_errno=True).mlockall(MLOCK_FLAGS) == 0


def _can_lock_everything() -> bool:
    import resource

    return os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY


def _set_realtime() -> bool:
    if sys.platform != "linux":
        return False
    try:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK  # threads started later get normal priority
        os.sched_setscheduler(0, policy, os.sched_param(REALTIME_PRIORITY))
    except OSError as error:
        log.info("no real-time priority (%s); give your user `rtprio` in /etc/security/limits.d", error.strerror)
        return False
    return True


def _set_nice() -> bool:
    process = psutil.Process()
    try:
        process.nice(psutil.HIGH_PRIORITY_CLASS if sys.platform == "win32" else NICE_VALUE)
    except (psutil.AccessDenied, PermissionError):
        return False
    return True


log = logging.getLogger("timbred.player")

DEVICE_RETRY_INTERVAL_S = 1.0
"""Seconds between attempts to open a device that is missing."""

DEVICE_TIMEOUT_S = 2.0
"""Seconds without a frame taken after which a device counts as lost."""

SUSPENSION_DETECTION_S = 1.0
"""Seconds between two checks of the device from which this process was suspended: the device's timeout starts again."""

FREE_DELAY_S = 0.5
"""Seconds after which nothing of an exchanged sound is mixed any more."""

FADE_TIMEOUT_S = 0.4
"""Seconds at the end for the fade out and for the device to take it."""

CLOSE_TIMEOUT_S = 2.0
"""Seconds for the driver to close the device; usually it takes a tenth."""

MAX_BLOCK_FRAMES = 8 * BLOCK_FRAMES
"""Largest number of frames that are mixed at a time."""

IDLE_POLL_MS, MIN_POLL_MS = 50, 1


@dataclass(frozen=True)
class PlayerOptions:
    """The options with which the player was started.

    Attributes:
        address: of the daemon's socket.
        token: proves the process's identity.
        device: number or name of the output device; empty for the system's default.
        channels: output channels to open.
        lead: seconds of audio mixed ahead.
        limit: whether the limiter is on.
        heartbeat: seconds between heartbeats.
        tempo: beats a minute.
        beats_per_bar: the meter.
        link: whether to join the Ableton Link session.
        link_offset: seconds by which the Link session's beats are output later.
        link_start_stop: whether a stop of the Link session stops all voices.
    """

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


class LinkSession:
    """The membership in an Ableton Link session: tempo and beat shared by all peers.

    Args:
        bpm: the tempo to start with if there is no other peer.
        beats_per_bar: the meter.

    Raises:
        BadRequest: the package aalink isn't installed.
    """

    def __init__(self, bpm: float, beats_per_bar: float) -> None:
        self._loop = asyncio.new_event_loop()
        self._link: Any = self._loop.run_until_complete(_create_link(bpm))
        self._link.quantum = beats_per_bar
        self._link.start_stop_sync_enabled = True
        self._link.enabled = True

    @property
    def peers(self) -> int:
        """The number of other peers."""
        return int(self._link.num_peers)

    @property
    def playing(self) -> bool:
        """True while the session plays."""
        return bool(self._link.playing)

    def now(self) -> tuple[float, float, float]:
        """Return the time (seconds of this process's monotonic clock), its beat, and the tempo."""
        before = time.monotonic()
        beat = float(self._link.beat)
        return 0.5 * (before + time.monotonic()), beat, float(self._link.tempo)

    def set_meter(self, beats_per_bar: float) -> None:
        """Set the beats of a bar."""
        self._link.quantum = beats_per_bar


async def _create_link(bpm: float) -> Any:
    try:
        import aalink
    except ImportError as error:
        raise errors.BadRequest(
            f"link: it needs the Python package aalink ({error}); install it, or set link 0"
        ) from error
    return aalink.Link(bpm)


class AudioDeviceLost(Exception):
    """The open device stopped taking frames."""


class PlayerLoop:
    """The device, the mixer, and the socket to the daemon."""

    def __init__(self, options: PlayerOptions) -> None:
        self.options = options
        self.output: Output | None = None
        self.mixer: Mixer | None = None
        self.grid = BeatGrid(48_000, options.tempo, beats_per_bar=options.beats_per_bar)
        self.link = self._join_link()
        self._link_played = False
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.linger = 1000
        self._socket.connect(options.address)
        self._opened: queue.SimpleQueue[Output | errors.TimbredError] = queue.SimpleQueue()
        self._last_attempt = -DEVICE_RETRY_INTERVAL_S
        self._is_opening = False
        self._level = 0.0
        self._reason = ""
        self._sounds: dict[int, VoiceSource] = {}
        self._to_free: queue.SimpleQueue[VoiceSource] = queue.SimpleQueue()
        self._last_heartbeat = 0.0
        self._progress = (0, 0.0)
        self._checked_at = 0.0
        self._announced = False
        self._raised = False
        self._daemon_ended = threading.Event()

    def run(self) -> None:
        """Play until the daemon orders the end, or has ended itself.

        Raises:
            AudioDeviceLost: the device was lost; the daemon was informed, and starts another process.
        """
        threading.Thread(target=self._free_sounds, name="free-sounds", daemon=True).start()
        self._send(
            player_messages.PlayerReady(
                token=self.options.token,
                wire_version=player_messages.WIRE_VERSION,
                version=__version__,
                pid=os.getpid(),
            )
        )
        gc.freeze()
        gc.disable()  # a collection would delay a block; nothing here makes cycles
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        while True:
            poller.poll(self._poll_timeout())
            for message, payload in self._receive():
                if isinstance(message, player_messages.QuitPlayer):
                    self._shut_down()
                    return
                self._handle(message, payload)
            if self._daemon_ended.is_set():
                self._shut_down()
                return
            if self.output is None:
                self._open_missing_device()
            else:
                self._service_output(self.output)
            self._send_heartbeat_when_due()

    def _poll_timeout(self) -> int:
        """Return the milliseconds to wait for commands: until the ring needs frames, or 1 with Link."""
        if self.output is None:
            return IDLE_POLL_MS
        return MIN_POLL_MS if self.link else max(MIN_POLL_MS, int(self.output.poll_interval * 1000))

    def stop_with_daemon(self) -> None:
        """End the loop, from any thread: the daemon has ended."""
        self._daemon_ended.set()

    def close(self) -> None:
        """Send the pending messages, and close the socket."""
        if self._daemon_ended.is_set():
            self._socket.linger = 0
        self._socket.close()
        self._context.term()

    def _shut_down(self) -> None:
        """Fade out, and close the device and its driver.

        A JACK server blocks all its clients until it notices that one ended without closing.
        """
        if self.output is not None and self.mixer is not None:
            self._fade_out(self.output, self.mixer)
        if self._is_opening and not self._wait_for_device():
            return  # another thread is blocked in the driver
        closing = threading.Thread(target=self._close_device, name="close-device", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)

    def _fade_out(self, output: Output, mixer: Mixer) -> None:
        """Fade out all voices, and wait until the device has taken the fade."""
        mixer.stop(EndVoice(0, 0), player_messages.Moment())
        deadline = time.monotonic() + FADE_TIMEOUT_S
        fade_end_frame: int | None = None
        while time.monotonic() < deadline and (fade_end_frame is None or output.frames_taken < fade_end_frame):
            self._fill(output, mixer)
            if fade_end_frame is None and not mixer.layers:
                fade_end_frame = output.frames_written + mixer.latency
            time.sleep(0.001)

    def _wait_for_device(self) -> bool:
        """Wait for an attempt to open a device; return False if it takes too long."""
        try:
            result = self._opened.get(timeout=CLOSE_TIMEOUT_S)
        except queue.Empty:
            return False
        if isinstance(result, Output):
            self.output = result
        return True

    def _close_device(self) -> None:
        if self.output is not None:
            self.output.close()
        devices.terminate()

    # messages

    def _send(self, message: player_messages.PlayerMessage) -> None:
        self._socket.send(player_messages.encode(message))

    def _receive(self) -> Iterator[tuple[player_messages.ToPlayer, list[zmq.Frame]]]:
        while True:
            try:
                head, *payload = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            yield player_messages.read_in_player(head.bytes), payload

    def _handle(self, message: player_messages.ToPlayer, payload: list[zmq.Frame]) -> None:
        try:
            match message:
                case player_messages.PlayVoice():
                    self._play(message, payload)
                case player_messages.AppendSamples():
                    self._append(message, payload)
                case player_messages.ReplaceSamples():
                    self._exchange(message, payload)
                case player_messages.EndStream():
                    self._mixer().end_early(message.play)
                case player_messages.StopVoice():
                    self._mixer().stop(EndVoice(message.stop, message.voice, message.fade), message.at)
                case player_messages.ChangeVoice():
                    self._mixer().change(message.voice, message.gain, message.pan, message.speed, message.fade)
                case player_messages.SetTempo():
                    self._set_tempo(message)
                case player_messages.SetLevel(gain=gain):
                    self._level = gain
                    if self.mixer is not None:
                        self.mixer.set_level(gain)
                case player_messages.QuitPlayer():
                    raise AssertionError("handled by the loop")
        except errors.TimbredError as error:
            number = {"play": getattr(message, "play", None), "stop": getattr(message, "stop", None)}
            self._send(player_messages.PlayRefused(code=error.code, message=str(error), **number))

    def _mixer(self) -> Mixer:
        if self.mixer is None:
            raise errors.NoAudioDevice(self._reason or "the sound device is being opened; play again in a second")
        return self.mixer

    def _play(self, order: player_messages.PlayVoice, payload: list[zmq.Frame]) -> None:
        sound = _make_source(order, payload)
        start = StartVoice(
            play=order.play, voice=order.voice, sound=sound, gain=order.gain, pan=order.pan, speed=order.speed,
            out=order.out, fade=order.fade, position=order.position, handover=order.handover,
        )  # fmt: skip
        if order.follows:
            self._mixer().follow_up(start)
        else:
            self._mixer().play(start, order.at)
        self._sounds[order.play] = sound

    def _append(self, order: player_messages.AppendSamples, payload: list[zmq.Frame]) -> None:
        sound = self._sounds.get(order.play)
        if sound is not None:  # otherwise it was stopped meanwhile
            sound.add(_read_samples(payload, sound.channels))

    def _exchange(self, order: player_messages.ReplaceSamples, payload: list[zmq.Frame]) -> None:
        before = self._sounds.get(order.play)
        if before is not None and before.ready_frames is None:
            self._sounds[order.play] = sound = VoiceSource(
                _read_samples(payload, before.channels), order.rate, before.loop
            )
            self._mixer().exchange(order.play, sound)
            self._to_free.put(before)

    def _set_tempo(self, order: player_messages.SetTempo) -> None:
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

    def _open_missing_device(self) -> None:
        if not self._opened.empty():
            self._is_opening = False
            result = self._opened.get()
            if isinstance(result, Output):
                self._start_output(result)
            elif str(result) != self._reason:
                self._reason = str(result)
                self._send(player_messages.DeviceUnavailable(reason=self._reason))
        elif not self._is_opening and time.monotonic() - self._last_attempt >= DEVICE_RETRY_INTERVAL_S:
            self._is_opening = True
            self._last_attempt = time.monotonic()
            threading.Thread(target=self._open, name="open-device", daemon=True).start()

    def _open(self) -> None:
        try:
            if self._reason:
                devices.rescan()
            device = devices.find_device(devices.output_devices(), self.options.device)
            self._opened.put(Output(device, self.options.channels, self.options.lead))
        except errors.TimbredError as error:
            self._opened.put(error)
        except Exception as error:  # noqa: BLE001  any fault of a driver is reported to the daemon
            self._opened.put(errors.NoAudioDevice(f"the sound device can't be opened: {error}"))

    def _start_output(self, output: Output) -> None:
        self.output = output
        self.grid = self.grid.at_rate(output.rate, self.grid.frame)
        self.mixer = Mixer(output.rate, output.channels, self.grid, self.options.limit, self._level)
        self._device_clock = DeviceClock(output.rate)
        self._checked_at = time.monotonic()
        self._progress = (0, self._checked_at)
        self._announced = False
        self._raised = raise_priority()
        lock_memory()
        self._fill(output, self.mixer)
        output.resume()

    def _announce(self, output: Output) -> None:
        """Report that the device is open, once it has taken its first block."""
        self._announced = True
        self._send(
            player_messages.DeviceOpened(
                device=output.device.name, rate=output.rate, channels=output.channels, block=output.block,
                latency=output.latency, lead=self.options.lead, raised=self._raised,
            )
        )  # fmt: skip

    def _service_output(self, output: Output) -> None:
        mixer = self._mixer()
        if not output.resume():
            log.warning(
                "the device ran out of samples, %d times now; audio is mixed %.1f ms ahead from now on",
                output.underruns, output.lead * 1000,
            )  # fmt: skip
            self._device_clock.restart()
        self._check_device(output)
        if self.link is not None:
            self._follow_link(self.link, output, mixer)
        self._fill(output, mixer)
        self._report_events(mixer)
        if not self._announced and output.block:
            self._announce(output)

    def _fill(self, output: Output, mixer: Mixer) -> None:
        while (missing := output.frames_missing) >= BLOCK_FRAMES:
            # a larger block costs less a frame, so blocks grow with the backlog
            output.write(mixer.render(min(missing // BLOCK_FRAMES * BLOCK_FRAMES, MAX_BLOCK_FRAMES)))

    def _check_device(self, output: Output) -> None:
        now, taken = time.monotonic(), output.frames_taken
        if now - self._checked_at > SUSPENSION_DETECTION_S:
            self._progress = (taken, now)
            self._device_clock.restart()
        self._checked_at = now
        self._device_clock.observe(taken, now)
        if taken != self._progress[0]:
            self._progress = (taken, now)
        if not output.is_running or now - self._progress[1] > DEVICE_TIMEOUT_S:
            reason = f"{output.device.name} was lost; it is opened again when it returns"
            self._send(player_messages.DeviceLost(reason=reason, last=self._heartbeat()))
            raise AudioDeviceLost(reason)

    def _report_events(self, mixer: Mixer) -> None:
        for event in mixer.take_events():
            match event:
                case VoiceStarted():
                    self._send(
                        player_messages.VoicePlaying(
                            play=event.play, frame=event.frame, beat=event.beat, repeated=event.repeated
                        )
                    )
                case VoiceFinished():
                    self._send(player_messages.VoiceEnded(play=event.play, frame=event.frame, reason=event.reason))
                    self._to_free.put(self._sounds.pop(event.play))
                case VoiceStopped():
                    self._send(player_messages.VoiceStopping(stop=event.stop, plays=event.plays))

    def _free_sounds(self) -> None:
        """Free large memory, which takes longer than a block lasts. Sounds that fade out are held until then."""
        while True:
            sounds_to_free = [self._to_free.get()]
            while not self._to_free.empty():
                sounds_to_free.append(self._to_free.get())
            time.sleep(FREE_DELAY_S)
            del sounds_to_free

    # the clock

    def _join_link(self) -> LinkSession | None:
        if not self.options.link:
            return None
        try:
            return LinkSession(self.options.tempo, self.options.beats_per_bar)
        except errors.BadRequest as error:
            log.warning("%s; the setting tempo is used", error)
            return None

    def _follow_link(self, link: LinkSession, output: Output, mixer: Mixer) -> None:
        if not self._device_clock.is_settled:
            return
        moment, beat, bpm = link.now()
        heard_frame = self._device_clock.frame_at(moment - output.latency + self.options.link_offset)
        self.grid = self.grid.with_link_beat(heard_frame, beat, bpm)
        mixer.follow(self.grid)
        stopped = self._link_played and not link.playing
        self._link_played = link.playing
        if stopped and self.options.link_start_stop:
            mixer.stop(EndVoice(0, 0), player_messages.Moment())

    # heartbeats

    def _send_heartbeat_when_due(self) -> None:
        now = time.monotonic()
        if now - self._last_heartbeat >= self.options.heartbeat:
            self._last_heartbeat = now
            self._send(self._heartbeat())

    def _heartbeat(self) -> player_messages.PlayerHeartbeat:
        frame = self.mixer.frame if self.mixer else 0
        layers = [layer for layer in (self.mixer.layers if self.mixer else []) if not layer.is_fading_out]
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


def _make_source(order: player_messages.PlayVoice, payload: list[zmq.Frame]) -> VoiceSource:
    samples = _read_samples(payload, order.channels)
    if order.whole is None:
        return VoiceSource(samples, order.rate, order.loop)
    sound = VoiceSource(np.zeros((order.whole, order.channels), np.float32), order.rate, order.loop, ready_frames=0)
    sound.add(samples)
    return sound


def _read_samples(payload: list[zmq.Frame], channels: int) -> Samples:
    return np.frombuffer(payload[0].buffer, dtype="<f4").reshape(-1, channels)
