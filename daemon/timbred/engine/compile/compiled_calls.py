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
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from timbred.caches import RecentDict
from timbred.engine.circular import is_circular
from timbred.engine.compile.inductor_cache import CompileCache, device_key, load_or_compile, module_key
from timbred.engine.compile.onednn_packing import can_pack, packed
from timbred.engine.compile.tracing import Call, CudaGraphCall, Shape, Shapes, Traced, forget_traces, trace, weights_of
from timbred.engine.tensor_sizes import count_tensor_bytes
from timbred.errors import first_line

log = logging.getLogger("timbred.engine.compile")

WORTH = 20
"""Calls of one shape after which it is worth preparing."""

MOST = 8
"""Shapes that a module is kept prepared for."""

MOST_PACKED = 300_000_000
"""Bytes that the packed copies of one module may take."""

MAX_PENDING = 4
"""Shapes of one module that wait to be prepared at a time: of more, those that were wanted first are withdrawn. Where
lengths change with each sound, calls would else be prepared for hours that nobody wants any more."""

MAX_COUNTED_SHAPES = 256
"""Shapes of one module whose calls are counted: those that came last."""

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


@dataclass
class CallCounts:
    """What the workshop has done so far: calls packed, compiled, read from disk, and those that couldn't be."""

    packed: int = 0
    compiled: int = 0
    read: int = 0
    failed: int = 0


@dataclass(order=True)
class _CompileTask:
    """What a workshop is to do: the lowest rank first, then in the order of their numbers."""

    rank: int
    number: int
    work: Callable[[], None] = field(compare=False)


