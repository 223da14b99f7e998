"""Requests that change which models are resident, renderings that time models, and the lists of models and words."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from timbred import errors
from timbred.audio import Megabytes
from timbred.models.registry import Card, Entry, Registry
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Outbox
from timbred.requests.deadline import EtaEstimates, JobTimer
from timbred.requests.engines import EngineGroup, EngineRecord
from timbred.requests.job import RANK, JobStore
from timbred.requests.key_checks import STEPS
from timbred.requests.resolve import Parameters

log = logging.getLogger(__name__)

MAX_TRIAL_STEPS = 3
"""Steps of a trial: a rendering that is only timed."""


@dataclass(eq=False)
class _Trial:
    """A trial: what is rendered, its end, its timer, and the number of its engine; 0 while no engine is up."""

    parameters: Parameters
    ended: asyncio.Future[None]
    timer: JobTimer
    engine: int = 0


class Calibration:
    """Times models by short renderings, called trials. They aren't jobs: no client gets events, and none is repeated.

    Args:
        numbers: Numbers for trials, shared with jobs.
        engines: The engines.
        estimates: Where measurements go.
        clock: Monotonic clock of the measurements.
    """

    def __init__(
        self,
        numbers: Iterator[int],
        engines: EngineGroup,
        estimates: EtaEstimates,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._numbers = numbers
        self._engines = engines
        self._estimates = estimates
        self._trials: dict[int, _Trial] = {}
        self._stopped: errors.TimbredError | None = None

    async def measure(self, parameters: Parameters) -> None:
        """Render such a sound in few steps to time it; its model is resident afterwards.

        Raises:
            TimbredError: The engine's error, ShuttingDown, or WorkerLost if no engine can be started.
        """
        if self._stopped is not None:
            raise self._stopped
        if self._engines.trouble:
            raise self._engines.unavailable()
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

    def engine_ready(self) -> None:
        """Order the trials that wait for an engine."""
        for number, trial in self._trials.items():
            if not trial.engine:
                self._render(number)

    def engine_lost(self, engine: int, error: errors.TimbredError) -> None:
        """End the trials of a lost engine with an error."""
        for number, trial in list(self._trials.items()):
            if trial.engine == engine:
                self.failed(number, error)

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
        record = self._engines.choose(trial.parameters)
        if record is None:
            return
        loading = not record.is_resident(trial.parameters.model)
        trial.timer = JobTimer(trial.parameters, self._clock, loading, record.kind)
        trial.engine = record.number
        # with a deadline of zero seconds nothing else is batched with it
        self._engines.render(record.number, number, trial.parameters, RANK["live"], time_left_s=0.0)


@dataclass(eq=False)
class _PendingLoad:
    """Clients that wait for a model, and the number of the engine that loads it; 0 while no engine is up."""

    clients: list[ClientId] = field(default_factory=list[ClientId])
    engine: int = 0


@dataclass(eq=False)
class _PendingUnload:
    """Clients that wait until a model is unloaded, and the numbers of the engines that still have it."""

    clients: list[ClientId] = field(default_factory=list[ClientId])
    engines: set[int] = field(default_factory=set[int])


class LoadRequests:
    """Handles `load` and `unload`: an engine loads a model where placement says, all engines unload it.

    Args:
        outbox: Where answers are sent.
        registry: The models.
        engines: The engines.
        jobs: All jobs.
        calibration: The trials.
    """

    def __init__(
        self, outbox: Outbox, registry: Registry, engines: EngineGroup, jobs: JobStore, calibration: Calibration
    ) -> None:
        self._outbox = outbox
        self._registry = registry
        self._engines = engines
        self._jobs = jobs
        self._calibration = calibration
        self._loading: dict[str, _PendingLoad] = {}
        self._unloading: dict[str, _PendingUnload] = {}
        self._preload = ""

    @property
    def is_loading_any(self) -> bool:
        """True if any model is being loaded, or is to be once an engine is up."""
        return bool(self._loading) or any(record.loading for record in self._engines.records.values())

    def is_loading(self, name: str) -> bool:
        """Return whether a model is being loaded, or is to be once an engine is up."""
        records = self._engines.records.values()
        is_preloaded = name == self._preload and any(record.ready is None for record in records)
        return is_preloaded or name in self._loading or any(name in record.loading for record in records)

    def load(self, client: ClientId, name: str) -> None:
        """Make a model resident for this client.

        Raises:
            UnknownModel, MissingWeights, ModelError: It can't be loaded.
            WorkerLost: No engine can be started.
        """
        entry = self._registry[name]
        is_resident = self._engines.is_resident(name)
        if not is_resident:
            entry.checkpoint()
        if self._engines.trouble:
            raise self._engines.unavailable()
        if is_resident:
            self._outbox.send(client, m.Loaded(model=name))
            return
        pending = self._loading.setdefault(name, _PendingLoad())
        pending.clients.append(client)
        if not pending.engine:
            self._order(name, pending)

    def preload(self, name: str) -> None:
        """Load a model into each engine whenever that starts, if its files are complete."""
        try:
            self._registry[name].checkpoint()
        except errors.TimbredError as error:
            log.warning("the default model isn't loaded: %s", error)
            return
        self._preload = name

    def unload(self, client: ClientId, name: str) -> None:
        """Free a model's memory in all engines for this client.

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
        holders = [record for record in self._engines.up if name in record.sizes or name in record.loading]
        if not holders:
            self._outbox.send(client, m.Unloaded(model=name))
            return
        pending = self._unloading.setdefault(name, _PendingUnload())
        pending.clients.append(client)
        for record in holders:
            pending.engines.add(record.number)
            if name not in record.unloading or name in record.loading:
                self._engines.order_unload(record, name)

    # what the engines report

    def engine_ready(self, record: EngineRecord) -> None:
        """Order from a new engine the preloaded model, and the loads that wait for an engine."""
        if self._preload:
            self._engines.order_load(record, self._preload)
        for name, pending in self._loading.items():
            if not pending.engine:
                self._order(name, pending)

    def engine_lost(self, engine: int, reason: str) -> None:
        """Answer the requests that wait for a lost engine."""
        for name, pending in list(self._unloading.items()):
            self._left(name, pending, engine)
        for name, pending in list(self._loading.items()):
            if pending.engine == engine:
                text = f"the engine ended while it loaded {name} ({reason}); send the request again"
                self._fail(name, errors.WorkerLost(text))

    def loaded(self, name: str) -> None:
        """Answer all loads of a model that is resident in an engine now."""
        for client in self._loading.pop(name, _PendingLoad()).clients:
            self._outbox.send(client, m.Loaded(model=name))

    def unloaded(self, engine: int, name: str) -> None:
        """Answer all unloads of a model once the last engine has freed its memory."""
        if name in self._unloading:
            self._left(name, self._unloading[name], engine)

    def failed(self, engine: int, name: str, error: errors.TimbredError) -> None:
        """Fail the loads of a model that this engine can't load."""
        if name in self._loading and self._loading[name].engine == engine:
            self._fail(name, error)

    def fail_all(self, error: errors.TimbredError) -> None:
        """Fail all loads: no engine can be started."""
        for name in list(self._loading):
            self._fail(name, error)

    def stop(self, error: errors.ShuttingDown) -> None:
        """Fail all loads and unloads that wait: the daemon is stopping."""
        self.fail_all(error)
        for pending in self._unloading.values():
            for client in pending.clients:
                self._outbox.send(client, m.Fail(id="unload", code=error.code, message=str(error)))
        self._unloading.clear()

    def _order(self, name: str, pending: _PendingLoad) -> None:
        """Order a load from the engine that placement chooses; without one it waits."""
        record = self._engines.choose_for_load(name)
        if record is not None:
            pending.engine = record.number
            self._engines.order_load(record, name)

    def _left(self, name: str, pending: _PendingUnload, engine: int) -> None:
        """Record that an engine doesn't have a model any more, and answer the clients if it was the last."""
        pending.engines.discard(engine)
        if not pending.engines:
            del self._unloading[name]
            for client in pending.clients:
                self._outbox.send(client, m.Unloaded(model=name))

    def _fail(self, name: str, error: errors.TimbredError) -> None:
        for client in self._loading.pop(name).clients:
            self._outbox.send(client, m.Fail(id="load", code=error.code, message=str(error)))


