"""Which models are in memory, which are wanted there, and who waits for that."""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace

from timbred import errors
from timbred.errors import ShuttingDown, TimbredError, WorkerLost
from timbred.ipc import engine_messages
from timbred.models.registry import Registry
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox
from timbred.requests.engine_commands import EngineCommands
from timbred.requests.eta import JobTimer
from timbred.requests.job import RANK, JobStore
from timbred.requests.resolve import STEPS, Parameters


class ModelResidency:
    """What the engine last said of its memory, and the `load` and `unload` requests that wait for it."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.ready: engine_messages.EngineReady | None = None
        self.memory_used = 0
        self.memory_total = 0
        self.sizes: dict[str, int] = {}
        self._loading: dict[str, tuple[engine_messages.ModelSource, list[ClientId]]] = {}
        self._unloading: dict[str, list[ClientId]] = {}
        self._preload: engine_messages.ModelSource | None = None

    def is_resident(self, name: str) -> bool:
        """Whether it is in memory, and is to stay there."""
        return name in self.sizes and name not in self._unloading

    def is_loading(self, name: str) -> bool:
        return name in self._loading

    @property
    def is_loading_any(self) -> bool:
        return bool(self._loading)

    def wanted(self) -> Iterable[engine_messages.ModelSource]:
        """What a new engine is to load first."""
        preload = [self._preload] if self._preload else []
        named = {source.name for source in preload}
        return [*preload, *(source for source, _ in self._loading.values() if source.name not in named)]

    def preload(self, source: engine_messages.ModelSource) -> None:
        """Load this model whenever an engine starts."""
        self._preload = source
        self._loading.setdefault(source.name, (source, []))

    def want(self, client: ClientId, source: engine_messages.ModelSource) -> bool:
        """A client wants a model resident; says whether the engine is to be told."""
        if self.is_resident(source.name):
            self.outbox.send(client, m.Loaded(model=source.name))
            return False
        new = source.name not in self._loading
        self._loading.setdefault(source.name, (source, []))[1].append(client)
        return new

    def unwant(self, client: ClientId, name: str) -> bool:
        """A client wants a model gone; says whether the engine is to be told. Without an engine no model is loading."""
        if name not in self.sizes and (self.ready is None or not self.is_loading(name)):
            self.outbox.send(client, m.Unloaded(model=name))
            return False
        new = name not in self._unloading or self.is_loading(name)
        self._unloading.setdefault(name, []).append(client)
        return new

    def engine_up(self, ready: engine_messages.EngineReady) -> None:
        self.ready = ready

    def engine_down(self, reason: str) -> None:
        """Everything in its memory is gone; those who waited for a model are told."""
        self.ready = None
        self.memory_used = 0
        self.sizes.clear()
        for name in tuple(self._unloading):
            self._unloaded(name)
        for name in tuple(self._loading):
            self.failed(name, WorkerLost(f"the engine ended while it loaded {name} ({reason}); ask once more"))
        if self._preload:
            self.preload(self._preload)

    def engine_cannot_start(self, error: WorkerLost) -> None:
        """No engine can be started: those who wait for a model are told."""
        for name in tuple(self._loading):
            self.failed(name, error)
        if self._preload:
            self.preload(self._preload)

    def engine_said(
        self, message: engine_messages.EngineHeartbeat | engine_messages.ModelLoaded | engine_messages.ModelUnloaded
    ) -> None:
        match message:
            case engine_messages.EngineHeartbeat():
                self.memory_used, self.memory_total = message.memory_used, message.memory_total
                for model in message.resident:
                    if model.name in self.sizes:  # what came or went meanwhile has a message of its own
                        self.sizes[model.name] = model.memory
            case engine_messages.ModelLoaded():
                self._loaded(message.model)
            case engine_messages.ModelUnloaded():
                self.sizes.pop(message.name, None)
                self._unloaded(message.name)

    def _loaded(self, model: engine_messages.ResidentModel) -> None:
        self.sizes[model.name] = model.memory
        _, clients = self._loading.pop(model.name, (None, []))
        for client in clients:
            self.outbox.send(client, m.Loaded(model=model.name))

    def _unloaded(self, name: str) -> None:
        for client in self._unloading.pop(name, []):
            self.outbox.send(client, m.Unloaded(model=name))

    def failed(self, name: str, error: TimbredError) -> None:
        """The model can't be loaded: those who asked for it are told."""
        _, clients = self._loading.pop(name, (None, []))
        for client in clients:
            self.outbox.send(client, m.Fail(id="load", code=error.code, message=str(error)))

    def stop(self, error: ShuttingDown) -> None:
        """The daemon is stopping: nobody is left without an answer."""
        for name in tuple(self._loading):
            self.failed(name, error)
        for clients in self._unloading.values():
            for client in clients:
                self.outbox.send(client, m.Fail(id="unload", code=error.code, message=str(error)))
        self._unloading.clear()


