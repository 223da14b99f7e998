"""One device, its resident models, and the jobs that take their steps on it together."""

import logging
import math
import os
import queue
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from msgspec import structs

from timbred import __version__, errors
from timbred.engine import device
from timbred.engine.batching import Candidate, is_fatal, next_batch, rest_after, translate
from timbred.engine.cache_upkeep import Upkeep
from timbred.engine.codecs.chunked import VocoderStream
from timbred.engine.compile.compiled_calls import CompileQueue
from timbred.engine.diffusion.generation import RenderedSounds, joined
from timbred.engine.diffusion.state import Generation
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.factory import make_resident, needs_of
from timbred.engine.ipc import DaemonLink
from timbred.engine.memory.component_cache import SharedComponents
from timbred.engine.memory.device_memory import DeviceMemory, Resident, to_evict
from timbred.engine.memory.model_loader import DeferredFree, Loader, LoadResult
from timbred.engine.step_priority import StepPriority
from timbred.engine.timing import DurationEma, MaxLength, ThreadTuner
from timbred.ipc import engine_messages
from timbred.ipc.child_exit import leave
from timbred.ipc.heap import release_free_memory
from timbred.models import checkpoint

log = logging.getLogger("timbred.engine")

FATAL = 70
"""Exit status after a fault of the device that only a new process can mend."""

BUDGET = 0.8
"""Part of the device's memory that models may fill, where the setting says nothing; jobs need the rest."""

PREPARED_SHARE = 0.25
"""Part of the budget that prepared calls may fill, with all that they hold for each length."""

LOADING_TOLD_EVERY = 0.1
"""Seconds between two looks at how far a load is, while nothing else is to be done."""

TO_SPARE = 1.25
"""Times what a job still takes that must be left until it is wanted, for others to step before it or with it."""

ROWS = {"cpu": 16, "mps": 16, "cuda": 64}
"""Rows of the largest batch, by kind of device; a guided take is two rows."""


@dataclass(eq=False)
class EngineJob:
    """A render under way: it waits for its model (`run` is None), takes its steps, or is heard already (`sounding`).
    It is wanted by the moment `due`, and takes `remaining` seconds more; None while that isn't known.

    Where takes are made one after the other, `made` holds those that are done, after `steps_before` steps.
    """

    render: engine_messages.RenderJob
    run: Generation | None = None
    sounding: VocoderStream | None = None
    due: float = math.inf
    remaining: float | None = None
    stepped: float = 0.0
    told: float = -1.0
    preview_due: bool = False
    made: list[RenderedSounds] = field(default_factory=list[RenderedSounds])
    steps_before: int = 0

    @property
    def orders(self) -> tuple[engine_messages.RenderOrder, ...]:
        """What is made, one after the other: all takes at once, or with `exact` each take alone. In a batch, a take's
        samples would depend on how many others there are."""
        order = self.render.order
        return tuple(structs.replace(order, seeds=(seed,)) for seed in order.seeds) if order.exact else (order,)

    @property
    def progress(self) -> tuple[int, int]:
        """Steps that are done, and steps in all."""
        assert self.run is not None
        left = len(self.orders) - len(self.made)
        return self.steps_before + self.run.step, self.steps_before + left * self.run.steps

    @property
    def number(self) -> int:
        return self.render.job

    def candidate(self) -> Candidate:
        """The job as the batching sees it."""
        assert self.run is not None
        group = (self.render.model.name, self.run.shape)
        alone = self.render.order.exact
        return Candidate(self.number, group, self.render.rank, self.run.rows, alone, self._pressing())

    def _pressing(self) -> float:
        """`due` of a job that has no time to spare."""
        if self.remaining is not None and time.perf_counter() + TO_SPARE * self.remaining < self.due:
            return math.inf
        return self.due

    @property
    def work(self) -> tuple[object, ...]:
        """What jobs of the same pace have in common."""
        order = self.render.order
        return self.render.model.name, order.guidance > 1.0, len(order.seeds), round(order.seconds, 1)


@dataclass(frozen=True)
class MemoryReleased:
    """The memory of a model that was unloaded is free."""

    name: str


