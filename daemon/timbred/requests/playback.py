"""Playback of takes, files and streamed sounds: `play`, `stop` and `set`, and resampling for `speed`."""

import asyncio
import logging
from collections.abc import Callable, Container, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from timbred import errors
from timbred.audio import Clip, SampleRate, Samples
from timbred.audiofile.files import decode
from timbred.dsp.pipeline import StreamedSound, StreamPiece, resample_to_frames
from timbred.player.beat_grid import read_moment
from timbred.player.client import PlayerClient
from timbred.player.session import RequestListener
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox
from timbred.protocol.keys import VOICE_COUNT, PlaybackKeys
from timbred.requests.completion import failure
from timbred.requests.job import Job, StreamedVoice
from timbred.requests.postprocess import FinishedTake
from timbred.storage.library import Library
from timbred.storage.paths import AllowedFolders
from timbred.task_supervision import Supervisor

log = logging.getLogger(__name__)

MIN_RESAMPLED_SPEED = 0.5
"""Speed below which the player interpolates, so that a slow sound doesn't take more and more memory."""


@dataclass(frozen=True)
class VarispeedSound:
    """A sound resampled for a speed.

    Attributes:
        samples: Shape (frames, channels).
        rate: Rate in Hz at which they sound at speed 1.
        source: The clip that they were resampled from.
        speed: The speed that they were resampled for.
    """

    samples: Samples
    rate: float
    source: Clip
    speed: float


def prepare_speed(clip: Clip, rate: int, loop: bool, speed: float) -> VarispeedSound:
    """Resample a clip so that the player outputs each frame unchanged at `speed` on a device of `rate` Hz.

    The result is band-limited, so that nothing aliases. A loop at another speed keeps its length to a fraction of a
    frame: its rate accounts for the rounding.
    """
    resampled_speed = max(speed, MIN_RESAMPLED_SPEED)
    frames = max(1, round(clip.frames * rate / (clip.rate * resampled_speed)))
    source = Clip(clip.samples, clip.rate, loop=loop)
    exact_rate = clip.rate * frames / clip.frames
    samples = resample_to_frames(source, frames, rate / resampled_speed)
    is_rounded = loop and resampled_speed != 1.0
    return VarispeedSound(samples, exact_rate if is_rounded else rate / resampled_speed, source, speed)


class StreamingPlayback:
    """Plays sounds while they are rendered (`Job.voice`). Runs on the event loop.

    Args:
        outbox: Where events of their voices are sent.
        player: The player.
        voice_for: Returns the voice for a request; raises Busy if there is none.
        keys_for: Returns the playback keys for a request.
        fail: Reports an error to a client.
    """

    def __init__(
        self,
        outbox: Outbox,
        player: PlayerClient,
        voice_for: Callable[[m.Generate], int],
        keys_for: Callable[[m.Generate], PlaybackKeys],
        fail: Callable[[ClientId, Exception], None],
    ) -> None:
        self.outbox = outbox
        self.player = player
        self._voice_for = voice_for
        self._keys_for = keys_for
        self._fail = fail

    def piece(self, job: Job, piece: StreamPiece) -> None:
        """Play the next piece of a job's sound."""
        request = job.parameters.playing
        if request is None:
            return
        if piece.first == 0:
            job.voice = self._new_voice(job, piece)
        voice = job.voice
        if voice is None or voice.refused:
            return
        samples = voice.sound.process(piece)
        if voice.play is not None:
            self.player.add(voice.play, samples)
        elif len(samples):
            self._start(job, request, voice, samples)

    def pieces_discarded(self, job: Job) -> None:
        """Fade out a job's sound: no more pieces come."""
        voice, job.voice = job.voice, None
        if voice is not None and voice.play is not None:
            self.player.end_early(voice.play)

    def take_over(self, job: Job) -> StreamedVoice | None:
        """Return the voice that a job's sound was streamed to, once; None if its take isn't played yet."""
        voice, job.voice = job.voice, None
        return voice

    def _new_voice(self, job: Job, piece: StreamPiece) -> StreamedVoice | None:
        """Return a voice, or None without a device: then the take is played, if there is a device by then."""
        rate = self.player.rate
        if rate is None:
            return None
        return StreamedVoice(StreamedSound(job.parameters.render_settings(), piece, rate), rate)

    def _start(self, job: Job, request: m.Generate, voice: StreamedVoice, samples: Samples) -> None:
        clip = Clip(samples, SampleRate(voice.rate))
        listener = RequestListener(self.outbox, job.client, job.streamed_take_id)
        try:
            voice.play = self.player.sound(
                listener, self._voice_for(request), clip, False, self._keys_for(request), whole=voice.sound.frames
            )
        except errors.TimbredError as error:
            voice.refused = True
            self._fail(job.client, error)