MAX_GROUP_BYTES = 4000
"""Longest text of words in one event, in UTF-8: an OSC datagram has room for it."""


def split_words(words: Sequence[str]) -> list[str]:
    """Join words by commas to texts of at most `MAX_GROUP_BYTES`, longer words alone."""
    texts: list[str] = []
    for word in words:
        longer = f"{texts[-1]}, {word}" if texts else word
        if texts and len(longer.encode()) <= MAX_GROUP_BYTES:
            texts[-1] = longer
        else:
            texts.append(word)
    return texts


class ModelListHandlers:
    """Handles `models` and `words`.

    Args:
        outbox: Where answers are sent.
        registry: The models.
        engines: The engines.
        loads: Which models are being loaded.
        can_rank: Tells if takes of a model can be ranked.
        default_model: Returns the name of the default model.
    """

    def __init__(
        self,
        outbox: Outbox,
        registry: Registry,
        engines: EngineGroup,
        loads: LoadRequests,
        can_rank: Callable[[Card], bool],
        default_model: Callable[[], str],
    ) -> None:
        self._outbox = outbox
        self._registry = registry
        self._engines = engines
        self._loads = loads
        self._can_rank = can_rank
        self._default_model = default_model
        self._listing: asyncio.Task[list[m.Model]] | None = None

    async def models(self, client: ClientId, request: m.Models) -> None:
        """Answer `models`; folders are read in a thread."""
        listing = self._listing
        if listing is None or listing.done():  # clients that ask at the same time get the same answer
            listing = self._listing = asyncio.create_task(self._describe_all())
        self._outbox.send_list(client, "models", await asyncio.shield(listing), None)

    def words(self, client: ClientId, request: m.KnownWords) -> None:
        """Answer `words`.

        Raises:
            UnknownModel: There is no such model.
        """
        card = self._registry[request.model or self._default_model()].card
        events = [
            m.KnownGroup(model=card.name, group=group, kinds=kinds, words=text)
            for kinds, groups in ((True, card.known_kinds()), (False, card.known_words()))
            for group, words in groups.items()
            for text in split_words(words)
        ]
        self._outbox.send_list(client, "words", events, m.Acknowledged(id="words"))

    async def _describe_all(self) -> list[m.Model]:
        entries = list(self._registry.entries.values())
        residents = self._engines.residents()
        return await asyncio.to_thread(
            lambda: [self._describe(entry, residents.get(entry.card.name, {})) for entry in entries]
        )

    def _describe(self, entry: Entry, holders: Mapping[int, int]) -> m.Model:
        """Describe a model as `models` lists it; reads its folder in a thread.

        Args:
            entry: The model.
            holders: Its size in bytes by number of the engine that has it in memory.
        """
        name = entry.card.name
        size = sum(holders.values())
        if holders:
            state = "resident"
        elif self._loads.is_loading(name):
            state = "loading"
        else:
            try:
                size = entry.checkpoint().weight_bytes
                state = "available"
            except errors.TimbredError:
                state = "missing"
        return m.Model(
            name=name,
            state=state,
            native_rate=entry.card.native_rate,
            channels=entry.card.channels,
            max_seconds=entry.card.max_seconds,
            licence=entry.card.licence,
            selling=entry.card.selling,
            memory_mb=megabytes(size),
            title=entry.card.title,
            default_seconds=entry.card.default_seconds,
            steps=entry.card.steps,
            guidance=entry.card.guidance,
            scheduler=entry.card.scheduler,
            ranks=self._can_rank(entry.card),
            knows=", ".join((*entry.card.kinds, *entry.card.words)),
            engines=", ".join(map(str, holders)),
        )


def megabytes(size: int) -> Megabytes:
    """Convert bytes to megabytes."""
    return Megabytes(size / 1e6)
