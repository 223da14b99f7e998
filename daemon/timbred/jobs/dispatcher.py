"""Carries jobs from the queue through the engine to their terminal event: exactly one for each, whatever happens."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from timbred import errors
from timbred.engine import wire
from timbred.engine.registry import Registry
from timbred.jobs.deadline import Pace, Wanted, steps_anew
from timbred.jobs.estimates import Estimates
from timbred.jobs.finishing import FinishedTake, Finishing, RawTake, given_sound
from timbred.jobs.hearings import Hearings
from timbred.jobs.job import Job, State
from timbred.jobs.parameters import STEPS, Parameters
from timbred.jobs.queue import RANK, Queue
from timbred.jobs.remembered import Remembered
from timbred.jobs.residents import Residents
from timbred.jobs.timing import Timing
from timbred.library.takes import StoredTake, new_take_id
from timbred.protocol import messages as m
from timbred.protocol.exchange import ClientId, Outbox
from timbred.render.early import Piece

log = logging.getLogger(__name__)

JOBS_AT_ONCE = {"cuda": 8, "mps": 2, "cpu": 2}
"""Jobs that an engine works on together, by kind of device, where `engine.jobs` says nothing."""

TRIAL_STEPS = 3
"""Steps of a sound that is made only to be timed."""

ATTEMPTS = 2
"""Times that a job is given to an engine: once more after an engine was lost with it."""


class Engine(Protocol):
    """The part of `engine.link.EngineLink` that is used here."""

    @property
    def up(self) -> bool: ...

    def send(self, message: wire.ToEngine) -> bool: ...


class Dispatcher:
    """The queue, the jobs that the engine works on, and those that are being written.

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
    ) -> None:
        self.outbox = outbox
        self.registry = registry
        self.finishing = finishing
        self.queue = Queue(queue_length)
        self.remembered = Remembered(remembered)
        self.estimates = Estimates()
        self.timing = Timing(self.estimates)
        self._trials: dict[int, tuple[Parameters, asyncio.Future[None]]] = {}
        self.residents = Residents(outbox)
        self.jobs_at_once = jobs_at_once
        self.engine: Engine | None = None
        self.way = wire.GiveWay(frame_rate=0.0)
        self.on_take: Callable[[Job, FinishedTake], None] = lambda _job, _take: None
        self.on_piece: Callable[[Job, Piece], None] = lambda _job, _piece: None
        """Hears the pieces of a sound that is to be heard early, in order, from frame 0 on; `job.heard_as` is then the
        id that its take will have. After an engine was lost they begin anew with another run of the job."""
        self.on_broken: Callable[[Job], None] = lambda _job: None
        """Hears that no more pieces come of a job that sounded, for it was cancelled, failed, or is run once more."""
        self.hearings = Hearings(self._keep_hearing)
        self.rendering: dict[int, Job] = {}
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="finishing")
        self._deliveries: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    # what clients ask

    def submit(
        self, client: ClientId, identity: m.Id, parameters: Parameters, init: Path | None = None,
        wanted: Wanted | None = None,
    ) -> None:  # fmt: skip
        """Take in a request that isn't known yet. `init` is the file of the sound that it starts from; one with a
        deadline is `wanted`.

        Raises:
            Busy: the queue is full.
            ShuttingDown: the daemon is stopping.
        """
        if self._stopping:
            raise errors.ShuttingDown("timbred is stopping; ask again once it is back")
        if self.queue.full:
            raise self._busy()
        self._numbers += 1
        job = Job(self._numbers, client, identity, parameters, ready=init is None, wanted=wanted)
        self.remembered.add(job)
        self._idle.clear()
        self.queue.add(job)
        self._announce_queued(job)
        if init is not None:
            self._in_background(self._prepare(job, init), f"prepare-{job.number}")
        self.pump()

    async def _prepare(self, job: Job, init: Path) -> None:
        """Read the sound that a job starts from; the job waits in its place meanwhile."""
        loop = asyncio.get_running_loop()
        rate = self.registry[job.parameters.model].card.native_rate
        try:
            found = await loop.run_in_executor(self._threads, given_sound, init, rate, job.parameters.seconds)
        except Exception as error:  # noqa: BLE001  whatever it is, the client hears of it
            if job.live:
                self.queue.remove(job)
                self._fail(job, errors.from_foreign(error), error)
            return
        job.given, whole = found
        job.whole = whole if job.parameters.anew is not None else None
        job.ready = True
        self.pump()

    def repeat(self, job: Job) -> None:
        """A known request came again: say where it stands."""
        match job.state:
            case State.QUEUED:
                self._announce_queued(job)
            case State.RENDERING | State.DELIVERING:
                self.outbox.send(job.client, m.Started(id=job.id, model=job.parameters.model))
                for take, clip in self._takes_with_clips(job):
                    self.outbox.send(job.client, take, clip)
            case State.ENDED:
                for take, clip in self._takes_with_clips(job):
                    self.outbox.send(job.client, take, clip)
                if job.terminal is not None:
                    self.outbox.send(job.client, job.terminal)

    @staticmethod
    def _takes_with_clips(job: Job):
        clips = job.clips if len(job.clips) == len(job.takes) else [None] * len(job.takes)
        return zip(job.takes, clips, strict=True)

    def cancel(self, job: Job) -> None:
        """End a live job: at once while it waits, at the next step while it is rendered."""
        job.cancel_wanted = True
        if job.state is State.QUEUED:
            self.queue.remove(job)
            self._end(job, m.Cancelled(id=job.id))
        elif job.state is State.RENDERING:
            self._tell_engine(wire.Cancel(job=job.number))

    # the engine's life

    def give_way(self, frame_rate: float) -> None:
        """Let the engine rest after each step for a render loop of this many frames a second; 0: never."""
        self.way = wire.GiveWay(frame_rate=frame_rate)
        self._tell_engine(self.way)

    def engine_up(self, ready: wire.Ready) -> None:
        self.residents.engine_up(ready)
        self._tell_engine(self.way)
        for source in self.residents.wanted():
            self._tell_engine(wire.Load(model=source))
        for number in self._trials:
            self._order_trial(number)
        self.pump()

    def engine_down(self, reason: str) -> None:
        self.residents.engine_down(reason)
        self.hearings.drop()
        lost, self.rendering = list(self.rendering.values()), {}
        for number in list(self._trials):
            error = errors.WorkerLost(f"the engine ended while it was timed ({reason}); ask once more")
            self._trial_over(number, error)
        for job in lost:
            self.timing.dropped(job.number)
            if job.live:
                self._engine_lost(job, reason)

    def _engine_lost(self, job: Job, reason: str) -> None:
        if job.cancel_wanted:
            self._end(job, m.Cancelled(id=job.id))
        elif job.attempts < ATTEMPTS:
            log.warning("request %s is run once more: its engine was lost (%s)", job.id, reason)
            self._break_off(job)
            job.move(State.QUEUED)
            self.queue.add(job)
        else:
            self._fail(
                job, errors.WorkerLost(f"the engine ended twice with this request ({reason}); try another model")
            )

    def engine_said(self, message: wire.FromEngine, payload: Sequence[memoryview]) -> None:
        match message:
            case wire.Beat() | wire.Loaded() | wire.Unloaded():
                self.residents.engine_said(message)
            case wire.Loading():
                self._progress_of_loading(message)
            case wire.Step():
                self.timing.stepped(message.job)
                self._progress(message)
                self._keep_in_time(message)
            case wire.Preview():
                self._previewed(message, payload)
            case wire.Piece():
                self._piece(message, payload)
            case wire.Rendered():
                self._rendered(message, payload)
            case wire.Heard():
                self.hearings.heard(message.job, message.ear, [bytes(vector) for vector in payload])
            case wire.Cancelled():
                if (job := self._held(message.job)) is not None:
                    self._left(job)
            case wire.Failed():
                self._failed(message)
            case wire.Ready():
                log.error("the engine introduced itself twice")

    # moving on

    def pump(self) -> None:
        """Give the engine the jobs whose turn it is, as many as it works on at once; a live one always."""
        while self.engine is not None and self.engine.up and (job := self.queue.first()) is not None:
            if not self._has_room_for(job):
                return
            self.queue.remove(job)
            self._hand_over(job)

    def _has_room_for(self, job: Job) -> bool:
        """A job that was there when an engine ended runs alone: its neighbours must not suffer from it again."""
        if job.attempts or any(other.attempts > 1 for other in self.rendering.values()):
            return not self.rendering
        return len(self.rendering) < self._at_once() or job.parameters.priority == "live"

    def _at_once(self) -> int:
        device = self.residents.ready.device if self.residents.ready else "cpu"
        return self.jobs_at_once or JOBS_AT_ONCE.get(device.partition(":")[0], 1)

    def _hand_over(self, job: Job) -> None:
        job.move(State.RENDERING)
        job.attempts += 1
        self.rendering[job.number] = job
        if not job.announced:
            job.announced = True
            self.outbox.send(job.client, m.Started(id=job.id, model=job.parameters.model))
        self._order(job)
        if not self.residents.is_resident(job.parameters.model):
            self._progress_of_loading(wire.Loading(job=job.number, fraction=0.0))

    def _order(self, job: Job) -> None:
        """Have the engine make a job's sound."""
        job.parameters, job.anew = job.anew or job.parameters, None
        self.timing.began(job.number, job.parameters)
        self._tell_engine(
            wire.Render(
                job=job.number,
                model=source_of(self.registry, job.parameters.model),
                order=job.parameters.order(job.given),
                rank=RANK[job.parameters.priority],
                within=job.wanted.within if job.wanted else None,
            )
        )

    def _keep_in_time(self, step: wire.Step) -> None:
        """Begin a job anew that goes slower than was measured when its steps were chosen, if fewer are in time."""
        job = self._held(step.job)
        if job is None or job.wanted is None or job.anew is not None:
            return
        rest, each = self.estimates.of_rest(job.parameters), self.timing.step_now(job.number)
        pace = Pace(wait=0.0, rest=rest, step=each)
        steps = steps_anew(job.wanted, pace, step.remaining, step.steps - step.step)
        if steps is not None:
            log.warning("request %s is slower than expected: begun anew with %d steps", job.id, steps)
            job.anew = replace(job.parameters, steps=steps)
            self._tell_engine(wire.Cancel(job=job.number))

    def _left(self, job: Job) -> None:
        """The engine has left a job."""
        if job.anew is not None and not job.cancel_wanted:
            self.timing.dropped(job.number)
            self._order(job)
            return
        self._release(job)
        self._end(job, m.Cancelled(id=job.id))

    def wait_for(self, priority: str) -> float:
        """Seconds that a new job with a deadline should wait, as far as known: for others that have one, for all that
        go before it while it isn't `live`, and for what any other is just doing."""
        there = [*self.rendering.values(), *self.queue]
        before = [job for job in there if job.wanted or RANK["live"] < RANK[priority] >= RANK[job.parameters.priority]]
        others = [job.parameters for job in self.rendering.values() if job not in before]
        longest = [max(self.estimates.of_step(other), self.estimates.of_rest(other)) for other in others]
        return sum(self.estimates.expected(job.parameters) for job in before) + max(longest, default=0.0)

    async def measure(self, parameters: Parameters) -> None:
        """Let the engine make a sound like this in few steps, only to see how long it takes; its model is then loaded.

        Raises: what the engine says of it.
        """
        few = max(STEPS.get(parameters.scheduler, (1, 1000))[0], min(TRIAL_STEPS, parameters.steps))
        self._numbers += 1
        trial: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._trials[self._numbers] = replace(parameters, steps=few, to="none", preview=False), trial
        self._order_trial(self._numbers)
        await trial

    def _order_trial(self, number: int) -> None:
        parameters, _ = self._trials[number]
        self.timing.began(number, parameters)
        if not self.residents.is_resident(parameters.model):
            self.timing.loads(number)
        source = source_of(self.registry, parameters.model)
        # wanted at once, so that nothing else is timed with it
        order, rank = parameters.order(), RANK["live"]
        self._tell_engine(wire.Render(job=number, model=source, order=order, rank=rank, within=0.0))

    def _trial_over(self, number: int, error: errors.TimbredError | None = None) -> None:
        """A trial has been timed, or can't be."""
        _, trial = self._trials.pop(number, (None, None))
        if error is not None:
            self.timing.dropped(number)
        if trial is None or trial.done():
            return
        if error is None:
            trial.set_result(None)
        else:
            trial.set_exception(error)

    def load(self, client: ClientId, name: str) -> None:
        """Make a model resident for this client.

        Raises:
            UnknownModel, MissingWeights, ModelError: it can't be loaded.
        """
        entry = self.registry[name]
        if not self.residents.is_resident(name):
            entry.checkpoint()
        if self.residents.want(client, wire.ModelSource(name=name, folder=str(entry.folder))):
            self._tell_engine(wire.Load(model=source_of(self.registry, name)))

    def preload(self, name: str) -> None:
        """Make a model resident from the engine's start on, if its files are here."""
        try:
            self.registry[name].checkpoint()
        except errors.TimbredError as error:
            log.warning("the default model isn't loaded: %s", error)
            return
        self.residents.preload(source_of(self.registry, name))

    def unload(self, client: ClientId, name: str) -> None:
        """Free a model's memory.

        Raises:
            UnknownModel: there is none of this name.
            BadRequest: it is in use.
        """
        _ = self.registry[name]
        users = [job for job in self.remembered.live() if job.parameters.model == name]
        if users:
            raise errors.BadRequest(
                f"model: {name} is in use by {len(users)} request(s), the first is {users[0].id}; cancel or await them"
            )
        if any(parameters.model == name for parameters, _ in self._trials.values()):
            raise errors.BadRequest(f"model: {name} is being timed for a request with a deadline; unload it after that")
        if self.residents.unwant(client, name):
            self._tell_engine(wire.Unload(name=name))

    def _tell_engine(self, message: wire.ToEngine) -> None:
        """An order that finds no engine is not lost: `engine_up` and `engine_down` take care of it."""
        if self.engine is not None:
            self.engine.send(message)

    # events

    def _announce_queued(self, job: Job) -> None:
        before = self.queue.position(job)
        ahead = [other.parameters for other in list(self.queue)[:before]]
        running = [other.parameters for other in self.rendering.values()]
        eta = sum(self.estimates.expected(parameters) for parameters in (*running, *ahead, job.parameters))
        self.outbox.send(job.client, m.Queued(id=job.id, position=before + len(running), eta_s=eta))

    def _busy(self) -> errors.Busy:
        waiting = [job.parameters for job in (*self.rendering.values(), *self.queue)][:1]
        seconds = max(1.0, sum(self.estimates.expected(parameters) for parameters in waiting))
        return errors.Busy(
            f"the queue is full ({len(self.queue)} wait); try again in {seconds:.0f} s, or raise queue.length", seconds
        )

    def _held(self, number: int) -> Job | None:
        """The job that the engine speaks of, if it has it and the job hasn't ended."""
        job = self.rendering.get(number)
        return job if job is not None and job.live else None

    def _release(self, job: Job) -> None:
        del self.rendering[job.number]
        self.timing.dropped(job.number)
        asyncio.get_running_loop().call_soon(self.pump)

    def _progress_of_loading(self, message: wire.Loading) -> None:
        job = self._held(message.job)
        self.timing.loads(message.job)
        if job is not None:
            eta = self.estimates.expected(job.parameters)
            steps = job.parameters.steps
            event = m.Progress(id=job.id, fraction=0.0, step=0, steps=steps, eta_s=eta, stage="loading")
            self.outbox.send(job.client, event)

    def _progress(self, message: wire.Step) -> None:
        job = self._held(message.job)
        if job is not None:
            event = m.Progress(
                id=job.id,
                fraction=message.step / message.steps,
                step=message.step,
                steps=message.steps,
                eta_s=message.remaining,
            )
            self.outbox.send(job.client, event)

    def _previewed(self, message: wire.Preview, payload: Sequence[memoryview]) -> None:
        job = self._held(message.job)
        if job is not None:
            samples, seed = _samples(payload[0], message.channels), job.parameters.seed
            raw = RawTake(0, samples, message.rate, seed, None, first=message.first)
            job.preview = self._in_background(self._send_preview(job, raw), f"preview-{job.number}")

    async def _send_preview(self, job: Job, raw: RawTake) -> None:
        loop = asyncio.get_running_loop()
        try:
            path = await loop.run_in_executor(self._threads, self.finishing.preview, job.parameters, raw, job.whole)
        except Exception as error:  # noqa: BLE001  the sound itself goes on, and says what is wrong
            log.warning("request %s has no preview: %s", job.id, error)
            return
        if job.live:
            self.outbox.send(job.client, m.Preview(id=job.id, path=str(path)))

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)
        return task

    def _piece(self, message: wire.Piece, payload: Sequence[memoryview]) -> None:
        job = self._held(message.job)
        if job is None or job.cancel_wanted:
            return
        job.heard_as = job.heard_as or new_take_id()
        piece = Piece(
            samples=_samples(payload[0], message.channels),
            rate=message.rate,
            first=message.first,
            frames=message.frames,
            peak=message.peak,
            last=message.last,
        )
        self.on_piece(job, piece)

    def _break_off(self, job: Job) -> None:
        """What was heard of a job is not its take: that one will never be, or is made anew. A sound that is whole and
        only couldn't be written is left to be heard."""
        if job.heard_as:
            job.heard_as = ""
            self.on_broken(job)

    def _rendered(self, message: wire.Rendered, payload: Sequence[memoryview]) -> None:
        self.timing.rendered(message.job)
        self._trial_over(message.job)
        job = self._held(message.job)
        if job is None:
            return
        job.move(State.DELIVERING)
        if job.parameters.hears:
            self.hearings.expect(job.number)
        self._in_background(self._deliver(job, _raw_takes(message, payload, job.heard_as)), f"deliver-{job.number}")
        self._release(job)

    def _failed(self, message: wire.Failed) -> None:
        error = errors.from_code(message.code, message.message)
        if message.model is not None:
            self.residents.failed(message.model, error)
        if message.job is not None:
            self._trial_over(message.job, error)
            self.timing.dropped(message.job)
        job = self._held(message.job) if message.job is not None else None
        if job is not None:
            self._release(job)
            self._fail(job, error)

    async def _deliver(self, job: Job, raw: list[RawTake]) -> None:
        loop, whole = asyncio.get_running_loop(), job.whole
        if job.preview is not None:
            await job.preview
        try:
            for take in raw:
                parameters, name = job.parameters, str(job.id)
                finished = await loop.run_in_executor(self._threads, self.finishing, parameters, take, name, whole)
                if not job.live:
                    return
                if job.cancel_wanted:
                    break
                self._announce_take(job, finished)
            self._conclude(job)
        except Exception as error:  # noqa: BLE001  whatever it is, the client hears of it
            if job.live:
                self._fail(job, errors.from_foreign(error), error)
        finally:
            self.hearings.delivered(job.number)

    def _announce_take(self, job: Job, finished: FinishedTake) -> None:
        stored = finished.stored
        event = take_event(job.id, stored, stored.index)
        job.takes.append(event)
        if job.parameters.inline:
            job.clips.append(finished.clip)
        self.outbox.send(job.client, event, finished.clip if job.parameters.inline else None)
        self.hearings.take(job.number, stored.index, stored.take_id)
        self.on_take(job, finished)

    def _keep_hearing(self, take_id: str, ear: str, vector: bytes) -> None:
        """Store it beside the take, off the event loop. A take without it is found by its words all the same."""

        async def store() -> None:
            try:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._threads, self.finishing.library.hear, take_id, ear, vector)
            except errors.TimbredError as error:
                log.warning("take %s can't be found by its sound: %s", take_id, error)

        self._in_background(store(), f"hear-{take_id}")

    def _conclude(self, job: Job) -> None:
        if job.cancel_wanted:
            self._end(job, m.Cancelled(id=job.id))
        else:
            self._end(job, m.Done(id=job.id, takes=len(job.takes), path=job.takes[0].path))

    def _fail(self, job: Job, error: errors.TimbredError, cause: BaseException | None = None) -> None:
        if isinstance(error, errors.Internal):
            log.error("request %s: %s", job.id, error, exc_info=cause)
        self._end(job, failure(job.id, error))

    def _end(self, job: Job, terminal: m.Event) -> None:
        if job.state is State.RENDERING or isinstance(terminal, m.Cancelled):
            self._break_off(job)
        job.move(State.ENDED)
        job.terminal = terminal
        job.given = job.whole = None
        self.remembered.ended(job)
        self.outbox.send(job.client, terminal)
        if not any(self.remembered.live()):
            self._idle.set()

    # the end

    async def stop(self, patience: float) -> None:
        """Take nothing more in, let what is running finish for `patience` seconds, then fail what is left."""
        self._stopping = True
        stopping = errors.ShuttingDown("timbred is stopping; ask again once it is back")
        while (job := self.queue.next()) is not None:
            self._fail(job, stopping)
        try:
            await asyncio.wait_for(self._idle.wait(), patience)
        except TimeoutError:
            log.warning("stopping while requests are running: they are failed")
        for job in self.remembered.live():
            self._tell_engine(wire.Cancel(job=job.number))
            self._fail(job, stopping)
        for number in list(self._trials):
            self._trial_over(number, stopping)
        self.residents.stop(stopping)
        if self._deliveries:
            await asyncio.wait(self._deliveries)
        self._threads.shutdown()


