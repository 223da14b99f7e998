"""Continuous playback: flows, whose segments are rendered one after the other and crossfaded by the player.

State of a flow, by its next segment (`TRANSITIONS` allows nothing else):

              needed             rendered
    .-> IDLE ----------> RENDERING --------> READY
    |     |                  |                 |
    |<----|--- failed, ------'                 |
    |     |    plan changed                    |
    |<----|--- handed to the player, ----------|
    |     |    refused, plan changed           |
    |     | try again later                    | no device, player refused the one before
    |     v                                    v
    |   PAUSED <-------------------------------'
    |     |
    |     |--- pause over, a segment is kept --> READY
    '-----'--- pause over, plan changed

    IDLE -- stopped, replaced, or no segment of the first plan could be rendered --> ENDED

The end drops the next segment first, whichever state that is in; so it begins in IDLE, too.

    IDLE        no next segment is needed: one is queued in the player already, or the device is being opened
    RENDERING   the next segment is a job of the scheduler (`job_id`)
    READY       it is rendered (`ready`) and is handed to the player as soon as that has a place for it
    PAUSED      it couldn't be rendered or handed over; tried again after a pause (`retry`)
    ENDED       nothing more is rendered (`end_reason`); the flow is over once the player has none of its segments

What the player has of a flow (`plays`, `queued`, `current`) follows the player's messages and isn't part of this state.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

import msgspec

from timbred import errors
from timbred.audio import Clip
from timbred.ipc import player_messages
from timbred.ipc.engine_messages import LoraUse
from timbred.models.registry import Card
from timbred.player.client import PlayerClient
from timbred.player.session import reported_frame
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId
from timbred.protocol.keys import PlaybackKeys
from timbred.requests.completion import InternalOutbox, failure
from timbred.requests.continuous.plan import (
    FIRST_SEGMENT_KEYS,
    FlowPlan,
    PlannedSegment,
    entry_after,
    mix_so_far,
)
from timbred.requests.named_files import JobFiles
from timbred.requests.playback import prepare_speed
from timbred.requests.resolve import Session
from timbred.requests.scheduler import JobScheduler

log = logging.getLogger(__name__)

FLOW_CLIENT = ClientId("inside:flow")
"""The internal client that requests segments."""

FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 16.0
"""Seconds until a failed segment is tried again: at first, and at most; doubled each time."""


class FlowState(Enum):
    """State of a flow, by its next segment; see the module's docstring."""

    IDLE = auto()
    RENDERING = auto()
    READY = auto()
    PAUSED = auto()
    ENDED = auto()


TRANSITIONS: Mapping[FlowState, frozenset[FlowState]] = {
    FlowState.IDLE: frozenset({FlowState.RENDERING, FlowState.PAUSED, FlowState.ENDED}),
    FlowState.RENDERING: frozenset({FlowState.IDLE, FlowState.READY}),
    FlowState.READY: frozenset({FlowState.IDLE, FlowState.PAUSED}),
    FlowState.PAUSED: frozenset({FlowState.IDLE, FlowState.READY}),
    FlowState.ENDED: frozenset(),
}
"""Every allowed transition."""


@dataclass(frozen=True)
class FlowSegment:
    """A rendered segment.

    Attributes:
        plan: The plan that it belongs to.
        planned: Its parameters and the handover to it.
        first: True for the first segment of its plan, which replaces the audio that is playing; others follow it.
        take: Its take id.
        clip: Its samples.
        again: True if it repeats the segment before it, because the next one isn't rendered yet.
    """

    plan: FlowPlan
    planned: PlannedSegment
    first: bool
    take: str
    clip: Clip
    again: bool = False

    @property
    def follows_beats(self) -> bool:
        """True if the next segment begins a number of beats of the session after it."""
        return self.planned.handover.beats is not None


@dataclass(frozen=True)
class PreviousPlan:
    """A plan to return to, and the number of its next segment."""

    plan: FlowPlan
    number: int


