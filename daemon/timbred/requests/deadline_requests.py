"""Requests with a deadline: their models are timed if need be, then their number of steps is chosen."""

import math
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
    fewest_steps,
    read_by,
    steps_by,
)
from timbred.requests.key_checks import STEPS
from timbred.requests.resolve import PLAYED, Parameters, Session
from timbred.requests.scheduler import JobScheduler


class DeadlineHandlers:
    """Plans requests that have `by`. Runs on the event loop.

    Args:
        scheduler: The scheduler of jobs.
        player: The player, which counts beats.
        session: Returns the session's tempo and bars.
    """

    def __init__(self, scheduler: JobScheduler, player: PlayerClient, session: Callable[[], Session]) -> None:
        self.scheduler = scheduler
        self.player = player
        self._session = session

    def is_timed(self, parameters: Parameters) -> bool:
        """Return whether the duration of such a rendering is known; if not, `time` measures it."""
        name = parameters.model
        return self.scheduler.estimates.knows(name) and self.scheduler.engines.is_resident(name)

    async def time(self, parameters: Parameters) -> None:
        """Time such a rendering; the first one after a load is slow, so it is timed again.

        Raises:
            TimbredError: The engine can't render it.
        """
        cold = not self.scheduler.engines.is_resident(parameters.model)
        await self.scheduler.calibration.measure(parameters)
        if cold:
            await self.scheduler.calibration.measure(parameters)

    def should_time_again(self, parameters: Parameters, error: BadRequest) -> bool:
        """Return whether a refusal is based on too few measurements."""
        return isinstance(error, DeadlineTooSoon) and not self.scheduler.estimates.is_sure(parameters.model)

    def check(self, request: m.Generate) -> None:
        """Check the deadline of a request.

        Raises:
            BadRequest: It can't be read.
            NoAudioDevice: It is a bar, and without a device nothing counts bars.
        """
        self._clock_for(read_by(request.by or ""))

    def plan(
        self, request: m.Generate, parameters: Parameters, card: Card, received_at: float
    ) -> tuple[m.Generate, DeadlineRequest]:
        """Return the request with the number of steps that fit, and the deadline of its job.

        It gets the priority `live`, and its sound begins on its bar, unless the request says otherwise.

        Args:
            request: The request.
            parameters: Its parameters with the number of steps that it would have without a deadline.
            card: The model's card.
            received_at: Moment of its arrival, of the scheduler's clock.

        Raises:
            BadRequest: It can't be ready in time; names a possible deadline.
            NoAudioDevice: The deadline is a bar, and nothing counts bars.
        """
        deadline = read_by(request.by or "")
        clock = self._clock_for(deadline)
        left = replace(deadline, spent=self.scheduler.clock() - received_at)
        priority = request.priority or "live"
        pace = self.scheduler.pace(parameters, priority)
        lowest, _ = STEPS.get(parameters.scheduler, (1, 1000))
        fewest = fewest_steps(card.steps, lowest, request.steps)
        steps = steps_by(left, pace, fewest, parameters.steps, clock)
        at = request.at
        if request.to in PLAYED and at is None and clock is not None:
            at = f"{deadline.beat(clock.beats_per_bar):g}"
        planned = msgspec.structs.replace(request, steps=steps, priority=priority, at=at)
        return planned, DeadlineRequest(lambda: self._left(deadline, received_at), fewest)

    def _left(self, deadline: Deadline, received_at: float) -> float:
        """Return the seconds until a deadline; without a device nothing counts bars, and these are infinite."""
        try:
            clock = self._clock_for(deadline)
        except NoAudioDevice:
            return math.inf
        return replace(deadline, spent=self.scheduler.clock() - received_at).left(clock)

    def _clock_for(self, deadline: Deadline) -> DeadlineClock | None:
        if deadline.bar is None:
            return None
        session = self._session()
        return DeadlineClock(self.player.beat_now(), session.tempo, session.beats_per_bar)