@dataclass(eq=False)
class MemoryRequested:
    """A load asks for `added` bytes, from its own thread, and waits until idle models have given way."""

    name: str
    added: int
    made: "Future[None]" = field(default_factory=Future["None"])


class EngineScheduler:
    """Takes in orders between steps; jobs join and leave the running batch there."""

    def __init__(
        self,
        chosen: device.ComputeDevice,
        address: str,
        token: str,
        heartbeat: float,
        budget: int = 0,
        workshop: CompileQueue | None = None,
    ) -> None:
        """`budget` is in bytes, 0 for what the device has; `heartbeat` in seconds; `workshop` makes models faster."""
        self.device = chosen
        self.token = token
        self.models: dict[str, LatentDiffusion] = {}
        self.last_used: dict[str, float] = {}
        self.shared = SharedComponents()
        self.budget = budget or int(BUDGET * device.memory(chosen.place)[1])
        self.places = DeviceMemory(chosen.place, self.budget)
        self.coming: dict[str, int] = {}
        self.reach = MaxLength()
        self.jobs: dict[int, EngineJob] = {}
        self.pace = DurationEma()
        self.threads = ThreadTuner(torch.get_num_threads())
        self.most_rows = ROWS.get(chosen.place.type, 16)
        self.precedence = StepPriority()
        self.releasing = DeferredFree(self.precedence, self._free)
        self.workshop = workshop or CompileQueue("off", chosen.place, Path())
        self.workshop.has_room = self._has_room
        self.workshop.limit = int(PREPARED_SHARE * self.budget)
        self.workshop.behind = self.precedence.behind
        self.upkeep = Upkeep(self.releasing.after)
        self.frame_rate = 0.0
        self.mailbox = DaemonLink(address, heartbeat, self.beat)
        self.loader: Loader[LatentDiffusion] = Loader(self._load, self.mailbox.orders.put)

    def run(self) -> None:
        """Carry out orders until told to quit."""
        self.mailbox.start()
        self.mailbox.send(
            engine_messages.EngineReady(
                token=self.token,
                wire_version=engine_messages.WIRE_VERSION,
                version=__version__,
                pid=os.getpid(),
                device=str(self.device.place),
                device_name=self.device.name,
                precision=self.device.precision_name,
            )
        )
        self.mailbox.send(self.beat())
        while self._take_orders():
            began = time.perf_counter()
            with self.precedence.first():
                self._step()
            self.upkeep.worked()
            self._give_way(began)
        self.mailbox.close()

    def _give_way(self, began: float) -> None:
        """Leave the device to a render loop that shares it, if there is one."""
        if self.frame_rate:
            device.finish(self.device.place)  # what a GPU was told may not be done yet
            time.sleep(rest_after(time.perf_counter() - began, self.frame_rate))

    def beat(self) -> engine_messages.EngineHeartbeat:
        """The device's state now."""
        used, total = device.memory(self.device.place)
        resident = tuple(_size_of(name, model) for name, model in tuple(self.models.items()))
        return engine_messages.EngineHeartbeat(memory_used=used, memory_total=total, resident=resident)

    # orders

    def _take_orders(self) -> bool:
        """Take in all orders that are there; with nothing to do, wait for one. False when told to quit."""
        while True:
            idle = not any(job.run for job in self.jobs.values())
            try:
                patience = LOADING_TOLD_EVERY if self.jobs else self.upkeep.due_in
                order = self.mailbox.orders.get(block=idle, timeout=patience)
            except queue.Empty:
                if not idle:
                    return True
                if not self.jobs:
                    self.upkeep.tidy()
                self._tell_loading()
                self._drop_cancelled()
                continue
            if isinstance(order, engine_messages.QuitEngine):
                return False
            self._take(order)
            self.upkeep.worked()

    def _take(
        self, order: engine_messages.ToEngine | LoadResult[LatentDiffusion] | MemoryRequested | MemoryReleased
    ) -> None:
        match order:
            case engine_messages.LoadModel(model=source):
                self._want(source)
            case engine_messages.UnloadModel(name=name):
                self._unload(name)
            case engine_messages.RenderJob():
                due = math.inf if order.within is None else time.perf_counter() + order.within
                job = EngineJob(order, due=due)
                self.jobs[job.number] = job
                self._begin_or_load(job)
            case LoadResult():
                self._loaded(order)
            case MemoryRequested():
                self._make_room(order)
                self.releasing.after(partial(order.made.set_result, None))
            case MemoryReleased(name=name):
                self.mailbox.send(engine_messages.ModelUnloaded(name=name))
            case engine_messages.SetYield(frame_rate=frame_rate):
                self.frame_rate = frame_rate
            case engine_messages.CancelJob() | engine_messages.QuitEngine():
                raise AssertionError("handled before")

    def _want(self, source: engine_messages.ModelSource) -> None:
        if source.name in self.models:
            self.mailbox.send(engine_messages.ModelLoaded(model=_size_of(source.name, self.models[source.name])))
        else:
            self.loader.want(source)

    def _unload(self, name: str) -> None:
        """The daemon is told once the memory is free."""
        gone: list[torch.nn.Module] = []
        whole: list[object] = []
        if name in self.models:
            gone += self._alone(name)
            whole.append(self.models.pop(name))
            self.places.drop(gone)
        self.releasing.release(
            whole, gone, self.shared.files(gone), partial(self.mailbox.orders.put, MemoryReleased(name))
        )

    def _alone(self, name: str) -> list[torch.nn.Module]:
        """The components that only this model has."""
        others = {id(part) for other, model in self.models.items() if other != name for part in model.modules}
        return [part for part in self.models[name].modules if id(part) not in others]

    def _make_room(self, newcomer: MemoryRequested) -> None:
        """Drop what was used least recently, while everything together is over the budget: copies of weights first,
        then models. What several models share goes with none of them."""
        self.coming[newcomer.name] = newcomer.added
        self.workshop.give_up(self._held + self.workshop.copies - self.budget)
        busy = {job.render.model.name for job in self.jobs.values()}
        alone = {name: self._held_alone(name) for name in self.models}
        others = [
            Resident(name, size, self.last_used.get(name, 0.0), name in busy or not size)
            for name, size in alone.items()
        ]
        together = self._held + self.workshop.copies - sum(alone.values())
        for name in to_evict(others, together, self.budget):
            log.info("%s gives way to %s", name, newcomer.name)
            self._unload(name)

    @property
    def _held(self) -> int:
        """Bytes of all models, and of those that are being loaded: room was made for them."""
        return self.places.held + sum(tuple(self.coming.values()))

    def _held_alone(self, name: str) -> int:
        """Bytes that only this model holds."""
        return sum(self.places.size(part) for part in self._alone(name))

    def _has_room(self) -> bool:
        """Whether everything is within the budget, copies of weights too."""
        return self._held + self.workshop.copies <= self.budget

    def _loaded(self, result: LoadResult[LatentDiffusion]) -> None:
        name = result.source.name
        waiting = [job for job in self.jobs.values() if job.run is None and job.render.model.name == name]
        if result.model is None:
            error = result.error or RuntimeError("the load ended without a model")
            known = self._known(error)
            self.mailbox.send(engine_messages.JobFailed(code=known.code, message=str(known), model=name))
            for job in waiting:
                self._fail(job, error)
            return
        result.model.settle()  # an unload meanwhile has forgotten what both share
        self.models[name] = result.model
        self.last_used[name] = time.monotonic()
        self.mailbox.send(engine_messages.ModelLoaded(model=_size_of(name, result.model)))
        for job in waiting:
            self._begin_or_load(job)

    def _load(self, source: engine_messages.ModelSource, progress: Callable[[float], None]) -> LatentDiffusion:
        """Runs in the loader's thread; the one that generates goes first."""
        if self.device.place.type == "cpu":
            torch.set_num_threads(1)  # in this thread: helpers of its own would slow down those of the other
        return self.precedence.behind(lambda: self._made(source, progress))

    def _made(self, source: engine_messages.ModelSource, progress: Callable[[float], None]) -> LatentDiffusion:
        found = checkpoint.inspect(Path(source.folder), source.name, "check the model's folder")
        if found.pickled:
            parts = ", ".join(found.pickled)
            log.warning("%s has .bin weights (%s); once: timbred models convert %s", source.name, parts, source.name)
        precision = self.device.precision
        needs = needs_of(found, source.name, precision, self.shared)
        if needs.largest > self.budget:
            raise errors.OutOfMemory(
                f"{source.name} needs {needs.largest / 1e6:.4g} MB at once, and models may fill "
                f"{self.budget / 1e6:.4g} MB here; raise engine.memory if the device has more, or use a smaller model"
            )
        wanted = MemoryRequested(source.name, needs.added)
        self.mailbox.orders.put(wanted)
        wanted.made.result()
        try:
            model = make_resident(found, source.name, self.device.place, precision, progress, self.shared, self.places)
        finally:
            del self.coming[source.name]
        model.prepare(self.workshop)
        if self.device.place.type == "cpu":
            self._rehearse(model, source.name)
        return model

    @staticmethod
    def _rehearse(model: LatentDiffusion, name: str) -> None:
        try:
            model.rehearse()
        except Exception as error:  # noqa: BLE001  whatever it is, the first sound that is asked for tells its client
            log.warning("%s wasn't rehearsed: %s", name, error)

    def _free(self) -> None:
        """Give memory back that nothing uses any more: the GPU's, and that of this process."""
        if self.device.place.type == "cuda":
            torch.cuda.empty_cache()
        release_free_memory()

    # jobs

    def _begin_or_load(self, job: EngineJob) -> None:
        model = self.models.get(job.render.model.name)
        if model is None:
            self.loader.want(job.render.model, job.render.rank)
            return
        try:
            self._begin_next(job, model)
            self._tell_read(job, model)
            self.last_used[job.render.model.name] = time.monotonic()
            job.preview_due = job.render.order.preview
            job.stepped = time.perf_counter()
        except Exception as error:  # noqa: BLE001  whatever a model does, it ends this job alone
            self._fail(job, error)

    def _begin_next(self, job: EngineJob, model: LatentDiffusion) -> None:
        """Begin the first of a job's orders that isn't made yet."""
        with self._kernels(job):
            job.run = model.begin(job.orders[len(job.made)])

    def _tell_read(self, job: EngineJob, model: LatentDiffusion) -> None:
        """Tell which texts are longer than the encoders' windows."""
        for text in model.read_in_parts(job.render.order.words):
            self.mailbox.send(engine_messages.TextRead(job=job.number, **asdict(text)))

    @contextmanager
    def _kernels(self, job: EngineJob) -> Generator[None]:
        """Run kernels as a job wants them: for `exact`, deterministic ones on one thread."""
        exact = job.render.order.exact
        if exact:
            self._use_threads(1)
        torch.use_deterministic_algorithms(exact)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)

    def _tell_loading(self) -> None:
        for job in self.jobs.values():
            fraction = self.loader.progress(job.render.model.name)
            if job.run is None and fraction is not None and fraction != job.told:
                job.told = fraction
                self.mailbox.send(engine_messages.ModelLoading(job=job.number, fraction=fraction))

    def _drop_cancelled(self) -> None:
        for job in tuple(self.jobs.values()):
            if self.mailbox.is_cancelled(job.number):
                self._leave(job)
                self.mailbox.send(engine_messages.JobCancelled(job=job.number))

    def _leave(self, job: EngineJob) -> None:
        del self.jobs[job.number]
        self.mailbox.forget(job.number)

    def _step(self) -> None:
        """Take those jobs one step further whose turn it is; decode those that are done."""
        self._drop_cancelled()
        self._tell_loading()
        self._sound_on()
        ready = [job for job in self.jobs.values() if job.run is not None and job.sounding is None]
        chosen = {one.number for one in next_batch([job.candidate() for job in ready], self.most_rows)}
        batch = [job for job in ready if job.number in chosen]
        if batch:
            self._step_together(batch)

    def _step_together(self, batch: list[EngineJob]) -> None:
        model = self.models[batch[0].render.model.name]
        exact = batch[0].render.order.exact
        work = (batch[0].candidate().group, sum(job.candidate().rows for job in batch))
        learns = not exact and not self.loader.is_busy and not self.workshop.is_busy
        threads = self.threads.next(work) if learns else 1 if exact else self.threads.beside()
        self._use_threads(threads)
        began = time.perf_counter()
        try:
            with self._kernels(batch[0]):
                model.advance([job.run for job in batch if job.run is not None])
        except Exception as error:  # noqa: BLE001  whatever a model does, the process and other jobs live on
            self._failed_together(batch, error)
            return
        if learns:
            self.threads.measured(work, threads, time.perf_counter() - began)
        for job in batch:
            self._stepped(job)
            if job.run is not None and job.preview_due and job.run.step * 3 >= job.run.steps:
                self._preview(job, job.run, model)
            if job.run is not None and job.run.sampling.done:
                self._finish(job, job.run, model)

    def _use_threads(self, count: int) -> None:
        if self.device.place.type == "cpu" and torch.get_num_threads() != count:
            torch.set_num_threads(count)

    def _failed_together(self, batch: list[EngineJob], error: Exception) -> None:
        """A batch that fails (out of memory, most of all) is tried again one by one; alone, the job fails."""
        self._free()
        if len(batch) == 1 or is_fatal(error):
            for job in batch:
                self._fail(job, error)
            return
        log.warning("a batch of %d failed (%s); its jobs go on one by one", len(batch), error)
        for job in batch:
            self._step_together([job])

    def _stepped(self, job: EngineJob) -> None:
        assert job.run is not None
        step, steps = job.progress
        now = time.perf_counter()
        self.pace.measured(("step", job.work), now - job.stepped)
        job.stepped = now
        left = (steps - step) * self.pace.expected(("step", job.work))
        job.remaining = left + self.pace.expected(("decode", job.work))
        self.mailbox.send(engine_messages.StepDone(job=job.number, step=step, steps=steps, remaining=job.remaining))

    def _preview(self, job: EngineJob, run: Generation, model: LatentDiffusion) -> None:
        """Once, a third of the way. One that can't be decoded is left out: the sound itself goes on."""
        job.preview_due = False
        try:
            with self._kernels(job):
                sounds = model.preview(run)
        except Exception as error:  # noqa: BLE001  a preview must not end its job
            log.warning("job %d has no preview: %s", job.number, error)
            return
        job.stepped = time.perf_counter()
        preview = engine_messages.PreviewRendered(job=job.number, rate=sounds.rate, channels=1, first=sounds.first)
        self.mailbox.send(preview, sounds.waveforms[0].tobytes())

    def _sound_on(self) -> None:
        """Make the next piece of a sound that is heard already, in turn with the steps of the others: its listener must
        not hear a gap, nor a performer wait for all of it."""
        heard = [job for job in self.jobs.values() if job.sounding is not None]
        if not heard:
            return
        job = min(heard, key=lambda one: (one.render.rank, one.number))
        sounding = job.sounding
        assert sounding is not None
        try:
            piece = sounding.go_on()
        except Exception as error:  # noqa: BLE001  whatever a model does, it ends this job alone
            self._fail(job, error)
            return
        if piece is not None:
            message = engine_messages.PieceRendered(
                job=job.number,
                rate=sounding.rate,
                channels=1,
                first=piece.first,
                frames=sounding.frames,
                peak=sounding.peak,
                last=sounding.done,
            )
            self.mailbox.send(message, piece.samples[0].numpy().tobytes())
        if sounding.done:
            self._send_sounds(job, RenderedSounds(sounding.waveforms.numpy(), sounding.rate), [(0, None)])

    def _finish(self, job: EngineJob, run: Generation, model: LatentDiffusion) -> None:
        """Decode a run that is done, unless it goes on with another window; then begin the next take, if any."""
        try:
            with self._kernels(job):
                model.go_on(run)
        except Exception as error:  # noqa: BLE001  whatever a model does, it ends this job alone
            self._fail(job, error)
            return
        if not run.sampling.done:
            return
        if job.render.order.early:
            self._begin_to_sound(job, run, model)
            return
        try:
            with self._kernels(job):
                job.made.append(model.finish(run))
            if len(job.made) < len(job.orders):
                job.steps_before += run.steps
                self._begin_next(job, model)
                return
            sounds = joined(job.made)
            if job.render.order.rank and len(job.render.order.seeds) > 1:
                sounds = replace(sounds, heard=model.hear(sounds))
            ranked = self._ranked(job.render.order, sounds, model)
        except Exception as error:  # noqa: BLE001  whatever a model does, it ends this job alone
            self._fail(job, error)
            return
        self._send_sounds(job, sounds, ranked)

    def _begin_to_sound(self, job: EngineJob, run: Generation, model: LatentDiffusion) -> None:
        try:
            job.sounding = model.sounding(run)
        except Exception as error:  # noqa: BLE001  whatever a model does, it ends this job alone
            self._fail(job, error)
            return
        self._sound_on()

    def _send_sounds(self, job: EngineJob, sounds: RenderedSounds, ranked: list[tuple[int, float | None]]) -> None:
        self.pace.measured(("decode", job.work), time.perf_counter() - job.stepped)
        self._leave(job)
        self.reach.worked(job.render.model.name, job.render.order.seconds)
        seeds = job.render.order.seeds
        rendered = engine_messages.JobRendered(
            job=job.number,
            rate=sounds.rate,
            channels=1,
            first=sounds.first,
            seeds=tuple(seeds[index] for index, _ in ranked),
            scores=tuple(score for _, score in ranked if score is not None),
            looped=tuple(sounds.looped[index] for index, _ in ranked if sounds.looped),
        )
        self.mailbox.send(rendered, *(sounds.waveforms[index].tobytes() for index, _ in ranked))
        if job.render.order.hear:
            self._tell_heard(job, sounds, [index for index, _ in ranked])

    def _tell_heard(self, job: EngineJob, sounds: RenderedSounds, order: list[int]) -> None:
        """What the takes sound like, after they are on their way. Without it they are found by their words only."""
        try:
            heard = sounds.heard or self.models[job.render.model.name].hear(sounds)
        except Exception as error:  # noqa: BLE001  the sounds themselves are there
            log.warning("job %d can't be found by its sound: %s", job.number, error)
            self.mailbox.send(engine_messages.EmbeddingsReady(job=job.number, ear=""))
            return
        vectors = (heard.vectors[index].tobytes() for index in order)
        self.mailbox.send(engine_messages.EmbeddingsReady(job=job.number, ear=heard.ear), *vectors)

    @staticmethod
    def _ranked(
        order: engine_messages.RenderOrder, sounds: RenderedSounds, model: LatentDiffusion
    ) -> list[tuple[int, float | None]]:
        """Which take comes first, with its score; in the order asked for where nothing is ranked."""
        if not order.rank or sounds.heard is None:
            return [(index, None) for index in range(len(order.seeds))]
        scores = model.scores(order.words.prompt, sounds.heard)
        best_first = sorted(range(len(scores)), key=lambda index: scores[index], reverse=True)
        return [(index, scores[index]) for index in best_first]

    def _fail(self, job: EngineJob, error: Exception) -> None:
        known = self._known(error)
        if isinstance(known, errors.OutOfMemory) and job.run is not None:
            known = self._too_long(job, known)
        self._leave(job)
        self.mailbox.send(engine_messages.JobFailed(code=known.code, message=str(known), job=job.number))
        if is_fatal(error):
            self.mailbox.close()
            leave(FATAL)

    def _too_long(self, job: EngineJob, error: errors.OutOfMemory) -> errors.OutOfMemory:
        """The error with a size that would fit; as to takes, they were made one by one before this."""
        name, seconds = job.render.model.name, job.render.order.seconds
        self.reach.failed(name, seconds)
        advice = self.reach.advice(name, seconds)
        return errors.OutOfMemory(f"{error}; {seconds:.3g} s is too long for {name} here, try {advice:.3g} s")

    @staticmethod
    def _known(error: Exception) -> errors.TimbredError:
        known = translate(error)
        if isinstance(known, errors.Internal | errors.ModelError):
            log.warning("%s", known, exc_info=error)
        return known


def _size_of(name: str, model: LatentDiffusion) -> engine_messages.ResidentModel:
    """With the copies of its weights, and with what it shares."""
    return engine_messages.ResidentModel(name=name, memory=model.memory + model.copies)
