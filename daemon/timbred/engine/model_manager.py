"""The resident models of one device: construction, loads, unloads, and the memory budget they share."""

import gc
import importlib
import logging
import sys
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from timbred import errors
from timbred.engine import device
from timbred.engine.compile.compiled_calls import CompileQueue
from timbred.engine.diffusion.sampler import make_scheduler
from timbred.engine.families.base import FamilySpec, LatentDiffusion
from timbred.engine.families.clap import Clap, load_clap
from timbred.engine.families.component_loader import SharedComponents, component_class, load_components
from timbred.engine.memory.device_memory import DeviceMemory, Resident, choose_evicted
from timbred.engine.memory.model_loader import DeferredFree, Loader, LoadPacer, LoadResult
from timbred.ipc.engine_messages import ModelSource, RenderJob, ResidentModel
from timbred.models import checkpoint, clap
from timbred.models.checkpoint import Checkpoint, count_values, weight_files
from timbred.models.families import STAGES, Family
from timbred.process_memory import release_free_memory

log = logging.getLogger("timbred.engine")

DEFAULT_BUDGET_SHARE = 0.8
"""Part of the device's memory that models may fill when the setting is 0; the rest is for activations."""

COMPILED_BUDGET_SHARE = 0.25
"""Part of the budget that compiled calls may fill, including their copies of weights."""


