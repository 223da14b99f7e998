"""A module's calls, made fast for the shapes that it meets often, while the plain call goes on serving.

On a CPU weights are packed for oneDNN; on CUDA calls are recorded as CUDA graphs and compiled by inductor, whose work
is kept on disk. Whatever can't be prepared is logged once, and stays plain.
"""

import logging
import queue
import sys
import threading
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from timbred.engine.adapters.artefacts import Shelf, compiled, device_key, module_key
from timbred.engine.adapters.packing import can_pack, packed
from timbred.engine.adapters.replaying import Replayed
from timbred.engine.adapters.tracing import Call, Shape, Shapes, Traced, trace, weights_of
from timbred.engine.adapters.wrapping import goes_around
from timbred.engine.precedence import PromptLock

log = logging.getLogger("timbred.engine.compile")

WORTH = 20
"""Calls of one shape after which it is worth preparing."""

MOST = 8
"""Shapes that a module is kept prepared for."""

MOST_PACKED = 300_000_000
"""Bytes that the packed copies of one module may take."""

RECALLED_PACKED = 1
"""Shapes of earlier runs that calls are packed for at a start. Packing takes a core for a second each, while steps go
on: were it done for all, sounds would take twice as long for half a minute. Others are packed when they come."""

ROWS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Batches that calls are recorded for on CUDA; others are filled up."""

LATEST = 1
"""The rank of the latest shapes of earlier runs: after those that are in use now, before all older ones."""

Inputs = tuple[torch.Tensor, ...]


def as_they_are(inputs: Inputs) -> Inputs:
    """Inputs of as many kinds of shapes as they come in."""
    return inputs


def _always() -> bool:
    return True


def _at_once(work: Callable[[], None]) -> None:
    work()


@dataclass
class Counts:
    """What the workshop has done so far: calls packed, compiled, read from disk, and those that couldn't be."""

    packed: int = 0
    compiled: int = 0
    read: int = 0
    failed: int = 0


@dataclass(order=True)
class _Task:
    """What a workshop is to do: the lowest rank first, then in the order of their numbers."""

    rank: int
    number: int
    work: Callable[[], None] = field(compare=False)


