"""The group of engines: a record for each, with its state, the models in its memory and its work; orders to them.

The states of an engine, and what causes each transition (`ENGINE_TRANSITIONS` allows no other):

    STARTING ---- it is ready --------------------> UP
        |  ^                                      |  ^
        |  '---- it exited or doesn't answer -----'  |
        | it can't be started                        |
        '-----------------> FAILED --- it is ready --'

The link restarts the process in each of them. A model is resident in an engine from `ModelLoaded` on, until
`ModelUnloaded` or the loss of the engine; the engine unloads models by itself when memory is short.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

from msgspec import structs

from timbred import errors
from timbred.ipc import engine_messages
from timbred.ipc.devices import EnginePlace
from timbred.models.clap import CLAP_NAME
from timbred.models.registry import Registry
from timbred.protocol import messages as m
from timbred.requests import placement
from timbred.requests.deadline import EtaEstimates
from timbred.requests.job import RANK, Job, JobStore
from timbred.requests.resolve import NO_SAMPLES, GivenSamples, Parameters

JOBS_AT_ONCE = {"cuda": 8, "mps": 2, "cpu": 2}
"""Jobs that an engine renders together, by type of device, where `engine.jobs` is 0."""

UNTIMED_JOB_S = 1.0
"""Seconds that a job is assumed to take while its model hasn't been timed on any engine."""

MAX_LOAD_AGE_S = 0.5
"""Seconds after which the expected work of an engine is derived again from the progress of its jobs."""


class EngineConnection(Protocol):
    """The part of `timbred.ipc.engine_client.EngineLink` that is used here."""

    @property
    def place(self) -> EnginePlace:
        """Place of the engine."""
        ...

    @property
    def up(self) -> bool:
        """True if the engine takes orders."""
        ...

    def send(self, message: engine_messages.ToEngine) -> bool:
        """Send a message; return whether the engine took it."""
        ...


class EngineState(Enum):
    """State of an engine, as `status` and `engines` name it."""

    STARTING = "starting"
    UP = "up"
    FAILED = "failed"


ENGINE_TRANSITIONS: Mapping[EngineState, frozenset[EngineState]] = {
    EngineState.STARTING: frozenset({EngineState.STARTING, EngineState.UP, EngineState.FAILED}),
    EngineState.UP: frozenset({EngineState.STARTING}),
    EngineState.FAILED: frozenset({EngineState.STARTING, EngineState.UP, EngineState.FAILED}),
}
"""Every allowed transition; a further failed start repeats its state."""


@dataclass(eq=False)
class EngineRecord:
    """Record of one engine. Moments are of the group's clock, sizes in bytes.

    Attributes:
        number: Its number, from 1.
        connection: Takes its orders.
        state: Changed by `move` only.
        trouble: Why it can't be started; empty unless its state is `FAILED`.
        ready: Its first message; None unless it is up.
        kind: Kind of its device: engines of one kind take the same time for the same job.
        description: Its device and precision for people, as recipes have it.
        memory_used: Memory of its device that is used, as last reported.
        memory_total: All memory of its device.
        sizes: Resident models with their sizes.
        clap_lenders: Resident models whose CLAP compares the takes of other models too.
        loading: Models that it loads, with the moments of the orders.
        unloading: Models that it was ordered to unload.
        used_at: Moments at which models were last used.
        load: What placement knows of it, derived from the rest; None if that has changed.
    """

    number: int
    connection: EngineConnection
    state: EngineState = EngineState.STARTING
    trouble: str = ""
    ready: engine_messages.EngineReady | None = None
    kind: str = ""
    description: str = ""
    memory_used: int = 0
    memory_total: int = 0
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    clap_lenders: set[str] = field(default_factory=set[str])
    loading: dict[str, float] = field(default_factory=dict[str, float])
    unloading: set[str] = field(default_factory=set[str])
    used_at: dict[str, float] = field(default_factory=dict[str, float])
    load: placement.EngineLoad | None = None
    load_jobs: tuple[int, ...] = ()
    """Numbers of the jobs that `load` counts."""

    def move(self, state: EngineState) -> None:
        """Change the state.

        Raises:
            RuntimeError: `ENGINE_TRANSITIONS` doesn't allow it; a fault of the caller.
        """
        if state not in ENGINE_TRANSITIONS[self.state]:
            raise RuntimeError(f"engine {self.number} can't go from {self.state.name} to {state.name}")
        self.state = state

    @property
    def device_type(self) -> str:
        """Type of its device: `cuda`, `mps`, `cpu`."""
        return self.ready.device.partition(":")[0] if self.ready else "cpu"

    @property
    def where(self) -> str:
        """Its machine: `local`, or the address of its cluster, with the machine if that is known."""
        address = self.connection.place.address or "local"
        return f"{address} {self.ready.node}" if self.ready and self.ready.node else address

    @property
    def device(self) -> str:
        """Its device, as in `cuda:0`; that of the settings until it is up."""
        return self.ready.device if self.ready else self.connection.place.device

    def is_resident(self, model: str) -> bool:
        """Return whether a model is in its memory and isn't being unloaded."""
        return model in self.sizes and model not in self.unloading

    def forget_models(self) -> None:
        """Forget all that was in its memory."""
        self.ready, self.load, self.memory_used = None, None, 0
        for collection in (self.sizes, self.clap_lenders, self.loading, self.unloading, self.used_at):
            collection.clear()