@dataclass
class CompileQueue:
    """Prepares compiled calls one after the other in a background thread.

    `wanted` is the setting: `auto` packs on a CPU and compiles on CUDA, `on` compiles on both, `off` leaves all plain.
    `folder` is where compiled calls are kept; None: nowhere. `has_room` says whether all copies of weights are within
    the budget. `limit` is how many bytes the calls of all modules may take together: the one that was used least
    recently is dropped for a new one.
    """

    wanted: str
    device: torch.device
    folder: Path | None
    counts: CallCounts = field(default_factory=CallCounts)
    has_room: Callable[[], bool] = _always
    limit: int = sys.maxsize
    is_busy: bool = False
    _calls: "weakref.WeakValueDictionary[int, CompiledCalls]" = field(
        default_factory=weakref.WeakValueDictionary[int, "CompiledCalls"]
    )
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _tasks: "queue.PriorityQueue[_CompileTask]" = field(default_factory=queue.PriorityQueue["_CompileTask"])
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

    def shelf(self, module: torch.nn.Module) -> CompileCache:
        return CompileCache(self.folder and self.folder / device_key(self.device) / module_key(module))

    def calls(
        self, call: Call, module: torch.nn.Module, fitted: Callable[[Inputs], Inputs] = as_they_are
    ) -> "CompiledCalls":
        """A module's calls: the same for all models that have it, so that what is prepared is held once."""
        with self._lock:
            found = self._calls.get(id(module))
            known = found is not None
            if found is None:
                found = self._calls[id(module)] = CompiledCalls(call, module, self, fitted)
        if not known:
            found.recall()
        return found

    @property
    def copies(self) -> int:
        """Bytes that weights take once more, as prepared calls want them."""
        return sum(calls.copies for calls in self._all())

    def give_up(self, wanted: int) -> bool:
        """Drop prepared calls, those used least recently first, then those that are only wanted, until so many bytes
        are free; False when there were none. They are made anew when they are worth it and there is room again."""
        free = 0
        while free < wanted and (size := self._drop_oldest()):
            free += size
        for calls in self._all():
            if free < wanted:
                free += calls.withdraw()
        if free:
            log.info("%d MB of prepared calls make room", free // 1_000_000)
        return free > 0

    def keep_within_limit(self) -> None:
        """Drop the calls that were used least recently while all that are ready take more than `limit` bytes."""
        while sum(calls.ready_bytes for calls in self._all()) > self.limit and self._drop_oldest():
            pass

    def _drop_oldest(self) -> int:
        """Drop the one call that was used least recently of all; its bytes, 0 when there is none."""
        oldest = [(used, calls) for calls in self._all() if (used := calls.oldest_use) is not None]
        return min(oldest, key=lambda one: one[0])[1].drop_oldest() if oldest else 0

    def _all(self) -> "list[CompiledCalls]":
        with self._lock:
            return list(self._calls.values())

    def submit(self, task: Callable[[], None], rank: int = 0) -> None:
        """Have something done after all of its rank, or a lower one, that was submitted before."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="workshop", daemon=True)
                self._thread.start()
        self._tasks.put(_CompileTask(rank, next(self._numbers), task))

    def wait(self, rank: int = sys.maxsize, patience: float | None = None) -> None:
        """Until all that was submitted up to a rank is done, or so many seconds are over."""
        done = threading.Event()
        self.submit(done.set, rank)
        done.wait(patience)

    def prepare(self, call: Call, module: torch.nn.Module, shapes: Shapes, shelf: CompileCache) -> Traced | None:
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
            made = load_or_compile(traced, inputs, shapes, shelf)
        except Exception as error:  # compilers fail in many ways; the plain call goes on
            self.counts.failed += 1
            log.warning("%s stays uncompiled: %s", type(module).__name__, first_line(error))
            log.debug("", exc_info=error)
            return None
        finally:
            forget_traces()
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
            task.work()
            self.is_busy = not self._tasks.empty()


@dataclass
class _ReadyCall:
    """A prepared call: `size` is the bytes that it takes beside the module's own, `used` a moment of the monotonic
    clock."""

    call: Callable[..., torch.Tensor]
    size: int
    used: float = field(default_factory=time.monotonic)


class CompiledCalls:
    """Calls of one module. Called by one thread at a time; the workshop's thread adds what is ready, others drop it."""

    def __init__(
        self, call: Call, module: Any, workshop: CompileQueue, fitted: Callable[[Inputs], Inputs] = as_they_are
    ) -> None:
        """`fitted` fills inputs up to fewer kinds of shapes without changing what the call gives."""
        self._call = call
        self._module = module
        self._workshop = workshop
        self._fitted = fitted
        self._takes = workshop.takes(module)
        self._shelf = workshop.shelf(module) if self._takes else None
        self._most = _most(module) if self._takes and not workshop.compiles else MOST
        self._met: RecentDict[Shapes, int] = RecentDict(MAX_COUNTED_SHAPES)
        self._pending: OrderedDict[Shapes, int] = OrderedDict()
        self._failed: RecentDict[Shapes, bool] = RecentDict(MAX_COUNTED_SHAPES)
        self._ready: OrderedDict[Shapes, _ReadyCall] = OrderedDict()
        self._unrecordable: RecentDict[Shapes, bool] = RecentDict(MAX_COUNTED_SHAPES)
        self._size = count_tensor_bytes(module.parameters()) if self._takes and not workshop.compiles else 0
        self._lock = threading.RLock()
        self._numbers = count()

    @property
    def copies(self) -> int:
        """Bytes that the weights take once more for the calls that are prepared, or are being prepared."""
        with self._lock:
            return self.ready_bytes + self._size * len(self._pending)

    @property
    def ready_bytes(self) -> int:
        """The same for those that are prepared."""
        with self._lock:
            return sum(one.size for one in self._ready.values())

    @property
    def ready(self) -> int:
        """Shapes that are prepared."""
        return len(self._ready)

    @property
    def oldest_use(self) -> float | None:
        """When the call that was used least recently was used, on the monotonic clock; None when none has a size."""
        with self._lock:
            return min((one.used for one in self._ready.values() if one.size), default=None)

    def plain(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The module's own call."""
        return self._call(self._module, *inputs)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The module's call, the fast way if that is ready; what must be equal to the bit always goes the plain way,
        and loops where which rows go around is no input."""
        if not self._takes or is_circular() or torch.are_deterministic_algorithms_enabled():
            return self.plain(*inputs)
        rows = len(inputs[0])
        fitted = self._fitted(inputs)
        if self._workshop.replays:
            fitted = _filled_rows(fitted)
        shapes = tuple(Shape.of(one) for one in fitted)
        if self._workshop.replays:
            self._record(fitted, shapes)
        self._count(shapes)
        with self._lock:
            fast = self._ready.get(shapes)
            if fast is not None:
                self._ready.move_to_end(shapes)
                fast.used = time.monotonic()
        return self.plain(*inputs) if fast is None else fast.call(*fitted)[:rows]

    def recall(self) -> None:
        """Prepare the shapes that were met in earlier runs, all modules' latest ones first."""
        if self._shelf is not None:
            most = self._most if self._workshop.compiles else RECALLED_PACKED
            for rank, shapes in enumerate(self._shelf.remembered(most), start=LATEST):
                self._ask(shapes, rank, most)

    @property
    def latest(self) -> Shapes | None:
        """The latest shapes that were met often enough in earlier runs."""
        return next(iter(self._shelf.remembered(1)), None) if self._shelf is not None else None

    def forget(self) -> None:
        """Drop all that was prepared, and what is wanted: the module's weights have moved."""
        with self._lock:
            self._ready.clear()
            self._pending.clear()
            self._failed.clear()
            self._met.clear()

    def withdraw(self) -> int:
        """Have nothing prepared that isn't ready yet; the bytes that were set aside for it."""
        with self._lock:
            free = self._size * len(self._pending)
            for shapes in tuple(self._pending):
                self._take_back(shapes)
            return free

    def drop_oldest(self) -> int:
        """Drop the call with a size that was used least recently; its bytes."""
        with self._lock:
            sized = [(one.used, shapes) for shapes, one in self._ready.items() if one.size]
            if not sized:
                return 0
            shapes = min(sized, key=lambda one: one[0])[1]
            self._met[shapes] = 0
            return self._ready.pop(shapes).size

    def _take_back(self, shapes: Shapes) -> None:
        """Want these shapes no more, until they were counted anew."""
        del self._pending[shapes]
        self._met[shapes] = 0

    def _count(self, shapes: Shapes) -> None:
        self._met[shapes] = times = self._met.get(shapes, 0) + 1
        if times == WORTH:
            if self._shelf is not None:
                self._workshop.submit(partial(self._remember, shapes))
            self._ask(shapes)

    def _remember(self, shapes: Shapes) -> None:
        assert self._shelf is not None
        try:
            self._shelf.remember(shapes)
        except OSError as error:
            log.warning("shapes can't be remembered for the next start: %s", error)

    def _ask(self, shapes: Shapes, rank: int = 0, most: int = MAX_PENDING) -> None:
        """Have shapes prepared, unless there is no room for it now: then they are counted anew. Of more than `most`
        that wait, the first is withdrawn."""
        with self._lock:
            if shapes in self._pending or shapes in self._failed or shapes in self._ready:
                return
            number = self._pending[shapes] = next(self._numbers)
            while len(self._pending) > most:
                self._take_back(next(iter(self._pending)))
        if not self._size or self._workshop.has_room():
            self._workshop.submit(partial(_make, weakref.ref(self), shapes, number), rank)
            return
        with self._lock:
            if shapes in self._pending:
                self._take_back(shapes)

    def make(self, shapes: Shapes, number: int) -> None:
        """Prepare a call, in the workshop's thread; in vain when it isn't wanted any more as number so-and-so."""
        assert self._shelf is not None
        if self._pending.get(shapes) != number:
            return
        made = self._workshop.prepare(self._call, self._module, shapes, self._shelf)
        with self._lock:
            if self._pending.get(shapes) != number:
                return
            del self._pending[shapes]
            if made is None:
                self._failed[shapes] = True
                return
            self._install(shapes, made, made.copies if self._size else 0)
        self._workshop.keep_within_limit()

    def _install(self, shapes: Shapes, fast: Callable[..., torch.Tensor], size: int) -> None:
        with self._lock:
            self._ready[shapes] = _ReadyCall(fast, size)
            self._ready.move_to_end(shapes)
            self._unrecordable.pop(shapes, None)
            while len(self._ready) > self._most:
                oldest, _ = self._ready.popitem(last=False)
                self._met[oldest] = 0

    def _record(self, inputs: Inputs, shapes: Shapes) -> None:
        """Record the plain call when its shapes come for the second time, the compiled one as soon as it is there."""
        with self._lock:
            ready = self._ready.get(shapes)
        fast = None if ready is None else ready.call
        if (
            isinstance(fast, CudaGraphCall)
            or shapes in self._unrecordable
            or (fast is None and not self._met.get(shapes))
        ):
            return
        try:
            self._install(shapes, CudaGraphCall(self.plain if fast is None else fast, inputs), 0)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._unrecordable[shapes] = True
            log.warning("%s isn't recorded for %s: %s", type(self._module).__name__, shapes[0].size, first_line(error))


def _filled_rows(inputs: Inputs) -> Inputs:
    """The last row repeated until the batch has one of the sizes that calls are recorded for."""
    rows = len(inputs[0])
    missing = next((size for size in ROWS if size >= rows), rows) - rows
    if not missing:
        return inputs
    return tuple(torch.cat([one, one[-1:].expand(missing, *one.shape[1:])]) for one in inputs)


def _make(calls: "weakref.ref[CompiledCalls]", shapes: Shapes, number: int) -> None:
    """Prepare a call unless its module is gone: what waits in the workshop holds no model in memory."""
    wanted = calls()
    if wanted is not None:
        wanted.make(shapes, number)


def _most(module: torch.nn.Module) -> int:
    return max(1, min(MOST, MOST_PACKED // max(1, count_tensor_bytes(module.parameters()))))