TRIAL_STEPS = 3
"""Steps of a sound that is made only to be timed."""


class Calibration:
    """The trials that the engine works on, by number, and who waits for each. They aren't jobs: no client hears of
    them, and none is run twice."""

    def __init__(
        self, numbers: Iterator[int], orders: EngineCommands, timing: JobTimer, residents: ModelResidency
    ) -> None:
        self._numbers = numbers
        self._orders = orders
        self._timing = timing
        self._residents = residents
        self._trials: dict[int, tuple[Parameters, asyncio.Future[None]]] = {}
        self._stopped: errors.TimbredError | None = None

    async def measure(self, parameters: Parameters) -> None:
        """Let the engine make a sound like this in few steps, only to see how long it takes; its model is then loaded.

        Raises: what the engine says of it, why the daemon times nothing any more, or WorkerLost if no engine can be
        started.
        """
        if self._stopped is not None:
            raise self._stopped
        self._orders.check_engine()
        few = max(STEPS.get(parameters.scheduler, (1, 1000))[0], min(TRIAL_STEPS, parameters.steps))
        number = next(self._numbers)
        trial: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._trials[number] = replace(parameters, steps=few, to="none", preview=False), trial
        self._order(number)
        await trial

    def uses(self, model: str) -> bool:
        """Whether a model is being timed."""
        return any(parameters.model == model for parameters, _ in self._trials.values())

    def order_again(self) -> None:
        """A new engine is there: it makes those that found none."""
        for number in self._trials:
            self._order(number)

    def over(self, number: int, error: errors.TimbredError | None = None) -> None:
        """A trial has been timed, or can't be. A number that isn't a trial's is a job's."""
        _, trial = self._trials.pop(number, (None, None))
        if error is not None:
            self._timing.dropped(number)
        if trial is None or trial.done():
            return
        if error is None:
            trial.set_result(None)
        else:
            trial.set_exception(error)

    def give_up(self, error: errors.TimbredError) -> None:
        """None of them will be timed."""
        for number in list(self._trials):
            self.over(number, error)

    def stop(self, error: errors.TimbredError) -> None:
        """Give up all of them, and refuse those that are asked for from now on."""
        self._stopped = error
        self.give_up(error)

    def _order(self, number: int) -> None:
        parameters, _ = self._trials[number]
        self._timing.began(number, parameters)
        if not self._residents.is_resident(parameters.model):
            self._timing.loads(number)
        # wanted at once, so that nothing else is timed with it
        self._orders.render(number, parameters, RANK["live"], within=0.0)


log = logging.getLogger(__name__)


class LoadRequests:
    """Decides which loads and unloads the engine is told of; `Residents` answers them."""

    def __init__(
        self,
        registry: Registry,
        residents: ModelResidency,
        remembered: JobStore,
        trials: Calibration,
        orders: EngineCommands,
    ) -> None:
        self._registry = registry
        self._residents = residents
        self._remembered = remembered
        self._trials = trials
        self._orders = orders

    def load(self, client: ClientId, name: str) -> None:
        """Make a model resident for this client.

        Raises:
            UnknownModel, MissingWeights, ModelError: it can't be loaded.
            WorkerLost: no engine can be started.
        """
        entry = self._registry[name]
        if not self._residents.is_resident(name):
            entry.checkpoint()
        self._orders.check_engine()
        source = self._orders.source_of(name)
        if self._residents.want(client, source):
            self._orders.load(source)

    def preload(self, name: str) -> None:
        """Make a model resident from the engine's start on, if its files are here."""
        try:
            self._registry[name].checkpoint()
        except errors.TimbredError as error:
            log.warning("the default model isn't loaded: %s", error)
            return
        self._residents.preload(self._orders.source_of(name))

    def order_again(self) -> None:
        """A new engine is there: it loads what is still wanted."""
        for source in self._residents.wanted():
            self._orders.load(source)

    def unload(self, client: ClientId, name: str) -> None:
        """Free a model's memory.

        Raises:
            UnknownModel: there is none of this name.
            BadRequest: it is in use.
        """
        _ = self._registry[name]
        users = [job for job in self._remembered.live() if job.parameters.model == name]
        if users:
            raise errors.BadRequest(
                f"model: {name} is in use by {len(users)} request(s), the first is {users[0].id}; cancel or await them"
            )
        if self._trials.uses(name):
            raise errors.BadRequest(f"model: {name} is being timed for a request with a deadline; unload it after that")
        if self._residents.unwant(client, name):
            self._orders.unload(name)
