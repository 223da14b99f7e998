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
from timbred.models.families import STAGES, Family, Stage


@dataclass(frozen=True)
class Resident:
    """A model in memory: its bytes, its last use, and True if a job is using it."""

    name: str
    size_bytes: int
    last_used: float
    in_use: bool


def choose_evicted(residents: Sequence[Resident], needed_bytes: int, budget_bytes: int) -> list[str]:
    """Return the models to drop so that `needed_bytes` fit into `budget_bytes`.

    The least recently used comes first; none in use is dropped.

    If that is not enough, all idle models are returned; the device decides if the rest suffices.

    >>> old, new = Resident("old", 6, 1.0, False), Resident("new", 6, 2.0, False)
    >>> choose_evicted([new, old], 4, 12)
    ['old']
    >>> choose_evicted([new, old], 4, 16)
    []
    """
    occupied_bytes = sum(resident.size_bytes for resident in residents)
    evicted: list[str] = []
    for resident in sorted((idle for idle in residents if not idle.in_use), key=lambda model: model.last_used):
        if occupied_bytes + needed_bytes <= budget_bytes:
            break
        evicted.append(resident.name)
        occupied_bytes -= resident.size_bytes
    return evicted


log = logging.getLogger("timbred.engine.memory")

HOST_DEVICE = torch.device("cpu")


@dataclass(eq=False)
class _PlacedPart:
    """A component, its bytes, and its place."""

    module: torch.nn.Module
    size_bytes: int
    on_device: bool = False
    arriving: bool = False
    last_used: float = 0.0


class DeviceMemory:
    """The components of all models on one device; shared components are registered once.

    Thread-safe, because models are loaded in other threads than they run in. Only moves take long.

    Args:
        device: The compute device.
        budget_bytes: Bytes that components may fill on it.
    """

    def __init__(self, device: torch.device, budget_bytes: int) -> None:
        self.device = device
        self.budget_bytes = budget_bytes
        self.move_count = 0
        self._parts: dict[int, _PlacedPart] = {}
        self._move_callbacks: dict[int, list[Callable[[], None]]] = {}
        self._lock = threading.RLock()

    @property
    def used_bytes(self) -> int:
        """Bytes of the components on the device."""
        with self._lock:
            return sum(part.size_bytes for part in self._parts.values() if part.on_device or part.arriving)

    @property
    def total_bytes(self) -> int:
        """Bytes of all components, on the device or in host memory."""
        with self._lock:
            return sum(part.size_bytes for part in self._parts.values())

    def on_move(self, module: torch.nn.Module, callback: Callable[[], None]) -> None:
        """Call `callback` whenever this component has moved."""
        with self._lock:
            callbacks = self._move_callbacks.setdefault(id(module), [])
            if callback not in callbacks:
                callbacks.append(callback)

    def size_bytes(self, module: torch.nn.Module) -> int:
        """Return the bytes of a registered component."""
        with self._lock:
            return self._parts[id(module)].size_bytes

    def add(self, modules: Sequence[torch.nn.Module]) -> None:
        """Register a model's components, and move those to the device that fit in addition to all others."""
        for module in modules:
            with self._lock:
                known = id(module) in self._parts
            size = 0 if known else count_module_bytes(module)
            with self._lock:
                part = self._parts.setdefault(id(module), _PlacedPart(module, size))
                part.arriving = not part.on_device and self.used_bytes + part.size_bytes <= self.budget_bytes
            if part.arriving:
                self._move_to_device(part)

    def drop(self, modules: Sequence[torch.nn.Module]) -> None:
        """Unregister components that no model uses any more."""
        with self._lock:
            for module in modules:
                self._parts.pop(id(module), None)
                self._move_callbacks.pop(id(module), None)

    def ensure_on_device(self, modules: Sequence[torch.nn.Module]) -> None:
        """Move these components to the device, and the least recently used others off it to make room."""
        with self._lock:
            parts = [self._parts[id(module)] for module in modules if id(module) in self._parts]
            missing = [part for part in parts if not part.on_device]
            if missing:
                self._make_room(parts, sum(part.size_bytes for part in missing))
            for part in parts:
                part.last_used = time.monotonic()
                self._move_to_device(part)

    def move_others_to_host(self, kept_modules: Sequence[torch.nn.Module]) -> bool:
        """Move all other components to host memory; returns False if there were none."""
        kept_ids = {id(module) for module in kept_modules}
        with self._lock:
            moved_parts = [part for key, part in self._parts.items() if part.on_device and key not in kept_ids]
            for part in moved_parts:
                self._move_to_host(part)
        return bool(moved_parts)

    def _make_room(self, kept_parts: list[_PlacedPart], needed_bytes: int) -> None:
        parts = {str(key): part for key, part in self._parts.items() if part.on_device}
        residents = [
            Resident(name, part.size_bytes, part.last_used, part in kept_parts) for name, part in parts.items()
        ]
        for name in choose_evicted(residents, needed_bytes, self.budget_bytes):
            self._move_to_host(parts[name])

    def _move_to_device(self, part: _PlacedPart) -> None:
        if not part.on_device:
            self._move(part, self.device)
            part.on_device = True
        part.arriving = False

    def _move_to_host(self, part: _PlacedPart) -> None:
        log.info("%s was moved to host memory", type(part.module).__name__)
        self._move(part, HOST_DEVICE)
        part.on_device = False
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _move(self, part: _PlacedPart, device: torch.device) -> None:
        with torch.inference_mode(False):
            part.module.to(device)
        self.move_count += 1
        for callback in tuple(self._move_callbacks.get(id(part.module), ())):
            callback()


Result = TypeVar("Result")


class ModelStages:
    """A model's components with weights, by stage; `compile_queue` holds compiled calls of them."""

    compile_queue: CompileQueue

    def __init__(self, components: dict[str, Any], family: Family, device_memory: DeviceMemory) -> None:
        self.device_memory = device_memory
        self.parts: dict[Stage, list[torch.nn.Module]] = {
            stage: [components[name] for name in family.stage_parts(stage) if components.get(name) is not None]
            for stage in STAGES
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

    def run_stage(self, stage: Stage, work: Callable[[], Result]) -> Result:
        """Run work of a stage with its components on the device.

        Out of memory, the work is retried without compiled calls, then with all other components moved off the device.
        """
        self.device_memory.ensure_on_device(self.parts[stage])
        fallbacks = iter(
            (self._drop_compiled_calls, partial(self.device_memory.move_others_to_host, self.parts[stage]))
        )
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error) or not any(fallback() for fallback in fallbacks):
                    raise
                log.warning("out of memory (%s); only the components of the %s stage stay on the device", error, stage)

    def _drop_compiled_calls(self) -> bool:
        """Drop all compiled calls; returns False if there were none."""
        return self.compile_queue.free_bytes(sys.maxsize)
