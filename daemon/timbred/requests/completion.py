"""From rendered samples to takes and terminal events: `TerminalEvents` sends every terminal event of a job."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, ParamSpec, TypeVar

import numpy as np
from msgspec.structs import replace as replace_fields
from numpy.typing import NDArray

from timbred import errors
from timbred.audio import Clip
from timbred.dsp.measurement import Measurement, measure, prepare, score_fit
from timbred.dsp.pipeline import StreamPiece
from timbred.ipc import engine_messages
from timbred.music import read_key
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox
from timbred.requests.job import Job, JobStore, State
from timbred.requests.musical import beats_of_bar
from timbred.requests.postprocess import EmbeddingJoin, FinishedTake, Postprocessor, RawTake
from timbred.requests.resolve import Parameters
from timbred.storage.library import StoredTake, new_take_id
from timbred.task_supervision import Supervisor, keep_until_done

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

log = logging.getLogger(__name__)

EventReceiver = Callable[[m.Event, Clip | None], None]


class InternalOutbox:
    """An outbox that passes events of the daemon's own requests to their receivers, and all others on.

    Args:
        outbox: The outbox for events of clients.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._receivers: dict[ClientId, EventReceiver] = {}

    def attach(self, client: ClientId, receiver: EventReceiver) -> None:
        """Pass all events for an internal client to `receiver`."""
        self._receivers[client] = receiver

    def send(self, client: ClientId, event: m.Event, clip: Clip | None = None) -> None:
        """See `Outbox`."""
        receiver = self._receivers.get(client)
        if receiver is None:
            self._outbox.send(client, event, clip)
        else:
            receiver(event, clip)

    def send_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """See `Outbox`."""
        self._outbox.send_list(client, name, events, end)


class BackgroundTasks:
    """Tasks that are awaited before the daemon ends, and the two threads that they share.

    Args:
        supervisor: Runs the tasks; None for a separate one.
    """

    def __init__(self, supervisor: Supervisor | None = None) -> None:
        self._supervisor = supervisor or Supervisor()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="postprocess")
        # one of its own: the first measurement takes seconds, which other takes don't wait for
        self._measuring_thread = ThreadPoolExecutor(1, thread_name_prefix="postprocess-measure")
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task."""
        task = self._supervisor.run(work, name)
        keep_until_done(task, self._tasks)
        return task

    async def in_thread(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a function in a thread and return its result, or raise its exception."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

    async def in_measuring_thread(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a function in the thread for measurements and return its result, or raise its exception."""
        return await asyncio.get_running_loop().run_in_executor(self._measuring_thread, partial(work, *args, **kwargs))

    async def stop(self) -> None:
        """Wait for all tasks, including those that they start meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._threads.shutdown()
        self._measuring_thread.shutdown()


def started_event(job: Job) -> m.Started:
    """Return `started`: an engine renders the job."""
    return m.Started(id=job.id, model=job.parameters.model, texts=job.texts or None)


def text_warning(job: Job, text: engine_messages.TextRead) -> m.Warned:
    """Return the warning that a text is longer than the model's text encoders read at once."""
    model = job.parameters.model
    if text.read < text.characters:
        message = f"{model} reads the first {text.read} of {text.characters} characters: use fewer words"
    else:
        more = f"{text.characters} characters are more than {model} reads at once"
        message = f"{more}: they are read in {text.parts} parts"
    return m.Warned(
        id=job.id,
        key=text.key,
        message=message,
        characters=text.characters,
        heard=text.read,
        parts=text.parts,
    )


UNKNOWN_BELOW = 0.25
"""Share of a prompt that a model knows, 0 to 1, below which its sound is only the nearest one."""


def unknown_warning(job: Job) -> m.Warned:
    """Return the warning that a model knows little of a prompt."""
    model = job.parameters.model
    message = f"nearest sound: {model} doesn't know this; `words` lists what it knows"
    return m.Warned(id=job.id, key="prompt", message=message)


def loading_event(job: Job, eta_s: float) -> m.Progress:
    """Return `progress` of a job that waits for its model and should be done in `eta_s` seconds after that."""
    return m.Progress(id=job.id, fraction=0.0, step=0, steps=job.parameters.steps, eta_s=eta_s, stage="loading")


def take_event(identity: m.Id, take: StoredTake, index: int, unmeasured: Mapping[str, str] | None = None) -> m.Take:
    """Return `take` for a stored take; `unmeasured` says why measured values are missing."""
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
        tempo=take.tempo,
        key=take.key or None,
        downbeat=take.downbeat,
        fit=take.fit,
        unmeasured="; ".join(f"{name}: {reason}" for name, reason in (unmeasured or {}).items()) or None,
    )


