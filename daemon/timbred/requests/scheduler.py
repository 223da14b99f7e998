"""How long jobs wait for others. Pure."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from timbred import errors
from timbred.ipc import engine_messages
from timbred.models.registry import Registry
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox
from timbred.requests.completion import (
    BackgroundTasks,
    PreviewDelivery,
    StreamedPieces,
    TakeDelivery,
    TerminalEvents,
    loading,
    progress,
    read_in_parts,
    started,
    told_so_far,
)
from timbred.requests.deadline import DeadlineRequest, StepPace, steps_anew
from timbred.requests.engine_commands import EngineCommands
from timbred.requests.eta import EtaEstimates, JobTimer
from timbred.requests.job import RANK, Job, JobQueue, JobStore, State
from timbred.requests.model_residency import Calibration, LoadRequests, ModelResidency
from timbred.requests.postprocess import Postprocessor, given_sound
from timbred.requests.prompt_texts import Texts
from timbred.requests.resolve import Parameters


def wait_for(priority: str, running: Collection[Job], queue: JobQueue, estimates: EtaEstimates) -> float:
    """Seconds that a new job with a deadline should wait, as far as known: for others that have one, for all that
    go before it while it isn't `live`, and for what any other is just doing."""
    there = [*running, *queue]
    before = [job for job in there if job.wanted or RANK["live"] < RANK[priority] >= RANK[job.parameters.priority]]
    others = [job.parameters for job in running if job not in before]
    longest = [max(estimates.of_step(other), estimates.of_rest(other)) for other in others]
    return sum(estimates.expected(job.parameters) for job in before) + max(longest, default=0.0)


def queued(job: Job, running: Collection[Job], queue: JobQueue, estimates: EtaEstimates) -> m.Queued:
    """Where a waiting job stands, and when it should be done."""
    before = queue.position(job)
    involved = [*running, *list(queue)[:before], job]
    eta = sum(estimates.expected(one.parameters) for one in involved)
    return m.Queued(id=job.id, position=before + len(running), eta_s=eta, texts=job.texts or None)


def busy(running: Collection[Job], queue: JobQueue, estimates: EtaEstimates) -> errors.Busy:
    """The queue is full: says when there should be room."""
    first = [*running, *queue][:1]
    seconds = max(1.0, sum(estimates.expected(job.parameters) for job in first))
    return errors.Busy(
        f"the queue is full ({len(queue)} wait); try again in {seconds:.0f} s, or raise queue.length", seconds
    )


log = logging.getLogger(__name__)

JOBS_AT_ONCE = {"cuda": 8, "mps": 2, "cpu": 2}
"""Jobs that an engine works on together, by kind of device, where `engine.jobs` says nothing."""