class EngineGroup:
    """All engines of the daemon. No order is lost without an engine: a new one gets those that still apply.

    Args:
        registry: The models.
        connections: One for each engine.
        jobs: All jobs.
        estimates: Measured times of renderings and loads.
        clock: Monotonic clock.
        jobs_at_once: Jobs that an engine renders together; 0 for as many as suit its device.
    """

    def __init__(
        self,
        registry: Registry,
        connections: Sequence[EngineConnection],
        jobs: JobStore,
        estimates: EtaEstimates,
        clock: Callable[[], float],
        jobs_at_once: int = 0,
    ) -> None:
        numbered = ((connection.place.number, connection) for connection in connections)
        self.records = {number: EngineRecord(number, connection) for number, connection in numbered}
        self.trouble = ""
        """Reasons why no engine can be started; empty while one is up or may still start."""
        self._registry = registry
        self._jobs = jobs
        self._estimates = estimates
        self._clock = clock
        self._jobs_at_once = jobs_at_once
        self._set_yield = engine_messages.SetYield(frame_rate=0.0)
        self._model_sizes: dict[str, int] = {}
        """Sizes of all models that any engine has loaded."""

    # state

    @property
    def up(self) -> list[EngineRecord]:
        """The engines that take orders."""
        return [record for record in self.records.values() if record.ready is not None and record.connection.up]

    @property
    def state(self) -> Literal["starting", "up", "failed"]:
        """State of all: `up` if any engine is up, `failed` if none can be started."""
        states = {record.state for record in self.records.values()}
        if EngineState.UP in states:
            return "up"
        return "starting" if EngineState.STARTING in states else "failed"

    def unavailable(self) -> errors.WorkerLost:
        """Return the error of requests while there is `trouble`."""
        return errors.WorkerLost(f"the engine can't be started: {self.trouble} (timbred retries automatically)")

    def is_resident(self, model: str) -> bool:
        """Return whether a model is in the memory of any engine and isn't being unloaded there."""
        return any(model in record.sizes and model not in record.unloading for record in self.records.values())

    def residents(self) -> dict[str, dict[int, int]]:
        """Return all resident models, each with its size by number of its engine."""
        residents: dict[str, dict[int, int]] = {}
        for record in self.records.values():
            for name, size in record.sizes.items():
                residents.setdefault(name, {})[record.number] = size
        return residents

    @property
    def lends_clap(self) -> bool:
        """True if the CLAP of a resident model compares the takes of other models too."""
        return any(not record.clap_lenders.isdisjoint(record.sizes) for record in self.records.values())

    @property
    def memory(self) -> tuple[int, int]:
        """Bytes of device memory that are used, and that there are; engines on one device have one memory."""
        totals = {(record.where, record.device): record.memory_total for record in self.records.values()}
        return sum(record.memory_used for record in self.records.values()), sum(totals.values())

    def describe(self) -> list[m.Engine]:
        """Describe the engines as `engines` lists them."""
        return [
            m.Engine(
                number=record.number,
                where=record.where,
                device=record.device,
                state=record.state.value,
                models=", ".join(sorted(record.sizes)),
                memory_used=record.memory_used / 1e6,
                memory_total=record.memory_total / 1e6,
                jobs=len(self._jobs.running(record.number)),
                name=record.description,
                trouble=record.trouble,
            )
            for record in self.records.values()
        ]

    # what the engines report

    def engine_ready(self, number: int, ready: engine_messages.EngineReady) -> EngineRecord:
        """Record that an engine takes orders, and return it."""
        record = self.records[number]
        record.move(EngineState.UP)
        self.trouble = ""
        record.trouble, record.ready, record.load = "", ready, None
        record.description = f"{ready.device_name}, {ready.precision}"
        record.kind = f"{record.device_type} {record.description}"
        if not record.connection.place.address:
            record.connection.send(self._set_yield)
        return record

    def engine_lost(self, number: int) -> None:
        """Record the loss of an engine with all that was in its memory; it is started again."""
        self.trouble = ""
        self.records[number].move(EngineState.STARTING)
        self.records[number].forget_models()

    def engine_cannot_start(self, number: int, reason: str) -> None:
        """Record that an engine can't be started."""
        record = self.records[number]
        record.move(EngineState.FAILED)
        record.trouble = reason
        if self.state == "failed":
            reasons = {record.number: record.trouble for record in self.records.values()}
            is_same = len(set(reasons.values())) == 1
            self.trouble = reason if is_same else "; ".join(f"engine {key}: {text}" for key, text in reasons.items())

    def heartbeat(self, number: int, message: engine_messages.EngineHeartbeat) -> None:
        """Record an engine's memory, and the sizes of its models; loads and unloads have separate messages."""
        record = self.records[number]
        record.memory_used, record.memory_total = message.memory_used, message.memory_total
        for model in message.resident:
            if model.name in record.sizes:
                record.sizes[model.name] = self._model_sizes[model.name] = model.memory

    def model_loaded(self, number: int, model: engine_messages.ResidentModel) -> None:
        """Record that a model is resident, and how long its load took."""
        record = self.records[number]
        record.load = None
        record.sizes[model.name] = self._model_sizes[model.name] = model.memory
        record.used_at[model.name] = now = self._clock()
        ordered_at = record.loading.pop(model.name, None)
        if ordered_at is not None:
            self._estimates.add_load(model.name, record.kind, now - ordered_at)
        if model.lends_clap:
            record.clap_lenders.add(model.name)
        else:
            record.clap_lenders.discard(model.name)

    def model_unloaded(self, number: int, name: str) -> None:
        """Record that a model isn't resident any more."""
        record = self.records[number]
        record.load = None
        record.sizes.pop(name, None)
        record.unloading.discard(name)

    def load_failed(self, number: int, name: str) -> None:
        """Record that a load has failed."""
        record = self.records[number]
        record.load = None
        record.loading.pop(name, None)

    # placement

    def choose(self, parameters: Parameters) -> EngineRecord | None:
        """Return the engine for a `live` rendering that isn't a job; None while no engine is up."""
        return self._choose(self.demand(parameters, RANK["live"]))

    def choose_for_load(self, name: str) -> EngineRecord | None:
        """Return the engine that is to load a model; None while no engine is up."""
        size = self._model_sizes.get(name, 0)
        kinds = {record.kind for record in self.up}
        seconds = {kind: self._estimates.of_load(name, kind, size) for kind in kinds}
        return self._choose(placement.Demand(0, name, RANK["normal"], name, dict.fromkeys(kinds, 0.0), seconds, size))

    def _choose(self, demand: placement.Demand) -> EngineRecord | None:
        best, _ = placement.choose_engine(demand, self.loads(), self._clock(), {}, frozenset())
        return None if best is None else self.records[best.number]

    def demand(
        self,
        parameters: Parameters,
        rank: int,
        number: int = 0,
        batch_key: object = None,
        runs_alone: bool = False,
        overtaken: int = 0,
    ) -> placement.Demand:
        """Return what a rendering needs."""
        model = parameters.model
        size = self._model_sizes.get(model, 0)
        seconds: dict[str, float] = {}
        load_seconds: dict[str, float] = {}
        for record in self.records.values():
            if record.kind not in seconds:
                seconds[record.kind] = self._estimates.expected(parameters, record.kind) or UNTIMED_JOB_S
            is_absent = model not in record.sizes or model in record.unloading
            if is_absent and record.kind not in load_seconds:
                load_seconds[record.kind] = self._estimates.of_load(model, record.kind, size)
        return placement.Demand(number, model, rank, batch_key, seconds, load_seconds, size, runs_alone, overtaken)

    def loads(self) -> list[placement.EngineLoad]:
        """Return what placement knows of each engine that is up; what hasn't changed is kept."""
        held: dict[int, list[Job]] = {}
        for job in self._jobs.running():
            held.setdefault(job.engine, []).append(job)
        now = self._clock()
        loads: list[placement.EngineLoad] = []
        for number, record in self.records.items():
            if record.ready is None or not record.connection.up:
                continue
            jobs = held.get(number, [])
            numbers = tuple(job.number for job in jobs)
            is_old = record.load is None or (jobs and now - record.load.as_of > MAX_LOAD_AGE_S)
            if record.load is None or is_old or numbers != record.load_jobs:
                record.load, record.load_jobs = self._load_of(record, jobs, now), numbers
            loads.append(record.load)
        return loads

    def _load_of(self, record: EngineRecord, jobs: Iterable[Job], now: float) -> placement.EngineLoad:
        """Return what placement knows of an engine that holds these jobs.

        A late job is expected to take as long again as it is late, so that nothing waits for an engine that hangs.
        """
        held = [
            placement.HeldJob(
                RANK[job.parameters.priority], job.batch_key, abs(job.expected_end - now), job.attempts > 1
            )
            for job in jobs
        ]
        device_type = record.device_type
        batch_cost = placement.BATCH_COSTS.get(device_type, 1.0)
        memory = record.ready.model_memory if record.ready and record.ready.model_memory else math.inf
        ready_at = {
            name: max(now, ordered_at + self._estimates.of_load(name, record.kind, self._model_sizes.get(name, 0)))
            for name, ordered_at in record.loading.items()
        }
        in_use = {job.parameters.model for job in jobs} | record.loading.keys()
        idle = sorted((used_at, name) for name, used_at in record.used_at.items() if name in record.sizes)
        return placement.EngineLoad(
            number=record.number,
            kind=record.kind,
            batch_cost=batch_cost,
            as_of=now,
            job_count=len(held),
            room=placement.room_in(held, self._jobs_at_once or JOBS_AT_ONCE.get(device_type, 1)),
            backlogs=placement.backlogs_of(held, batch_cost),
            first_end_s=min((job.seconds for job in held), default=0.0),
            resident=frozenset(record.sizes.keys() - record.unloading),
            ready_at=ready_at,
            loads_until=max(ready_at.values(), default=now),
            model_memory=memory,
            free_bytes=memory - sum(record.sizes.values()) - sum(self._model_sizes.get(name, 0) for name in ready_at),
            evictions=tuple(
                placement.Eviction(
                    record.sizes[name],
                    placement.eviction_seconds(self._estimates.of_load(name, record.kind), now - used_at),
                )
                for used_at, name in idle
                if name not in in_use
            ),
        )

    # orders

    def set_yield(self, frame_rate: float) -> None:
        """Have this machine's engines pause after each step for a render loop of `frame_rate` frames a second.

        0 for never.
        """
        self._set_yield = engine_messages.SetYield(frame_rate=frame_rate)
        for record in self.records.values():
            if not record.connection.place.address:
                record.connection.send(self._set_yield)

    def render(
        self,
        engine: int,
        number: int,
        parameters: Parameters,
        rank: int,
        time_left_s: float | None,
        samples: GivenSamples = NO_SAMPLES,
        tensors: tuple[engine_messages.GivenTensor, ...] = (),
    ) -> float:
        """Order a rendering from an engine; return the moment at which it should be done.

        Args:
            engine: Number of the engine.
            number: Number of the job or trial.
            parameters: What to render.
            rank: A lower rank runs first.
            time_left_s: Seconds until the deadline; None without one.
            samples: Given sounds.
            tensors: Tensors from a file of embeddings.
        """
        record, name, clap = self.records[engine], parameters.model, self._registry.clap
        installed = None
        if clap is not None and clap.is_installed:
            installed = engine_messages.ModelSource(name=CLAP_NAME, folder=str(clap.folder))
        record.used_at[name] = now = self._clock()
        if name not in record.sizes or name in record.unloading:
            record.loading.setdefault(name, now)
        record.connection.send(
            engine_messages.RenderJob(
                job=number,
                model=engine_messages.ModelSource(name=name, folder=str(self._registry[name].folder)),
                order=structs.replace(parameters.order(samples), tensors=tensors),
                rank=rank,
                within=time_left_s,
                clap=installed,
            )
        )
        return now + (self._estimates.expected(parameters, record.kind) or UNTIMED_JOB_S)

    def cancel(self, engine: int, number: int) -> None:
        """Stop a rendering at its next step."""
        if engine in self.records:
            self.records[engine].connection.send(engine_messages.CancelJob(job=number))

    def order_load(self, record: EngineRecord, name: str) -> None:
        """Have an engine load a model."""
        record.load = None
        record.loading.setdefault(name, self._clock())
        source = engine_messages.ModelSource(name=name, folder=str(self._registry[name].folder))
        record.connection.send(engine_messages.LoadModel(model=source))

    def order_unload(self, record: EngineRecord, name: str) -> None:
        """Have an engine free a model's memory."""
        record.load = None
        record.unloading.add(name)
        record.loading.pop(name, None)
        record.connection.send(engine_messages.UnloadModel(name=name))
