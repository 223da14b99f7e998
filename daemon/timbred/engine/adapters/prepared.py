"""A module's calls, made fast for the shapes that it meets often, while the plain call goes on serving.

On a CPU weights are packed for oneDNN; on CUDA calls are recorded as CUDA graphs and compiled by inductor, whose work
is kept on disk. Whatever can't be prepared is logged once, and stays plain.
"""

import logging
import os
import queue
import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from timbred.engine.adapters.artefacts import Shelf, compiled, device_key, module_key
from timbred.engine.adapters.packing import can_pack, packed
from timbred.engine.adapters.replaying import Replayed
from timbred.engine.adapters.tracing import Call, Shape, Shapes, Traced, trace, weights_of
from timbred.engine.adapters.wrapping import goes_around

log = logging.getLogger("timbred.engine.compile")

WORTH = 20
"""Calls of one shape after which it is worth preparing."""

MOST = 8
"""Shapes that a module is kept prepared for."""

MOST_PACKED = 300_000_000
"""Bytes that the packed copies of one module may take."""

ROWS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Batches that calls are recorded for on CUDA; others are filled up."""

Inputs = tuple[torch.Tensor, ...]


@dataclass
class Counts:
    """What the workshop has done so far: calls packed, compiled, read from disk, and those that couldn't be."""

    packed: int = 0
    compiled: int = 0
    read: int = 0
    failed: int = 0


