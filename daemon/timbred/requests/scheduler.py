"""The scheduler of jobs: one record for each, from `queued` to its terminal event.

The states, and what causes each transition (`timbred.requests.job.TRANSITIONS` allows no other):

    submit --> QUEUED --------> RENDERING --------> DELIVERING
                 |   turn comes   |  |    rendered      |
                 |                |  |                  |
                 |<-- engine lost-'  | cancelled,       | takes stored,
                 |    (once)         | failed, engine   | cancelled,
                 | cancelled,        | lost again,      | can't be written,
                 | unreadable init,  | can't be read,   | daemon stops
                 | no engine,        | daemon stops     |
                 | daemon stops      v                  |
                 '-----------------> ENDED <------------'

`JobStore` holds the records. Which jobs wait and which an engine holds follows from their states: no other collection
of jobs exists. `timbred.requests.placement` decides which engine gets which job.
`timbred.requests.completion.TerminalEvents` makes every transition to `ENDED` and sends the terminal event.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from timbred import errors
from timbred.ipc import engine_messages
from timbred.models.clap import ADD_CLAP
from timbred.models.registry import Card, Registry
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox
from timbred.requests.completion import (
    BackgroundTasks,
    PreviewDelivery,
    SoundListener,
    StreamedPieces,
    TakeDelivery,
    TerminalEvents,
    loading_event,
    past_events,
    started_event,
    text_warning,
)
from timbred.requests.deadline import DeadlineRequest, EtaEstimates, JobTimer, StepPace, fewer_steps
from timbred.requests.engines import EngineConnection, EngineGroup
from timbred.requests.job import RANK, Job, JobStore, State
from timbred.requests.model_residency import Calibration, LoadRequests
from timbred.requests.named_files import NO_FILES, JobFiles
from timbred.requests.placement import place
from timbred.requests.postprocess import Postprocessor, read_init_audio, read_reference
from timbred.requests.prompt_texts import TextCounter
from timbred.requests.resolve import GivenSamples, Parameters

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 2
"""Times that a job is given to an engine: again after an engine was lost with it."""


def expected_wait(
    priority: str, running: Collection[Job], queue: Collection[Job], estimates: EtaEstimates, kind: str = ""
) -> float:
    """Return the seconds that a new job with a deadline is expected to wait for others in an engine of this kind.

    It waits for other jobs with a deadline, for all that go before it unless it is `live`, and for the step or the
    decoding that any other job is in.
    """
    jobs = [*running, *queue]
    before = [job for job in jobs if job.deadline or RANK["live"] < RANK[priority] >= RANK[job.parameters.priority]]
    others = [job.parameters for job in running if job not in before]
    longest = [max(estimates.of_step(other, kind), estimates.of_overhead(other, kind)) for other in others]
    return sum(estimates.expected(job.parameters, kind) for job in before) + max(longest, default=0.0)


class JobScheduler:
    """Queues jobs, gives them to the engines in order, and passes what these render on to completion.

    Implements `timbred.ipc.engine_client.EngineObserver`. Runs on the event loop; only postprocessing runs in threads.

    Args:
        outbox: Where events are sent.
        registry: The models.
        postprocessor: Makes takes of rendered samples.
        connect_engines: Makes the connections to the engines, which report to the scheduler that it is called with.
        listener: Receives streamed pieces and takes, for playback.
        queue_length: Waiting jobs above which new ones are refused.
        jobs_at_once: Jobs that an engine renders together; 0 for as many as suit its device.
        background: Tasks and threads for postprocessing.
        clock: Monotonic clock of the measured times and of deadlines.
    """

    def __init__(
        self,
        outbox: Outbox,
        registry: Registry,
        postprocessor: Postprocessor,
        connect_engines: Callable[["JobScheduler"], Sequence[EngineConnection]],
        listener: SoundListener | None = None,
        queue_length: int = 64,
        jobs_at_once: int = 0,
        background: BackgroundTasks | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.outbox = outbox
        self.registry = registry
        self.jobs = JobStore()
        self.queue_length = queue_length
        self.estimates = EtaEstimates()
        connections = connect_engines(self)
        self.engines = EngineGroup(registry, connections, self.jobs, self.estimates, clock, jobs_at_once)
        self._numbers = itertools.count(1)
        self.calibration = Calibration(self._numbers, self.engines, self.estimates, clock)
        self.loads = LoadRequests(outbox, registry, self.engines, self.jobs, self.calibration)
        listener = listener or SoundListener()
        self._pieces = StreamedPieces(listener)
        self.terminal_events = TerminalEvents(outbox, self.jobs, self._pieces)
        self._background = background or BackgroundTasks()
        self._texts = TextCounter(registry)
        self._previews = PreviewDelivery(outbox, postprocessor, self._background)
        self._delivery = TakeDelivery(
            outbox, postprocessor, self.jobs, self.terminal_events, self._background, listener
        )
        self._stopping = False
        self._has_logged_unranked = False

    @property
    def is_idle(self) -> bool:
        """True if the engines have nothing to do: no job, no load, and nothing waits."""
        return not (self.jobs.running() or self.jobs.waiting() or self.loads.is_loading_any)

    # requests of clients

    def submit(
        self, client: ClientId, identity: m.Id, parameters: Parameters, files: JobFiles = NO_FILES,
        deadline: DeadlineRequest | None = None, request: m.Generate | m.Vary | None = None,
    ) -> None:  # fmt: skip
        """Create a job and queue it.

        Args:
            client: The client that sent the request.
            identity: The client's id of the request, which no live job of it has.
            parameters: What to render.
            files: The files that it reads.
            deadline: The request's deadline, if it has one.
            request: The request as it came, to compare with a later one of the same id.

        Raises:
            Busy: The queue is full.
            WorkerLost: No engine can be started.
            ShuttingDown: The daemon is stopping.
        """
        if self._stopping:
            raise errors.ShuttingDown("timbred is stopping; send the request again after its restart")
        if self.engines.trouble:
            raise self.engines.unavailable()
        self._check_queue()
        job = Job(next(self._numbers), client, identity, parameters, deadline=deadline, request=request)
        job.texts = self._texts.count_if_known(parameters, self.engines.is_resident(parameters.model))
        job.batch_key = (
            job.number
            if parameters.exact
            else (parameters.model, parameters.rendered_seconds, parameters.loop, bool(parameters.loras))
        )
        job.ready = files.is_empty and job.texts is not None
        self.jobs.add(job)
        self._announce_queued(job)
        if parameters.measure:
            self._delivery.prepare_measurement()
        if not job.ready:
            self._background.start(self._prepare(job, files), f"prepare-{job.number}")
        self.pump()

    def repeat(self, job: Job) -> None:
        """Send the state of a job whose request came again."""
        if job.state is State.QUEUED:
            self._announce_queued(job)
            return
        for event, clip in past_events(job):
            self.outbox.send(job.client, event, clip)

    def cancel(self, job: Job) -> None:
        """Cancel a live job: immediately while it waits, at the next step while it is rendered."""
        job.cancel_requested = True
        if job.state is State.QUEUED:
            self.terminal_events.cancelled(job)
        elif job.state is State.RENDERING:
            self.engines.cancel(job.engine, job.number)

    def pace(self, parameters: Parameters, priority: str) -> StepPace:
        """Return the expected duration of a new job with a deadline, on the engine that should finish it first."""
        waiting, estimates = self.jobs.waiting(), self.estimates
        up = self.engines.up
        holders = [record for record in up if record.is_resident(parameters.model)] or up
        numbers = [(record.number, record.kind) for record in holders] or [(0, "")]
        paces = [
            StepPace(
                wait=expected_wait(priority, self.jobs.running(number), (), estimates, kind)
                + expected_wait(priority, (), waiting, estimates, kind) / len(numbers),
                overhead=estimates.of_overhead(parameters, kind),
                step=estimates.of_step(parameters, kind),
            )
            for number, kind in numbers
        ]
        return min(paces, key=lambda pace: pace.needed(parameters.steps))

    def _check_queue(self) -> None:
        """Raise `Busy` if the queue is full, with the seconds until there should be room."""
        waiting = self.jobs.waiting()
        if len(waiting) < self.queue_length:
            return
        first = [*self.jobs.running(), *waiting][:1]
        seconds = max(1.0, sum(self.estimates.expected(job.parameters) for job in first))
        raise errors.Busy(
            f"the queue is full ({len(waiting)} wait); try again in {seconds:.0f} s, or raise queue.length", seconds
        )

    def _announce_queued(self, job: Job) -> None:
        """Send `queued` once the job's texts are counted, with its position and the seconds until it should be done."""
        if job.texts is None:
            return
        waiting = self.jobs.waiting()
        before = [*self.jobs.running(), *waiting[: waiting.index(job)]]
        eta = self.estimates.expected(job.parameters)
        eta += sum(self.estimates.expected(other.parameters) for other in before) / len(self.engines.records)
        self.outbox.send(job.client, m.Queued(id=job.id, position=len(before), eta_s=eta, texts=job.texts or None))

    async def _prepare(self, job: Job, files: JobFiles) -> None:
        """Count a job's texts, and read its files; the job keeps its place meanwhile."""
        if job.texts is None:
            job.texts = await self._texts.count(job.parameters)
            if not job.live:
                return
            self._announce_queued(job)
        try:
            await self._read_files(job, files)
        except Exception as error:  # noqa: BLE001  any failure ends the job with it
            self.terminal_events.failed_if_live(job, error)
            return
        if job.live:
            job.ready = True
            self.pump()

    async def _read_files(self, job: Job, files: JobFiles) -> None:
        """Read a job's files in threads, and set them in the job unless it has ended meanwhile."""
        rate = self.registry[job.parameters.model].card.native_rate
        if files.init is not None:
            samples, clip = await self._background.in_thread(read_init_audio, files.init, rate, job.parameters)
            if not job.live:
                return
            job.init_samples = samples
            job.init_clip = clip if job.parameters.edited_parts else None
        if files.reference is not None:
            job.reference_samples = await self._background.in_thread(
                read_reference, files.reference, rate, job.parameters.init_channels
            )
        if files.embeddings is not None and job.live:
            tensors, named = await self._background.in_thread(files.embeddings.read)
            job.tensors, job.parameters = tensors, replace(job.parameters, embeddings=named)

    # from the queue to the engine

    def pump(self) -> None:
        """Give engines the jobs whose turn it is, as many as they render together; `live` ones always."""
        while ready := self.jobs.waiting(ready_only=True):
            demands = (
                self.engines.demand(
                    job.parameters,
                    RANK[job.parameters.priority],
                    job.number,
                    job.batch_key,
                    job.attempts > 0,
                    job.overtaken,
                )
                for job in ready
            )
            placed = place(demands, self.engines.loads(), self.clock())
            if placed is None:
                return
            for other in ready[: placed.index]:
                other.overtaken += 1
            job, record = ready[placed.index], self.engines.records[placed.engine]
            is_resident = job.parameters.model in record.sizes and job.parameters.model not in record.unloading
            job.move(State.RENDERING)
            job.attempts += 1
            job.rendering_since = time.monotonic()
            job.engine, job.device = record.number, record.description
            self._render(job)  # before `started` is sent, so that the engine doesn't wait for that
            if not job.started_sent:
                job.started_sent = True
                self.outbox.send(job.client, started_event(job))
                if job.parameters.takes > 1:
                    self._log_if_unranked(job.parameters)
            if not is_resident:
                self._loading(job.number, job.engine)

    def can_rank(self, card: Card) -> bool:
        """Tell if there is a CLAP for a model's takes: the installed one, its own, or that of a resident model."""
        clap = self.registry.clap
        return card.ranks or self.engines.lends_clap or (clap is not None and clap.is_installed)

    def _log_if_unranked(self, parameters: Parameters) -> None:
        """Log, once for each daemon, that takes aren't ranked because there is no CLAP."""
        if self._has_logged_unranked or not parameters.rank or self.can_rank(self.registry[parameters.model].card):
            return
        self._has_logged_unranked = True
        log.warning("the takes of %s aren't ranked: there is no CLAP; %s", parameters.model, ADD_CLAP)

    def _render(self, job: Job) -> None:
        """Order a job's rendering from its engine."""
        job.parameters, job.retry_parameters = job.retry_parameters or job.parameters, None
        job.timer = JobTimer(job.parameters, self.clock, kind=self.engines.records[job.engine].kind)
        time_left = job.deadline.within if job.deadline else None
        rank = RANK[job.parameters.priority]
        samples = GivenSamples(job.init_samples, job.reference_samples)
        job.expected_end = self.engines.render(
            job.engine, job.number, job.parameters, rank, time_left, samples, job.tensors
        )

    # the engine processes

    def engine_ready(self, number: int, ready: engine_messages.EngineReady) -> None:
        """Repeat all pending orders to a new engine."""
        self.loads.engine_ready(self.engines.engine_ready(number, ready))
        self.calibration.engine_ready()
        self.pump()

    def engine_lost(self, number: int, reason: str) -> None:
        """Queue the jobs of a lost engine again, or end them; other engines may take them at once."""
        self.engines.engine_lost(number)
        self.loads.engine_lost(number, reason)
        self._delivery.embeddings.drop_awaited(number)
        lost = self.jobs.running(number)
        self.calibration.engine_lost(
            number, errors.WorkerLost(f"the engine ended while it was timed ({reason}); send the request again")
        )
        for job in lost:
            self._lost(job, reason)
        self.pump()

    def engine_cannot_start(self, number: int, reason: str) -> None:
        """Fail everything that waits if no other engine may start. Until one does, `submit` refuses jobs."""
        self.engines.engine_cannot_start(number, reason)
        if self.engines.trouble:
            error = self.engines.unavailable()
            self.loads.fail_all(error)
            self.calibration.give_up(error)
            self._fail_waiting(error)

    def _lost(self, job: Job, reason: str) -> None:
        if job.cancel_requested:
            self.terminal_events.cancelled(job)
        elif job.attempts < MAX_ATTEMPTS:
            log.warning("request %s is run again: its engine was lost (%s)", job.id, reason)
            self._pieces.discard(job)
            job.move(State.QUEUED)
        else:
            error = errors.WorkerLost(f"the engine ended twice with this request ({reason}); try another model")
            self.terminal_events.failed(job, error)

    def _fail_waiting(self, error: errors.TimbredError) -> None:
        while waiting := self.jobs.waiting():
            self.terminal_events.failed(waiting[0], error)

    # messages of the engines

    def engine_message_received(
        self, engine: int, message: engine_messages.FromEngine, payload: Sequence[memoryview]
    ) -> None:
        """Handle a message of an engine; messages about jobs that it no longer has are ignored."""
        match message:
            case engine_messages.EngineHeartbeat():
                self.engines.heartbeat(engine, message)
                self.pump()  # a job may have waited for an engine that is late
            case engine_messages.ModelLoaded():
                self.engines.model_loaded(engine, message.model)
                self.loads.loaded(message.model.name)
            case engine_messages.ModelUnloaded():
                self.engines.model_unloaded(engine, message.name)
                self.loads.unloaded(engine, message.name)
            case engine_messages.ModelLoading():
                self._loading(message.job, engine)
            case engine_messages.TextRead():
                self._text_read(message, engine)
            case engine_messages.StepDone():
                self._step_done(message, engine)
            case engine_messages.PreviewRendered() | engine_messages.PieceRendered():
                self._rendered_early(message, payload, engine)
            case engine_messages.JobRendered():
                self._rendered(message, payload, engine)
            case engine_messages.EmbeddingsReady():
                self._delivery.embeddings.ready(message.job, message.ear, [bytes(vector) for vector in payload])
            case engine_messages.JobCancelled():
                self._cancelled(message.job, engine)
            case engine_messages.JobFailed():
                self._failed(message, engine)
            case engine_messages.EngineReady() | engine_messages.EngineCannotStart():
                log.error("the engine sent its handshake twice; the second one is ignored")

    def _rendered_early(
        self,
        message: engine_messages.PreviewRendered | engine_messages.PieceRendered,
        payload: Sequence[memoryview],
        engine: int,
    ) -> None:
        job = self.jobs.rendering(message.job, engine)
        if job is None:
            return
        if isinstance(message, engine_messages.PreviewRendered):
            self._previews.deliver(job, message, payload)
        else:
            self._pieces.deliver(job, message, payload)

    def _loading(self, number: int, engine: int) -> None:
        """Send `progress` of a job that waits for its model; a trial has no client."""
        job = self.jobs.rendering(number, engine)
        if job is None:
            self.calibration.loading(number)
            return
        if job.timer is not None:
            job.timer.loading = True
        self.outbox.send(job.client, loading_event(job, self.estimates.expected(job.parameters)))

    def _text_read(self, message: engine_messages.TextRead, engine: int) -> None:
        """Send a warning that a text is longer than its text encoder reads in one part."""
        job = self.jobs.rendering(message.job, engine)
        if job is None:
            return
        warning = text_warning(job, message)
        if warning not in job.warnings:  # it is, if the job is rendered again
            job.warnings.append(warning)
            self.outbox.send(job.client, warning)

    def warn(self, client: ClientId, warning: m.Warned) -> None:
        """Send a warning of a request that was submitted; it is repeated if the request is sent again."""
        job = self.jobs.get(client, warning.id)
        if job is not None:
            job.warnings.append(warning)
        self.outbox.send(client, warning)

    def _step_done(self, message: engine_messages.StepDone, engine: int) -> None:
        job = self.jobs.rendering(message.job, engine)
        if job is None:
            self.calibration.step_done(message.job)
            return
        if job.timer is not None:
            job.timer.add_step()
        job.expected_end = self.clock() + message.remaining
        done = message.step / message.steps
        progress = m.Progress(id=job.id, fraction=done, step=message.step, steps=message.steps, eta_s=message.remaining)
        self.outbox.send(job.client, progress)
        if job.deadline is not None:
            self._keep_deadline(job, job.deadline, message)

    def _keep_deadline(self, job: Job, deadline: DeadlineRequest, step: engine_messages.StepDone) -> None:
        """Stop a job that would miss its deadline, to render it again with fewer steps, if these are in time."""
        if job.retry_parameters is not None or job.cancel_requested or job.timer is None:
            return
        pace = StepPace(
            wait=0.0, overhead=self.estimates.of_overhead(job.parameters, job.timer.kind), step=job.timer.step_now
        )
        steps = fewer_steps(deadline, pace, step.remaining, step.steps - step.step)
        if steps is not None:
            log.warning("request %s is slower than expected: rendered again with %d steps", job.id, steps)
            job.retry_parameters = replace(job.parameters, steps=steps)
            self.engines.cancel(job.engine, job.number)

    def _rendered(self, message: engine_messages.JobRendered, payload: Sequence[memoryview], engine: int) -> None:
        job = self.jobs.rendering(message.job, engine)
        if job is None:
            self.calibration.rendered(message.job)
            return
        if job.timer is not None:
            job.timer.finish(self.estimates)
        asyncio.get_running_loop().call_soon(self.pump)  # its engine has room for another job
        self._delivery.deliver(job, message, payload)

    def _cancelled(self, number: int, engine: int) -> None:
        """End a job that its engine has stopped, or render it again with fewer steps."""
        job = self.jobs.rendering(number, engine)
        if job is None:
            return
        if job.retry_parameters is not None and not job.cancel_requested:
            self._pieces.discard(job)
            self._render(job)
        else:
            asyncio.get_running_loop().call_soon(self.pump)
            self.terminal_events.cancelled(job)

    def _failed(self, message: engine_messages.JobFailed, engine: int) -> None:
        error = errors.from_code(message.code, message.message)
        if message.model is not None:
            self.engines.load_failed(engine, message.model)
            self.loads.failed(engine, message.model, error)
        if message.job is None:
            return
        job = self.jobs.rendering(message.job, engine)
        if job is None:
            self.calibration.failed(message.job, error)
            return
        asyncio.get_running_loop().call_soon(self.pump)
        self.terminal_events.failed(job, error)

    # the end

    async def stop(self, patience_s: float) -> None:
        """Refuse new jobs, let running ones finish for `patience_s` seconds, then fail the others."""
        self._stopping = True
        self._texts.stop()
        stopping = errors.ShuttingDown("timbred is stopping; send the request again after its restart")
        self._fail_waiting(stopping)
        if not await self.terminal_events.wait_for_all(patience_s):
            log.warning("stopping while requests are running: they are failed")
        for job in self.jobs.live():
            self.engines.cancel(job.engine, job.number)
            self.terminal_events.failed(job, stopping)
        self.calibration.stop(stopping)
        self.loads.stop(stopping)
        await self._background.stop()
