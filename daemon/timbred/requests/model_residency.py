"""Resident models, the requests that change them, the renderings that time them, and commands to the engine process."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from msgspec import structs

from timbred import errors
from timbred.errors import ShuttingDown, TimbredError, WorkerLost
from timbred.ipc import engine_messages
from timbred.models.clap import CLAP_NAME
from timbred.models.registry import Registry
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox
from timbred.requests.deadline import EtaEstimates, JobTimer
from timbred.requests.job import RANK, JobStore
from timbred.requests.key_checks import STEPS
from timbred.requests.resolve import NO_SAMPLES, GivenSamples, Parameters


class EngineConnection(Protocol):
    """The part of `timbred.ipc.engine_client.EngineLink` that is used here."""

    @property
    def up(self) -> bool:
        """True if an engine takes commands."""
        ...

    def send(self, message: engine_messages.ToEngine) -> bool:
        """Send a message; return whether an engine took it."""
        ...


class EngineCommands:
    """Sends commands to the engine.

    None is lost without an engine: a new engine gets those that still apply, and the jobs.

    Args:
        registry: The models.
        engine: The connection to the engine.
    """

    def __init__(self, registry: Registry, engine: EngineConnection) -> None:
        self.trouble = ""
        """Reason why no engine can be started; empty while one is up or may still start."""
        self.engine = engine
        self._registry = registry
        self._set_yield = engine_messages.SetYield(frame_rate=0.0)

    @property
    def state(self) -> Literal["starting", "up", "failed"]:
        """State of the engine as in `status`."""
        if self.engine.up:
            return "up"
        return "failed" if self.trouble else "starting"

    def check_engine(self) -> None:
        """Check that an engine is up or may start.

        Raises:
            WorkerLost: No engine can be started; says why.
        """
        if self.trouble:
            raise errors.WorkerLost(f"the engine can't be started: {self.trouble} (timbred retries automatically)")

    def set_yield(self, frame_rate: float) -> None:
        """Have the engine pause after each step for a render loop of `frame_rate` frames a second; 0 for never."""
        self._set_yield = engine_messages.SetYield(frame_rate=frame_rate)
        self.engine.send(self._set_yield)

    def repeat_yield(self) -> None:
        """Send the last `set_yield` to a new engine."""
        self.engine.send(self._set_yield)

    def render(
        self,
        number: int,
        parameters: Parameters,
        rank: int,
        time_left_s: float | None,
        samples: GivenSamples = NO_SAMPLES,
        tensors: tuple[engine_messages.GivenTensor, ...] = (),
    ) -> None:
        """Render a sound.

        Args:
            number: Number of the job or trial.
            parameters: What to render.
            rank: A lower rank runs first.
            time_left_s: Seconds until the deadline; None without one.
            samples: Given sounds.
            tensors: Tensors from a file of embeddings.
        """
        source, clap = self.source_of(parameters.model), self._registry.clap
        order = structs.replace(parameters.order(samples), tensors=tensors)
        installed = None
        if clap is not None and clap.is_installed:
            installed = engine_messages.ModelSource(name=CLAP_NAME, folder=str(clap.folder))
        self.engine.send(
            engine_messages.RenderJob(
                job=number, model=source, order=order, rank=rank, within=time_left_s, clap=installed
            )
        )

    def cancel(self, number: int) -> None:
        """Stop a rendering at its next step."""
        self.engine.send(engine_messages.CancelJob(job=number))

    def load(self, source: engine_messages.ModelSource) -> None:
        """Load a model into memory."""
        self.engine.send(engine_messages.LoadModel(model=source))

    def unload(self, name: str) -> None:
        """Free a model's memory."""
        self.engine.send(engine_messages.UnloadModel(name=name))

    def source_of(self, name: str) -> engine_messages.ModelSource:
        """Return a model's name and folder."""
        return engine_messages.ModelSource(name=name, folder=str(self._registry[name].folder))


log = logging.getLogger(__name__)