@dataclass(eq=False)
class FlowController:
    """One flow.

    Attributes:
        voice: Its voice.
        client: The client that its events go to.
        plan: Plan of the next segments.
        state: Changed by `move` only.
        previous: The plan to return to if no segment of `plan` becomes audible.
        number: Number of the next segment within the plan; 0 while none of the plan is rendered.
        entry: The `at` with which the latest plan was to begin.
        job_id: Request id of the segment that is being rendered, in `RENDERING`.
        ready: The rendered segment, in `READY`; kept in `PAUSED` if the device is missing.
        retry: Timer of the pause, in `PAUSED`.
        failures: Failures in a row.
        plays: Segments that the player has, by its numbers.
        queued: The player's number of the segment that was handed over last, until it sounds.
        current: The player's number of the segment that sounds.
        announced: The latest `flowing` event.
        next_due: Moment at which the segment after the current one begins, of the flow's clock.
        end_reason: Reason of the end, in `ENDED`.
        also_notify: Another client that gets `ended`: the one whose request ended the flow.
    """

    voice: int
    client: ClientId
    plan: FlowPlan
    state: FlowState = FlowState.IDLE
    previous: PreviousPlan | None = None
    number: int = 0
    entry: str | None = None
    job_id: str = ""
    ready: FlowSegment | None = None
    retry: asyncio.TimerHandle | None = None
    failures: int = 0
    plays: dict[int, FlowSegment] = field(default_factory=dict[int, FlowSegment])
    queued: int | None = None
    current: int | None = None
    announced: m.Flowing | None = None
    next_due: float = 0.0
    end_reason: str = ""
    also_notify: ClientId | None = None

    def move(self, state: FlowState) -> None:
        """Change the state.

        Raises:
            RuntimeError: `TRANSITIONS` doesn't allow it; a fault of the caller.
        """
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"the flow on voice {self.voice} can't go from {self.state.name} to {state.name}")
        self.state = state

    @property
    def ended(self) -> bool:
        """True if nothing more is rendered."""
        return self.state is FlowState.ENDED

    @property
    def is_new(self) -> bool:
        """True if no segment of the plan is rendered."""
        return self.number == 0


@dataclass(frozen=True)
class _SegmentRequest:
    """A segment that was requested from the scheduler."""

    flow: FlowController
    plan: FlowPlan
    planned: PlannedSegment
    first: bool