class RunningJobs:
    """Knows the engine's jobs by their numbers, tells their clients how far they are, and begins one anew that would
    miss its deadline. Gone with the engine: `drop_all`."""

    def __init__(
        self,
        outbox: Outbox,
        orders: EngineCommands,
        timing: JobTimer,
        residents: ModelResidency,
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

    def read_in_parts(self, message: engine_messages.TextRead) -> None:
        """A text of a job is longer than its model reads at once."""
        job = self.held(message.job)
        if job is None:
            return
        warning = read_in_parts(job, message)
        if warning not in job.warnings:  # else it is begun once more
            job.warnings.append(warning)
            self._outbox.send(job.client, warning)

    def stepped(self, message: engine_messages.StepDone) -> None:
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

    def _keep_in_time(self, job: Job, step: engine_messages.StepDone) -> None:
        """Begin a job again that is slower than was measured when its steps were chosen, if fewer are in time."""
        if job.wanted is None or job.anew is not None or job.cancel_wanted:
            return
        rest, each = self._timing.estimates.of_rest(job.parameters), self._timing.step_now(job.number)
        steps = steps_anew(job.wanted, StepPace(wait=0.0, rest=rest, step=each), step.remaining, step.steps - step.step)
        if steps is not None:
            log.warning("request %s is slower than expected: begun anew with %d steps", job.id, steps)
            job.anew = replace(job.parameters, steps=steps)
            self._orders.cancel(job.number)


ATTEMPTS = 2
"""Times that a job is given to an engine: once more after an engine was lost with it."""


class JobScheduler:
    """The queue, and the way of its jobs: into the engine (`rendering`), then to their takes (`delivering`), or to
    another end (`endings`).

    Implements `engine.link.EngineUser`. Runs on the event loop; only finishing runs in threads.
    """

    def __init__(
        self,
        outbox: Outbox,
        registry: Registry,
        finishing: Postprocessor,
        queue_length: int = 64,
        remembered: float = 600.0,
        jobs_at_once: int = 0,
        background: BackgroundTasks | None = None,
    ) -> None:
        self.outbox = outbox
        self.registry = registry
        self.queue = JobQueue(queue_length)
        self.remembered = JobStore(remembered)
        self.estimates = EtaEstimates()
        self.residents = ModelResidency(outbox)
        self.orders = EngineCommands(registry)
        self._numbers = itertools.count(1)
        timing = JobTimer(self.estimates)
        self.trials = Calibration(self._numbers, self.orders, timing, self.residents)
        self.loads = LoadRequests(registry, self.residents, self.remembered, self.trials, self.orders)
        self.pieces = StreamedPieces()
        self.endings = TerminalEvents(outbox, self.remembered, self.pieces)
        self.rendering = RunningJobs(outbox, self.orders, timing, self.residents, jobs_at_once, self.pump)
        self._timing = timing
        self._background = background or BackgroundTasks()
        self._texts = Texts(registry)
        self.previews = PreviewDelivery(outbox, finishing, self._background)
        self.delivering = TakeDelivery(outbox, finishing, self.endings, self._background)
        self._stopping = False

    @property
    def is_idle(self) -> bool:
        """Whether the engine has nothing to do: no job, no load, and nothing waits."""
        return not (self.rendering.jobs or len(self.queue) or self.residents.is_loading_any)

    # what clients ask

    def submit(
        self, client: ClientId, identity: m.Id, parameters: Parameters, init: Path | None = None,
        wanted: DeadlineRequest | None = None, asked: m.Generate | m.Vary | None = None,
    ) -> None:  # fmt: skip
        """Take in a request that isn't known yet.

        Args:
            client: who asks.
            identity: the client's own name for the request.
            parameters: what the request comes to.
            init: the file of the sound that it starts from.
            wanted: its deadline, where it has one.
            asked: the request as it came, to compare with one of the same id.

        Raises:
            Busy: the queue is full.
            WorkerLost: no engine can be started.
            ShuttingDown: the daemon is stopping.
        """
        if self._stopping:
            raise errors.ShuttingDown("timbred is stopping; ask again once it is back")
        self.orders.check_engine()
        if self.queue.full:
            raise busy(self.rendering.jobs, self.queue, self.estimates)
        job = Job(next(self._numbers), client, identity, parameters, wanted=wanted, asked=asked)
        job.texts = self._texts.at_once(parameters, self.residents.is_resident(parameters.model))
        job.ready = init is None and job.texts is not None
        self.endings.expect(job)
        self.queue.add(job)
        self._announce_queued(job)
        if not job.ready:
            self._background.start(self._prepare(job, init), f"prepare-{job.number}")
        self.pump()

    async def _prepare(self, job: Job, init: Path | None) -> None:
        """Count a job's texts and read the sound that it starts from; the job waits in its place meanwhile."""
        if job.texts is None:
            job.texts = await self._texts.count(job.parameters)
            if not job.live:
                return
            self._announce_queued(job)
        if init is not None:
            await self._read(job, init)
        elif job.live:
            job.ready = True
            self.pump()

    async def _read(self, job: Job, init: Path) -> None:
        """Read the sound that a job starts from."""
        rate = self.registry[job.parameters.model].card.native_rate
        try:
            found = await self._background.in_thread(given_sound, init, rate, job.parameters)
        except Exception as error:  # noqa: BLE001  whatever it is, the client hears of it
            if job.live:
                self.queue.remove(job)
                self.endings.broke(job, error)
            return
        if not job.live:
            return
        job.given, whole = found
        job.whole = whole if job.parameters.anew is not None else None
        job.ready = True
        self.pump()

    def repeat(self, job: Job) -> None:
        """A known request came again: say where it stands."""
        if job.state is State.QUEUED:
            self._announce_queued(job)
            return
        for event, clip in told_so_far(job):
            self.outbox.send(job.client, event, clip)

    def cancel(self, job: Job) -> None:
        """End a live job: at once while it waits, at the next step while it is rendered."""
        job.cancel_wanted = True
        if job.state is State.QUEUED:
            self.queue.remove(job)
            self.endings.cancelled(job)
        elif job.state is State.RENDERING:
            self.orders.cancel(job.number)

    def wait_for(self, priority: str) -> float:
        """Seconds that a new job with a deadline should wait; see `waiting.wait_for`."""
        return wait_for(priority, self.rendering.jobs, self.queue, self.estimates)

    def _announce_queued(self, job: Job) -> None:
        """Say that a job waits, once its texts are counted."""
        if job.texts is None:
            return
        self.outbox.send(job.client, queued(job, self.rendering.jobs, self.queue, self.estimates))

    # moving on

    def pump(self) -> None:
        """Give the engine the jobs whose turn it is, as many as it works on at once; a live one always."""
        while self.orders.taken and (job := self.queue.first()) is not None:
            if not self.rendering.has_room_for(job):
                return
            self.queue.remove(job)
            self.rendering.begin(job)

    # the engine's life

    def engine_up(self, ready: engine_messages.EngineReady) -> None:
        self.orders.trouble = ""
        self.residents.engine_up(ready)
        self.orders.give_way_again()
        self.loads.order_again()
        self.trials.order_again()
        self.pump()

    def engine_down(self, reason: str) -> None:
        self.residents.engine_down(reason)
        self.delivering.hearings.drop()
        lost = self.rendering.drop_all()
        self.trials.give_up(errors.WorkerLost(f"the engine ended while it was timed ({reason}); ask once more"))
        for job in lost:
            if job.live:
                self._engine_lost(job, reason)

    def engine_cannot_start(self, reason: str) -> None:
        """Answer all that waits for the engine. Until one starts, `submit` refuses at once."""
        self.orders.trouble = reason
        try:
            self.orders.check_engine()
        except errors.WorkerLost as error:
            self.residents.engine_cannot_start(error)
            self.trials.give_up(error)
            while (job := self.queue.next()) is not None:
                self.endings.failed(job, error)

    def _engine_lost(self, job: Job, reason: str) -> None:
        if job.cancel_wanted:
            self.endings.cancelled(job)
        elif job.attempts < ATTEMPTS:
            log.warning("request %s is run once more: its engine was lost (%s)", job.id, reason)
            self.pieces.break_off(job)
            job.move(State.QUEUED)
            self.queue.add(job)
        else:
            error = errors.WorkerLost(f"the engine ended twice with this request ({reason}); try another model")
            self.endings.failed(job, error)

    # what the engine says

    def engine_said(self, message: engine_messages.FromEngine, payload: Sequence[memoryview]) -> None:
        match message:
            case engine_messages.EngineHeartbeat() | engine_messages.ModelLoaded() | engine_messages.ModelUnloaded():
                self.residents.engine_said(message)
            case engine_messages.ModelLoading():
                self.rendering.loads(message.job)
            case engine_messages.TextRead():
                self.rendering.read_in_parts(message)
            case engine_messages.StepDone():
                self.rendering.stepped(message)
            case engine_messages.PreviewRendered() | engine_messages.PieceRendered():
                self._came_early(message, payload)
            case engine_messages.JobRendered():
                self._rendered(message, payload)
            case engine_messages.EmbeddingsReady():
                self.delivering.hearings.heard(message.job, message.ear, [bytes(vector) for vector in payload])
            case engine_messages.JobCancelled():
                self._cancelled(message.job)
            case engine_messages.JobFailed():
                self._failed(message)
            case engine_messages.EngineReady() | engine_messages.EngineCannotStart():
                log.error("the engine introduced itself twice")

    def _came_early(
        self, message: engine_messages.PreviewRendered | engine_messages.PieceRendered, payload: Sequence[memoryview]
    ) -> None:
        job = self.rendering.held(message.job)
        if job is None:
            return
        if isinstance(message, engine_messages.PreviewRendered):
            self.previews.take(job, message, payload)
        else:
            self.pieces.take(job, message, payload)

    def _rendered(self, message: engine_messages.JobRendered, payload: Sequence[memoryview]) -> None:
        self._timing.rendered(message.job)
        self.trials.over(message.job)
        job = self.rendering.held(message.job)
        if job is not None:
            self.rendering.release(job)
            self.delivering.deliver(job, message, payload)

    def _cancelled(self, number: int) -> None:
        """The engine has stopped a job: for good, or to begin it again with fewer steps."""
        job = self.rendering.held(number)
        if job is None:
            return
        if job.anew is not None and not job.cancel_wanted:
            self.pieces.break_off(job)
            self.rendering.begin_again(job)
        else:
            self.rendering.release(job)
            self.endings.cancelled(job)

    def _failed(self, message: engine_messages.JobFailed) -> None:
        error = errors.from_code(message.code, message.message)
        if message.model is not None:
            self.residents.failed(message.model, error)
        if message.job is None:
            return
        self.trials.over(message.job, error)
        self._timing.dropped(message.job)
        job = self.rendering.held(message.job)
        if job is not None:
            self.rendering.release(job)
            self.endings.failed(job, error)

    # the end

    async def stop(self, patience: float) -> None:
        """Take nothing more in, let what is running finish for `patience` seconds, then fail what is left."""
        self._stopping = True
        self._texts.stop()
        stopping = errors.ShuttingDown("timbred is stopping; ask again once it is back")
        while (job := self.queue.next()) is not None:
            self.endings.failed(job, stopping)
        if not await self.endings.all_within(patience):
            log.warning("stopping while requests are running: they are failed")
        for job in self.remembered.live():
            self.orders.cancel(job.number)
            self.endings.failed(job, stopping)
        self.queue.clear()
        self.rendering.drop_all()
        self.trials.stop(stopping)
        self.residents.stop(stopping)
        await self._background.stop()
