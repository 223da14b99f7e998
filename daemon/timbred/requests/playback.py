"""A sound made ready for the speed it is played at: band-limited, so that nothing folds back, and cheap to mix."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from timbred import errors
from timbred.audio import Clip, SampleRate, Samples
from timbred.audiofile.reader import decode
from timbred.dsp.resample import resample_to_frames
from timbred.dsp.streaming import StreamedSound, StreamPiece
from timbred.player.active_plays import RequestListener
from timbred.player.beat_grid import read_moment
from timbred.player.client import PlayerClient
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox
from timbred.protocol.keys import VOICE_COUNT, PlaybackKeys
from timbred.requests.job import Job
from timbred.requests.postprocess import FinishedTake
from timbred.storage.library import Library
from timbred.storage.takes_folder import AllowedFolders
from timbred.task_supervision import Supervisor

SLOWEST = 0.5
"""A slower sound isn't drawn out in memory: it is read between its frames."""


@dataclass(frozen=True)
class VarispeedSound:
    """What the player gets: `samples`, (frames, channels), and their rate in Hz as long as the sound has speed 1; the
    `source` they came from, and the speed they were made for."""

    samples: Samples
    rate: float
    source: Clip
    speed: float


def prepare_speed(clip: Clip, rate: int, loop: bool, speed: float) -> VarispeedSound:
    """A clip for a device of this rate, played at this speed: each frame of it then goes out as it is.

    A loop at another speed keeps its length to a fraction of a frame: its rate says what it came to.
    """
    whole = max(speed, SLOWEST)
    frames = max(1, round(clip.frames * rate / (clip.rate * whole)))
    source = Clip(clip.samples, clip.rate, loop=loop)
    exact = clip.rate * frames / clip.frames
    samples = resample_to_frames(source, frames, rate / whole)
    return VarispeedSound(samples, exact if loop and whole != 1.0 else rate / whole, source, speed)


@dataclass(eq=False)
class GrowingVoice:
    """One sound on its way, at the device's `rate`. `play` is the player's number for it, None until its first samples;
    one that is `refused` never sounds."""

    sound: StreamedSound
    rate: int
    play: int | None = None
    refused: bool = False


class StreamingPlayback:
    """Hears of sounds that are heard early what `dispatch.pieces.Pieces` says. Runs on the event loop."""

    def __init__(
        self,
        outbox: Outbox,
        player: PlayerClient,
        voice_for: Callable[[m.Generate], int],
        keys_for: Callable[[m.Generate], PlaybackKeys],
        fail: Callable[[ClientId, Exception], None],
    ) -> None:
        """`voice_for` finds the voice that a request is to sound on, `keys_for` how; `fail` tells a client of an error
        on the way."""
        self.outbox = outbox
        self.player = player
        self._voice_for = voice_for
        self._keys_for = keys_for
        self._fail = fail
        self._growing: dict[int, GrowingVoice | None] = {}

    def piece(self, job: Job, piece: StreamPiece) -> None:
        """The next piece of a job's sound is there."""
        asked = job.parameters.playing
        if asked is None:
            return
        if piece.first == 0:
            self._growing[job.number] = self._begun(job, piece)
        growing = self._growing.get(job.number)
        if growing is None or growing.refused:
            return
        samples = growing.sound.process(piece)
        if growing.play is not None:
            self.player.add(growing.play, samples)
        elif len(samples):
            self._sound(job, asked, growing, samples)

    def broken(self, job: Job) -> None:
        """No more comes of it: what is heard of it ends."""
        growing = self._growing.pop(job.number, None)
        if growing is not None and growing.play is not None:
            self.player.break_off(growing.play)

    def heard(self, job: Job) -> GrowingVoice | None:
        """How a job whose take is there now was heard by its pieces already, if it was; asked once."""
        return self._growing.pop(job.number, None)

    def _begun(self, job: Job, piece: StreamPiece) -> GrowingVoice | None:
        """None without a device: then the take is played when it is there, if there is one by then."""
        rate = self.player.rate
        return (
            None if rate is None else GrowingVoice(StreamedSound(job.parameters.render_settings(), piece, rate), rate)
        )

    def _sound(self, job: Job, asked: m.Generate, growing: GrowingVoice, samples: Samples) -> None:
        clip = Clip(samples, SampleRate(growing.rate))
        listener = RequestListener(self.outbox, job.client, job.heard_as)
        try:
            growing.play = self.player.sound(
                listener, self._voice_for(asked), clip, False, self._keys_for(asked), whole=growing.sound.frames
            )
        except errors.TimbredError as error:
            growing.refused = True
            self._fail(job.client, error)