SPEED_SETTLES_S = 0.1
"""Seconds without another change after which a sound is resampled for its new speed."""


@dataclass(eq=False)
class SourceReader:
    """A `play` whose sound is being read; a `stop` that comes meanwhile sets `is_cancelled`."""

    client: ClientId
    voice: int
    done: asyncio.Event
    is_cancelled: bool = False


class PlaybackHandlers:
    """Handles `play`, `stop` and `set`, and plays takes. Runs on the event loop; files are read in threads.

    Args:
        outbox: Where events are sent.
        player: The player.
        library: The library of takes.
        allowed: Folders that files may be read from.
        supervisor: Runs the tasks that play takes.
        flow_voices: Voices that continuous playback uses or is about to use.
    """

    def __init__(
        self,
        outbox: Outbox,
        player: PlayerClient,
        library: Library,
        allowed: AllowedFolders,
        supervisor: Supervisor,
        flow_voices: Container[int] = (),
    ) -> None:
        self.outbox = outbox
        self.player = player
        self.library = library
        self.allowed = allowed
        self.streaming = StreamingPlayback(outbox, player, self._voice_for, self._on_next_bar_if_late, self._fail)
        self._flow_voices = flow_voices
        self._supervisor = supervisor
        self._reading: list[SourceReader] = []
        self._speeds: dict[int, float] = {}

    def play(self, client: ClientId, request: m.Play) -> Coroutine[Any, Any, None]:
        """Play a take or a file. It is registered immediately, so that a later `stop` cancels it.

        Raises:
            BadRequest, ForbiddenPath, BadAudio: It can't be read or can't be played with these keys.
            NoAudioDevice: There is no device.
        """
        loop = bool(request.loop)
        path = self._file_of(request.take)
        reading = self._register(client, request.voice)
        return self._sound(reading, request.take, loop, request, lambda: decode(path))

    def stop(self, client: ClientId, request: m.Stop, silent_flows: Sequence[ClientId] = ()) -> None:
        """Stop a voice or all, and cancel the plays whose sounds are being read for them.

        Args:
            client: The client that sent the request.
            request: The request.
            silent_flows: Clients of the continuous sounds that it stopped before they were audible.

        Raises:
            BadRequest: The voice is silent.
        """
        voice = 0 if request.voice == "*" else request.voice
        at_once = request.at in (None, "now")
        cancelled_clients = [*self._cancel_reads(voice), *silent_flows] if at_once else []
        if cancelled_clients and not self.player.has(voice):
            if client not in cancelled_clients:
                self.outbox.send(client, m.Acknowledged(id="stop"))
            return
        self.player.stop_voice(client, request)

    async def change(self, client: ClientId, request: m.Set) -> None:
        """Change a voice after the sounds of all earlier plays on it have been read.

        Raises:
            BadRequest: The voice is silent, or a value isn't allowed.
        """
        for reading in [reading for reading in self._reading if reading.voice == request.voice]:
            await reading.done.wait()
        self.player.change(client, request)
        if request.speed is not None:
            await self._resample_when_settled(request.voice, request.speed)

    async def _resample_when_settled(self, voice: int, speed: float) -> None:
        """Resample a voice for its new speed; until then the player interpolates, with lower quality."""
        self._speeds[voice] = speed
        await asyncio.sleep(SPEED_SETTLES_S)  # a fader sends many values; only the last one counts
        if self._speeds.get(voice) == speed:
            for number, source, loop in self.player.plays_for_other_speed(voice, speed):
                await self._exchange(number, source, loop, speed)

    async def _exchange(self, number: int, source: Clip, loop: bool, speed: float) -> None:
        rate = self.player.rate
        if rate is None:
            return
        ready = await asyncio.to_thread(prepare_speed, source, rate, loop, speed)
        if self.player.rate == rate:
            self.player.exchange(number, ready.samples, ready.rate, speed)

    def check(self, request: m.Generate) -> None:
        """Check that a sound to be rendered can be played with these keys.

        Raises:
            BadRequest: A value isn't allowed.
            NoAudioDevice: There is no device.
        """
        self.player.check(request)

    def finished(self, job: Job, take: FinishedTake) -> None:
        """Play a stored take if its job requests that, unless it was streamed already."""
        request = job.parameters.playing
        if request is None or take.stored.index != 0:
            return
        streamed = self.streaming.take_over(job)
        if streamed is not None:
            if streamed.play is not None and request.speed not in (None, 1.0):
                exchange = self._exchange(streamed.play, take.clip, False, float(request.speed or 1.0))
                self._start_task(job.client, exchange)
            return
        try:
            reading = self._register(job.client, self._voice_for(request))
        except errors.Busy as error:
            self._fail(job.client, error)
            return
        sound = self._sound(reading, take.stored.take_id, job.parameters.loop, request, lambda: take.clip)
        self._start_task(job.client, sound)

    def _start_task(self, client: ClientId, sound: Coroutine[Any, Any, None]) -> None:
        self._supervisor.run(self._guarded(client, sound), "play")

    async def _guarded(self, client: ClientId, sound: Coroutine[Any, Any, None]) -> None:
        try:
            await sound
        except Exception as error:  # noqa: BLE001  any failure is reported to the client
            self._fail(client, error)

    def _fail(self, client: ClientId, error: Exception) -> None:
        """Report an error between a rendered sound and its voice."""
        known = errors.from_foreign(error)
        if isinstance(known, errors.Internal):
            log.error("play: %s", known, exc_info=error)
        self.outbox.send(client, failure("play", known))

    def _voice_for(self, request: m.Generate) -> int:
        """Return the requested voice, or the first idle one.

        Raises:
            Busy: No voice is idle.
        """
        if request.voice is not None:
            return request.voice
        taken = {reading.voice for reading in self._reading}
        for voice in range(1, VOICE_COUNT + 1):
            if voice not in taken and not self.player.has(voice) and voice not in self._flow_voices:
                return voice
        raise errors.Busy(f"all {VOICE_COUNT} voices sound; stop one, or choose the one to replace with @voice", 1.0)

    def _register(self, client: ClientId, voice: int) -> SourceReader:
        reading = SourceReader(client, voice, asyncio.Event())
        self._reading.append(reading)
        return reading

    async def _sound(
        self, reading: SourceReader, take: str, loop: bool, keys: PlaybackKeys, read: Callable[[], Clip]
    ) -> None:
        try:
            rate = (await self.player.opened()).rate
            speed = 1.0 if keys.speed is None else keys.speed
            ready = await asyncio.to_thread(lambda: prepare_speed(read(), rate, loop, speed))
            if reading.is_cancelled:
                event = m.Ended(voice=reading.voice, take=take, frame=self.player.last.frame, reason="stopped")
                self.outbox.send(reading.client, event)
            else:
                clip = Clip(ready.samples, SampleRate(rate))
                keys = self._on_next_bar_if_late(keys)
                self.player.play(reading.client, reading.voice, take, clip, loop, keys, ready.rate, ready.source)
        finally:
            self._reading.remove(reading)
            reading.done.set()

    def _on_next_bar_if_late(self, keys: PlaybackKeys) -> PlaybackKeys:
        """Let a sound that missed its deadline begin on the next bar."""
        if not isinstance(keys, m.Generate) or keys.by is None:
            return keys
        at = read_moment(keys.at or "now")
        if at.kind != "number" or at.number > self.player.beat_now():
            return keys
        log.warning("request %s missed its deadline, %s; it begins on the next bar", keys.id, keys.by)
        return msgspec.structs.replace(keys, at="bar")

    def _cancel_reads(self, voice: int) -> list[ClientId]:
        """Cancel the plays whose sounds are being read for a voice, or all with 0; return their clients."""
        affected = [reading for reading in self._reading if voice in (0, reading.voice)]
        for reading in affected:
            reading.is_cancelled = True
        return [reading.client for reading in affected]

    def _file_of(self, take: str) -> Path:
        stored = self.library.get(take)
        if stored is not None:
            if stored.path is None or stored.missing:
                raise errors.BadAudio(f"take: {take} has no file: it was only played or deleted; render it with vary")
            return stored.path
        if not any(mark in take for mark in "/\\."):
            raise errors.BadRequest(f"take: no take has the id {take!r}, and it isn't a path; `takes` lists them")
        return self.allowed.resolve(take)
