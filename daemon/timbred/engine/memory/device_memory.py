"""Which models give way when another needs room. Pure."""

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
from timbred.engine.tensor_sizes import count_module_bytes, count_tensor_bytes


@dataclass(frozen=True)
class Resident:
    """A model in memory: its size in bytes, when it was last used, and whether a job is using it now."""

    name: str
    memory: int
    last_used: float
    in_use: bool


def to_evict(residents: Sequence[Resident], needed: int, budget: int) -> list[str]:
    """The models to drop so that `needed` bytes fit into `budget`: least recently used first, never one in use.

    Where even that doesn't suffice, everything that may go goes: the device itself says whether it is enough.

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
    """A component, its size in bytes, and where it is."""

    module: torch.nn.Module
    size: int
    here: bool = False
    coming: bool = False
    last_used: float = 0.0


class DeviceMemory:
    """The parts of all models on one device. Components that models share are known once.

    Models are loaded in another thread than they run in: what is asked of each is short, but for the moving itself.
    """

    def __init__(self, device: torch.device, budget: int) -> None:
        """`budget`: bytes that parts may fill on the device."""
        self.device = device
        self.budget = budget
        self.moves = 0
        self._parts: dict[int, _PlacedPart] = {}
        self._moved: dict[int, list[Callable[[], None]]] = {}
        self._lock = threading.RLock()

    @property
    def used(self) -> int:
        """Bytes of the parts that are on the device."""
        with self._lock:
            return sum(part.size for part in self._parts.values() if part.here or part.coming)

    @property
    def held(self) -> int:
        """Bytes of all parts, wherever they are."""
        with self._lock:
            return sum(part.size for part in self._parts.values())

    def on_move(self, module: torch.nn.Module, tell: Callable[[], None]) -> None:
        """Have `tell` called whenever this component has moved."""
        with self._lock:
            told = self._moved.setdefault(id(module), [])
            if tell not in told:
                told.append(tell)

    def size(self, module: torch.nn.Module) -> int:
        """Bytes of a component that is known here."""
        with self._lock:
            return self._parts[id(module)].size

    def add(self, modules: Sequence[torch.nn.Module]) -> None:
        """Take in a model's components, and put those on the device that have room there beside all others."""
        for module in modules:
            with self._lock:
                known = id(module) in self._parts
            size = 0 if known else count_module_bytes(module)
            with self._lock:
                part = self._parts.setdefault(id(module), _PlacedPart(module, size))
                part.coming = not part.here and self.used + part.size <= self.budget
            if part.coming:
                self._bring(part)

    def drop(self, modules: Sequence[torch.nn.Module]) -> None:
        """Forget these components: no model has them any more."""
        with self._lock:
            for module in modules:
                self._parts.pop(id(module), None)
                self._moved.pop(id(module), None)

    def need(self, modules: Sequence[torch.nn.Module]) -> None:
        """Have these components on the device, now; the ones used least recently make room for them."""
        with self._lock:
            parts = [self._parts[id(module)] for module in modules if id(module) in self._parts]
            missing = [part for part in parts if not part.here]
            if missing:
                self._make_room(parts, sum(part.size for part in missing))
            for part in parts:
                part.last_used = time.monotonic()
                self._bring(part)

    def clear(self, staying: Sequence[torch.nn.Module]) -> bool:
        """Send everything home but these; False when there was nothing to send."""
        kept = {id(module) for module in staying}
        with self._lock:
            leaving = [part for key, part in self._parts.items() if part.here and key not in kept]
            for part in leaving:
                self._send_home(part)
        return bool(leaving)

    def _make_room(self, staying: list[_PlacedPart], needed: int) -> None:
        here = {str(key): part for key, part in self._parts.items() if part.here}
        seen = [Resident(name, part.size, part.last_used, part in staying) for name, part in here.items()]
        for name in to_evict(seen, needed, self.budget):
            self._send_home(here[name])

    def _bring(self, part: _PlacedPart) -> None:
        if not part.here:
            self._move(part, self.device)
            part.here = True
        part.coming = False

    def _send_home(self, part: _PlacedPart) -> None:
        log.info("%s waits in the computer's memory", type(part.module).__name__)
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
"""What a model works in, one at a time: only this much of it must be on the device at once. Those needed most first."""


class ModelStages:
    """The components that have weights, by stage. `workshop` makes them faster, with copies of their weights."""

    workshop: CompileQueue

    def __init__(self, components: dict[str, Any], places: DeviceMemory) -> None:
        self.places = places
        self.parts: dict[str, list[torch.nn.Module]] = {
            stage: [components[name] for name in names if isinstance(components.get(name), torch.nn.Module)]
            for stage, names in STAGES.items()
        }

    @property
    def modules(self) -> list[torch.nn.Module]:
        """All of them."""
        return [module for stage in STAGES for module in self.parts[stage]]

    @property
    def tensors(self) -> dict[int, int]:
        """Bytes of every weight by its place in memory, so that what models share is counted once."""
        return {
            tensor.data_ptr(): count_tensor_bytes((tensor,))
            for module in self.modules
            for tensor in (*module.parameters(), *module.buffers())
        }

    def at_work(self, stage: str, work: Callable[[], Result]) -> Result:
        """Do something with the components of a stage on the device. When its memory runs out, copies of weights go,
        then all other components leave it; after each it is tried once more."""
        self.places.need(self.parts[stage])
        ways_out = iter((self._lighten, partial(self.places.clear, self.parts[stage])))
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error) or not any(way_out() for way_out in ways_out):
                    raise
                log.warning("memory ran out (%s); only what the %s needs stays on the device", error, stage)

    def _lighten(self) -> bool:
        """Let go of all copies of weights; False when there were none."""
        return self.workshop.give_up(sys.maxsize)
