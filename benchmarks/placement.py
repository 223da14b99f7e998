"""A simulation of 1 to 64 GPUs that share 10^5 requests: throughput, waits by priority, and the cost of placement.

The daemon's own placement, `timbred.requests.placement.place`, decides; engines are simulated step by step as
`timbred.engine.batching.next_batch` and the loader of an engine work. Models have the sizes of published ones, and
steps take the times that were published for them, uncompiled. Requests come at random moments, so many that engines
keep up only by rendering several in a batch. The memory of an engine holds three of the five models.

Goal: at most 50 microseconds of processor time for a decision, the choice of an engine for one job, with 64 engines.
"""

import argparse
import heapq
import itertools
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from timbred.requests import placement

ENGINE_COUNTS = (1, 2, 4, 8, 16, 32, 64)
REQUEST_COUNT = 100_000
JOBS_AT_ONCE = 8
"""As `timbred.requests.engines.JOBS_AT_ONCE` has it for a GPU."""

QUEUE_LENGTH = 64
"""Waiting requests for each engine above which further ones are refused, as the daemon does."""

MODEL_MEMORY_BYTES = 12_000_000_000
KIND = "cuda"
BATCH_COST = placement.BATCH_COSTS[KIND]
LOAD_BYTES_PER_S = 1e9
PRIORITIES = ("live", "normal", "background")
PRIORITY_SHARES = (0.1, 0.7, 0.2)

LOAD_FACTOR = 1.6
"""Work that comes, as a multiple of what engines render without batches."""


class PaperModel(NamedTuple):
    """A published model.

    `step_s` is measured by others: AudioLDM 2 by its authors (200 steps in 9 s in half precision; large: 24.8 s on an
    A40, in TangoFlux's table), Stable Audio 3 by Stability AI (0.41 s and 0.78 s on an H200, eight steps), ACE-Step 1.5
    turbo by DEMON (11 of 60 s a second on an RTX 5090). Decoding takes as long as five steps.
    """

    name: str
    share: float
    step_s: float
    steps: int
    size: int

    @property
    def units(self) -> int:
        """Steps and decoding, in steps."""
        return self.steps + 5

    @property
    def seconds(self) -> float:
        """Duration of a request that is rendered alone."""
        return self.units * self.step_s

    @property
    def load_s(self) -> float:
        """Duration of a load."""
        return 1.0 + self.size / LOAD_BYTES_PER_S


MODELS = (
    PaperModel("audioldm2", 0.4, 0.045, 20, 2_200_000_000),
    PaperModel("audioldm2-large", 0.1, 0.124, 20, 3_000_000_000),
    PaperModel("stable-audio-3-small", 0.3, 0.03, 8, 1_700_000_000),
    PaperModel("stable-audio-3-medium", 0.1, 0.06, 8, 4_500_000_000),
    PaperModel("ace-step-1.5-turbo", 0.1, 0.03, 8, 7_000_000_000),
)
MEAN_SECONDS = sum(model.share * model.seconds for model in MODELS)


@dataclass(eq=False)
class Request:
    """A request; moments are simulated seconds."""

    number: int
    model: PaperModel
    rank: int
    arrived: float
    began: float = math.nan
    ended: float = math.nan
    units_left: int = 0
    overtaken: int = 0


