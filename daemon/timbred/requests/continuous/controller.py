"""Sounds that the daemon itself asks for: their events stay inside."""

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from timbred import errors
from timbred.audio import Clip
from timbred.ipc import player_messages
from timbred.models.registry import Card
from timbred.player.active_plays import reported_frame
from timbred.player.client import PlayerClient
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox
from timbred.protocol.keys import PlaybackKeys
from timbred.protocol.messages import Event
from timbred.requests.completion import failure
from timbred.requests.continuous.plan import PLAYED_SO, FlowPlan, PlannedPiece, entering_like, mix_so_far
from timbred.requests.playback import prepare_speed
from timbred.requests.resolve import Session
from timbred.requests.scheduler import JobScheduler

Hear = Callable[[Event, Clip | None], None]


class InternalOutbox:
    """An `Outbox` before another: what is for one of the daemon's own parts is heard there, all else goes on."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._parts: dict[ClientId, Hear] = {}

    def attach(self, part: ClientId, hear: Hear) -> None:
        """From now on `hear` gets the events of requests that `part` made."""
        self._parts[part] = hear

    def send(self, client: ClientId, event: Event, clip: Clip | None = None) -> None:
        """See `Outbox`."""
        hear = self._parts.get(client)
        if hear is None:
            self._outbox.send(client, event, clip)
        else:
            hear(event, clip)

    def send_list(self, client: ClientId, name: str, events: Sequence[Event], end: Event | None) -> None:
        """See `Outbox`."""
        self._outbox.send_list(client, name, events, end)


log = logging.getLogger(__name__)

PIECES = ClientId("inside:flow")
"""Whom the pieces are made for."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 16.0
"""Seconds until a piece that couldn't be made is tried again; doubled each time."""


@dataclass(frozen=True)
class FlowPiece:
    """A piece that is there: the first of its course replaces what sounds, the others follow it. One that sounds
    `again` fills the place of a piece that isn't there."""

    course: FlowPlan
    ordered: PlannedPiece
    first: bool
    take: str
    clip: Clip
    again: bool = False

    @property
    def goes_in_beats(self) -> bool:
        """Whether the next one begins so many beats of the session after it."""
        return self.ordered.handover.beats is not None


@dataclass(frozen=True)
class PreviousSegment:
    """A course to go back to, and the number of its next piece."""

    course: FlowPlan
    number: int


@dataclass(eq=False)
class FlowController:
    """One endless sound.

    `course` is what its next pieces are; `before` is the one to go back to while nothing of `course` was heard.
    `enters` is the moment that the latest course was to begin at.
    `asked` is the piece that is being made, `held` one that waits until the one before it (`queued`) sounds.
    `plays` has the pieces that the player has, `current` the one that sounds. It is over with the last of
    them once it is `ending`.
    """

    voice: int
    client: ClientId
    course: FlowPlan
    before: PreviousSegment | None = None
    enters: str | None = None
    fresh: bool = True
    number: int = 0
    asked: str = ""
    held: FlowPiece | None = None
    queued: int | None = None
    current: int | None = None
    plays: dict[int, FlowPiece] = field(default_factory=dict[int, FlowPiece])
    heard: m.Flowing | None = None
    next_due: float = 0.0
    ending: str = ""
    also: ClientId | None = None
    failures: int = 0
    retry: asyncio.TimerHandle | None = None


@dataclass(frozen=True)
class _FlowRequest:
    """A piece that is being made."""

    flow: FlowController
    course: FlowPlan
    ordered: PlannedPiece
    first: bool


