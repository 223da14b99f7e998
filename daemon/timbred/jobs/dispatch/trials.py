"""Sounds that are made only to see how long they take."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from timbred import errors
from timbred.jobs.dispatch.orders import Orders
from timbred.jobs.parameters import STEPS, Parameters
from timbred.jobs.queue import RANK
from timbred.jobs.residents import Residents
from timbred.jobs.timing import Timing

TRIAL_STEPS = 3
"""Steps of a sound that is made only to be timed."""


class Trials:
    """The trials that the engine works on, by number, and who waits for each. They aren't jobs: no client hears of
    them, and none is run twice."""

    def __init__(self, numbers: Iterator[int], orders: Orders, timing: Timing, residents: Residents) -> None:
        self._numbers = numbers
        self._orders = orders
        self._timing = timing
        self._residents = residents
        self._trials: dict[int, tuple[Parameters, asyncio.Future[None]]] = {}
        self._stopped: errors.TimbredError | None = None

    async def measure(self, parameters: Parameters) -> None:
        """Let the engine make a sound like this in few steps, only to see how long it takes; its model is then loaded.

        Raises: what the engine says of it, why the daemon times nothing any more, or WorkerLost if no engine can be
        started.
        """
        if self._stopped is not None:
            raise self._stopped
        self._orders.check_engine()
        few = max(STEPS.get(parameters.scheduler, (1, 1000))[0], min(TRIAL_STEPS, parameters.steps))
        number = next(self._numbers)
        trial: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._trials[number] = replace(parameters, steps=few, to="none", preview=False), trial
        self._order(number)
        await trial

    def uses(self, model: str) -> bool:
        """Whether a model is being timed."""
        return any(parameters.model == model for parameters, _ in self._trials.values())

    def order_again(self) -> None:
        """A new engine is there: it makes those that found none."""
        for number in self._trials:
            self._order(number)

    def over(self, number: int, error: errors.TimbredError | None = None) -> None:
        """A trial has been timed, or can't be. A number that isn't a trial's is a job's."""
        _, trial = self._trials.pop(number, (None, None))
        if error is not None:
            self._timing.dropped(number)
        if trial is None or trial.done():
            return
        if error is None:
            trial.set_result(None)
        else:
            trial.set_exception(error)

    def give_up(self, error: errors.TimbredError) -> None:
        """None of them will be timed."""
        for number in list(self._trials):
            self.over(number, error)

    def stop(self, error: errors.TimbredError) -> None:
        """Give up all of them, and refuse those that are asked for from now on."""
        self._stopped = error
        self.give_up(error)

    def _order(self, number: int) -> None:
        parameters, _ = self._trials[number]
        self._timing.began(number, parameters)
        if not self._residents.is_resident(parameters.model):
            self._timing.loads(number)
        # wanted at once, so that nothing else is timed with it
        self._orders.render(number, parameters, RANK["live"], within=0.0)
