"""The scheduler of an engine process: takes messages between steps and runs the jobs' steps in batches.

A job waits for its model, takes its denoising steps together with others of the same model and shape, and ends with
its audio, a failure or a cancellation:

    waiting for its model -> denoising -> rendered
                                       -> waiting to be ranked -> rendered
                                       -> streaming from the vocoder -> rendered
    any of these -> failed, cancelled
"""

import logging
import math
import os
import queue
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from msgspec import structs

from timbred import __version__, errors
from timbred.engine import device
from timbred.engine.batching import (
    Candidate,
    DurationEma,
    MaxLength,
    ThreadTuner,
    is_fatal,
    next_batch,
    to_timbred_error,
    yield_duration,
)
from timbred.engine.codecs.chunked import PieceStream
from timbred.engine.diffusion.generation import Generation, RenderedSounds, join_takes
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.clap import EmbeddingTask, TakeEmbedder, is_to_be_ranked
from timbred.engine.memory.model_loader import LoadResult
from timbred.engine.model_manager import (
    LoadedPart,
    ManagerMessage,
    MemoryReleased,
    MemoryRequested,
    ModelManager,
    Upkeep,
    resident_size,
)
from timbred.ipc import engine_messages
from timbred.ipc.child_exit import exit_immediately
from timbred.ipc.engine_messages import DaemonLink
from timbred.models.clap import CLAP_NAME

log = logging.getLogger("timbred.engine")

FATAL_EXIT_STATUS = 70
"""Exit status after a device fault that only a new process can recover from."""

LOAD_PROGRESS_INTERVAL_S = 0.1
"""Interval at which load progress is reported while no job can step."""

DEADLINE_MARGIN = 1.25
"""A job is urgent when less than this many times its remaining duration is left before its deadline."""

MAX_BATCH_ROWS = {"cpu": 16, "mps": 16, "cuda": 64}
"""Rows of the largest batch, by kind of device; a guided take is two rows."""

MAX_WHOLE_RENDER_S = 0.25
"""Longest denoising in seconds that may run at once: it delays a cancel and the next request by this time."""


@dataclass(eq=False)
class EngineJob:
    """A render job: waiting for its model (`generation` is None), denoising, or streaming from the vocoder (`stream`).

    Takes rendered one after the other collect in `rendered`; `finished_steps` counts their steps.

    Attributes:
        deadline: When the audio is due, on the clock of `time.perf_counter`; infinity without a deadline.
        remaining_s: Seconds of work left; None while unknown.
        last_step_at: When the latest step ended, on the same clock.
        reported_steps: Finished steps sent last.
        reported_progress: Load progress sent last, 0 to 1; -1 before the first report.
        is_ranking: True while its takes wait to be ranked.
    """

    render: engine_messages.RenderJob
    generation: Generation | None = None
    stream: PieceStream | None = None
    deadline: float = math.inf
    remaining_s: float | None = None
    last_step_at: float = 0.0
    reported_steps: int = 0
    reported_progress: float = -1.0
    preview_due: bool = False
    rendered: list[RenderedSounds] = field(default_factory=list[RenderedSounds])
    finished_steps: int = 0
    is_ranking: bool = False

    @property
    def is_active(self) -> bool:
        """True while it is denoised or streamed."""
        return self.generation is not None and not self.is_ranking

    @property
    def orders(self) -> tuple[engine_messages.RenderOrder, ...]:
        """Orders to render one after the other: all takes together, or each take alone with `exact`.

        In a batch, a take's samples would depend on the number of other takes.
        """
        order = self.render.order
        return tuple(structs.replace(order, seeds=(seed,)) for seed in order.seeds) if order.exact else (order,)

    @property
    def progress(self) -> tuple[int, int]:
        """Finished steps and the total number of steps."""
        assert self.generation is not None
        remaining_orders = len(self.orders) - len(self.rendered)
        return (
            self.finished_steps + self.generation.step,
            self.finished_steps + remaining_orders * self.generation.steps,
        )

    @property
    def number(self) -> int:
        """The daemon's number of the job."""
        return self.render.job

    @property
    def model_name(self) -> str:
        """Name of the model that renders the job."""
        return self.render.model.name

    def candidate(self) -> Candidate:
        """Return the job as the batching sees it."""
        assert self.generation is not None
        group = (self.model_name, self.generation.shape)
        alone = self.render.order.exact
        return Candidate(self.number, group, self.render.rank, self.generation.rows, alone, self._urgent_deadline())

    def _urgent_deadline(self) -> float:
        """Return `deadline` if the job has no time to spare, else infinity."""
        if self.remaining_s is not None and time.perf_counter() + DEADLINE_MARGIN * self.remaining_s < self.deadline:
            return math.inf
        return self.deadline

    @property
    def workload(self) -> tuple[object, ...]:
        """Key of jobs whose steps take the same time."""
        order = self.render.order
        return self.model_name, order.guidance > 1.0, len(order.seeds), round(order.seconds, 1), bool(order.loras)