log = logging.getLogger(__name__)

SETTLED = 0.1
"""Seconds for which a speed must be left alone to be the one that a sound is made ready for."""


@dataclass(eq=False)
class SourceReader:
    """A `play` whose sound is being read. A `stop` that comes meanwhile takes it back."""

    client: ClientId
    voice: int
    done: asyncio.Event
    taken_back: bool = False


class PlaybackHandlers:
    """Between the intake and the player. Runs on the event loop; sounds are read in threads."""

    def __init__(
        self,
        outbox: Outbox,
        player: PlayerClient,
        library: Library,
        allowed: AllowedFolders,
        fail: Callable[[ClientId, Exception], None],
        supervisor: Supervisor,
    ) -> None:
        """`fail` tells a client of an error on the way from a finished take to its voice."""
        self.outbox = outbox
        self.player = player
        self.library = library
        self.allowed = allowed
        self.early = StreamingPlayback(outbox, player, self._voice_for, self._not_past, fail)
        self.flowing: Callable[[int], bool] = lambda _voice: False
        """Whether a voice has an endless sound, if only a coming one."""
        self.stop_flows: Callable[[int], list[ClientId]] = lambda _voice: []
        """Ends the endless sounds of a voice, or all with 0; the clients of those that weren't heard yet."""
        self._fail = fail
        self._supervisor = supervisor
        self._reading: list[SourceReader] = []
        self._speeds: dict[int, float] = {}

    def play(self, client: ClientId, request: m.Play) -> Coroutine[Any, Any, None]:
        """Play a take or a file. It counts as on its way at once, so that a `stop` sent after it finds it.

        Raises:
            BadRequest, ForbiddenPath, BadAudio: it can't be read, or not be played so.
            NoAudioDevice: there is no device.
        """
        loop = bool(request.loop)
        path = self._file_of(request.take)
        reading = self._on_its_way(client, request.voice)
        return self._sound(reading, request.take, loop, request, lambda: decode(path))

    def stop(self, client: ClientId, request: m.Stop) -> None:
        """End a voice or all, with what is being read for them.

        Raises:
            BadRequest: the voice is silent.
        """
        voice = 0 if request.voice == "*" else request.voice
        at_once = request.at in (None, "now")
        taken_back = [*self._take_back(voice), *self.stop_flows(voice)] if at_once else []
        if taken_back and not self.player.has(voice):
            if client not in taken_back:
                self.outbox.send(client, m.Acknowledged(id="stop"))
            return
        self.player.stop_voice(client, request)

    async def change(self, client: ClientId, request: m.Set) -> None:
        """Change a voice, once what was sent before for it has been read.

        Raises:
            BadRequest: the voice is silent, or a value isn't allowed.
        """
        for reading in [one for one in self._reading if one.voice == request.voice]:
            await reading.done.wait()
        self.player.change(client, request)
        if request.speed is not None:
            await self._make_ready(request.voice, request.speed)

    async def _make_ready(self, voice: int, speed: float) -> None:
        """What sounds is read between its frames at once, which is rough, and then made ready for its new speed."""
        self._speeds[voice] = speed
        await asyncio.sleep(SETTLED)  # a fader sends many: only where it rests counts
        if self._speeds.get(voice) == speed:
            for number, source, loop in self.player.of_another_speed(voice, speed):
                await self._exchange(number, source, loop, speed)

    async def _exchange(self, number: int, source: Clip, loop: bool, speed: float) -> None:
        rate = self.player.rate
        if rate is None:
            return
        ready = await asyncio.to_thread(prepare_speed, source, rate, loop, speed)
        if self.player.rate == rate:
            self.player.exchange(number, ready.samples, ready.rate, speed)

    def check(self, request: m.Generate) -> None:
        """Whether a sound that is to be made could be played as asked.

        Raises:
            BadRequest: a value that isn't allowed.
            NoAudioDevice: there is no device.
        """
        self.player.check(request)

    def finished(self, job: Job, take: FinishedTake) -> None:
        """A take is there: play it if it is the one to be played, and wasn't heard already."""
        asked = job.parameters.playing
        if asked is None or take.stored.index != 0:
            return
        heard = self.early.heard(job)
        if heard is not None:
            if heard.play is not None and asked.speed not in (None, 1.0):
                self._in_background(job.client, self._exchange(heard.play, take.clip, False, float(asked.speed or 1.0)))
            return
        try:
            reading = self._on_its_way(job.client, self._voice_for(asked))
        except errors.Busy as error:
            self._fail(job.client, error)
            return
        sound = self._sound(reading, take.stored.take_id, job.parameters.loop, asked, lambda: take.clip)
        self._in_background(job.client, sound)

    def _in_background(self, client: ClientId, sound: Coroutine[Any, Any, None]) -> None:
        self._supervisor.run(self._told(client, sound), "play")

    async def _told(self, client: ClientId, sound: Coroutine[Any, Any, None]) -> None:
        try:
            await sound
        except Exception as error:  # noqa: BLE001  whatever it is, the client hears of it
            self._fail(client, error)

    def _voice_for(self, asked: m.Generate) -> int:
        """The voice that was asked for, or the first that has nothing to do.

        Raises:
            Busy: all have.
        """
        if asked.voice is not None:
            return asked.voice
        taken = {reading.voice for reading in self._reading}
        for voice in range(1, VOICE_COUNT + 1):
            if voice not in taken and not self.player.has(voice) and not self.flowing(voice):
                return voice
        raise errors.Busy(f"all {VOICE_COUNT} voices sound; stop one, or name the one to replace with @voice", 1.0)

    def _on_its_way(self, client: ClientId, voice: int) -> SourceReader:
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
            if reading.taken_back:
                event = m.Ended(voice=reading.voice, take=take, frame=self.player.last.frame, reason="stopped")
                self.outbox.send(reading.client, event)
            else:
                clip = Clip(ready.samples, SampleRate(rate))
                keys = self._not_past(keys)
                self.player.play(reading.client, reading.voice, take, clip, loop, keys, ready.rate, ready.source)
        finally:
            self._reading.remove(reading)
            reading.done.set()

    def _not_past(self, keys: PlaybackKeys) -> PlaybackKeys:
        """A sound that missed its deadline begins on the next bar."""
        if not isinstance(keys, m.Generate) or keys.by is None:
            return keys
        at = read_moment(keys.at or "now")
        if at.kind != "number" or at.number > self.player.beat_now():
            return keys
        log.warning("request %s missed its deadline, %s; it sounds from the next bar on", keys.id, keys.by)
        return msgspec.structs.replace(keys, at="bar")

    def _take_back(self, voice: int) -> list[ClientId]:
        found = [reading for reading in self._reading if voice in (0, reading.voice)]
        for reading in found:
            reading.taken_back = True
        return [reading.client for reading in found]

    def _file_of(self, take: str) -> Path:
        stored = self.library.get(take)
        if stored is not None:
            if stored.path is None or stored.missing:
                raise errors.BadAudio(f"take: the file of {take} is gone, or never was; make it again with vary")
            return stored.path
        if not any(mark in take for mark in "/\\."):
            raise errors.BadRequest(f"take: no take has the id {take!r}, and it isn't a path; `takes` lists them")
        return self.allowed.resolve(take)