def failure(identity: m.Id, error: errors.TimbredError) -> m.Fail:
    """Return `fail` for an error."""
    retry_after = error.retry_after if isinstance(error, errors.Busy) else None
    return m.Fail(id=identity, code=error.code, message=str(error), retry_after_s=retry_after)


def past_events(job: Job) -> Iterator[tuple[m.Event, Clip | None]]:
    """Iterate over the events that a job has sent since it started, with the samples of inline takes."""
    if job.state is not State.ENDED:
        yield started_event(job), None
    for warning in job.warnings:
        yield warning, None
    clips = job.clips if len(job.clips) == len(job.takes) else [None] * len(job.takes)
    yield from zip(job.takes, clips, strict=True)
    if job.terminal is not None:
        yield job.terminal, None


def raw_takes(
    message: engine_messages.JobRendered, payload: Sequence[memoryview], take_id: str, device: str = ""
) -> list[RawTake]:
    """Return the rendered takes in the order of their indices: best first where they were ranked.

    Args:
        message: The engine's message.
        payload: Samples of each take, float32 little-endian.
        take_id: Take id that a single take has already; empty for none.
        device: Description of the device that rendered them.

    Raises:
        ValueError: The samples don't fit the message.
    """
    takes: list[RawTake] = []
    for index, (seed, frame) in enumerate(zip(message.seeds, payload, strict=True)):
        score = message.scores[index] if message.scores else None
        looped = bool(message.looped) and message.looped[index]
        samples = _samples(frame, message.channels)
        takes.append(RawTake(index, samples, message.rate, seed, score, take_id, looped, message.first, index, device))
    return takes


def preview_take(message: engine_messages.PreviewRendered, payload: Sequence[memoryview], seed: int) -> RawTake:
    """Return a preview in the form of a take, which the library never gets."""
    return RawTake(0, _samples(payload[0], message.channels), message.rate, seed, None, first=message.first)


def stream_piece(message: engine_messages.PieceRendered, payload: Sequence[memoryview]) -> StreamPiece:
    """Return a part of a sound that is still being rendered."""
    return StreamPiece(
        samples=_samples(payload[0], message.channels),
        rate=message.rate,
        first=message.first,
        frames=message.frames,
        peak=message.peak,
        last=message.last,
    )


def _fit(parameters: Parameters, measurement: Measurement) -> float:
    """Return how closely a take keeps to the tempo and the key of its request, 0 to 1."""
    return score_fit(measurement, parameters.bpm, read_key(parameters.key) if parameters.key else None)


def _samples(frame: memoryview, channels: int) -> NDArray[np.float32]:
    return np.frombuffer(frame, dtype="<f4").reshape(-1, channels)


class SoundListener:
    """Receiver of streamed pieces and stored takes, for playback. This one ignores them."""

    def piece(self, job: Job, piece: StreamPiece) -> None:
        """Receive the next piece of a sound that is played while it is rendered, from frame 0 on.

        `job.streamed_take_id` is the id that its take will have. If the engine was lost, the pieces of the next
        rendering begin at frame 0 again, after `pieces_discarded`.
        """

    def pieces_discarded(self, job: Job) -> None:
        """Handle pieces that don't become a take: the job ended or is rendered again."""

    def take(self, job: Job, take: FinishedTake) -> None:
        """Receive a stored take, after its client got `take`."""


class StreamedPieces:
    """Passes pieces on. If the listener raises, that is logged, and the job continues."""

    def __init__(self, listener: SoundListener) -> None:
        self._listener = listener

    def deliver(self, job: Job, message: engine_messages.PieceRendered, payload: Sequence[memoryview]) -> None:
        """Pass on the next piece of a job, unless it is being cancelled."""
        if job.cancel_requested:
            return
        job.streamed_take_id = job.streamed_take_id or new_take_id()
        try:
            self._listener.piece(job, stream_piece(message, payload))
        except Exception:
            log.exception("request %s: a piece of its sound can't be played; its file is still written", job.id)

    def discard(self, job: Job) -> None:
        """Notify the listener that the pieces of a job don't become a take."""
        if job.streamed_take_id:
            job.streamed_take_id = ""
            try:
                self._listener.pieces_discarded(job)
            except Exception:
                log.exception("request %s: its streamed sound can't be stopped", job.id)


