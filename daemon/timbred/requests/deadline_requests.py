"""Requests with a deadline: timed if their model never was, then given as many steps as fit."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import msgspec

from timbred.errors import BadRequest, NoAudioDevice
from timbred.models.registry import Card
from timbred.player.client import PlayerClient
from timbred.protocol import messages as m
from timbred.requests.deadline import (
    Deadline,
    DeadlineClock,
    DeadlineRequest,
    DeadlineTooSoon,
    StepPace,
    fewest_steps,
    read_by,
    steps_by,
)
from timbred.requests.resolve import PLAYED, STEPS, Parameters, Session
from timbred.requests.scheduler import JobScheduler


class DeadlineHandlers:
    """Plans requests that have `by`. Runs on the event loop."""

    def __init__(self, dispatcher: JobScheduler, player: PlayerClient, session: Callable[[], Session]) -> None:
        self.dispatcher = dispatcher
        self.player = player
        self._session = session

    def is_timed(self, parameters: Parameters) -> bool:
        """Whether it is known how long such a sound takes; else `time` finds out."""
        name = parameters.model
        return self.dispatcher.estimates.knows(name) and self.dispatcher.residents.is_resident(name)

    async def time(self, parameters: Parameters) -> None:
        """Time such a sound. What is done for the first time with a model is slow, and so is timed again.

        Raises: what the engine says of it.
        """
        cold = not self.dispatcher.residents.is_resident(parameters.model)
        await self.dispatcher.trials.measure(parameters)
        if cold:
            await self.dispatcher.trials.measure(parameters)

    def should_time_again(self, parameters: Parameters, error: BadRequest) -> bool:
        """Whether a refusal rests on too few measurements to be told."""
        return isinstance(error, DeadlineTooSoon) and not self.dispatcher.estimates.is_sure(parameters.model)

    def check(self, request: m.Generate) -> None:
        """Whether there could be such a deadline.

        Raises:
            BadRequest: it can't be read.
            NoAudioDevice: it is a bar, and without a device nothing counts bars.
        """
        self._clock_for(read_by(request.by or ""))

    def planned(
        self, request: m.Generate, parameters: Parameters, card: Card, came: float
    ) -> tuple[m.Generate, DeadlineRequest]:
        """The request with as many steps as fit, and what it is held to while it runs; it goes first in the engine, and
        sounds on its bar, unless it says otherwise. `came` is the moment it came, of the monotonic clock.

        Raises:
            BadRequest: it can't be ready in time; says when it could.
            NoAudioDevice: the deadline is a bar, and nothing counts bars.
        """
        deadline = read_by(request.by or "")
        clock = self._clock_for(deadline)
        left = replace(deadline, spent=time.monotonic() - came)
        priority = request.priority or "live"
        pace = StepPace(
            wait=self.dispatcher.wait_for(priority),
            rest=self.dispatcher.estimates.of_rest(parameters),
            step=self.dispatcher.estimates.of_step(parameters),
        )
        lowest, _ = STEPS.get(parameters.scheduler, (1, 1000))
        fewest = fewest_steps(card.steps, lowest, request.steps)
        steps = steps_by(left, pace, fewest, parameters.steps, clock)
        at = request.at
        if request.to in PLAYED and at is None and clock is not None:
            at = f"{deadline.beat(clock.beats_per_bar):g}"
        planned = msgspec.structs.replace(request, steps=steps, priority=priority, at=at)
        return planned, DeadlineRequest(lambda: self._left(deadline, came), fewest)

    def _left(self, deadline: Deadline, came: float) -> float:
        """Seconds until a deadline; without a device nothing counts bars, and a bar never comes."""
        try:
            clock = self._clock_for(deadline)
        except NoAudioDevice:
            return math.inf
        return replace(deadline, spent=time.monotonic() - came).left(clock)

    def _clock_for(self, deadline: Deadline) -> DeadlineClock | None:
        if deadline.bar is None:
            return None
        session = self._session()
        return DeadlineClock(self.player.beat_now(), session.tempo, session.beats_per_bar)
