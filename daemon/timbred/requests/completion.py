"""Work beside the event loop: tasks that are awaited before the daemon ends, and threads for what takes long."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from timbred import errors
from timbred.audio import Clip
from timbred.dsp.streaming import StreamPiece
from timbred.ipc import engine_messages
from timbred.protocol import messages as m
from timbred.protocol.boundary import Outbox
from timbred.requests.job import Job, JobStore, State
from timbred.requests.postprocess import EmbeddingJoin, FinishedTake, Postprocessor, RawTake
from timbred.storage.library import StoredTake, new_take_id
from timbred.task_supervision import Supervisor, hold_until_done

Given = ParamSpec("Given")
Result = TypeVar("Result")


class BackgroundTasks:
    """Tasks, and the two threads that they share."""

    def __init__(self, supervisor: Supervisor | None = None) -> None:
        self._supervisor = supervisor or Supervisor()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="finishing")
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Begin a task."""
        task = self._supervisor.run(work, name)
        hold_until_done(task, self._tasks)
        return task

    async def in_thread(self, work: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Result:
        """What a function returns, or raises, that runs in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*given, **named))

    async def stop(self) -> None:
        """Wait for all tasks, those too that others of them begin."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._threads.shutdown()


def started(job: Job) -> m.Started:
    """The engine works on it."""
    return m.Started(id=job.id, model=job.parameters.model, texts=job.texts or None)


def read_in_parts(job: Job, text: engine_messages.TextRead) -> m.Warned:
    """One of its texts is longer than the model's text encoders read at once."""
    model = job.parameters.model
    if text.read < text.characters:
        message = f"{model} reads the first {text.read} of {text.characters} characters: say it in fewer words"
    else:
        more = f"{text.characters} characters are more than {model} reads at once"
        message = f"{more}: it reads them in {text.parts} parts"
    return m.Warned(
        id=job.id,
        key=text.key,
        message=message,
        characters=text.characters,
        heard=text.read,
        parts=text.parts,
    )


def loading(job: Job, eta: float) -> m.Progress:
    """It waits for its model, and should be done in `eta` seconds after that."""
    return m.Progress(id=job.id, fraction=0.0, step=0, steps=job.parameters.steps, eta_s=eta, stage="loading")


def progress(job: Job, step: engine_messages.StepDone) -> m.Progress:
    """A step of it is done."""
    return m.Progress(
        id=job.id, fraction=step.step / step.steps, step=step.step, steps=step.steps, eta_s=step.remaining
    )  # fmt: skip


def take_event(identity: m.Id, take: StoredTake, index: int) -> m.Take:
    """A stored take."""
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


def told_so_far(job: Job) -> Iterator[tuple[m.Event, Clip | None]]:
    """Where a job stands that doesn't wait any more, with the sounds of those who wanted them inline."""
    if job.state is not State.ENDED:
        yield started(job), None
    for warning in job.warnings:
        yield warning, None
    clips = job.clips if len(job.clips) == len(job.takes) else [None] * len(job.takes)
    yield from zip(job.takes, clips, strict=True)
    if job.terminal is not None:
        yield job.terminal, None


def takes_in(message: engine_messages.JobRendered, payload: Sequence[memoryview], take_id: str) -> list[RawTake]:
    """The takes in the order in which they are numbered: best first where they were ranked. `take_id` is what a single
    one is known by already."""
    takes: list[RawTake] = []
    for index, (seed, frame) in enumerate(zip(message.seeds, payload, strict=True)):
        score = message.scores[index] if message.scores else None
        looped = bool(message.looped) and message.looped[index]
        samples = _samples(frame, message.channels)
        takes.append(RawTake(index, samples, message.rate, seed, score, take_id, looped, message.first))
    return takes


def preview_in(message: engine_messages.PreviewRendered, payload: Sequence[memoryview], seed: int) -> RawTake:
    """An early rendering, as a take that will never be one."""
    return RawTake(0, _samples(payload[0], message.channels), message.rate, seed, None, first=message.first)


def piece_in(message: engine_messages.PieceRendered, payload: Sequence[memoryview]) -> StreamPiece:
    """A part of a sound that is still being made."""
    return StreamPiece(
        samples=_samples(payload[0], message.channels),
        rate=message.rate,
        first=message.first,
        frames=message.frames,
        peak=message.peak,
        last=message.last,
    )


def _samples(frame: memoryview, channels: int) -> NDArray[np.float32]:
    return np.frombuffer(frame, dtype="<f4").reshape(-1, channels)


log = logging.getLogger(__name__)


class StreamedPieces:
    """Hands pieces to their listener. A listener that raises is logged: it must not keep a job from its end."""

    def __init__(self) -> None:
        self.on_piece: Callable[[Job, StreamPiece], None] = lambda _job, _piece: None
        """Hears the pieces of a sound that is to be heard early, in order, from frame 0 on; `job.heard_as` is then the
        id that its take will have. After an engine was lost they begin anew with another run of the job."""
        self.on_broken: Callable[[Job], None] = lambda _job: None
        """Hears that no more pieces come of a job that sounded, for it was cancelled, failed, or is run once more."""

    def take(self, job: Job, message: engine_messages.PieceRendered, payload: Sequence[memoryview]) -> None:
        """The next piece of a job's sound is there."""
        if job.cancel_wanted:
            return
        job.heard_as = job.heard_as or new_take_id()
        try:
            self.on_piece(job, piece_in(message, payload))
        except Exception:
            log.exception("request %s: a piece of its sound can't be played; its file is still written", job.id)

    def break_off(self, job: Job) -> None:
        """What was heard of a job is not its take: that one will never be, or is made anew. A sound that is whole and
        only couldn't be written is left to be heard."""
        if job.heard_as:
            job.heard_as = ""
            try:
                self.on_broken(job)
            except Exception:
                log.exception("request %s: what was heard of it can't be ended", job.id)


class PreviewDelivery:
    """Writes previews; a job's takes wait for its own (`job.preview`)."""

    def __init__(self, outbox: Outbox, finishing: Postprocessor, background: BackgroundTasks) -> None:
        self._outbox = outbox
        self._finishing = finishing
        self._background = background

    def take(self, job: Job, message: engine_messages.PreviewRendered, payload: Sequence[memoryview]) -> None:
        """An early rendering of a job came."""
        raw = preview_in(message, payload, job.parameters.seed)
        job.preview = self._background.start(self._send(job, raw), f"preview-{job.number}")

    async def _send(self, job: Job, raw: RawTake) -> None:
        try:
            path = await self._background.in_thread(self._finishing.preview, job.parameters, raw, job.whole)
        except Exception as error:  # noqa: BLE001  the sound itself goes on, and says what is wrong
            log.warning("request %s has no preview: %s", job.id, error)
            return
        if job.live:
            self._outbox.send(job.client, m.Preview(id=job.id, path=str(path)))


class TerminalEvents:
    """The only place that sends `done`, `cancelled` and `fail` for jobs."""

    def __init__(self, outbox: Outbox, remembered: JobStore, pieces: StreamedPieces) -> None:
        self._outbox = outbox
        self._remembered = remembered
        self._pieces = pieces
        self._idle = asyncio.Event()
        self._idle.set()

    def expect(self, job: Job) -> None:
        """A job was taken in: its terminal event is still to come."""
        self._remembered.add(job)
        self._idle.clear()

    def done(self, job: Job) -> None:
        """All its takes are there."""
        self._end(job, m.Done(id=job.id, takes=len(job.takes), path=job.takes[0].path))

    def cancelled(self, job: Job) -> None:
        """Its client didn't want it any more."""
        self._end(job, m.Cancelled(id=job.id))

    def failed(self, job: Job, error: errors.TimbredError, cause: BaseException | None = None) -> None:
        """It can't be done. `cause` is what came of it where the error only says that we are at fault."""
        if isinstance(error, errors.Internal):
            log.error("request %s: %s", job.id, error, exc_info=cause)
        self._end(job, failure(job.id, error))

    def broke(self, job: Job, error: Exception) -> None:
        """Something went wrong with it on its way, whatever that is; one that has ended since doesn't hear of it."""
        if job.live:
            self.failed(job, errors.from_foreign(error), error)

    async def all_within(self, patience: float) -> bool:
        """Wait until every job has ended, for so many seconds; says whether they have."""
        try:
            await asyncio.wait_for(self._idle.wait(), patience)
        except TimeoutError:
            return False
        return True

    def _end(self, job: Job, terminal: m.Event) -> None:
        if job.state is State.RENDERING or isinstance(terminal, m.Cancelled):
            self._pieces.break_off(job)
        job.move(State.ENDED)
        job.terminal = terminal
        job.given = job.whole = None
        self._remembered.ended(job)
        self._send(job, terminal)
        if not any(self._remembered.live()):
            self._idle.set()

    def _send(self, job: Job, terminal: m.Event) -> None:
        """Send a terminal event. One that can't be sent as it is (a path that the transport can't encode) becomes a
        `fail`, which holds nothing but the id and an error."""
        try:
            self._outbox.send(job.client, terminal)
        except Exception as error:
            known = errors.from_foreign(error)
            log.error("request %s: its end can't be told: %s", job.id, known, exc_info=error)
            job.terminal = failure(job.id, known)
            self._outbox.send(job.client, job.terminal)


class TakeDelivery:
    """Delivers rendered jobs, and keeps what the engine heard of their takes."""

    def __init__(
        self, outbox: Outbox, finishing: Postprocessor, endings: TerminalEvents, background: BackgroundTasks
    ) -> None:
        self.on_take: Callable[[Job, FinishedTake], None] = lambda _job, _take: None
        """Hears of each take, after its client."""
        self.hearings = EmbeddingJoin(self._keep_hearing)
        self._outbox = outbox
        self._finishing = finishing
        self._endings = endings
        self._background = background

    def deliver(self, job: Job, message: engine_messages.JobRendered, payload: Sequence[memoryview]) -> None:
        """Make the takes of a job that the engine has rendered. A rendering that can't be read fails the job."""
        try:
            raw = takes_in(message, payload, job.heard_as)
        except ValueError as error:
            self._endings.broke(job, error)
            return
        job.move(State.DELIVERING)
        if job.parameters.hears:
            self.hearings.expect(job.number)
        self._background.start(self._deliver(job, raw), f"deliver-{job.number}")

    async def _deliver(self, job: Job, raw: list[RawTake]) -> None:
        whole = job.whole
        try:
            if job.preview is not None:
                await job.preview
            for take in raw:
                finished = await self._background.in_thread(self._finishing, job.parameters, take, str(job.id), whole)
                if not job.live:
                    return
                if job.cancel_wanted:
                    break
                self._announce(job, finished)
            self._conclude(job)
        except Exception as error:  # noqa: BLE001  whatever it is, the client hears of it
            self._endings.broke(job, error)
        finally:
            self.hearings.delivered(job.number)

    def _announce(self, job: Job, finished: FinishedTake) -> None:
        stored = finished.stored
        event = take_event(job.id, stored, stored.index)
        job.takes.append(event)
        if job.parameters.inline:
            job.clips.append(finished.clip)
        self._outbox.send(job.client, event, finished.clip if job.parameters.inline else None)
        self.hearings.take(job.number, stored.index, stored.take_id)
        self.on_take(job, finished)

    def _conclude(self, job: Job) -> None:
        if job.cancel_wanted:
            self._endings.cancelled(job)
        else:
            self._endings.done(job)

    def _keep_hearing(self, take_id: str, ear: str, vector: bytes) -> None:
        self._background.start(self._store_hearing(take_id, ear, vector), f"hear-{take_id}")

    async def _store_hearing(self, take_id: str, ear: str, vector: bytes) -> None:
        """Store it beside the take. A take without it is found by its words all the same."""
        try:
            await self._background.in_thread(self._finishing.library.hear, take_id, ear, vector)
        except errors.TimbredError as error:
            log.warning("take %s can't be found by its sound: %s", take_id, error)
