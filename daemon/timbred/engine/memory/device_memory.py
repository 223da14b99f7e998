"""Memory of one compute device: components that are on it, and which are moved off for others."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from timbred.engine.batching import is_out_of_memory
from timbred.engine.compile.compiled_calls import CompileQueue
from timbred.engine.device import count_module_bytes, count_tensor_bytes


@dataclass(frozen=True)
class Resident:
    """A model in memory: its bytes, its last use, and True if a job is using it."""

    name: str
    memory: int
    last_used: float
    in_use: bool


def to_evict(residents: Sequence[Resident], needed: int, budget: int) -> list[str]:
    """Return the models to drop so that `needed` bytes fit into `budget`: least recently used first, none in use.

    If that is not enough, all idle models are returned; the device decides if the rest suffices.

    >>> old, new = Resident("old", 6, 1.0, False), Resident("new", 6, 2.0, False)
    >>> to_evict([new, old], 4, 12)
    ['old']
    >>> to_evict([new, old], 4, 16)
    []
    """
    occupied = sum(resident.memory for resident in residents)
    leaving: list[str] = []
    for resident in sorted((one for one in residents if not one.in_use), key=lambda one: one.last_used):
        if occupied + needed <= budget:
            break
        leaving.append(resident.name)
        occupied -= resident.memory
    return leaving


log = logging.getLogger("timbred.engine.memory")

HOME = torch.device("cpu")


@dataclass(eq=False)
class _PlacedPart:
    """A component, its bytes, and its place."""

    module: torch.nn.Module
    size: int
    here: bool = False
    coming: bool = False
    last_used: float = 0.0


class DeviceMemory:
    """The components of all models on one device; shared components are registered once.

    Thread-safe, because models are loaded in other threads than they run in. Only moves take long.

    Args:
        device: The compute device.
        budget: Bytes that components may fill on it.
    """

    def __init__(self, device: torch.device, budget: int) -> None:
        self.device = device
        self.budget = budget
        self.moves = 0
        self._parts: dict[int, _PlacedPart] = {}
        self._moved: dict[int, list[Callable[[], None]]] = {}
        self._lock = threading.RLock()

    @property
    def used(self) -> int:
        """Bytes of the components on the device."""
        with self._lock:
            return sum(part.size for part in self._parts.values() if part.here or part.coming)

    @property
    def held(self) -> int:
        """Bytes of all components, on the device or in host memory."""
        with self._lock:
            return sum(part.size for part in self._parts.values())

    def on_move(self, module: torch.nn.Module, tell: Callable[[], None]) -> None:
        """Call `tell` whenever this component has moved."""
        with self._lock:
            told = self._moved.setdefault(id(module), [])
            if tell not in told:
                told.append(tell)

    def size(self, module: torch.nn.Module) -> int:
        """Return the bytes of a registered component."""
        with self._lock:
            return self._parts[id(module)].size

    def add(self, modules: Sequence[torch.nn.Module]) -> None:
        """Register a model's components, and move those to the device that fit beside all others."""
        for module in modules:
            with self._lock:
                known = id(module) in self._parts
            size = 0 if known else count_module_bytes(module)
            with self._lock:
                part = self._parts.setdefault(id(module), _PlacedPart(module, size))
                part.coming = not part.here and self.used + part.size <= self.budget
            if part.coming:
                self._move_to_device(part)

    def drop(self, modules: Sequence[torch.nn.Module]) -> None:
        """Unregister components that no model uses any more."""
        with self._lock:
            for module in modules:
                self._parts.pop(id(module), None)
                self._moved.pop(id(module), None)

    def ensure_on_device(self, modules: Sequence[torch.nn.Module]) -> None:
        """Move these components to the device, and the least recently used others off it to make room."""
        with self._lock:
            parts = [self._parts[id(module)] for module in modules if id(module) in self._parts]
            missing = [part for part in parts if not part.here]
            if missing:
                self._make_room(parts, sum(part.size for part in missing))
            for part in parts:
                part.last_used = time.monotonic()
                self._move_to_device(part)

    def clear(self, staying: Sequence[torch.nn.Module]) -> bool:
        """Move all other components to host memory; returns False if there were none."""
        kept = {id(module) for module in staying}
        with self._lock:
            leaving = [part for key, part in self._parts.items() if part.here and key not in kept]
            for part in leaving:
                self._move_to_host(part)
        return bool(leaving)

    def _make_room(self, staying: list[_PlacedPart], needed: int) -> None:
        here = {str(key): part for key, part in self._parts.items() if part.here}
        seen = [Resident(name, part.size, part.last_used, part in staying) for name, part in here.items()]
        for name in to_evict(seen, needed, self.budget):
            self._move_to_host(here[name])

    def _move_to_device(self, part: _PlacedPart) -> None:
        if not part.here:
            self._move(part, self.device)
            part.here = True
        part.coming = False

    def _move_to_host(self, part: _PlacedPart) -> None:
        log.info("%s was moved to host memory", type(part.module).__name__)
        self._move(part, HOME)
        part.here = False
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _move(self, part: _PlacedPart, device: torch.device) -> None:
        with torch.inference_mode(False):
            part.module.to(device)
        self.moves += 1
        for tell in tuple(self._moved.get(id(part.module), ())):
            tell()


Result = TypeVar("Result")

STAGES = {
    "network": ("unet",),
    "sound": ("vae", "vocoder"),
    "words": ("text_encoder", "text_encoder_2", "projection_model", "language_model"),
}
"""Components of each stage of a model; only one stage must be on the device at once. Most important stage first."""


class ModelStages:
    """A model's components with weights, by stage; `workshop` holds compiled calls of them."""

    workshop: CompileQueue

    def __init__(self, components: dict[str, Any], places: DeviceMemory) -> None:
        self.places = places
        self.parts: dict[str, list[torch.nn.Module]] = {
            stage: [components[name] for name in names if isinstance(components.get(name), torch.nn.Module)]
            for stage, names in STAGES.items()
        }

    @property
    def modules(self) -> list[torch.nn.Module]:
        """All components."""
        return [module for stage in STAGES for module in self.parts[stage]]

    @property
    def tensors(self) -> dict[int, int]:
        """Bytes of every weight by its address, so that shared tensors count once."""
        return {
            tensor.data_ptr(): count_tensor_bytes((tensor,))
            for module in self.modules
            for tensor in (*module.parameters(), *module.buffers())
        }

    def run_stage(self, stage: str, work: Callable[[], Result]) -> Result:
        """Run work of a stage with its components on the device.

        Out of memory, the work is retried without compiled calls, then with all other components moved off the device.
        """
        self.places.ensure_on_device(self.parts[stage])
        ways_out = iter((self._drop_compiled_calls, partial(self.places.clear, self.parts[stage])))
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error) or not any(way_out() for way_out in ways_out):
                    raise
                log.warning("out of memory (%s); only the components of the %s stage stay on the device", error, stage)

    def _drop_compiled_calls(self) -> bool:
        """Drop all compiled calls; returns False if there were none."""
        return self.workshop.free_bytes(sys.maxsize)