class PreviewDelivery:
    """Writes previews. A job's takes wait for its preview (`job.preview_task`)."""

    def __init__(self, outbox: Outbox, postprocessor: Postprocessor, background: BackgroundTasks) -> None:
        self._outbox = outbox
        self._postprocessor = postprocessor
        self._background = background

    def deliver(self, job: Job, message: engine_messages.PreviewRendered, payload: Sequence[memoryview]) -> None:
        """Start to write a preview."""
        raw = preview_take(message, payload, job.parameters.seed)
        job.preview_task = self._background.start(self._write(job, raw), f"preview-{job.number}")

    async def _write(self, job: Job, raw: RawTake) -> None:
        try:
            path = await self._background.in_thread(self._postprocessor.preview, job.parameters, raw, job.init_clip)
        except Exception as error:  # noqa: BLE001  the job continues, and reports a fault of the disk itself
            log.warning("request %s has no preview: %s", job.id, error)
            return
        if job.live:
            self._outbox.send(job.client, m.Preview(id=job.id, path=str(path)))


class TerminalEvents:
    """The only sender of `done`, `cancelled` and `fail` for jobs, and the only place that ends them."""

    def __init__(self, outbox: Outbox, jobs: JobStore, pieces: StreamedPieces) -> None:
        self._outbox = outbox
        self._jobs = jobs
        self._pieces = pieces

    def done(self, job: Job) -> None:
        """End a job whose takes are all stored."""
        self._end(job, m.Done(id=job.id, takes=len(job.takes), path=job.takes[0].path))

    def cancelled(self, job: Job) -> None:
        """End a job that its client cancelled."""
        self._end(job, m.Cancelled(id=job.id))

    def cancelled_before_queued(self, client: ClientId, identity: m.Id) -> None:
        """Send `cancelled` for a request that never became a job."""
        self._outbox.send(client, m.Cancelled(id=identity))

    def failed(self, job: Job, error: errors.TimbredError, cause: BaseException | None = None) -> None:
        """End a job that can't be done.

        Args:
            job: The job.
            error: The error for its client.
            cause: The exception behind an internal error, for the log.
        """
        if isinstance(error, errors.Internal):
            log.error("request %s: %s", job.id, error, exc_info=cause)
        self._end(job, failure(job.id, error))

    def failed_if_live(self, job: Job, error: Exception) -> None:
        """End a job after any exception; do nothing if it has ended already."""
        if job.live:
            self.failed(job, errors.from_foreign(error), error)

    async def wait_for_all(self, patience_s: float) -> bool:
        """Wait at most `patience_s` seconds until every job has ended; return False if some haven't."""
        try:
            await asyncio.wait_for(self._jobs.idle.wait(), patience_s)
        except TimeoutError:
            return False
        return True

    def _end(self, job: Job, terminal: m.Event) -> None:
        """End a job and send its terminal event.

        Streamed pieces are discarded, except where the sound is complete and only couldn't be written. An event that
        can't be sent (a path that the transport can't encode) becomes a `fail`, which holds only the id and an error.
        """
        if job.state is State.RENDERING or isinstance(terminal, m.Cancelled):
            self._pieces.discard(job)
        self._jobs.end(job)
        job.terminal = terminal
        job.init_samples = job.init_clip = job.timer = None
        job.tensors = ()
        try:
            self._outbox.send(job.client, terminal)
        except Exception as error:
            known = errors.from_foreign(error)
            log.error("request %s: its terminal event can't be sent: %s", job.id, known, exc_info=error)
            job.terminal = failure(job.id, known)
            self._outbox.send(job.client, job.terminal)