@dataclass(eq=False)
class SimulatedEngine:
    """An engine that renders one batch step after the other, and loads one model after the other beside them."""

    number: int
    jobs: list[Request] = field(default_factory=list[Request])
    resident: dict[str, float] = field(default_factory=dict[str, float])
    """Resident models, with the moments of their last use."""
    loading: dict[str, float] = field(default_factory=dict[str, float])
    """Models that are being loaded, with the moments at which they are resident."""
    is_stepping: bool = False
    load_count: int = 0
    load: placement.EngineLoad | None = None

    def next_batch(self) -> list[Request]:
        """Return the jobs that take the next step, as in an engine."""
        ready = [job for job in self.jobs if job.model.name in self.resident]
        if not ready:
            return []
        first = min(ready, key=lambda job: (job.rank, job.number))
        joins = (job for job in ready if job.model is first.model and (first.rank > 0 or job.rank == 0))
        return list(joins)

    def describe(self, now: float) -> placement.EngineLoad:
        """Return what placement knows of it."""
        held = [placement.HeldJob(job.rank, job.model.name, job.units_left * job.model.step_s) for job in self.jobs]
        in_use = {job.model.name for job in self.jobs}
        sizes = {model.name: model for model in MODELS}
        used = sum(sizes[name].size for name in (*self.resident, *self.loading))
        idle = sorted((used_at, name) for name, used_at in self.resident.items() if name not in in_use)
        return placement.EngineLoad(
            number=self.number,
            kind=KIND,
            batch_cost=BATCH_COST,
            as_of=now,
            job_count=len(held),
            room=placement.room_in(held, JOBS_AT_ONCE),
            backlogs=placement.backlogs_of(held, BATCH_COST),
            first_end_s=min((job.seconds for job in held), default=0.0),
            resident=frozenset(self.resident),
            ready_at=dict(self.loading),
            loads_until=max(self.loading.values(), default=now),
            model_memory=MODEL_MEMORY_BYTES,
            free_bytes=MODEL_MEMORY_BYTES - used,
            evictions=tuple(
                placement.Eviction(sizes[name].size, placement.eviction_seconds(sizes[name].load_s, now - used_at))
                for used_at, name in idle
            ),
        )


@dataclass
class Outcome:
    """Results of a simulation."""

    engine_count: int
    seconds: float
    done: int
    refused: int
    loads: int
    waits: dict[str, list[float]]
    placing_s: float
    considered: int
    placed: int

    def report(self) -> str:
        """Return one line."""
        waits = "   ".join(
            f"{np.percentile(values, 50):5.2f} {np.percentile(values, 95):6.2f}" if values else "    -      -"
            for values in self.waits.values()
        )
        rate, costs = self.done / self.seconds, (self.placing_s / self.considered, self.placing_s / self.placed)
        text = f"{self.engine_count:7d} {rate:10.2f} {rate / self.engine_count:6.2f}   {waits}   {self.loads:6d}"
        return f"{text} {self.refused:7d} {1e6 * costs[0]:11.1f} {1e6 * costs[1]:10.1f}"


