"""Which parts of the models are on the device; those without room there wait in the computer's own memory.

A model works in stages (words, network, sound), one at a time. So a device only ever needs room for the largest of
them; what else fits stays there, because moving takes time.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from timbred.engine.precedence import PromptLock
from timbred.engine.residency import Resident, to_evict

log = logging.getLogger("timbred.engine.memory")

HOME = torch.device("cpu")


@dataclass(eq=False)
class _Part:
    """A component, its size in bytes, and where it is."""

    module: torch.nn.Module
    size: int
    here: bool = False
    coming: bool = False
    last_used: float = 0.0


class Places:
    """The parts of all models on one device. Components that models share are known once.

    Models are loaded in another thread than they run in: what is asked of each is short, but for the moving itself.
    """

    def __init__(self, device: torch.device, budget: int) -> None:
        """`budget`: bytes that parts may fill on the device."""
        self.device = device
        self.budget = budget
        self.moves = 0
        self._parts: dict[int, _Part] = {}
        self._moved: dict[int, list[Callable[[], None]]] = {}
        self._lock = PromptLock()

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
            size = 0 if known else size_of(module)
            with self._lock:
                part = self._parts.setdefault(id(module), _Part(module, size))
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

    def _make_room(self, staying: list[_Part], needed: int) -> None:
        here = {str(key): part for key, part in self._parts.items() if part.here}
        seen = [Resident(name, part.size, part.last_used, part in staying) for name, part in here.items()]
        for name in to_evict(seen, needed, self.budget):
            self._send_home(here[name])

    def _bring(self, part: _Part) -> None:
        if not part.here:
            self._move(part, self.device)
            part.here = True
        part.coming = False

    def _send_home(self, part: _Part) -> None:
        log.info("%s waits in the computer's memory", type(part.module).__name__)
        self._move(part, HOME)
        part.here = False
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _move(self, part: _Part, device: torch.device) -> None:
        with torch.inference_mode(False):
            part.module.to(device)
        self.moves += 1
        for tell in tuple(self._moved.get(id(part.module), ())):
            tell()


def size_of(module: torch.nn.Module) -> int:
    """Bytes of a component's weights."""
    tensors = {one.data_ptr(): one for one in (*module.parameters(), *module.buffers())}
    return sum(one.numel() * one.element_size() for one in tensors.values())
