"""What clients ask of voices: takes and files are read and brought to the device's rate, then handed to the player."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from timbred import errors
from timbred.clip import Clip
from timbred.delivery.clock import read_moment
from timbred.delivery.files import AllowedFolders
from timbred.delivery.player.player import Player
from timbred.jobs.early import Early
from timbred.jobs.finishing import FinishedTake
from timbred.jobs.job import Job
from timbred.jobs.speed import ready_for
from timbred.library.takes import Library
from timbred.protocol import messages as m
from timbred.protocol.exchange import ClientId, Outbox
from timbred.render.decode import decode
from timbred.supervision import Supervisor
from timbred.units import SampleRate

log = logging.getLogger(__name__)

SETTLED = 0.1
"""Seconds for which a speed must be left alone to be the one that a sound is made ready for."""


@dataclass(eq=False)
class Reading:
    """A `play` whose sound is being read. A `stop` that comes meanwhile takes it back."""

    client: ClientId
    voice: int
    done: asyncio.Event
    taken_back: bool = False


class Playing:
    """Between the intake and the player. Runs on the event loop; sounds are read in threads."""

    def __init__(
        self,
        outbox: Outbox,
        player: Player,
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
        self.early = Early(outbox, player, self._voice_for, self._not_past, fail)
        self.flowing: Callable[[int], bool] = lambda _voice: False
        """Whether a voice has an endless sound, if only a coming one."""
        self.stop_flows: Callable[[int], list[ClientId]] = lambda _voice: []
        """Ends the endless sounds of a voice, or all with 0; the clients of those that weren't heard yet."""
        self._fail = fail
        self._supervisor = supervisor
        self._reading: list[Reading] = []
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
        ready = await asyncio.to_thread(ready_for, source, rate, loop, speed)
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
        for voice in range(1, m.VOICES + 1):
            if voice not in taken and not self.player.has(voice) and not self.flowing(voice):
                return voice
        raise errors.Busy(f"all {m.VOICES} voices sound; stop one, or name the one to replace with @voice", 1.0)

    def _on_its_way(self, client: ClientId, voice: int) -> Reading:
        reading = Reading(client, voice, asyncio.Event())
        self._reading.append(reading)
        return reading

    async def _sound(self, reading: Reading, take: str, loop: bool, keys: m.PlayKeys, read: Callable[[], Clip]) -> None:
        try:
            rate = (await self.player.opened()).rate
            speed = 1.0 if keys.speed is None else keys.speed
            ready = await asyncio.to_thread(lambda: ready_for(read(), rate, loop, speed))
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

    def _not_past(self, keys: m.PlayKeys) -> m.PlayKeys:
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