class EngineScheduler:
    """Runs the engine's loop: takes messages between steps, where jobs join and leave the running batch.

    Args:
        compute_device: Device and precision of all models.
        address: ZeroMQ address of the daemon's socket for this engine.
        token: Sent back in `EngineReady`, so that the daemon recognises the process it started.
        heartbeat_s: Interval between heartbeats.
        budget_bytes: Memory that models may fill; 0 takes a share of the device's memory.
        compile_setting: `auto`, `on` or `off`, see `CompileQueue`.
        cache_folder: Folder for compiled calls; None keeps none on disk.
    """

    def __init__(
        self,
        compute_device: device.ComputeDevice,
        address: str,
        token: str,
        heartbeat_s: float,
        budget_bytes: int = 0,
        compile_setting: str = "off",
        cache_folder: Path | None = None,
    ) -> None:
        self.device = compute_device
        self.token = token
        self.jobs: dict[int, EngineJob] = {}
        self.durations = DurationEma()
        self.max_length = MaxLength()
        self.thread_tuner = ThreadTuner(torch.get_num_threads())
        self.max_batch_rows = MAX_BATCH_ROWS.get(compute_device.torch_device.type, 16)
        self.frame_rate = 0.0
        self.link = DaemonLink(address, heartbeat_s, self.heartbeat)
        self.models = ModelManager(compute_device, budget_bytes, self.link.inbox.put, compile_setting, cache_folder)
        self.upkeep = Upkeep(self.models.deferred_free.call_after)
        self.embedder = TakeEmbedder(self.models)

    def run(self) -> None:
        """Run until the daemon sends `QuitEngine`."""
        self.link.start()
        self.link.send(
            engine_messages.EngineReady(
                token=self.token,
                wire_version=engine_messages.WIRE_VERSION,
                version=__version__,
                pid=os.getpid(),
                device=str(self.device.torch_device),
                device_name=self.device.name,
                precision=self.device.precision_name,
                model_memory=self.models.budget_bytes,
            )
        )
        self.link.send(self.heartbeat())
        while self._take_messages():
            started_at = time.perf_counter()
            self._step()
            self.upkeep.record_work()
            self._yield_device(started_at)
        self.link.close()

    def _yield_device(self, began: float) -> None:
        """Pause for a render loop that shares the device, if there is one."""
        if self.frame_rate:
            device.synchronize(self.device.torch_device)  # a GPU may still be executing what was queued
            time.sleep(yield_duration(time.perf_counter() - began, self.frame_rate))

    def heartbeat(self) -> engine_messages.EngineHeartbeat:
        """Return the device's memory and the resident models, in bytes; called by the link's thread too."""
        used, total = device.read_memory(self.device.torch_device)
        return engine_messages.EngineHeartbeat(memory_used=used, memory_total=total, resident=self.models.sizes())

    # messages

    def _take_messages(self) -> bool:
        """Handle all waiting messages, and wait for one while no job can step; False after `QuitEngine`."""
        while True:
            active = self._active_ranks()
            idle = not active and self.embedder.next(active) is None
            try:
                waits = LOAD_PROGRESS_INTERVAL_S if self.jobs else self.upkeep.due_in_s, self.embedder.due_in_s
                message = self.link.inbox.get(idle, min((wait for wait in waits if wait is not None), default=None))
            except queue.Empty:
                if not idle:
                    return True
                if not self.jobs and self.upkeep.due_in_s == 0.0:
                    self.upkeep.tidy()
                self._report_load_progress()
                self._drop_cancelled()
                continue
            if isinstance(message, engine_messages.QuitEngine):
                return False
            self._handle(message)
            self.upkeep.record_work()

    def _handle(self, message: engine_messages.ToEngine | ManagerMessage) -> None:
        match message:
            case engine_messages.LoadModel(model=source):
                self._load(source)
            case engine_messages.UnloadModel(name=name):
                self.models.unload(name)
            case engine_messages.RenderJob():
                deadline = math.inf if message.within is None else time.perf_counter() + message.within
                job = EngineJob(message, deadline=deadline)
                self.jobs[job.number] = job
                self._begin_or_load(job)
            case LoadResult():
                self._finish_load(message)
            case MemoryRequested():
                in_use = [job.model_name for job in self.jobs.values()]
                self.models.make_room(message, in_use + [CLAP_NAME] * self.embedder.is_ranking)
            case MemoryReleased(name=name):
                self.link.send(engine_messages.ModelUnloaded(name=name))
            case engine_messages.SetYield(frame_rate=frame_rate):
                self.frame_rate = frame_rate
            case engine_messages.CancelJob() | engine_messages.QuitEngine():
                raise AssertionError("handled before")

    def _load(self, source: engine_messages.ModelSource) -> None:
        model = self.models.resident.get(source.name)
        if model is None:
            self.models.loader.request_load(source)
        else:
            self.link.send(engine_messages.ModelLoaded(model=resident_size(source.name, model)))

    def _finish_load(self, result: LoadResult[LoadedPart]) -> None:
        name = result.source.name
        if name == CLAP_NAME:
            self.models.finish_load(result)
            self.embedder.resume()
            return
        waiting = [job for job in self.jobs.values() if job.generation is None and job.model_name == name]
        model = self.models.finish_load(result)
        if model is None:
            cause = result.error or RuntimeError("the load ended without a model")
            error = _wire_error(cause)
            self.link.send(engine_messages.JobFailed(code=error.code, message=str(error), model=name))
            for job in waiting:
                self._fail(job, cause)
            return
        self.link.send(engine_messages.ModelLoaded(model=resident_size(name, model)))
        for job in waiting:
            self._begin_or_load(job)

    # jobs

    def _begin_or_load(self, job: EngineJob) -> None:
        model = self.models.get(job.model_name)
        if model is None:
            self.models.loader.request_load(job.render.model, job.render.rank)
            return
        try:
            self._begin_next(job, model)
            self._send_text_parts(job, model)
            job.preview_due = job.render.order.preview
            job.last_step_at = time.perf_counter()
        except Exception as error:  # noqa: BLE001  a model's error ends this job only
            self._fail(job, error)
            return
        if is_to_be_ranked(job.render.order):
            self.models.request_clap(job.render)

    def _begin_next(self, job: EngineJob, model: LatentDiffusion) -> None:
        """Begin the first of a job's orders that is not rendered yet."""
        with self._kernels(job):
            job.generation = model.begin(job.orders[len(job.rendered)])

    def _send_text_parts(self, job: EngineJob, model: LatentDiffusion) -> None:
        """Send which texts are longer than the encoders' windows."""
        for text in model.find_long_texts(model.conditioner.inputs_of(job.render.order)):
            self.link.send(engine_messages.TextRead(job=job.number, **asdict(text)))

    @contextmanager
    def _kernels(self, job: EngineJob, work: object = None) -> Generator[None]:
        """Select the kernels of a job: deterministic ones on one thread for `exact`.

        For a kind of `work`, the number of threads with which it is fastest is used, and its duration is measured.
        """
        exact, threads = job.render.order.exact, 0
        if exact:
            self._use_threads(1)
            torch.use_deterministic_algorithms(True)  # imports torch's compiler, which takes a second
        elif work is not None and (self.models.loader.is_busy or self.models.compile_queue.is_busy):
            self._use_threads(self.thread_tuner.threads_beside_other_work())
        elif work is not None:
            threads = self.thread_tuner.choose_threads(work)
            self._use_threads(threads)
        began = time.perf_counter()
        try:
            yield
        finally:
            if exact:
                torch.use_deterministic_algorithms(False)
        if threads:
            self.thread_tuner.record(work, threads, time.perf_counter() - began)

    def _report_load_progress(self) -> None:
        """Send the progress of loads that jobs wait for, where it changed."""
        for job in self.jobs.values():
            fraction = self.models.loader.progress(job.model_name)
            if job.generation is None and fraction is not None and fraction != job.reported_progress:
                job.reported_progress = fraction
                self.link.send(engine_messages.ModelLoading(job=job.number, fraction=fraction))

    def _drop_cancelled(self) -> None:
        for job in tuple(self.jobs.values()):
            if self.link.is_cancelled(job.number):
                self._remove(job)
                self.link.send(engine_messages.JobCancelled(job=job.number))

    def _remove(self, job: EngineJob) -> None:
        del self.jobs[job.number]
        self.embedder.drop_ranking(job.number)
        self.link.forget(job.number)

    def _active_ranks(self) -> list[int]:
        """Return the ranks of the jobs that are denoised or streamed."""
        return [job.render.rank for job in self.jobs.values() if job.is_active]

    def _step(self) -> None:
        """Run one step of the jobs whose turn it is, decode those that are done, and embed the take that is due."""
        self._drop_cancelled()
        self._report_load_progress()
        self._stream_next_piece()
        ready = [job for job in self.jobs.values() if job.is_active and job.stream is None]
        chosen = {entry.number for entry in next_batch([job.candidate() for job in ready], self.max_batch_rows)}
        batch = [job for job in ready if job.number in chosen]
        if batch:
            self._step_batch(batch)
        self._embed_next_take()

    def _step_batch(self, batch: list[EngineJob]) -> None:
        model = self.models.resident[batch[0].model_name]
        workload = (batch[0].candidate().group, sum(job.candidate().rows for job in batch))
        try:
            with self._kernels(batch[0], workload), self.models.load_pacer.step():
                model.advance(
                    [job.generation for job in batch if job.generation is not None], self._may_run_at_once(batch)
                )
        except Exception as error:  # noqa: BLE001  a model's error must not end the process or other jobs
            self._retry_one_by_one(batch, error)
            return
        for job in batch:
            self._report_step(job)
            generation = job.generation
            if generation is None:
                continue
            if job.preview_due and generation.step * 3 >= generation.steps:
                self._send_preview(job, generation, model)
            if generation.sampler.done:
                self._finish(job, generation, model)

    def _may_run_at_once(self, batch: list[EngineJob]) -> bool:
        """Tell if the steps of a batch may be run in one call, during which nothing else is done.

        No other job and no render loop may be waiting, nobody may need its progress for a preview or a deadline, and
        earlier steps of such a job must have been short enough.
        """
        if len(self._active_ranks()) != 1 or self.frame_rate:
            return False
        job = batch[0]
        order, generation = job.render.order, job.generation
        needs_progress = job.preview_due or order.exact or job.deadline < math.inf
        if generation is None or needs_progress:
            return False
        expected_s = generation.steps * self.durations.mean_s(("step", job.workload))
        return 0.0 < expected_s <= MAX_WHOLE_RENDER_S

    def _use_threads(self, count: int) -> None:
        if self.device.torch_device.type == "cpu" and torch.get_num_threads() != count:
            torch.set_num_threads(count)

    def _retry_one_by_one(self, batch: list[EngineJob], error: Exception) -> None:
        """Retry the jobs of a failed batch one by one (it may have run out of memory); a single job fails."""
        self.models.free_cached_memory()
        if len(batch) == 1 or is_fatal(error):
            for job in batch:
                self._fail(job, error)
            return
        log.warning("a batch of %d failed (%s); its jobs continue one by one", len(batch), error)
        for job in batch:
            self._step_batch([job])

    def _report_step(self, job: EngineJob) -> None:
        """Measure a step's duration and send `StepDone` with the remaining seconds."""
        step, steps = job.progress
        now = time.perf_counter()
        taken = max(1, step - job.reported_steps)  # several if they were run at once
        self.durations.record(("step", job.workload), (now - job.last_step_at) / taken)
        job.last_step_at, job.reported_steps = now, step
        steps_s = (steps - step) * self.durations.mean_s(("step", job.workload))
        job.remaining_s = steps_s + self.durations.mean_s(("decode", job.workload))
        self.link.send(engine_messages.StepDone(job=job.number, step=step, steps=steps, remaining=job.remaining_s))

    def _send_preview(self, job: EngineJob, generation: Generation, model: LatentDiffusion) -> None:
        """Send the preview, once, after a third of the steps; the job continues where it can't be decoded."""
        job.preview_due = False
        try:
            with self._kernels(job):
                sounds = model.preview(generation)
        except Exception as error:  # noqa: BLE001  a failed preview must not end its job
            log.warning("job %d has no preview: %s", job.number, error)
            return
        job.last_step_at = time.perf_counter()
        preview = engine_messages.PreviewRendered(
            job=job.number, rate=sounds.rate, channels=sounds.channels, first=sounds.first_frame
        )
        self.link.send(preview, sounds.waveforms[0].tobytes())

    def _stream_next_piece(self) -> None:
        """Render the next piece of the most urgent stream, between the steps of other jobs.

        This prevents gaps in its playback, and other jobs don't wait for the whole stream.
        """
        streaming = [job for job in self.jobs.values() if job.stream is not None]
        if not streaming:
            return
        job = min(streaming, key=lambda job: (job.render.rank, job.number))
        stream = job.stream
        assert stream is not None
        try:
            piece = stream.render_piece()
        except Exception as error:  # noqa: BLE001  a model's error ends this job only
            self._fail(job, error)
            return
        if piece is not None:
            message = engine_messages.PieceRendered(
                job=job.number,
                rate=stream.rate,
                channels=piece.samples.shape[2],
                first=piece.first,
                frames=stream.frames,
                peak=stream.peak,
                last=stream.done,
            )
            self.link.send(message, piece.samples[0].numpy().tobytes())
        if stream.done:
            self._send_audio(job, EmbeddingTask(job.render, RenderedSounds(stream.waveforms.numpy(), stream.rate)))

    def _finish(self, job: EngineJob, generation: Generation, model: LatentDiffusion) -> None:
        """Decode a finished generation unless it has another window; then begin the next take, if any."""
        try:
            with self._kernels(job):
                model.begin_next_window(generation)
        except Exception as error:  # noqa: BLE001  a model's error ends this job only
            self._fail(job, error)
            return
        if not generation.sampler.done:
            return
        if job.render.order.is_streamed:
            self._begin_stream(job, generation, model)
            return
        try:
            with self._kernels(job, ("decode", job.workload)):
                job.rendered.append(model.decode(generation))
            if len(job.rendered) < len(job.orders):
                job.finished_steps += generation.steps
                self._begin_next(job, model)
                return
            sounds = join_takes(job.rendered)
        except Exception as error:  # noqa: BLE001  a model's error ends this job only
            self._fail(job, error)
            return
        if is_to_be_ranked(job.render.order):
            job.is_ranking = True
            self.embedder.add(EmbeddingTask(job.render, sounds, ranks=True))
        else:
            self._send_audio(job, EmbeddingTask(job.render, sounds))

    def _begin_stream(self, job: EngineJob, generation: Generation, model: LatentDiffusion) -> None:
        try:
            job.stream = model.begin_stream(generation)
        except Exception as error:  # noqa: BLE001  a model's error ends this job only
            self._fail(job, error)
            return
        self._stream_next_piece()

    def _embed_next_take(self) -> None:
        """Embed the take that is due, and send what is complete then."""
        task = self.embedder.step(self._active_ranks())
        if task is None:
            return
        job = self.jobs.get(task.render.job)
        if task.ranks and job is not None:
            self._send_audio(job, task)
        elif not task.ranks:
            self._send_embeddings(task)
        if task.error is not None and is_fatal(task.error):
            self.link.close()
            exit_immediately(FATAL_EXIT_STATUS)

    def _send_audio(self, job: EngineJob, task: EmbeddingTask) -> None:
        """Send a job's takes, best first if they are ranked; their embeddings follow."""
        self.durations.record(("decode", job.workload), time.perf_counter() - job.last_step_at)
        self._remove(job)
        self.max_length.record_success(job.model_name, job.render.order.seconds)
        seeds, sounds, ranked = job.render.order.seeds, task.sounds, task.ranked
        rendered = engine_messages.JobRendered(
            job=job.number,
            rate=sounds.rate,
            channels=sounds.channels,
            first=sounds.first_frame,
            seeds=tuple(seeds[index] for index, _ in ranked),
            scores=tuple(score for _, score in ranked if score is not None),
            looped=tuple(sounds.looped[index] for index, _ in ranked if sounds.looped),
            knows=None if job.generation is None else job.generation.knows,
        )
        self.link.send(rendered, *(sounds.waveforms[index].tobytes() for index, _ in ranked))
        if not job.render.order.embed_takes:
            return
        task.order = [index for index, _ in ranked]
        if task.ranks:
            self._send_embeddings(task)
        else:
            self.embedder.add(task)

    def _send_embeddings(self, task: EmbeddingTask) -> None:
        """Send the embeddings of a job's takes, after their audio; an empty `ear` means that there are none."""
        vectors = (task.vectors[index].tobytes() for index in task.order if task.is_done)
        ear = task.encoder_id if task.is_done else ""
        self.link.send(engine_messages.EmbeddingsReady(job=task.render.job, ear=ear), *vectors)

    def _fail(self, job: EngineJob, error: Exception) -> None:
        wire_error = _wire_error(error)
        if isinstance(wire_error, errors.OutOfMemory) and job.generation is not None:
            wire_error = self._with_length_advice(job, wire_error)
        self._remove(job)
        self.link.send(engine_messages.JobFailed(code=wire_error.code, message=str(wire_error), job=job.number))
        if is_fatal(error):
            self.link.close()
            exit_immediately(FATAL_EXIT_STATUS)

    def _with_length_advice(self, job: EngineJob, error: errors.OutOfMemory) -> errors.OutOfMemory:
        """Add a length that would fit to an error; the takes were already rendered one by one."""
        name, seconds = job.model_name, job.render.order.seconds
        self.max_length.record_failure(name, seconds)
        advice = self.max_length.suggest_length(name, seconds)
        return errors.OutOfMemory(f"{error}; {seconds:.3g} s is too long for {name} here, try {advice:.3g} s")


def _wire_error(error: Exception) -> errors.TimbredError:
    """Return an error with a wire code, and log those that point to a fault of the model or of timbred."""
    wire_error = to_timbred_error(error)
    if isinstance(wire_error, errors.Internal | errors.ModelError):
        log.warning("%s", wire_error, exc_info=error)
    return wire_error
