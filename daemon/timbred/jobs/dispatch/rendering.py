"""The jobs that the engine works on."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from timbred.engine import wire
from timbred.jobs.deadline import Pace, steps_anew
from timbred.jobs.dispatch.events import loading, progress, read_in_parts, started
from timbred.jobs.dispatch.orders import Orders
from timbred.jobs.job import Job, State
from timbred.jobs.queue import RANK
from timbred.jobs.residents import Residents
from timbred.jobs.timing import Timing
from timbred.protocol.exchange import Outbox

log = logging.getLogger(__name__)

JOBS_AT_ONCE = {"cuda": 8, "mps": 2, "cpu": 2}
"""Jobs that an engine works on together, by kind of device, where `engine.jobs` says nothing."""


class Rendering:
    """Knows the engine's jobs by their numbers, tells their clients how far they are, and begins one anew that would
    miss its deadline. Gone with the engine: `drop_all`."""

    def __init__(
        self,
        outbox: Outbox,
        orders: Orders,
        timing: Timing,
        residents: Residents,
        jobs_at_once: int,
        on_room: Callable[[], None],
    ) -> None:
        """`jobs_at_once` is what `engine.jobs` says, 0 for as many as suits the device. `on_room` hears, in the event
        loop's next round, that there is room for another job."""
        self._outbox = outbox
        self._orders = orders
        self._timing = timing
        self._residents = residents
        self._jobs_at_once = jobs_at_once
        self._on_room = on_room
        self._jobs: dict[int, Job] = {}

    @property
    def jobs(self) -> list[Job]:
        """All of them, in the order in which they began."""
        return list(self._jobs.values())

    def held(self, number: int) -> Job | None:
        """The job that the engine speaks of, if it has it and the job hasn't ended."""
        job = self._jobs.get(number)
        return job if job is not None and job.live else None

    def has_room_for(self, job: Job) -> bool:
        """A job that was there when an engine ended runs alone: its neighbours must not suffer from it again."""
        if job.attempts or any(other.attempts > 1 for other in self._jobs.values()):
            return not self._jobs
        return len(self._jobs) < self._at_once() or job.parameters.priority == "live"

    def begin(self, job: Job) -> None:
        """Give the engine a job, and tell its client."""
        job.move(State.RENDERING)
        job.attempts += 1
        self._jobs[job.number] = job
        self._order(job)  # first, for the engine would wait while it is told
        if not job.announced:
            job.announced = True
            self._outbox.send(job.client, started(job))
        if not self._residents.is_resident(job.parameters.model):
            self.loads(job.number)

    def loads(self, number: int) -> None:
        """A job, or a trial, waits for its model."""
        self._timing.loads(number)
        job = self.held(number)
        if job is not None:
            self._outbox.send(job.client, loading(job, self._timing.estimates.expected(job.parameters)))

    def read_in_parts(self, message: wire.TextRead) -> None:
        """A text of a job is longer than its model reads at once."""
        job = self.held(message.job)
        if job is None:
            return
        warning = read_in_parts(job, message)
        if warning not in job.warnings:  # else it is begun once more
            job.warnings.append(warning)
            self._outbox.send(job.client, warning)

    def stepped(self, message: wire.Step) -> None:
        """A step of a job, or of a trial, is done."""
        self._timing.stepped(message.job)
        job = self.held(message.job)
        if job is not None:
            self._outbox.send(job.client, progress(job, message))
            self._keep_in_time(job, message)

    def begin_again(self, job: Job) -> None:
        """Give the engine a job that it has stopped, with the parameters in `job.anew`."""
        self._timing.dropped(job.number)
        self._order(job)

    def release(self, job: Job) -> None:
        """The engine is done with a job."""
        del self._jobs[job.number]
        self._timing.dropped(job.number)
        asyncio.get_running_loop().call_soon(self._on_room)

    def drop_all(self) -> list[Job]:
        """The engine is gone: the jobs that it had, of which some may have ended since."""
        lost, self._jobs = self._jobs, {}
        for number in lost:
            self._timing.dropped(number)
        return list(lost.values())

    def _at_once(self) -> int:
        device = self._residents.ready.device if self._residents.ready else "cpu"
        return self._jobs_at_once or JOBS_AT_ONCE.get(device.partition(":")[0], 1)

    def _order(self, job: Job) -> None:
        """Have the engine make a job's sound."""
        job.parameters, job.anew = job.anew or job.parameters, None
        self._timing.began(job.number, job.parameters)
        within = job.wanted.within if job.wanted else None
        self._orders.render(job.number, job.parameters, RANK[job.parameters.priority], within, job.given)

    def _keep_in_time(self, job: Job, step: wire.Step) -> None:
        """Begin a job again that is slower than was measured when its steps were chosen, if fewer are in time."""
        if job.wanted is None or job.anew is not None or job.cancel_wanted:
            return
        rest, each = self._timing.estimates.of_rest(job.parameters), self._timing.step_now(job.number)
        steps = steps_anew(job.wanted, Pace(wait=0.0, rest=rest, step=each), step.remaining, step.steps - step.step)
        if steps is not None:
            log.warning("request %s is slower than expected: begun anew with %d steps", job.id, steps)
            job.anew = replace(job.parameters, steps=steps)
            self._orders.cancel(job.number)