def source_of(registry: Registry, name: str) -> wire.ModelSource:
    """A model as the engine is told of it."""
    return wire.ModelSource(name=name, folder=str(registry[name].folder))


def take_event(identity: m.Id, take: StoredTake, index: int) -> m.Take:
    """A stored take as clients hear of it."""
    return m.Take(
        id=identity,
        index=index,
        path=str(take.path or ""),
        seconds=take.seconds,
        rate=take.rate,
        channels=take.channels,
        seed=take.seed,
        score=take.score or 0.0,
        take_id=take.take_id,
    )


def failure(identity: m.Id, error: errors.TimbredError) -> m.Fail:
    """An error as the event that ends a request."""
    retry_after = error.retry_after if isinstance(error, errors.Busy) else None
    return m.Fail(id=identity, code=error.code, message=str(error), retry_after_s=retry_after)


def _raw_takes(message: wire.Rendered, payload: Sequence[memoryview], take_id: str) -> list[RawTake]:
    """The takes in the order in which they are numbered: best first where they were ranked. `take_id` is what a single
    one is known by already."""
    takes: list[RawTake] = []
    for index, (seed, frame) in enumerate(zip(message.seeds, payload, strict=True)):
        score = message.scores[index] if message.scores else None
        looped = bool(message.looped) and message.looped[index]
        samples = _samples(frame, message.channels)
        takes.append(RawTake(index, samples, message.rate, seed, score, take_id, looped, message.first))
    return takes


def _samples(frame: memoryview, channels: int) -> NDArray[np.float32]:
    return np.frombuffer(frame, dtype="<f4").reshape(-1, channels)