class FlowControllers:
    """All endless sounds. Implements `delivery.player.listeners.Listener` for their pieces. Runs on the event loop."""

    def __init__(
        self,
        outbox: InternalOutbox,
        player: PlayerClient,
        scheduler: JobScheduler,
        session: Callable[[], Session],
        by_voice: dict[int, FlowController],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.outbox = outbox
        self.player = player
        self.scheduler = scheduler
        self._session = session
        self._clock = clock
        self._flows = by_voice
        self._playing: dict[int, FlowController] = {}
        self._asked: dict[str, _FlowRequest] = {}
        self._numbers = itertools.count(1)
        self._stopping = False
        outbox.attach(PIECES, self._hear)

    # what clients ask

    def flow(
        self, client: ClientId, request: m.Flow, card: Card, init: Path | None, init_seconds: float | None
    ) -> Coroutine[Any, Any, None] | None:
        """Start an endless sound on a voice, or change the course of the one that is there.

        Raises:
            BadRequest: a key that isn't of endless sounds, or that this model can't do.
            NoAudioDevice: there is no device.
        """
        voice, now = request.voice, self._clock()
        self.player.check(request)
        flow = self._flows.get(voice)
        if flow is not None and flow.client == client and flow.course.request == request:
            self._tell_again(flow)
            return None
        before = flow.course if flow is not None else None
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        course = FlowPlan(request, card, seed, now, mix_so_far(request, before, now), init, init_seconds)
        course.piece(0, now, self._session(), self.player.rate or self._session().rate)
        if flow is not None:
            self._change(flow, client, course)
            return None
        started = self._flows[voice] = FlowController(voice, client, course)
        return self._start(started)

    def stop(self, voice: int) -> list[ClientId]:
        """End the flow of a voice, or all with 0: nothing more is made. The clients of those that never sounded."""
        silent: list[ClientId] = []
        for flow in [flow for flow in self._flows.values() if voice in (0, flow.voice)]:
            self._end(flow, "stopped")
            if not flow.plays:
                silent.append(flow.client)
                self._over(flow, self.player.last.frame)
        return silent

    def end_all(self) -> None:
        """The daemon stops: nothing more is made; what sounds ends with the player."""
        self._stopping = True
        for flow in list(self._flows.values()):
            self._end(flow, "stopped")
            if not flow.plays:
                self._refuse(flow, errors.ShuttingDown("timbred is stopping; ask again once it is back"))

    # the way of a piece

    async def _start(self, flow: FlowController) -> None:
        try:
            await self.player.opened()
        except errors.TimbredError as error:
            if not flow.ending:
                self._end(flow, "stopped")
                self._refuse(flow, error)
            return
        self._pump(flow)

    def _change(self, flow: FlowController, client: ClientId, course: FlowPlan) -> None:
        if client != flow.client and flow.heard is not None:
            heard = flow.heard
            self.outbox.send(
                flow.client, m.Ended(voice=flow.voice, take=heard.take, frame=heard.frame, reason="replaced")
            )
        flow.client = client
        if flow.current is not None and not flow.fresh and course.leads_on_from(flow.course):
            flow.course = course
            return
        if flow.before is None and not flow.fresh:
            flow.before = PreviousSegment(flow.course, flow.number)
        flow.course, flow.fresh, flow.number, flow.held = course, True, 0, None
        self._give_up_piece(flow)
        self._wait_no_longer(flow)
        self._drop_what_follows(flow)
        self._pump(flow)

    def _drop_what_follows(self, flow: FlowController) -> None:
        """A piece that was to follow gives its place to the one that sounds, once more."""
        if flow.queued is None or flow.current is None or flow.plays[flow.queued].first:
            return
        flow.queued = None
        with contextlib.suppress(errors.NoAudioDevice):  # then nothing sounds that something could follow
            self._order(flow, replace(flow.plays[flow.current], first=False, again=True))

    def _pump(self, flow: FlowController) -> None:
        """Hand over the piece that is ready as soon as there is a place for it, and have the next one made."""
        if flow.ending or flow.retry is not None:
            return
        if flow.held is not None and (flow.held.first or flow.queued is None):
            self._hand_over(flow, flow.held)
        wanted = flow.held is None and not flow.asked and (flow.queued is None or flow.fresh)
        if wanted and not flow.ending and flow.retry is None:
            self._make(flow)

    def _make(self, flow: FlowController) -> None:
        moment = self._clock() if flow.fresh else max(self._clock(), flow.next_due)
        identity = f"flow {flow.voice} {next(self._numbers)}"
        rate = self.player.rate or self._session().rate
        flow.asked = identity
        try:
            ordered = flow.course.piece(flow.number, moment, self._session(), rate)
            self._asked[identity] = _FlowRequest(flow, flow.course, ordered, flow.fresh)
            self.scheduler.submit(PIECES, identity, ordered.parameters, flow.course.init)
        except errors.TimbredError as error:
            self._asked.pop(identity, None)
            flow.asked = ""
            self._not_made(flow, error)

    def _hear(self, event: m.Event, clip: Clip | None) -> None:
        """What becomes of a piece that is being made."""
        match event:
            case m.Take(id=identity) if clip is not None:
                self._made(str(identity), event, clip)
            case m.Warned(id=identity):
                asked = self._asked.get(str(identity))
                if asked is not None and asked.first:  # the pieces after it have the same words
                    self.outbox.send(asked.flow.client, msgspec.structs.replace(event, id="flow"))
            case m.Fail(id=identity):
                asked = self._asked.pop(str(identity), None)
                if asked is not None and asked.flow.asked == identity:
                    asked.flow.asked = ""
                    self._not_made(asked.flow, errors.from_code(event.code, event.message))
            case m.Done(id=identity) | m.Cancelled(id=identity):
                self._asked.pop(str(identity), None)
                self._drop_sound(identity)
            case _:
                pass

    def _made(self, identity: str, event: m.Take, clip: Clip) -> None:
        asked = self._asked[identity]
        flow = asked.flow
        if flow.asked != identity:
            return
        flow.asked = ""
        flow.failures = 0
        flow.number += 1
        flow.fresh = False
        flow.held = FlowPiece(asked.course, asked.ordered, asked.first, event.take_id, clip)
        self._pump(flow)

    def _not_made(self, flow: FlowController, error: errors.TimbredError) -> None:
        """What sounds goes on; a course of which nothing was heard is given up."""
        if flow.ending:
            return
        if flow.fresh and flow.before is None:
            self._end(flow, "stopped")
            self._refuse(flow, error)
        elif flow.fresh and flow.before is not None:
            self.outbox.send(flow.client, failure("flow", error))
            flow.course, flow.number = flow.before.course, flow.before.number
            flow.before, flow.fresh = None, False
            self._pump(flow)
        else:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**flow.failures)
            flow.failures += 1
            log.warning("flow on voice %d: no next piece, tried again in %g s: %s", flow.voice, pause, error)
            self._try_later(flow, pause)

    def _hand_over(self, flow: FlowController, piece: FlowPiece) -> None:
        """Give a piece to the player."""
        waited = flow.queued
        try:
            number = self._order(flow, piece)
        except errors.NoAudioDevice:
            self._try_later(flow, FIRST_PAUSE)  # the device went away: the piece is kept for its return
            return
        except errors.TimbredError as error:
            flow.held, flow.fresh = None, piece.first
            self._not_made(flow, error)
            return
        flow.held, flow.queued = None, number
        if waited is not None:
            self._take_back(flow, waited)

    def _order(self, flow: FlowController, piece: FlowPiece) -> int:
        """Have the player sound a piece; its number there.

        Raises: as `Player.sound`.
        """
        keys = self._played_so(flow, piece)
        if piece.first:
            flow.enters = keys.at
        speed = 1.0 if keys.speed is None else keys.speed
        ready = prepare_speed(piece.clip, self.player.rate or piece.clip.rate, False, speed)
        number = self.player.sound(
            self, flow.voice, piece.clip.with_samples(ready.samples), False, keys,
            handover=piece.ordered.handover, follows=not piece.first, rate=ready.rate, source=ready.source,
        )  # fmt: skip
        flow.plays[number] = piece
        self._playing[number] = flow
        return number

    def _take_back(self, flow: FlowController, number: int) -> None:
        """A course's first piece that still waits for its moment, and never sounds: another course's has its place."""
        del self._playing[number]
        del flow.plays[number]
        self.player.break_off(number)

    def _played_so(self, flow: FlowController, piece: FlowPiece) -> PlaybackKeys:
        """The first piece of a course sounds as was asked, and else as what it replaces."""
        request = piece.course.request
        now = self.player.order_of(flow.current) if flow.current is not None else None
        keys = {key: getattr(request, key) for key in PLAYED_SO}
        for key in ("gain", "pan", "speed", "out"):
            if keys[key] is None and now is not None:
                keys[key] = getattr(now, key)
        if not piece.first:
            keys["at"] = None
        elif keys["at"] is None and now is None and flow.queued is not None:
            keys["at"] = flow.enters  # nothing sounds yet: when it begins was asked for
        elif keys["at"] is None and flow.current is not None:
            stays_on_the_grid = piece.goes_in_beats and flow.plays[flow.current].goes_in_beats
            keys["at"] = entering_like(flow.enters) if stays_on_the_grid else None
        fade = piece.course.crossfade
        if fade is None and now is not None:
            fade = piece.ordered.handover.overlap
        return PlaybackKeys(**keys, fade=fade)

    # what the player says of pieces

    def began(self, order: player_messages.PlayVoice, message: player_messages.VoicePlaying) -> None:
        """A piece sounds, for the first time or again."""
        flow = self._playing.get(order.play)
        if flow is None:
            return  # it was taken back as it began
        piece = flow.plays[order.play]
        flow.current = order.play
        if flow.queued == order.play:
            flow.queued = None
        if piece.course is flow.course:
            flow.before = None
        flow.next_due = self._clock() + piece.ordered.lasts / order.speed
        flow.heard = m.Flowing(
            voice=flow.voice, take=piece.take, frame=reported_frame(message.frame), late=message.repeated or piece.again
        )  # fmt: skip
        self.outbox.send(flow.client, flow.heard)
        self._pump(flow)

    def over(self, order: player_messages.PlayVoice, frame: int, reason: str, also: ClientId | None) -> None:
        """A piece sounds no more: the next one does, or the flow is over."""
        flow = self._playing.pop(order.play, None)
        if flow is None:
            return  # it was taken back
        del flow.plays[order.play]
        flow.also = also or flow.also
        if flow.queued == order.play:
            flow.queued = None
        if reason != "replaced" or order.play == flow.current:
            self._end(flow, reason)
        if flow.ending and not flow.plays:
            self._over(flow, frame)

    def refused(self, order: player_messages.PlayVoice, error: errors.TimbredError) -> None:
        """The player can't sound a piece (a channel that the device hasn't got, a beat that is past)."""
        flow = self._playing.pop(order.play, None)
        if flow is None:
            return  # it was taken back
        piece = flow.plays.pop(order.play)
        if flow.queued == order.play:
            flow.queued = None
        if piece.course is not flow.course:
            if flow.before is not None and flow.before.course is piece.course:
                flow.before = None
            self._pump(flow)
            return
        flow.fresh = flow.fresh or piece.first
        self._give_up_piece(flow)
        self._not_made(flow, error)

    # ends

    def _end(self, flow: FlowController, reason: str) -> None:
        """Make nothing more for it. It is over once the player says so of its last piece."""
        if flow.ending:
            return
        flow.ending = reason
        self._forget(flow)
        self._give_up_piece(flow)
        self._wait_no_longer(flow)
        flow.held = None

    def _over(self, flow: FlowController, frame: int) -> None:
        take = flow.heard.take if flow.heard is not None else ""
        event = m.Ended(voice=flow.voice, take=take, frame=reported_frame(frame), reason=flow.ending)
        for client in dict.fromkeys((flow.client, flow.also or flow.client)):
            self.outbox.send(client, event)

    def _refuse(self, flow: FlowController, error: errors.TimbredError) -> None:
        self.outbox.send(flow.client, failure("flow", error))

    def _forget(self, flow: FlowController) -> None:
        if self._flows.get(flow.voice) is flow:
            del self._flows[flow.voice]

    def _give_up_piece(self, flow: FlowController) -> None:
        """Whatever is being made for it isn't wanted any more."""
        identity, flow.asked = flow.asked, ""
        job = self.scheduler.jobs.get(PIECES, identity) if identity else None
        if job is not None and job.live:
            self.scheduler.cancel(job)

    def _try_later(self, flow: FlowController, pause: float) -> None:
        def again() -> None:
            flow.retry = None
            self._pump(flow)

        flow.retry = asyncio.get_running_loop().call_later(pause, again)

    def _wait_no_longer(self, flow: FlowController) -> None:
        if flow.retry is not None:
            flow.retry.cancel()
            flow.retry = None

    def _drop_sound(self, identity: m.Id) -> None:
        """Pieces aren't asked for twice: their samples need not be kept."""
        job = self.scheduler.jobs.get(PIECES, identity)
        if job is not None:
            job.clips.clear()

    def _tell_again(self, flow: FlowController) -> None:
        """The same request came once more: say where it stands."""
        if flow.heard is not None:
            self.outbox.send(flow.client, msgspec.structs.replace(flow.heard))