def spec_of(family: Family) -> FamilySpec:
    """Return the engine's declaration of a family, which is imported now: importing all of them takes seconds."""
    module, name = family.spec
    return getattr(importlib.import_module(f"timbred.engine.families.{module}"), name)


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes that a model adds to the device, and those of its largest stage."""

    added_bytes: int
    largest_stage_bytes: int


def estimate_memory_needs(
    checkpoint: Checkpoint, name: str, precision: torch.dtype, shared: SharedComponents
) -> MemoryNeeds:
    """Return the memory a model needs, from its files.

    Raises:
        ModelError: The files are damaged.
    """
    sizes: dict[str, int] = {}
    added_bytes = 0
    spec = spec_of(checkpoint.family)
    if spec.load is not None:
        return MemoryNeeds(2 * checkpoint.weight_bytes, 2 * checkpoint.weight_bytes)  # float32, from half precision
    for part in (part for part in checkpoint.family.weighted if part in checkpoint.classes):
        folder = checkpoint.folder / part
        files = weight_files(folder, name, "")
        sizes[part] = count_values(files) * precision.itemsize
        if (
            shared.find(component_class(checkpoint, part, spec.own_classes).__name__, (folder / "config.json", *files))
            is None
        ):
            added_bytes += sizes[part]
    return MemoryNeeds(
        added_bytes, max(sum(sizes.get(part, 0) for part in checkpoint.family.stage_parts(stage)) for stage in STAGES)
    )


def make_resident(
    checkpoint: Checkpoint,
    name: str,
    device: torch.device,
    precision: torch.dtype,
    progress: Callable[[float], None],
    shared: SharedComponents | None = None,
    device_memory: DeviceMemory | None = None,
) -> LatentDiffusion:
    """Load a model, and move as much of it to the device as `device_memory` has room for; None moves all.

    `shared` provides components that are already in memory.

    Raises:
        ModelError: A component can't be loaded.
    """
    spec = spec_of(checkpoint.family)
    memory = device_memory or DeviceMemory(device, sys.maxsize)
    if spec.load is not None:
        model = LatentDiffusion(spec, spec.load(checkpoint.folder, name, progress), device, {}, memory)
        model.move_to_device()
        return model
    components: dict[str, Any] = load_components(
        checkpoint,
        name,
        precision,
        progress,
        SharedComponents() if shared is None else shared,
        spec.own_classes,
        on_host=device.type == "cpu",
    )
    config: dict[str, Any] = components["scheduler"]
    scheduler = make_scheduler(spec.facts.schedulers[0], config)
    pipeline = spec.pipeline_class(**{**components, "scheduler": scheduler})
    model = LatentDiffusion(spec, pipeline, device, config, memory)
    model.move_to_device()
    return model


@dataclass(frozen=True)
class MemoryReleased:
    """Posted when the memory of an unloaded model is free."""

    name: str


@dataclass(eq=False)
class MemoryRequested:
    """Posted by a loader thread that needs `added_bytes`; it blocks until `done` is set."""

    name: str
    added_bytes: int
    done: "Future[None]" = field(default_factory=Future["None"])


LoadedPart = LatentDiffusion | Clap
"""A model, or the component that compares takes."""

ManagerMessage = LoadResult[LoadedPart] | MemoryReleased | MemoryRequested
"""Posted to the scheduler's queue by the manager's own threads."""


class ModelManager:
    """Loads and unloads the models of one device and keeps them within a memory budget.

    Models are loaded and memory is freed in separate threads, which call `post`; the scheduler's thread passes the
    posted messages to `finish_load`, `make_room` and so on. All public methods are called by that thread.

    Args:
        compute_device: Device and precision of all models.
        budget_bytes: Memory that models may fill; 0 takes a share of the device's memory.
        post: Puts a message into the scheduler's queue; thread-safe.
        compile_setting: `auto`, `on` or `off`, see `CompileQueue`.
        cache_folder: Folder for compiled calls; None keeps none on disk.
    """

    def __init__(
        self,
        compute_device: device.ComputeDevice,
        budget_bytes: int,
        post: Callable[[ManagerMessage], None],
        compile_setting: str = "off",
        cache_folder: Path | None = None,
    ) -> None:
        self.resident: dict[str, LatentDiffusion] = {}
        self.budget_bytes = budget_bytes or int(
            DEFAULT_BUDGET_SHARE * device.read_memory(compute_device.torch_device)[1]
        )
        self.load_pacer = LoadPacer()
        self.compile_queue = CompileQueue(
            compile_setting,
            compute_device.torch_device,
            cache_folder,
            has_room=self._is_within_budget,
            max_bytes=int(COMPILED_BUDGET_SHARE * self.budget_bytes),
            without_gil=self.load_pacer.without_gil,
        )
        self.loader: Loader[LoadedPart] = Loader(self._load, post)
        self.deferred_free = DeferredFree(self.free_cached_memory)
        self._device = compute_device
        self._post = post
        self._shared_components = SharedComponents()
        self._memory = DeviceMemory(compute_device.torch_device, self.budget_bytes)
        self._loading_bytes: dict[str, int] = {}
        self._module_count = 0
        self._last_used: dict[str, float] = {}
        self._clap: Clap | None = None
        self._unusable_claps: set[str] = set()

    def get(self, name: str) -> LatentDiffusion | None:
        """Return a resident model, and mark it as used now."""
        model = self.resident.get(name)
        if model is not None:
            self._last_used[name] = time.monotonic()
        return model

    def sizes(self) -> tuple[ResidentModel, ...]:
        """Return the memory of every resident model, in bytes."""
        return tuple(resident_size(name, model) for name, model in tuple(self.resident.items()))

    def finish_load(self, result: LoadResult[LoadedPart]) -> LatentDiffusion | None:
        """Make a loaded model resident; returns None when its load failed, and for the CLAP component."""
        self._freeze_imports()
        name, loaded = result.source.name, self.loader.take_result(result)
        if loaded is None:
            if name == clap.CLAP_NAME:
                self._unusable_claps.add(result.source.folder)
                log.warning("takes aren't compared by %s: %s", result.source.folder, result.error)
            return None
        self._last_used[name] = time.monotonic()
        if isinstance(loaded, Clap):
            self._memory.add(loaded.modules)
            self._clap = loaded
            return None
        loaded.move_to_device()  # an unload in the meantime may have dropped components that both models share
        self.resident[name] = loaded
        return loaded

    def clap_for(self, render: RenderJob) -> Clap | None:
        """Return the CLAP that compares a job's takes, and mark it as used now; None for none, or one being loaded.

        The installed component comes first, so that takes of all models are compared by the same. Then the model's
        own, then that of another resident model that knows sounds of all kinds.
        """
        if self._must_load_clap(render.clap):
            return None
        if render.clap is not None and self._clap is not None:
            self._last_used[clap.CLAP_NAME] = time.monotonic()
            return self._clap
        own = self.resident.get(render.model.name)
        if own is not None and own.clap is not None:
            return own.clap
        return next((lender.clap for lender in self.resident.values() if lender.lends_clap), None)

    def request_clap(self, render: RenderJob) -> bool:
        """Have the installed component loaded unless it is in memory or unusable.

        Returns:
            True if it is being loaded.
        """
        if render.clap is None or not self._must_load_clap(render.clap):
            return False
        self.loader.request_load(render.clap, render.rank)
        return True

    def _must_load_clap(self, installed: ModelSource | None) -> bool:
        return installed is not None and self._clap is None and installed.folder not in self._unusable_claps

    def _freeze_imports(self) -> None:
        """Exclude library modules that a load imported from later collections: visiting them takes 0.3 s."""
        if len(sys.modules) != self._module_count:
            gc.collect()  # frozen garbage would never be freed
            gc.freeze()
            self._module_count = len(sys.modules)

    def unload(self, name: str) -> None:
        """Drop a model; `MemoryReleased` is posted once its memory is free, also when it was not resident."""
        modules: list[torch.nn.Module] = []
        owners: list[object] = []
        if name in self._holders:
            modules += self._unshared_modules(name)
            if name in self.resident:
                owners.append(self.resident.pop(name))
            else:
                owners.append(self._clap)
                self._clap = None
            self._memory.drop(modules)
        self.deferred_free.release(owners, modules, partial(self._post, MemoryReleased(name)))

    def make_room(self, request: MemoryRequested, in_use: Iterable[str]) -> None:
        """Free memory for a load, and set `request.done` once it is free.

        While everything together exceeds the budget, the least recently used is dropped: compiled calls first, then
        idle models. Components that several models share stay. `in_use` names models that must not be dropped.
        """
        self._loading_bytes[request.name] = request.added_bytes
        self.compile_queue.free_bytes(self._reserved_bytes + self.compile_queue.copied_bytes - self.budget_bytes)
        busy = set(in_use)
        unshared = {name: self._unshared_bytes(name) for name in self._holders}
        candidates = [
            Resident(name, size, self._last_used.get(name, 0.0), name in busy or not size)
            for name, size in unshared.items()
        ]
        other_bytes = self._reserved_bytes + self.compile_queue.copied_bytes - sum(unshared.values())
        for name in choose_evicted(candidates, other_bytes, self.budget_bytes):
            log.info("%s is unloaded to make room for %s", name, request.name)
            self.unload(name)
        self.deferred_free.call_after(partial(request.done.set_result, None))

    def free_cached_memory(self) -> None:
        """Return unused memory: the GPU's allocator cache, and this process's heap to the system."""
        if self._device.torch_device.type == "cuda":
            torch.cuda.empty_cache()
        release_free_memory()

    @property
    def _reserved_bytes(self) -> int:
        """Return the bytes of all models, and of those being loaded for which memory was freed."""
        return self._memory.total_bytes + sum(tuple(self._loading_bytes.values()))

    def _is_within_budget(self) -> bool:
        """Tell whether all models and copies of weights are within the budget."""
        return self._reserved_bytes + self.compile_queue.copied_bytes <= self.budget_bytes

    @property
    def _holders(self) -> dict[str, LoadedPart]:
        """The resident models, and the CLAP component under its name if it is in memory."""
        return {**self.resident, **({} if self._clap is None else {clap.CLAP_NAME: self._clap})}

    def _unshared_modules(self, name: str) -> list[torch.nn.Module]:
        """Return the components that only this model has."""
        holders = self._holders
        others = {id(part) for other, holder in holders.items() if other != name for part in holder.modules}
        return [part for part in holders[name].modules if id(part) not in others]

    def _unshared_bytes(self, name: str) -> int:
        """Return the bytes that only this model holds."""
        return sum(self._memory.size_bytes(part) for part in self._unshared_modules(name))

    def _load(self, source: ModelSource, report_progress: Callable[[float], None]) -> LoadedPart:
        """Load a model or the CLAP component; runs in the loader's thread."""
        with self.load_pacer.load():
            return self._load_paced(source, report_progress)

    def _load_paced(self, source: ModelSource, report_progress: Callable[[float], None]) -> LoadedPart:
        if self._device.torch_device.type == "cpu":
            torch.set_num_threads(1)  # more would compete for cores with the thread that generates
        if source.name == clap.CLAP_NAME:
            return self._load_clap(source)
        inspected = checkpoint.inspect(Path(source.folder), source.name, "check the model's folder")
        if inspected.pickled:
            parts = ", ".join(inspected.pickled)
            log.warning("%s has .bin weights (%s); once: timbred models convert %s", source.name, parts, source.name)
        precision = self._device.precision
        needs = estimate_memory_needs(inspected, source.name, precision, self._shared_components)
        with self._reserve(source.name, needs.added_bytes, needs.largest_stage_bytes):
            model = make_resident(
                inspected,
                source.name,
                self._device.torch_device,
                precision,
                report_progress,
                self._shared_components,
                self._memory,
            )
        model.use_compile_queue(self.compile_queue)
        if self._device.torch_device.type == "cpu":
            _warm_up(model, source.name)
        return model

    def _load_clap(self, source: ModelSource) -> Clap:
        inspected = clap.inspect(Path(source.folder), "install it again")
        needed_bytes = count_values(list(inspected.files[1:])) * self._device.precision.itemsize
        with self._reserve(source.name, needed_bytes, needed_bytes):
            loaded = load_clap(inspected, self._device.precision, self._shared_components, self._memory)
            self._memory.add(loaded.modules)
        loaded.stages.compile_queue = self.compile_queue
        return loaded

    @contextmanager
    def _reserve(self, name: str, added_bytes: int, largest_bytes: int) -> Generator[None]:
        """Have memory freed for a load, which takes `largest_bytes` at the same time.

        Raises:
            OutOfMemory: The budget is smaller.
        """
        if largest_bytes > self.budget_bytes:
            raise errors.OutOfMemory(
                f"{name} needs {largest_bytes / 1e6:.4g} MB at the same time, and models may use "
                f"{self.budget_bytes / 1e6:.4g} MB on this device; raise engine.memory if the device has more, "
                "or use a smaller model"
            )
        request = MemoryRequested(name, added_bytes)
        self._post(request)
        request.done.result()
        try:
            yield
        finally:
            del self._loading_bytes[name]