class TakeDelivery:
    """Delivers the takes of rendered jobs, and stores their embeddings."""

    def __init__(
        self,
        outbox: Outbox,
        postprocessor: Postprocessor,
        jobs: JobStore,
        terminal_events: TerminalEvents,
        background: BackgroundTasks,
        listener: SoundListener,
    ) -> None:
        self.embeddings = EmbeddingJoin(jobs, self._store_embedding)
        self._outbox = outbox
        self._postprocessor = postprocessor
        self._terminal_events = terminal_events
        self._background = background
        self._listener = listener
        self._is_measurement_prepared = False

    def prepare_measurement(self) -> None:
        """Start to load what the first measurement needs, unless that was done; it is ready before the take is."""
        if not self._is_measurement_prepared:
            self._is_measurement_prepared = True
            self._background.start(self._prepare_measurement(), "prepare-measurement")

    async def _prepare_measurement(self) -> None:
        try:
            await self._background.in_measuring_thread(prepare)
        except Exception as error:  # noqa: BLE001  each take then says why it isn't measured
            log.warning("sounds can't be measured: %s", error)

    def deliver(self, job: Job, message: engine_messages.JobRendered, payload: Sequence[memoryview]) -> None:
        """Start to make the takes of a rendered job; fail it if the samples can't be read."""
        job.knows = message.knows
        if message.knows is not None and message.knows < UNKNOWN_BELOW:
            warning = unknown_warning(job)
            job.warnings.append(warning)
            self._outbox.send(job.client, warning)
        try:
            raw = raw_takes(message, payload, job.streamed_take_id, job.device)
        except ValueError as error:
            self._terminal_events.failed_if_live(job, error)
            return
        job.move(State.DELIVERING)
        if job.parameters.wants_embeddings:
            self.embeddings.expect(job)
        self._background.start(self._deliver(job, raw), f"deliver-{job.number}")

    async def _deliver(self, job: Job, raw: list[RawTake]) -> None:
        try:
            if job.preview_task is not None:
                await job.preview_task
            ordered = await self._order_by_fit(job, raw) if job.parameters.fit and len(raw) > 1 else raw
            for take in ordered:
                finished, unmeasured = await self._finish(job, take)
                if not job.live:
                    return
                if job.cancel_requested:
                    break
                self._announce(job, take, finished, unmeasured)
            if job.cancel_requested:
                self._terminal_events.cancelled(job)
            else:
                self._terminal_events.done(job)
        except Exception as error:  # noqa: BLE001  any failure ends the job with it
            self._terminal_events.failed_if_live(job, error)
        finally:
            if job.embeddings is not None:
                self.embeddings.delivered(job)

    async def _finish(self, job: Job, raw: RawTake) -> tuple[FinishedTake, Mapping[str, str]]:
        """Process, measure and store a take; return it, and why measured values are missing."""
        parameters, init = job.parameters, job.init_clip
        clip = await self._background.in_thread(self._postprocessor.process, parameters, raw, init)
        measurement = await self._measure(parameters, clip)
        fit = _fit(parameters, measurement) if measurement is not None and parameters.fit else None
        finished = await self._background.in_thread(
            self._postprocessor.store, parameters, raw, str(job.id), clip, measurement, fit
        )
        return finished, {} if measurement is None else measurement.reasons

    async def _measure(self, parameters: Parameters, clip: Clip) -> Measurement | None:
        if not parameters.measure:
            return None
        per_bar = beats_of_bar(parameters.beats_per_bar, parameters.signature)
        return await self._background.in_measuring_thread(measure, clip, per_bar)

    async def _order_by_fit(self, job: Job, raw: list[RawTake]) -> list[RawTake]:
        """Return the takes with new indices, the one that keeps best to what was asked first.

        Only the scores are kept, and each take is processed once more: 16 long takes would fill the memory.
        """
        fits: list[float] = []
        for take in raw:
            clip = await self._background.in_thread(self._postprocessor.process, job.parameters, take, job.init_clip)
            measurement = await self._measure(job.parameters, clip)
            fits.append(0.0 if measurement is None else _fit(job.parameters, measurement))
            if not job.live or job.cancel_requested:
                return raw
        order = sorted(range(len(raw)), key=lambda index: -fits[index])
        return [replace(raw[place], index=index) for index, place in enumerate(order)]

    def _announce(self, job: Job, raw: RawTake, finished: FinishedTake, unmeasured: Mapping[str, str]) -> None:
        """Send `take` to the client, then pass the take on."""
        stored = finished.stored
        event = replace_fields(take_event(job.id, stored, stored.index, unmeasured), knows=job.knows)
        job.takes.append(event)
        if job.parameters.inline:
            job.clips.append(finished.clip)
        self._outbox.send(job.client, event, finished.clip if job.parameters.inline else None)
        if job.embeddings is not None:
            self.embeddings.add_take(job, raw.rendered_index, stored.take_id)
        self._listener.take(job, finished)

    def _store_embedding(self, take_id: str, model: str, vector: bytes) -> None:
        self._background.start(self._write_embedding(take_id, model, vector), f"embedding-{take_id}")

    async def _write_embedding(self, take_id: str, model: str, vector: bytes) -> None:
        """Store the embedding of a take. A take without one is still found by its prompt."""
        try:
            await self._background.in_thread(self._postprocessor.library.store_embedding, take_id, model, vector)
        except errors.TimbredError as error:
            log.warning("take %s can't be found by its sound: %s", take_id, error)