class Simulation:
    """Requests come, placement gives them to engines, and engines render them.

    Args:
        engine_count: Number of engines.
        request_count: Number of requests.
        seed: Of the random requests.
    """

    def __init__(self, engine_count: int, request_count: int, seed: int = 1) -> None:
        self.engines = [SimulatedEngine(number) for number in range(1, engine_count + 1)]
        self.waiting: list[list[Request]] = [[], [], []]
        self.now = 0.0
        self.placing_s = 0.0
        self.considered = self.placed = self.refused = 0
        self.done: list[Request] = []
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, int, list[Request] | str]] = []
        self._order = itertools.count()
        self._arrivals = self._make_arrivals(request_count, engine_count)
        self._seconds = {model.name: {KIND: model.seconds} for model in MODELS}
        self._load_seconds = {model.name: {KIND: model.load_s} for model in MODELS}

    def _make_arrivals(self, count: int, engine_count: int) -> Iterator[Request]:
        rate = LOAD_FACTOR * engine_count / MEAN_SECONDS
        weights = [model.share for model in MODELS]
        moment = 0.0
        for number in range(count):
            moment += self._random.expovariate(rate)
            (model,) = self._random.choices(MODELS, weights)
            (rank,) = self._random.choices(range(3), PRIORITY_SHARES)
            yield Request(number, model, rank, moment, units_left=model.units)

    def run(self) -> Outcome:
        """Simulate until every request is done or refused."""
        coming = next(self._arrivals, None)
        while coming is not None or self._events:
            if coming is not None and (not self._events or coming.arrived <= self._events[0][0]):
                self.now = coming.arrived
                self._arrive(coming)
                coming = next(self._arrivals, None)
            else:
                self.now, _, number, what = heapq.heappop(self._events)
                self._happen(self.engines[number - 1], what)
        assert not any(self.waiting)
        waits = {
            name: [job.began - job.arrived for job in self.done if job.rank == rank]
            for rank, name in enumerate(PRIORITIES)
        }
        loads = sum(engine.load_count for engine in self.engines)
        return Outcome(
            len(self.engines), self.now, len(self.done), self.refused, loads, waits,
            self.placing_s, self.considered, self.placed,
        )  # fmt: skip

    def _arrive(self, request: Request) -> None:
        if sum(map(len, self.waiting)) >= QUEUE_LENGTH * len(self.engines):
            self.refused += 1
            return
        self.waiting[request.rank].append(request)
        self._place()

    def _happen(self, engine: SimulatedEngine, what: list[Request] | str) -> None:
        """Handle the end of a load (the model's name) or of a step (its batch)."""
        if isinstance(what, str):
            del engine.loading[what]
            engine.resident[what] = self.now
            engine.load = None
        else:
            engine.is_stepping = False
            for job in what:
                job.units_left -= 1
                if not job.units_left:
                    job.ended = self.now
                    engine.jobs.remove(job)
                    engine.load = None
                    self.done.append(job)
        self._step(engine)
        if engine.load is None:
            self._place()

    def _step(self, engine: SimulatedEngine) -> None:
        batch = [] if engine.is_stepping else engine.next_batch()
        if not batch:
            return
        engine.is_stepping = True
        for job in batch:
            if math.isnan(job.began):
                job.began = self.now
        model = batch[0].model
        engine.resident[model.name] = self.now
        seconds = model.step_s * (1.0 + BATCH_COST * (len(batch) - 1))
        heapq.heappush(self._events, (self.now + seconds, next(self._order), engine.number, batch))

    def _demands(self) -> Iterator[placement.Demand]:
        for request in itertools.chain.from_iterable(self.waiting):
            self.considered += 1
            name = request.model.name
            yield placement.Demand(
                request.number, name, request.rank, name, self._seconds[name], self._load_seconds[name],
                request.model.size, False, request.overtaken,
            )  # fmt: skip

    def _place(self) -> None:
        while any(self.waiting):
            loads: list[placement.EngineLoad] = []
            for engine in self.engines:
                if engine.load is None:
                    engine.load = engine.describe(self.now)
                loads.append(engine.load)
            began = time.thread_time()
            placed = placement.place(self._demands(), loads, self.now)
            self.placing_s += time.thread_time() - began
            if placed is None:
                return
            self.placed += 1
            self._give(placed.index, self.engines[placed.engine - 1])

    def _give(self, index: int, engine: SimulatedEngine) -> None:
        """Give the waiting request at this index to an engine."""
        for queue in self.waiting:
            for request in queue[:index]:
                request.overtaken += 1
            if index < len(queue):
                request = queue.pop(index)
                break
            index -= len(queue)
        else:
            raise AssertionError("placement named a request that isn't there")
        engine.jobs.append(request)
        engine.load = None
        if request.model.name not in engine.resident and request.model.name not in engine.loading:
            self._load(engine, request.model)
        self._step(engine)

    def _load(self, engine: SimulatedEngine, model: PaperModel) -> None:
        """Evict what was least recently used until a model fits, then load it after the loads before it."""
        sizes = {other.name: other.size for other in MODELS}
        in_use = {job.model.name for job in engine.jobs}
        while sum(sizes[name] for name in (*engine.resident, *engine.loading)) + model.size > MODEL_MEMORY_BYTES:
            idle = [name for name in engine.resident if name not in in_use]
            if not idle:
                break  # as in an engine, the model moves in as soon as others leave; here at once
            del engine.resident[min(idle, key=engine.resident.__getitem__)]
        engine.load_count += 1
        begins = max(engine.loading.values(), default=self.now)
        engine.loading[model.name] = begins + model.load_s
        heapq.heappush(self._events, (begins + model.load_s, next(self._order), engine.number, model.name))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks placement")
    parser.add_argument("--requests", type=int, default=REQUEST_COUNT)
    parser.add_argument("--engines", type=int, nargs="+", default=list(ENGINE_COUNTS))
    options = parser.parse_args()
    print(
        f"{options.requests} requests for {len(MODELS)} models, {LOAD_FACTOR} times what engines render without batches"
    )
    print("                            wait in s, median and 95 %")
    print(
        "engines requests/s   each   live           normal         background      loads refused us/decision us/request"
    )
    for count in options.engines:
        print(Simulation(count, options.requests).run().report(), flush=True)


if __name__ == "__main__":
    main()
