"""Carries jobs from the queue through the engine to their terminal event."""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path

from timbred import errors
from timbred.engine import wire
from timbred.engine.registry import Registry
from timbred.jobs.deadline import Wanted
from timbred.jobs.dispatch.background import Background
from timbred.jobs.dispatch.delivering import Delivering
from timbred.jobs.dispatch.endings import Endings
from timbred.jobs.dispatch.events import told_so_far
from timbred.jobs.dispatch.loads import Loads
from timbred.jobs.dispatch.orders import Orders
from timbred.jobs.dispatch.pieces import Pieces
from timbred.jobs.dispatch.previews import Previews
from timbred.jobs.dispatch.rendering import Rendering
from timbred.jobs.dispatch.texts import Texts
from timbred.jobs.dispatch.trials import Trials
from timbred.jobs.dispatch.waiting import busy, queued, wait_for
from timbred.jobs.estimates import Estimates
from timbred.jobs.finishing import Finishing, given_sound
from timbred.jobs.job import Job, State
from timbred.jobs.parameters import Parameters
from timbred.jobs.queue import Queue
from timbred.jobs.remembered import Remembered
from timbred.jobs.residents import Residents
from timbred.jobs.timing import Timing
from timbred.protocol import messages as m
from timbred.protocol.exchange import ClientId, Outbox

log = logging.getLogger(__name__)

ATTEMPTS = 2
"""Times that a job is given to an engine: once more after an engine was lost with it."""


class Dispatcher:
    """The queue, and the way of its jobs: into the engine (`rendering`), then to their takes (`delivering`), or to
    another end (`endings`).

    Implements `engine.link.EngineUser`. Runs on the event loop; only finishing runs in threads.
    """

    def __init__(
        self,
        outbox: Outbox,
        registry: Registry,
        finishing: Finishing,
        queue_length: int = 64,
        remembered: float = 600.0,
        jobs_at_once: int = 0,
        background: Background | None = None,
    ) -> None:
        self.outbox = outbox
        self.registry = registry
        self.queue = Queue(queue_length)
        self.remembered = Remembered(remembered)
        self.estimates = Estimates()
        self.residents = Residents(outbox)
        self.orders = Orders(registry)
        self._numbers = itertools.count(1)
        timing = Timing(self.estimates)
        self.trials = Trials(self._numbers, self.orders, timing, self.residents)
        self.loads = Loads(registry, self.residents, self.remembered, self.trials, self.orders)
        self.pieces = Pieces()
        self.endings = Endings(outbox, self.remembered, self.pieces)
        self.rendering = Rendering(outbox, self.orders, timing, self.residents, jobs_at_once, self.pump)
        self._timing = timing
        self._background = background or Background()
        self._texts = Texts(registry)
        self.previews = Previews(outbox, finishing, self._background)
        self.delivering = Delivering(outbox, finishing, self.endings, self._background)
        self._stopping = False

    @property
    def is_idle(self) -> bool:
        """Whether the engine has nothing to do: no job, no load, and nothing waits."""
        return not (self.rendering.jobs or len(self.queue) or self.residents.is_loading_any)

    # what clients ask

    def submit(
        self, client: ClientId, identity: m.Id, parameters: Parameters, init: Path | None = None,
        wanted: Wanted | None = None, asked: m.Generate | m.Vary | None = None,
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

    def engine_up(self, ready: wire.Ready) -> None:
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

    def engine_said(self, message: wire.FromEngine, payload: Sequence[memoryview]) -> None:
        match message:
            case wire.Beat() | wire.Loaded() | wire.Unloaded():
                self.residents.engine_said(message)
            case wire.Loading():
                self.rendering.loads(message.job)
            case wire.TextRead():
                self.rendering.read_in_parts(message)
            case wire.Step():
                self.rendering.stepped(message)
            case wire.Preview() | wire.Piece():
                self._came_early(message, payload)
            case wire.Rendered():
                self._rendered(message, payload)
            case wire.Heard():
                self.delivering.hearings.heard(message.job, message.ear, [bytes(vector) for vector in payload])
            case wire.Cancelled():
                self._cancelled(message.job)
            case wire.Failed():
                self._failed(message)
            case wire.Ready() | wire.CannotStart():
                log.error("the engine introduced itself twice")

    def _came_early(self, message: wire.Preview | wire.Piece, payload: Sequence[memoryview]) -> None:
        job = self.rendering.held(message.job)
        if job is None:
            return
        if isinstance(message, wire.Preview):
            self.previews.take(job, message, payload)
        else:
            self.pieces.take(job, message, payload)

    def _rendered(self, message: wire.Rendered, payload: Sequence[memoryview]) -> None:
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

    def _failed(self, message: wire.Failed) -> None:
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
