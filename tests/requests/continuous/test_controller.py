"""A flow makes only the transitions of its table, in whatever order requests, jobs and the player's messages come."""

import asyncio
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from timbred import errors
from timbred.audio import Clip, SampleRate
from timbred.models.registry import pocket_card
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId
from timbred.requests.completion import InternalOutbox
from timbred.requests.continuous import controller
from timbred.requests.continuous.controller import (
    FLOW_CLIENT,
    TRANSITIONS,
    FlowController,
    FlowControllers,
    FlowState,
)
from timbred.requests.named_files import NO_FILES
from timbred.requests.resolve import Session

RATE = 8000
CLIENTS = (ClientId("udp:a:1"), ClientId("udp:b:1"))


class RecordingOutbox:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[tuple[ClientId, m.Event]] = []

    def send(self, client: ClientId, event: m.Event, clip: Any = None) -> None:
        self.events.append((client, event))

    def send_list(self, client: ClientId, name: str, events: Any, end: Any) -> None:
        raise AssertionError("flows send no lists")


class ModelScheduler:
    """Jobs that end when a rule says so."""

    def __init__(self, outbox: InternalOutbox) -> None:
        self.outbox = outbox
        self.live: dict[str, SimpleNamespace] = {}
        self.refuses = False
        self.jobs = self

    def get(self, client: ClientId, identity: str) -> SimpleNamespace | None:
        return self.live.get(str(identity))

    def submit(self, client: ClientId, identity: str, parameters: Any, files: Any) -> None:
        assert client == FLOW_CLIENT
        if self.refuses:
            raise errors.Busy("the queue is full", 1.0)
        self.live[identity] = SimpleNamespace(id=identity, live=True, clips=[])

    def cancel(self, job: SimpleNamespace) -> None:
        del self.live[job.id]
        self.outbox.send(FLOW_CLIENT, m.Cancelled(id=job.id))

    def render(self, identity: str) -> None:
        clip = Clip(np.zeros((RATE // 2, 1), np.float32), SampleRate(RATE))
        take = m.Take(
            id=identity, index=0, path="", seconds=0.5, rate=RATE, channels=1, seed=1, score=0.0, take_id=identity
        )  # fmt: skip
        self.outbox.send(FLOW_CLIENT, take, clip)
        if self.live.pop(identity, None) is not None:
            self.outbox.send(FLOW_CLIENT, m.Done(id=identity, takes=1, path=""))

    def fail(self, identity: str) -> None:
        del self.live[identity]
        self.outbox.send(FLOW_CLIENT, m.Fail(id=identity, code="model-error", message="no"))


class ModelPlayer:
    """A player whose messages come when a rule says so."""

    def __init__(self) -> None:
        self.rate: int | None = RATE
        self.refuses = False
        self.last = SimpleNamespace(frame=0)
        self.orders: dict[int, SimpleNamespace] = {}
        self.numbers = itertools.count(1)

    def check(self, request: m.Flow) -> None:
        if self.rate is None:
            raise errors.NoAudioDevice("there is none")

    async def opened(self) -> None:
        if self.rate is None:
            raise errors.NoAudioDevice("there is none")

    def order_of(self, number: int) -> SimpleNamespace | None:
        return self.orders.get(number)

    def sound(self, _listener: Any, voice: int, _clip: Clip, _loop: bool, keys: Any, **_: Any) -> int:
        if self.rate is None:
            raise errors.NoAudioDevice("there is none")
        if self.refuses:
            raise errors.BadRequest("out: no such channel")
        number = next(self.numbers)
        self.orders[number] = SimpleNamespace(play=number, speed=keys.speed or 1.0, gain=0.0, pan=0.0, out=1)
        return number

    def end_early(self, number: int) -> None:
        del self.orders[number]


class FlowsInAnyOrder(RuleBasedStateMachine):
    """Requests, jobs, the player and its device, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.recorded = RecordingOutbox()
        outbox: Any = InternalOutbox(self.recorded)
        self.player, self.scheduler = ModelPlayer(), ModelScheduler(outbox)
        player: Any = self.player
        scheduler: Any = self.scheduler
        self.by_voice: dict[int, FlowController] = {}
        self.flows = FlowControllers(
            outbox, player, scheduler, lambda: Session(RATE, 120.0, 4.0), self.by_voice, lambda: 0.0
        )
        self.known: list[FlowController] = []
        self.starting: asyncio.Task[None] | None = None

    @initialize()
    def begin(self) -> None:
        self.request(0, "pad", settled=True)

    def run(self, act: Callable[[], Any], settled: bool) -> None:
        """Act; then, if `settled`, let pauses end."""
        failures: list[dict[str, Any]] = []

        async def acted() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
            act()
            for _ in range(10 if settled else 0):
                await asyncio.sleep(0)

        self.runner.run(acted())
        assert not failures, "a pause or a start failed"

    @rule(client=st.sampled_from([0, 1]), prompt=st.sampled_from(["pad", "bell"]), settled=st.booleans())
    def request(self, client: int, prompt: str, settled: bool) -> None:
        def act() -> None:
            request = m.Flow(voice=1, prompt=prompt, seconds=0.5)
            try:
                start = self.flows.flow(CLIENTS[client], request, pocket_card(), NO_FILES, None)
            except errors.NoAudioDevice:
                return
            self.known += [flow for flow in self.by_voice.values() if flow not in self.known]
            if start is not None:
                self.starting = asyncio.get_running_loop().create_task(start)

        self.run(act, settled)

    @precondition(lambda self: self.scheduler.live)
    @rule(fails=st.booleans(), settled=st.booleans())
    def job_ends(self, fails: bool, settled: bool) -> None:
        identity = next(iter(self.scheduler.live))
        end = self.scheduler.fail if fails else self.scheduler.render
        self.run(lambda: end(identity), settled)

    @precondition(lambda self: self.player.orders)
    @rule(what=st.sampled_from(["began", "replaced", "ended", "refused"]), data=st.data(), settled=st.booleans())
    def player_says(self, what: str, data: st.DataObject, settled: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.player.orders)))

        def act() -> None:
            order: Any = self.player.orders[number]
            if what == "began":
                reported: Any = SimpleNamespace(frame=0, repeated=False)
                self.flows.play_started(order, reported)
                return
            del self.player.orders[number]
            if what == "refused":
                self.flows.play_refused(order, errors.BadRequest("out: no such channel"))
            else:
                self.flows.play_ended(order, 0, what, None)

        self.run(act, settled)

    @rule(there=st.booleans())
    def device_changes(self, there: bool) -> None:
        self.player.rate = RATE if there else None

    @rule(player=st.booleans(), scheduler=st.booleans())
    def others_refuse(self, player: bool, scheduler: bool) -> None:
        self.player.refuses, self.scheduler.refuses = player, scheduler

    @rule(everything=st.booleans())
    def stop(self, everything: bool) -> None:
        self.run(lambda: self.flows.stop(0 if everything else 1), settled=True)

    @invariant()
    def the_state_says_what_the_next_segment_is(self) -> None:
        for flow in self.known:
            assert (flow.state is FlowState.RENDERING) == bool(flow.job_id)
            assert (flow.state is FlowState.PAUSED) == (flow.retry is not None)
            assert flow.ready is not None if flow.state is FlowState.READY else True
            assert flow.ready is None or flow.state in (FlowState.READY, FlowState.PAUSED)
            assert flow.ready is None or flow.ready.plan is flow.plan
            assert flow.ended == (self.by_voice.get(flow.voice) is not flow) == bool(flow.end_reason)

    @invariant()
    def only_wanted_segments_are_rendered(self) -> None:
        wanted = {flow.job_id for flow in self.known if flow.state is FlowState.RENDERING}
        assert set(self.scheduler.live) == wanted

    def teardown(self) -> None:
        self.runner.close()


FlowsInAnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


class TestFlowTransitions(FlowsInAnyOrder.TestCase):
    @pytest.fixture(autouse=True)
    def without_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(controller, "FIRST_PAUSE_S", 0.0)


def test_controller_reaches_the_end_from_every_flow_state():
    for state in FlowState:
        reached, new = {state}, {state}
        while new:
            new = set[FlowState]().union(*(TRANSITIONS[one] for one in new)) - reached
            reached |= new
        assert FlowState.ENDED in reached


class FlowStage(FlowsInAnyOrder):
    """A flow that is led step by step; only the latest order is spoken of."""

    @property
    def flow(self) -> FlowController:
        (flow,) = self.by_voice.values()
        return flow

    def render_next(self) -> None:
        (identity,) = self.scheduler.live
        self.run(lambda: self.scheduler.render(identity), settled=True)

    def begin_latest(self) -> None:
        order: Any = self.player.orders[max(self.player.orders)]
        reported: Any = SimpleNamespace(frame=0, repeated=False)
        self.run(lambda: self.flows.play_started(order, reported), settled=True)

    def refuse_latest(self, settled: bool) -> None:
        order: Any = self.player.orders.pop(max(self.player.orders))
        self.run(lambda: self.flows.play_refused(order, errors.BadRequest("out: no such channel")), settled)


def test_controller_replaces_a_pause_by_a_later_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(controller, "FIRST_PAUSE_S", 1000.0)
    stage = FlowStage()
    stage.request(0, "pad", settled=True)
    stage.render_next()
    stage.begin_latest()
    stage.render_next()
    stage.begin_latest()
    (identity,) = stage.scheduler.live
    stage.run(lambda: stage.scheduler.fail(identity), settled=False)
    first = stage.flow.retry
    assert stage.flow.state is FlowState.PAUSED
    stage.refuse_latest(settled=False)
    assert first is not None and first.cancelled()
    assert stage.flow.state is FlowState.PAUSED
    stage.request(0, "bell", settled=True)
    assert stage.flow.state is FlowState.RENDERING
    stage.teardown()