class ModelResidency:
    """State of the engine's memory as last reported, and the `load` and `unload` requests that wait for it."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.ready: engine_messages.EngineReady | None = None
        self.memory_used = 0
        self.memory_total = 0
        self.sizes: dict[str, int] = {}
        self._clap_lenders: set[str] = set()
        self._loading: dict[str, tuple[engine_messages.ModelSource, list[ClientId]]] = {}
        self._unloading: dict[str, list[ClientId]] = {}
        self._preload: engine_messages.ModelSource | None = None

    def is_resident(self, name: str) -> bool:
        """Return whether a model is in memory and isn't being unloaded."""
        return name in self.sizes and name not in self._unloading

    def is_loading(self, name: str) -> bool:
        """Return whether a model is being loaded, or is to be once there is an engine."""
        return name in self._loading

    @property
    def lends_clap(self) -> bool:
        """True if the CLAP of a resident model compares the takes of other models too."""
        return not self._clap_lenders.isdisjoint(self.sizes)

    @property
    def is_loading_any(self) -> bool:
        """True if any model is being loaded."""
        return bool(self._loading)

    def requested(self) -> Iterable[engine_messages.ModelSource]:
        """Return the models that a new engine is to load, the preloaded one first."""
        preload = [self._preload] if self._preload else []
        named = {source.name for source in preload}
        return [*preload, *(source for source, _ in self._loading.values() if source.name not in named)]

    def preload(self, source: engine_messages.ModelSource) -> None:
        """Load a model whenever an engine starts."""
        self._preload = source
        self._loading.setdefault(source.name, (source, []))

    def request_load(self, client: ClientId, source: engine_messages.ModelSource) -> bool:
        """Add a client's `load`; return True if the engine must get a message."""
        if self.is_resident(source.name):
            self.outbox.send(client, m.Loaded(model=source.name))
            return False
        new = source.name not in self._loading
        self._loading.setdefault(source.name, (source, []))[1].append(client)
        return new

    def request_unload(self, client: ClientId, name: str) -> bool:
        """Add a client's `unload`; return True if the engine must get a message. Without an engine none is loading."""
        if name not in self.sizes and (self.ready is None or not self.is_loading(name)):
            self.outbox.send(client, m.Unloaded(model=name))
            return False
        new = name not in self._unloading or self.is_loading(name)
        self._unloading.setdefault(name, []).append(client)
        return new

    def engine_ready(self, ready: engine_messages.EngineReady) -> None:
        """Store the device of a new engine."""
        self.ready = ready

    def engine_lost(self, reason: str) -> None:
        """Forget the resident models, and answer all requests that wait for the engine."""
        self.ready = None
        self.memory_used = 0
        self.sizes.clear()
        for name in tuple(self._unloading):
            self._unloaded(name)
        for name in tuple(self._loading):
            self.load_failed(
                name, WorkerLost(f"the engine ended while it loaded {name} ({reason}); send the request again")
            )
        if self._preload:
            self.preload(self._preload)

    def engine_cannot_start(self, error: WorkerLost) -> None:
        """Fail all loads: no engine can be started."""
        for name in tuple(self._loading):
            self.load_failed(name, error)
        if self._preload:
            self.preload(self._preload)

    def engine_message_received(
        self, message: engine_messages.EngineHeartbeat | engine_messages.ModelLoaded | engine_messages.ModelUnloaded
    ) -> None:
        """Handle a message about the engine's memory."""
        match message:
            case engine_messages.EngineHeartbeat():
                self.memory_used, self.memory_total = message.memory_used, message.memory_total
                for model in message.resident:
                    if model.name in self.sizes:  # loads and unloads have separate messages
                        self.sizes[model.name] = model.memory
            case engine_messages.ModelLoaded():
                self._loaded(message.model)
            case engine_messages.ModelUnloaded():
                self.sizes.pop(message.name, None)
                self._unloaded(message.name)

    def _loaded(self, model: engine_messages.ResidentModel) -> None:
        self.sizes[model.name] = model.memory
        if model.lends_clap:
            self._clap_lenders.add(model.name)
        else:
            self._clap_lenders.discard(model.name)
        _, clients = self._loading.pop(model.name, (None, []))
        for client in clients:
            self.outbox.send(client, m.Loaded(model=model.name))

    def _unloaded(self, name: str) -> None:
        for client in self._unloading.pop(name, []):
            self.outbox.send(client, m.Unloaded(model=name))

    def load_failed(self, name: str, error: TimbredError) -> None:
        """Fail all loads of a model."""
        _, clients = self._loading.pop(name, (None, []))
        for client in clients:
            self.outbox.send(client, m.Fail(id="load", code=error.code, message=str(error)))

    def stop(self, error: ShuttingDown) -> None:
        """Fail all loads and unloads that wait: the daemon is stopping."""
        for name in tuple(self._loading):
            self.load_failed(name, error)
        for clients in self._unloading.values():
            for client in clients:
                self.outbox.send(client, m.Fail(id="unload", code=error.code, message=str(error)))
        self._unloading.clear()


MAX_TRIAL_STEPS = 3
"""Steps of a trial: a rendering that is only timed."""


@dataclass(eq=False)
class _Trial:
    """A trial: what is rendered, its end, and its timer."""

    parameters: Parameters
    ended: asyncio.Future[None]
    timer: JobTimer