@dataclass
class Workshop:
    """Prepares calls, one after the other, in a thread that gives way to all others.

    `wanted` is the setting: `auto` packs on a CPU and compiles on CUDA, `on` compiles on both, `off` leaves all plain.
    `folder` is where compiled calls are kept.
    """

    wanted: str
    device: torch.device
    folder: Path
    counts: Counts = field(default_factory=Counts)
    _tasks: "queue.SimpleQueue[Callable[[], None]]" = field(default_factory=queue.SimpleQueue["Callable[[], None]"])
    _thread: threading.Thread | None = None

    @property
    def compiles(self) -> bool:
        return self.device.type == "cuda" or (self.device.type == "cpu" and self.wanted == "on")

    @property
    def replays(self) -> bool:
        return self.device.type == "cuda"

    def takes(self, module: torch.nn.Module) -> bool:
        """Whether anything can be done for a module here."""
        if self.wanted == "off" or self.device.type not in {"cpu", "cuda"}:
            return False
        return self.compiles or can_pack(module)

    def shelf(self, module: torch.nn.Module) -> Shelf:
        return Shelf(self.folder / device_key(self.device) / module_key(module))

    def submit(self, task: Callable[[], None]) -> None:
        """Have something done after all that was submitted before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="workshop", daemon=True)
            self._thread.start()
        self._tasks.put(task)

    def wait(self) -> None:
        """Until all that was submitted is done; for tests and benchmarks."""
        done = threading.Event()
        self.submit(done.set)
        done.wait()

    def prepare(self, call: Call, module: torch.nn.Module, shapes: Shapes, shelf: Shelf) -> Traced | None:
        """The prepared call, or None where that can't be done; runs in the workshop's thread."""
        inputs = tuple(shape.example(self.device) for shape in shapes)
        try:
            found = shelf.read(shapes) if self.compiles else None
            if found is not None:
                self.counts.read += 1
                log.info("%s read from the cache for %s", type(module).__name__, shapes[0].size)
                return Traced(found, weights_of(module))
            traced = trace(call, module, inputs)
            if not self.compiles:
                self.counts.packed += 1
                return packed(traced, inputs)
            made = compiled(traced, inputs, shapes, shelf)
        except Exception as error:  # compilers fail in many ways; the plain call goes on
            self.counts.failed += 1
            log.warning("%s stays uncompiled: %s", type(module).__name__, _first_line(error))
            log.debug("", exc_info=error)
            return None
        self.counts.compiled += 1
        log.info("%s compiled for %s", type(module).__name__, shapes[0].size)
        return made

    def _run(self) -> None:
        if sys.platform == "linux":  # there each thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while True:
            self._tasks.get()()


class PreparedCalls:
    """Calls of one module. Used by one thread; what the workshop has ready is taken over between two calls."""

    def __init__(
        self, call: Call, module: Any, workshop: Workshop, fitted: Callable[[Inputs], Inputs] = lambda inputs: inputs
    ) -> None:
        """`fitted` fills inputs up to fewer kinds of shapes without changing what the call gives."""
        self._call = call
        self._module = module
        self._workshop = workshop
        self._fitted = fitted
        self._takes = workshop.takes(module)
        self._shelf = workshop.shelf(module) if self._takes else None
        self._most = _most(module) if self._takes and not workshop.compiles else MOST
        self._met: Counter[Shapes] = Counter()
        self._asked: set[Shapes] = set()
        self._ready: OrderedDict[Shapes, Callable[..., torch.Tensor]] = OrderedDict()
        self._arrived: queue.SimpleQueue[tuple[Shapes, Traced, int]] = queue.SimpleQueue()
        self._unrecordable: set[Shapes] = set()
        self._life = 0

    @property
    def ready(self) -> int:
        """Shapes that are prepared and in use, or wait to be."""
        return len(self._ready) + self._arrived.qsize()

    def plain(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The module's own call."""
        return self._call(self._module, *inputs)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The module's call, the fast way if that is ready; loops, and what must be equal to the bit, always go the
        plain way."""
        if not self._takes or goes_around() or torch.are_deterministic_algorithms_enabled():
            return self.plain(*inputs)
        rows = len(inputs[0])
        fitted = self._fitted(inputs)
        if self._workshop.replays:
            fitted = _filled_rows(fitted)
        shapes = tuple(Shape.of(one) for one in fitted)
        self._take_over(fitted, shapes)
        self._count(shapes)
        fast = self._ready.get(shapes)
        if fast is None:
            return self.plain(*inputs)
        self._ready.move_to_end(shapes)
        return fast(*fitted)[:rows]

    def recall(self) -> None:
        """Prepare the shapes that were met in earlier runs."""
        if self._shelf is not None:
            for shapes in self._shelf.remembered(self._most):
                self._ask(shapes)

    def forget(self) -> None:
        """The module's weights have moved: what was prepared holds the old ones."""
        self._life += 1
        self._ready.clear()
        self._asked.clear()
        self._met.clear()

    def _count(self, shapes: Shapes) -> None:
        self._met[shapes] += 1
        if self._met[shapes] == WORTH:
            if self._shelf is not None:
                self._workshop.submit(partial(self._remember, shapes))
            self._ask(shapes)

    def _remember(self, shapes: Shapes) -> None:
        assert self._shelf is not None
        try:
            self._shelf.remember(shapes)
        except OSError as error:
            log.warning("shapes can't be remembered for the next start: %s", error)

    def _ask(self, shapes: Shapes) -> None:
        if shapes not in self._asked and shapes not in self._ready:
            self._asked.add(shapes)
            self._workshop.submit(partial(self._make, shapes, self._life))

    def _make(self, shapes: Shapes, life: int) -> None:
        assert self._shelf is not None
        if life == self._life:
            made = self._workshop.prepare(self._call, self._module, shapes, self._shelf)
            if made is not None:
                self._arrived.put((shapes, made, life))

    def _take_over(self, inputs: Inputs, shapes: Shapes) -> None:
        while not self._arrived.empty():
            arrived, made, life = self._arrived.get()
            if life == self._life:
                self._install(arrived, made)
        if self._workshop.replays:
            self._record(inputs, shapes)

    def _install(self, shapes: Shapes, fast: Callable[..., torch.Tensor]) -> None:
        self._ready[shapes] = fast
        self._ready.move_to_end(shapes)
        self._unrecordable.discard(shapes)
        while len(self._ready) > self._most:
            oldest, _ = self._ready.popitem(last=False)
            self._asked.discard(oldest)
            self._met[oldest] = 0

    def _record(self, inputs: Inputs, shapes: Shapes) -> None:
        """Record the plain call when its shapes come for the second time, the compiled one as soon as it is there."""
        fast = self._ready.get(shapes)
        if isinstance(fast, Replayed) or shapes in self._unrecordable or (fast is None and not self._met[shapes]):
            return
        try:
            self._install(shapes, Replayed(self.plain if fast is None else fast, inputs))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._unrecordable.add(shapes)
            log.warning("%s isn't recorded for %s: %s", type(self._module).__name__, shapes[0].size, _first_line(error))


def _filled_rows(inputs: Inputs) -> Inputs:
    """The last row repeated until the batch has one of the sizes that calls are recorded for."""
    rows = len(inputs[0])
    missing = next((size for size in ROWS if size >= rows), rows) - rows
    if not missing:
        return inputs
    return tuple(torch.cat([one, one[-1:].expand(missing, *one.shape[1:])]) for one in inputs)


def _most(module: torch.nn.Module) -> int:
    size = sum(weight.numel() * weight.element_size() for weight in module.parameters())
    return max(1, min(MOST, MOST_PACKED // max(1, size)))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