def _warm_up(model: LatentDiffusion, name: str) -> None:
    """Run a warm-up render; a failure is logged, and the first real request reports it."""
    try:
        model.warm_up()
    except Exception as error:  # noqa: BLE001  the first request that fails reports it to its client
        log.warning("the warm-up of %s failed: %s", name, error)


def resident_size(name: str, model: LatentDiffusion) -> ResidentModel:
    """Return a model's memory in bytes, including shared components and the copies of its weights."""
    return ResidentModel(name=name, memory=model.weight_bytes + model.copied_bytes, lends_clap=model.lends_clap)


IDLE_DELAY_S = 2.0
"""Seconds without work after which memory is tidied."""

MAX_TIDY_INTERVAL_S = 30.0
"""Seconds of work after which memory is tidied between steps."""

MIN_FREED_BYTES = 32_000_000
"""Free heap that the process may keep; less is not returned, because the next render allocates it again."""


class Upkeep:
    """Decides when memory is tidied: once when idle after work, and every `MAX_TIDY_INTERVAL_S` during work.

    Returning memory takes a few milliseconds in another thread, which `run_in_background` provides. Garbage collection
    stops all threads for some 10 ms, so it runs between steps and as rarely.
    """

    def __init__(
        self, run_in_background: Callable[[Callable[[], None]], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run_in_background = run_in_background
        self._clock = clock
        self._last_tidy = clock()
        self._last_work: float | None = None

    def record_work(self) -> None:
        """Record that a step or a message was handled now."""
        self._last_work = self._clock()
        if self._last_work - self._last_tidy >= MAX_TIDY_INTERVAL_S:
            self.tidy()

    @property
    def due_in_s(self) -> float | None:
        """Seconds until `tidy` is due if nothing is done; None when it is done."""
        return None if self._last_work is None else max(0.0, self._last_work + IDLE_DELAY_S - self._clock())

    def tidy(self) -> None:
        """Collect garbage, and have free memory returned to the system."""
        self._last_work = None
        self._last_tidy = self._clock()
        gc.collect()
        self._run_in_background(_return_free_memory)


def _return_free_memory() -> None:
    if release_free_memory(MIN_FREED_BYTES):
        log.debug("free memory was returned to the system")