class Calibration:
    """Times models by short renderings, called trials. They aren't jobs: no client gets events, and none is repeated.

    Args:
        numbers: Numbers for trials, shared with jobs.
        commands: Commands for the engine.
        estimates: Where measurements go.
        residency: Which models are resident.
        clock: Monotonic clock of the measurements.
    """

    def __init__(
        self,
        numbers: Iterator[int],
        commands: EngineCommands,
        estimates: EtaEstimates,
        residency: ModelResidency,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._numbers = numbers
        self._commands = commands
        self._estimates = estimates
        self._residency = residency
        self._trials: dict[int, _Trial] = {}
        self._stopped: errors.TimbredError | None = None

    async def measure(self, parameters: Parameters) -> None:
        """Render such a sound in few steps to time it; its model is resident afterwards.

        Raises:
            TimbredError: The engine's error, ShuttingDown, or WorkerLost if no engine can be started.
        """
        if self._stopped is not None:
            raise self._stopped
        self._commands.check_engine()
        lowest, _ = STEPS.get(parameters.scheduler, (1, 1000))
        short = replace(
            parameters,
            steps=max(lowest, min(MAX_TRIAL_STEPS, parameters.steps)),
            to="none",
            preview=False,
            wants_embeddings=False,
        )
        number = next(self._numbers)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._trials[number] = _Trial(short, ended, JobTimer(short, self._clock))
        self._render(number)
        await ended

    def uses(self, model: str) -> bool:
        """Return whether a model is being timed."""
        return any(trial.parameters.model == model for trial in self._trials.values())

    def order_again(self) -> None:
        """Send a new engine the pending trials."""
        for number in self._trials:
            self._render(number)

    def loading(self, number: int) -> None:
        """Record that a trial waits for its model; a number that isn't a trial's is ignored, here and below."""
        if number in self._trials:
            self._trials[number].timer.loading = True

    def step_done(self, number: int) -> None:
        """Record a step of a trial."""
        if number in self._trials:
            self._trials[number].timer.add_step()

    def rendered(self, number: int) -> None:
        """End a trial that is complete."""
        trial = self._trials.pop(number, None)
        if trial is not None:
            trial.timer.finish(self._estimates)
            if not trial.ended.done():
                trial.ended.set_result(None)

    def failed(self, number: int, error: errors.TimbredError) -> None:
        """End a trial with an error."""
        trial = self._trials.pop(number, None)
        if trial is not None and not trial.ended.done():
            trial.ended.set_exception(error)

    def give_up(self, error: errors.TimbredError) -> None:
        """End all trials with an error."""
        for number in list(self._trials):
            self.failed(number, error)

    def stop(self, error: errors.TimbredError) -> None:
        """End all trials with an error, and refuse further ones with it."""
        self._stopped = error
        self.give_up(error)

    def _render(self, number: int) -> None:
        trial = self._trials[number]
        loading = not self._residency.is_resident(trial.parameters.model)
        trial.timer = JobTimer(trial.parameters, self._clock, loading)
        # with a deadline of zero seconds nothing else is batched with it
        self._commands.render(number, trial.parameters, RANK["live"], time_left_s=0.0)


class LoadRequests:
    """Decides which `load` and `unload` requests the engine gets; `ModelResidency` answers them."""

    def __init__(
        self,
        registry: Registry,
        residency: ModelResidency,
        jobs: JobStore,
        calibration: Calibration,
        commands: EngineCommands,
    ) -> None:
        self._registry = registry
        self._residency = residency
        self._jobs = jobs
        self._calibration = calibration
        self._commands = commands

    def load(self, client: ClientId, name: str) -> None:
        """Make a model resident for this client.

        Raises:
            UnknownModel, MissingWeights, ModelError: It can't be loaded.
            WorkerLost: No engine can be started.
        """
        entry = self._registry[name]
        if not self._residency.is_resident(name):
            entry.checkpoint()
        self._commands.check_engine()
        source = self._commands.source_of(name)
        if self._residency.request_load(client, source):
            self._commands.load(source)

    def preload(self, name: str) -> None:
        """Load a model whenever an engine starts, if its files are complete."""
        try:
            self._registry[name].checkpoint()
        except errors.TimbredError as error:
            log.warning("the default model isn't loaded: %s", error)
            return
        self._residency.preload(self._commands.source_of(name))

    def order_again(self) -> None:
        """Send a new engine the loads that are still requested."""
        for source in self._residency.requested():
            self._commands.load(source)

    def unload(self, client: ClientId, name: str) -> None:
        """Free a model's memory for this client.

        Raises:
            UnknownModel: No model has this name.
            BadRequest: It is in use.
        """
        _ = self._registry[name]
        users = [job for job in self._jobs.live() if job.parameters.model == name]
        if users:
            raise errors.BadRequest(
                f"model: {name} is in use by {len(users)} request(s), the first is {users[0].id}; cancel or await them"
            )
        if self._calibration.uses(name):
            raise errors.BadRequest(f"model: {name} is being timed for a request with a deadline; unload it after that")
        if self._residency.request_unload(client, name):
            self._commands.unload(name)