@dataclass
class Workshop:
    """Prepares calls, one after the other, in a thread that gives way to all others.

    `wanted` is the setting: `auto` packs on a CPU and compiles on CUDA, `on` compiles on both, `off` leaves all plain.
    `folder` is where compiled calls are kept; None: nowhere. `has_room` says whether all copies of weights are within
    the budget. `behind` does something in the thread that calls it, so that it gives way to steps.
    """

    wanted: str
    device: torch.device
    folder: Path | None
    counts: Counts = field(default_factory=Counts)
    has_room: Callable[[], bool] = _always
    behind: Callable[[Callable[[], None]], object] = _at_once
    is_busy: bool = False
    _calls: "weakref.WeakValueDictionary[int, PreparedCalls]" = field(
        default_factory=weakref.WeakValueDictionary[int, "PreparedCalls"]
    )
    _lock: PromptLock = field(default_factory=PromptLock)
    _tasks: "queue.PriorityQueue[_Task]" = field(default_factory=queue.PriorityQueue["_Task"])
    _numbers: "count[int]" = field(default_factory=count)
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
        return Shelf(self.folder and self.folder / device_key(self.device) / module_key(module))

    def calls(
        self, call: Call, module: torch.nn.Module, fitted: Callable[[Inputs], Inputs] = as_they_are
    ) -> "PreparedCalls":
        """A module's calls: the same for all models that have it, so that what is prepared is held once."""
        with self._lock:
            found = self._calls.get(id(module))
            known = found is not None
            if found is None:
                found = self._calls[id(module)] = PreparedCalls(call, module, self, fitted)
        if not known:
            found.recall()
        return found

    @property
    def copies(self) -> int:
        """Bytes that weights take once more, as prepared calls want them."""
        return sum(calls.copies for calls in self._all())

    def give_up(self, wanted: int) -> bool:
        """Let prepared calls go, those used least recently first, until so many bytes are free; False when there were
        none. They are made anew when they are worth it and there is room again."""
        free = 0
        for calls in sorted((one for one in self._all() if one.copies), key=lambda one: one.last_used):
            if free >= wanted:
                break
            free += calls.copies
            log.info("%d MB of prepared calls make room", calls.copies // 1_000_000)
            calls.forget()
        return free > 0

    def _all(self) -> "list[PreparedCalls]":
        with self._lock:
            return list(self._calls.values())

    def submit(self, task: Callable[[], None], rank: int = 0) -> None:
        """Have something done after all of its rank, or a lower one, that was submitted before."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="workshop", daemon=True)
                self._thread.start()
        self._tasks.put(_Task(rank, next(self._numbers), task))

    def wait(self, rank: int = sys.maxsize, patience: float | None = None) -> None:
        """Until all that was submitted up to a rank is done, or so many seconds are over."""
        done = threading.Event()
        self.submit(done.set, rank)
        done.wait(patience)

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
        if self.device.type == "cpu" and not self.compiles:
            # each thread that works on several cores has helpers of its own; once there are more of them than cores,
            # none waits for work without sleeping, and a step on two cores takes twice as long
            torch.set_num_threads(1)
        while True:
            task = self._tasks.get()
            self.is_busy = True
            self.behind(task.work)
            self.is_busy = not self._tasks.empty()


class PreparedCalls:
    """Calls of one module. Used by one thread; what the workshop has ready is taken over between two calls."""

    def __init__(
        self, call: Call, module: Any, workshop: Workshop, fitted: Callable[[Inputs], Inputs] = as_they_are
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
        self._size = _size(module) if self._takes and not workshop.compiles else 0
        self._copies: dict[Shapes, int] = {}
        self._lock = PromptLock()
        self.last_used = 0.0

    @property
    def copies(self) -> int:
        """Bytes that the weights take once more for the calls that are prepared, or are being prepared."""
        with self._lock:
            return sum(self._copies.values())

    @property
    def ready(self) -> int:
        """Shapes that are prepared and in use, or wait to be."""
        return len(self._ready) + self._arrived.qsize()

    def plain(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The module's own call."""
        return self._call(self._module, *inputs)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The module's call, the fast way if that is ready; what must be equal to the bit always goes the plain way,
        and loops where which rows go around is no input."""
        if not self._takes or goes_around() or torch.are_deterministic_algorithms_enabled():
            return self.plain(*inputs)
        rows = len(inputs[0])
        fitted = self._fitted(inputs)
        if self._workshop.replays:
            fitted = _filled_rows(fitted)
        shapes = tuple(Shape.of(one) for one in fitted)
        self._take_over(fitted, shapes)
        self._count(shapes)
        with self._lock:
            fast = self._ready.get(shapes)
            if fast is not None:
                self._ready.move_to_end(shapes)
        if fast is None:
            return self.plain(*inputs)
        self.last_used = time.monotonic()
        return fast(*fitted)[:rows]

    def recall(self) -> None:
        """Prepare the shapes that were met in earlier runs, all modules' latest ones first."""
        if self._shelf is not None:
            most = self._most if self._workshop.compiles else RECALLED_PACKED
            for rank, shapes in enumerate(self._shelf.remembered(most), start=LATEST):
                self._ask(shapes, rank)

    @property
    def latest(self) -> Shapes | None:
        """The latest shapes that were met often enough in earlier runs."""
        return next(iter(self._shelf.remembered(1)), None) if self._shelf is not None else None

    def forget(self) -> None:
        """Let go of what was prepared: the module's weights have moved, or their copies are in the way."""
        with self._lock:
            self._life += 1
            self._ready.clear()
            self._asked.clear()
            self._met.clear()
            self._copies.clear()
            while not self._arrived.empty():
                self._arrived.get()

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

    def _ask(self, shapes: Shapes, rank: int = 0) -> None:
        """Have shapes prepared, unless there is no room for it now: then they are counted anew."""
        with self._lock:
            if shapes in self._asked or shapes in self._ready:
                return
            self._asked.add(shapes)
            if self._size:
                self._copies[shapes] = self._size
            life = self._life
        if not self._size or self._workshop.has_room():
            self._workshop.submit(partial(_make, weakref.ref(self), shapes, life), rank)
            return
        with self._lock:
            self._asked.discard(shapes)
            self._copies.pop(shapes, None)
            self._met[shapes] = 0

    def make(self, shapes: Shapes, life: int) -> None:
        """Prepare a call, in the workshop's thread; in vain when what was asked for then is forgotten."""
        assert self._shelf is not None
        if life != self._life:
            return
        made = self._workshop.prepare(self._call, self._module, shapes, self._shelf)
        with self._lock:
            if life != self._life:
                return
            if made is None:
                self._copies.pop(shapes, None)
                return
            if self._size:
                self._copies[shapes] = made.copies
            self._arrived.put((shapes, made, life))

    def _take_over(self, inputs: Inputs, shapes: Shapes) -> None:
        with self._lock:
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
            self._copies.pop(oldest, None)
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


def _make(calls: "weakref.ref[PreparedCalls]", shapes: Shapes, life: int) -> None:
    """What waits in the workshop holds no model in memory."""
    wanted = calls()
    if wanted is not None:
        wanted.make(shapes, life)


def _size(module: torch.nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())


def _most(module: torch.nn.Module) -> int:
    return max(1, min(MOST, MOST_PACKED // max(1, _size(module))))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