class FlowControllers:
    """All flows. Implements `timbred.player.session.PlayListener` for their segments. Runs on the event loop.

    Args:
        outbox: Where events are sent; the events of segments are received from it.
        player: The player.
        scheduler: Renders the segments.
        session: Returns the session's sample rate, tempo and bars.
        by_voice: Flows that haven't ended, by voice; changed here only.
        clock: Monotonic clock.
    """

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
        self._by_voice = by_voice
        self._by_play: dict[int, FlowController] = {}
        self._requests: dict[str, _SegmentRequest] = {}
        self._numbers = itertools.count(1)
        outbox.attach(FLOW_CLIENT, self._receive)

    # requests of clients

    def flow(
        self,
        client: ClientId,
        request: m.Flow,
        card: Card,
        files: JobFiles,
        init_seconds: float | None,
        loras: tuple[LoraUse, ...] = (),
    ) -> Coroutine[Any, Any, None] | None:
        """Start a flow on a voice, or change the plan of the one that is there.

        Raises:
            BadRequest: A key doesn't apply to flows, or the model can't render it.
            NoAudioDevice: There is no device.
        """
        voice, now = request.voice, self._clock()
        self.player.check(request)
        flow = self._by_voice.get(voice)
        if flow is not None and flow.client == client and flow.plan.request == request:
            if flow.announced is not None:  # the same request came again
                self.outbox.send(flow.client, msgspec.structs.replace(flow.announced))
            return None
        before = flow.plan if flow is not None else None
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        plan = FlowPlan(request, card, seed, now, mix_so_far(request, before, now), files, init_seconds, loras)
        plan.segment(0, now, self._session(), self.player.rate or self._session().rate)
        if flow is not None:
            self._change(flow, client, plan)
            return None
        new = self._by_voice[voice] = FlowController(voice, client, plan)
        return self._start(new)

    def stop(self, voice: int) -> list[ClientId]:
        """End the flow of a voice, or all with 0; return the clients of those that never sounded."""
        silent: list[ClientId] = []
        for flow in [flow for flow in self._by_voice.values() if voice in (0, flow.voice)]:
            self._end(flow, "stopped")
            if not flow.plays:
                silent.append(flow.client)
                self._send_ended(flow, self.player.last.frame)
        return silent

    def end_all(self) -> None:
        """End all flows: the daemon stops. What sounds ends with the player."""
        for flow in list(self._by_voice.values()):
            self._end(flow, "stopped")
            if not flow.plays:
                self._refuse(flow, errors.ShuttingDown("timbred is stopping; send the request again after its restart"))

    # from the plan to the player

    async def _start(self, flow: FlowController) -> None:
        try:
            await self.player.opened()
        except errors.TimbredError as error:
            if not flow.ended:
                self._end(flow, "stopped")
                self._refuse(flow, error)
            return
        self._advance(flow)

    def _change(self, flow: FlowController, client: ClientId, plan: FlowPlan) -> None:
        """Replace a flow's plan; the segment that sounds continues until the first one of the new plan."""
        if client != flow.client and flow.announced is not None:
            last = flow.announced
            self.outbox.send(
                flow.client, m.Ended(voice=flow.voice, take=last.take, frame=last.frame, reason="replaced")
            )
        flow.client = client
        if flow.current is not None and not flow.is_new and plan.continues(flow.plan):
            flow.plan = plan
            return
        if flow.previous is None and not flow.is_new:
            flow.previous = PreviousPlan(flow.plan, flow.number)
        flow.plan, flow.number = plan, 0
        self._drop_next(flow)
        self._drop_queued(flow)
        self._advance(flow)

    def _drop_queued(self, flow: FlowController) -> None:
        """Replace a queued segment, except the first of a plan, by a repetition of the current one."""
        if flow.queued is None or flow.current is None or flow.plays[flow.queued].first:
            return
        flow.queued = None
        with contextlib.suppress(errors.TimbredError):  # without a device, or refused: the new plan follows nothing
            self._play(flow, replace(flow.plays[flow.current], first=False, again=True))

    def _advance(self, flow: FlowController) -> None:
        """Hand over the segment that is ready if there is a place for it, then render the next one if it is needed."""
        segment = flow.ready
        if flow.state is FlowState.READY and segment is not None and (segment.first or flow.queued is None):
            self._hand_over(flow, segment)
        if flow.state is FlowState.IDLE and (flow.queued is None or flow.is_new):
            self._render(flow)

    def _render(self, flow: FlowController) -> None:
        moment = self._clock() if flow.is_new else max(self._clock(), flow.next_due)
        identity = f"flow {flow.voice} {next(self._numbers)}"
        rate = self.player.rate or self._session().rate
        flow.move(FlowState.RENDERING)
        flow.job_id = identity
        try:
            planned = flow.plan.segment(flow.number, moment, self._session(), rate)
            self._requests[identity] = _SegmentRequest(flow, flow.plan, planned, flow.is_new)
            self.scheduler.submit(FLOW_CLIENT, identity, planned.parameters, flow.plan.files)
        except errors.TimbredError as error:
            self._requests.pop(identity, None)
            flow.job_id = ""
            flow.move(FlowState.IDLE)
            self._failed(flow, error)

    def _receive(self, event: m.Event, clip: Clip | None) -> None:
        """Receive the events of a segment's job."""
        match event:
            case m.Take(id=identity) if clip is not None:
                self._rendered(str(identity), event, clip)
            case m.Warned(id=identity):
                request = self._requests.get(str(identity))
                if request is not None and request.first:  # later segments have the same texts
                    self.outbox.send(request.flow.client, msgspec.structs.replace(event, id="flow"))
            case m.Fail(id=identity):
                request = self._requests.pop(str(identity), None)
                if request is not None and request.flow.job_id == identity:
                    request.flow.job_id = ""
                    request.flow.move(FlowState.IDLE)
                    self._failed(request.flow, errors.from_code(event.code, event.message))
            case m.Done(id=identity) | m.Cancelled(id=identity):
                self._requests.pop(str(identity), None)
                self._drop_clips(identity)
            case _:
                pass

    def _rendered(self, identity: str, event: m.Take, clip: Clip) -> None:
        request = self._requests[identity]
        flow = request.flow
        if flow.job_id != identity:
            return
        flow.move(FlowState.READY)
        flow.job_id = ""
        flow.failures = 0
        flow.number += 1
        flow.ready = FlowSegment(request.plan, request.planned, request.first, event.take_id, clip)
        self._advance(flow)

    def _failed(self, flow: FlowController, error: errors.TimbredError) -> None:
        """Return to the previous plan if nothing of the new one sounds; else try the segment again after a pause."""
        if flow.ended:
            return
        if not flow.is_new:
            pause = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2**flow.failures)
            flow.failures += 1
            log.warning("flow on voice %d: no next segment, tried again in %g s: %s", flow.voice, pause, error)
            self._pause(flow, pause)
        elif flow.previous is None:
            self._end(flow, "stopped")
            self._refuse(flow, error)
        else:
            self.outbox.send(flow.client, failure("flow", error))
            flow.plan, flow.number = flow.previous.plan, flow.previous.number
            flow.previous = None
            self._advance(flow)

    def _hand_over(self, flow: FlowController, segment: FlowSegment) -> None:
        """Give a ready segment to the player; a first one replaces the first one of another plan that still waits."""
        replaced = flow.queued
        try:
            number = self._play(flow, segment)
        except errors.NoAudioDevice:
            self._pause(flow, FIRST_PAUSE_S)  # the segment is kept until the device returns
            return
        except errors.TimbredError as error:
            flow.ready = None
            flow.move(FlowState.IDLE)
            if segment.first:
                flow.number = 0
            self._failed(flow, error)
            return
        flow.ready, flow.queued = None, number
        flow.move(FlowState.IDLE)
        if replaced is not None:
            del self._by_play[replaced]
            del flow.plays[replaced]
            self.player.end_early(replaced)

    def _play(self, flow: FlowController, segment: FlowSegment) -> int:
        """Order a segment from the player; return the player's number for it.

        Raises:
            TimbredError: As `PlayerClient.sound`.
        """
        keys = self._keys_for(flow, segment)
        if segment.first:
            flow.entry = keys.at
        speed = 1.0 if keys.speed is None else keys.speed
        sound = prepare_speed(segment.clip, self.player.rate or segment.clip.rate, False, speed)
        number = self.player.sound(
            self, flow.voice, segment.clip.with_samples(sound.samples), False, keys,
            handover=segment.planned.handover, follows=not segment.first, rate=sound.rate, source=sound.source,
        )  # fmt: skip
        flow.plays[number] = segment
        self._by_play[number] = flow
        return number

    def _keys_for(self, flow: FlowController, segment: FlowSegment) -> PlaybackKeys:
        """Return the playback keys of a segment: those of the request, else those of the segment that sounds."""
        request = segment.plan.request
        sounding = self.player.order_of(flow.current) if flow.current is not None else None
        keys = {key: getattr(request, key) for key in FIRST_SEGMENT_KEYS}
        for key in ("gain", "pan", "speed", "out"):
            if keys[key] is None and sounding is not None:
                keys[key] = getattr(sounding, key)
        if not segment.first:
            keys["at"] = None
        elif keys["at"] is None and sounding is None and flow.queued is not None:
            keys["at"] = flow.entry  # nothing sounds yet: keep the requested beginning
        elif keys["at"] is None and flow.current is not None:
            stays_on_grid = segment.follows_beats and flow.plays[flow.current].follows_beats
            keys["at"] = entry_after(flow.entry) if stays_on_grid else None
        fade = segment.plan.crossfade
        if fade is None and sounding is not None:
            fade = segment.planned.handover.overlap
        return PlaybackKeys(**keys, fade=fade)

    # messages of the player

    def play_started(self, order: player_messages.PlayVoice, message: player_messages.VoicePlaying) -> None:
        """Announce a segment that sounds, for the first time or repeated, and prepare the next one."""
        flow = self._by_play.get(order.play)
        if flow is None:
            return  # it was replaced as it began
        segment = flow.plays[order.play]
        flow.current = order.play
        if flow.queued == order.play:
            flow.queued = None
        if segment.plan is flow.plan:
            flow.previous = None
        flow.next_due = self._clock() + segment.planned.duration_s / order.speed
        flow.announced = m.Flowing(
            voice=flow.voice, take=segment.take, frame=reported_frame(message.frame),
            late=message.repeated or segment.again,
        )  # fmt: skip
        self.outbox.send(flow.client, flow.announced)
        self._advance(flow)

    def play_ended(self, order: player_messages.PlayVoice, frame: int, reason: str, also: ClientId | None) -> None:
        """Forget a segment that sounds no more; without a following one the flow is over."""
        flow = self._by_play.pop(order.play, None)
        if flow is None:
            return  # it was replaced
        del flow.plays[order.play]
        flow.also_notify = also or flow.also_notify
        if flow.queued == order.play:
            flow.queued = None
        if reason != "replaced" or order.play == flow.current:
            self._end(flow, reason)
        if flow.ended and not flow.plays:
            self._send_ended(flow, frame)

    def play_refused(self, order: player_messages.PlayVoice, error: errors.TimbredError) -> None:
        """Handle a segment that the player refuses: a channel that the device lacks, or a beat that is past."""
        flow = self._by_play.pop(order.play, None)
        if flow is None:
            return  # it was replaced
        segment = flow.plays.pop(order.play)
        if flow.queued == order.play:
            flow.queued = None
        if flow.current == order.play:
            flow.current = None  # it sounded before, on a device that had its channels
        if segment.plan is not flow.plan:
            if flow.previous is not None and flow.previous.plan is segment.plan:
                flow.previous = None
            self._advance(flow)
            return
        if segment.first:
            flow.number = 0
        if flow.is_new:
            self._drop_next(flow)
        elif flow.state is FlowState.RENDERING:
            self._cancel_job(flow)
        self._failed(flow, error)

    # ends

    def _end(self, flow: FlowController, reason: str) -> None:
        """Render nothing more. The flow is over once the player has none of its segments."""
        if flow.ended:
            return
        self._drop_next(flow)
        flow.move(FlowState.ENDED)
        flow.end_reason = reason
        if self._by_voice.get(flow.voice) is flow:
            del self._by_voice[flow.voice]

    def _send_ended(self, flow: FlowController, frame: int) -> None:
        take = flow.announced.take if flow.announced is not None else ""
        event = m.Ended(voice=flow.voice, take=take, frame=reported_frame(frame), reason=flow.end_reason)
        for client in dict.fromkeys((flow.client, flow.also_notify or flow.client)):
            self.outbox.send(client, event)

    def _refuse(self, flow: FlowController, error: errors.TimbredError) -> None:
        self.outbox.send(flow.client, failure("flow", error))

    # the next segment

    def _drop_next(self, flow: FlowController) -> None:
        """Drop the next segment, be it rendering, ready or paused: go to `IDLE`."""
        match flow.state:
            case FlowState.RENDERING:
                self._cancel_job(flow)
            case FlowState.READY | FlowState.PAUSED:
                self._cancel_retry(flow)
                flow.ready = None
                flow.move(FlowState.IDLE)
            case FlowState.IDLE | FlowState.ENDED:
                pass

    def _cancel_job(self, flow: FlowController) -> None:
        """Cancel the segment that is being rendered: from `RENDERING` to `IDLE`."""
        flow.move(FlowState.IDLE)
        identity, flow.job_id = flow.job_id, ""
        job = self.scheduler.jobs.get(FLOW_CLIENT, identity)
        if job is not None and job.live:
            self.scheduler.cancel(job)

    def _pause(self, flow: FlowController, pause_s: float) -> None:
        """Try again after a pause; one in progress is replaced."""

        def end_pause() -> None:
            flow.retry = None
            flow.move(FlowState.IDLE if flow.ready is None else FlowState.READY)
            self._advance(flow)

        self._cancel_retry(flow)
        if flow.state is not FlowState.PAUSED:
            flow.move(FlowState.PAUSED)
        flow.retry = asyncio.get_running_loop().call_later(pause_s, end_pause)

    def _cancel_retry(self, flow: FlowController) -> None:
        if flow.retry is not None:
            flow.retry.cancel()
            flow.retry = None

    def _drop_clips(self, identity: m.Id) -> None:
        """Drop the samples of a segment's job, which is never requested again."""
        job = self.scheduler.jobs.get(FLOW_CLIENT, identity)
        if job is not None:
            job.clips.clear()
