"""Compiled calls of a module for the shapes it is called with often; the plain call is used until they are ready.

On a CPU weights are packed for oneDNN; on CUDA calls are recorded as CUDA graphs and compiled by inductor, with a disk
cache. A failure is logged once, and the plain call stays in use.
"""

import logging
import math
import queue
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import torch

from timbred.engine.batching import is_circular
from timbred.engine.compile.traced_calls import (
    Call,
    CompileCache,
    CudaGraphCall,
    Shape,
    Shapes,
    Traced,
    can_pack,
    clear_trace_caches,
    device_key,
    load_or_compile,
    module_key,
    pack_weights,
    trace,
    weights_of,
)
from timbred.engine.device import count_tensor_bytes, has_weights
from timbred.errors import first_line
from timbred.process_memory import RecentDict

log = logging.getLogger("timbred.engine.compile")

CALLS_BEFORE_COMPILING = 20
"""Calls of one shape after which it is compiled."""

MAX_COMPILED_SHAPES = 8
"""Maximum number of shapes compiled by inductor for a module."""

MAX_PACKED_SHAPES = 3
"""Maximum number of shapes packed for a module: the lengths that a performer switches between."""

MAX_PACKED_BYTES = 170_000_000
"""Maximum bytes of the packed copies of one module: three lengths of a denoiser of 54 MB."""

MIN_UNUSED_S = 30.0
"""Seconds without a call after which the packed copy of one shape may be replaced by that of another.

Where more lengths are in use than have room, each would otherwise replace the one that is needed next.
"""

MAX_PENDING_SHAPES = 4
"""Maximum number of shapes of one module that wait to be compiled; beyond it the oldest request is withdrawn.

Where lengths change with each request, the queue would otherwise grow with shapes that are no longer used.
"""

MAX_COUNTED_SHAPES = 256
"""Maximum number of shapes of one module whose calls are counted, the latest ones."""

MAX_REPACKED_SHAPES = 1
"""Shapes of earlier runs that are packed at a start.

Packing takes one core about a second for each while steps run: packing all would double render times for half a minute.
"""

RECORDED_BATCH_ROWS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Batch sizes that calls are recorded for on CUDA; others are padded."""

LATEST_RANK = 1
"""Rank of the latest shapes of earlier runs: after shapes in use now, before all older ones."""

Inputs = tuple[torch.Tensor, ...]


def keep_inputs(inputs: Inputs) -> Inputs:
    """Return the inputs without padding."""
    return inputs


def _always() -> bool:
    return True


@dataclass
class CallCounts:
    """Number of calls packed, compiled, read from the cache, and failed."""

    packed: int = 0
    compiled: int = 0
    read: int = 0
    failed: int = 0


@dataclass(order=True)
class _CompileTask:
    """A task of the queue, ordered by rank, then by number."""

    rank: int
    number: int
    work: Callable[[], None] = field(compare=False)


class HeldCalls(Protocol):
    """Recorded calls beside those of `CompiledCalls`, which count towards the same limit."""

    @property
    def ready_bytes(self) -> int:
        """Bytes of all calls."""
        ...

    @property
    def copied_bytes(self) -> int:
        """The same, with those of calls that are pending."""
        ...

    @property
    def oldest_use_time(self) -> float | None:
        """Last use of the least recently used call on the monotonic clock; None without calls."""
        ...

    def drop_oldest(self) -> int:
        """Drop the least recently used call; returns its bytes, 0 without calls."""
        ...

    def withdraw_pending(self) -> int:
        """Withdraw pending calls; returns their bytes."""
        ...


@dataclass
class CompileQueue:
    """Compiles calls one after the other in a background thread.

    Args:
        setting: The setting: `auto` packs on a CPU and compiles on CUDA, `on` compiles on both, `off` compiles
            nothing.
        device: Compute device of the modules.
        folder: Folder of the disk cache; None for none.
        counts: Counters of finished work.
        has_room: Tells if all copies of weights are within the memory budget.
        max_bytes: Maximum bytes of all compiled calls; beyond it the least recently used is dropped.
        without_gil: Encloses each compiled call, which runs without the GIL.
        is_busy: True while a task is running or waiting.
    """

    setting: str
    device: torch.device
    folder: Path | None
    counts: CallCounts = field(default_factory=CallCounts)
    has_room: Callable[[], bool] = _always
    max_bytes: int = sys.maxsize
    without_gil: Callable[[], AbstractContextManager[None]] = nullcontext
    is_busy: bool = False
    _calls: "weakref.WeakValueDictionary[int, CompiledCalls]" = field(
        default_factory=weakref.WeakValueDictionary[int, "CompiledCalls"]
    )
    _held_calls: "weakref.WeakSet[HeldCalls]" = field(default_factory=weakref.WeakSet["HeldCalls"])
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _tasks: "queue.PriorityQueue[_CompileTask]" = field(default_factory=queue.PriorityQueue["_CompileTask"])
    _numbers: "count[int]" = field(default_factory=count)
    _thread: threading.Thread | None = None

    @property
    def uses_inductor(self) -> bool:
        """True if calls are compiled by inductor."""
        return self.device.type == "cuda" or (self.device.type == "cpu" and self.setting == "on")

    @property
    def records_graphs(self) -> bool:
        """True if calls are recorded as CUDA graphs."""
        return self.device.type == "cuda"

    def can_compile(self, module: torch.nn.Module) -> bool:
        """Tell if calls of a module can be packed, recorded or compiled here."""
        if self.setting == "off" or self.device.type not in {"cpu", "cuda"} or not has_weights(module):
            return False
        return self.uses_inductor or can_pack(module)

    def disk_cache(self, module: torch.nn.Module) -> CompileCache:
        """Return the disk cache of a module."""
        return CompileCache(self.folder and self.folder / device_key(self.device) / module_key(module))

    def compiled_calls(
        self, call: Call, module: torch.nn.Module, pad: Callable[[Inputs], Inputs] = keep_inputs
    ) -> "CompiledCalls":
        """Return a module's calls: one object for all models that share the module."""
        with self._lock:
            calls = self._calls.get(id(module))
            known = calls is not None
            if calls is None:
                calls = self._calls[id(module)] = CompiledCalls(call, module, self, pad)
        if not known:
            calls.request_earlier_shapes()
        return calls

    def add_held_calls(self, calls: HeldCalls) -> None:
        """Count recorded calls towards the limit, as long as their owner keeps them."""
        with self._lock:
            self._held_calls.add(calls)

    @property
    def copied_bytes(self) -> int:
        """Bytes of the additional copies of weights in compiled calls, and of recorded renders."""
        return sum(calls.copied_bytes for calls in self._all())

    def free_bytes(self, requested: int) -> bool:
        """Drop compiled calls, least recently used first, then pending ones, until `requested` bytes are free.

        Returns False if there were none. They are compiled again when they are called often and there is room.
        """
        freed_bytes = 0
        while freed_bytes < requested and (size := self._drop_oldest()):
            freed_bytes += size
        for calls in self._all():
            if freed_bytes < requested:
                freed_bytes += calls.withdraw_pending()
        if freed_bytes:
            log.info("%d MB of compiled calls were dropped to make room", freed_bytes // 1_000_000)
        return freed_bytes > 0

    def keep_within_limit(self) -> None:
        """Drop the least recently used calls while the ready ones exceed `max_bytes` bytes."""
        while sum(calls.ready_bytes for calls in self._all()) > self.max_bytes and self._drop_oldest():
            pass

    def _drop_oldest(self) -> int:
        """Drop the least recently used call; returns its bytes, 0 if there is none."""
        oldest = [(used, calls) for calls in self._all() if (used := calls.oldest_use_time) is not None]
        return min(oldest, key=lambda entry: entry[0])[1].drop_oldest() if oldest else 0

    def _all(self) -> "list[CompiledCalls | HeldCalls]":
        with self._lock:
            return [*self._calls.values(), *self._held_calls]

    def submit(self, task: Callable[[], None], rank: int = 0) -> None:
        """Run a task after all tasks of a lower or the same rank submitted before."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="compile", daemon=True)
                self._thread.start()
        self._tasks.put(_CompileTask(rank, next(self._numbers), task))

    def wait(self, rank: int = sys.maxsize, timeout_s: float | None = None) -> None:
        """Wait for all tasks up to a rank, at most `timeout_s` seconds."""
        done = threading.Event()
        self.submit(done.set, rank)
        done.wait(timeout_s)

    def compile(self, call: Call, module: torch.nn.Module, shapes: Shapes, disk_cache: CompileCache) -> Traced | None:
        """Pack or compile a call, in the queue's thread; None if that fails."""
        inputs = tuple(shape.example(self.device) for shape in shapes)
        try:
            cached = disk_cache.read(shapes) if self.uses_inductor else None
            if cached is not None:
                self.counts.read += 1
                log.info("%s read from the cache for %s", type(module).__name__, shapes[0].size)
                return Traced(cached, weights_of(module))
            traced = trace(call, module, inputs)
            if not self.uses_inductor:
                self.counts.packed += 1
                return pack_weights(traced, inputs)
            compiled = load_or_compile(traced, inputs, shapes, disk_cache)
        except Exception as error:  # compilers fail in many ways; the plain call stays in use
            self.counts.failed += 1
            log.warning("%s stays uncompiled: %s", type(module).__name__, first_line(error))
            log.debug("", exc_info=error)
            return None
        finally:
            clear_trace_caches()
        self.counts.compiled += 1
        log.info("%s compiled for %s", type(module).__name__, shapes[0].size)
        return compiled

    def _run(self) -> None:
        if self.device.type == "cpu" and not self.uses_inductor:
            # every thread that uses several cores has an own pool; once pool threads outnumber the cores they all sleep
            # while waiting for work, and a step on two cores takes twice as long
            torch.set_num_threads(1)
        while True:
            task = self._tasks.get()
            self.is_busy = True
            task.work()
            self.is_busy = not self._tasks.empty()


@dataclass
class _ReadyCall:
    """A ready call.

    Attributes:
        call: The compiled call, or a graph of it or of the plain call.
        size_bytes: Its additional bytes.
        compiled: The compiled call; None if only the plain call is recorded.
        last_used: Its last use on the monotonic clock.
    """

    call: Callable[..., torch.Tensor]
    size_bytes: int
    compiled: Callable[..., torch.Tensor] | None
    last_used: float = field(default_factory=time.monotonic)


class CompiledCalls:
    """The calls of one module, plain or compiled.

    Called by one thread at a time; the queue's thread adds compiled calls, and other threads drop them.

    Args:
        call: Calls the module.
        module: The module.
        compile_queue: The queue that compiles.
        pad: Pads inputs to fewer distinct shapes without changing the result.
    """

    def __init__(
        self, call: Call, module: Any, compile_queue: CompileQueue, pad: Callable[[Inputs], Inputs] = keep_inputs
    ) -> None:
        self._call = call
        self._module = module
        self._compile_queue = compile_queue
        self._pad = pad
        self._compilable = compile_queue.can_compile(module)
        self._disk_cache = compile_queue.disk_cache(module) if self._compilable else None
        self._max_shapes = (
            _count_packable_shapes(module)
            if self._compilable and not compile_queue.uses_inductor
            else MAX_COMPILED_SHAPES
        )
        self._call_counts: RecentDict[Shapes, int] = RecentDict(MAX_COUNTED_SHAPES)
        self._pending: OrderedDict[Shapes, int] = OrderedDict()
        self._failed: RecentDict[Shapes, bool] = RecentDict(MAX_COUNTED_SHAPES)
        self._ready: OrderedDict[Shapes, _ReadyCall] = OrderedDict()
        self._unrecordable: RecentDict[Shapes, bool] = RecentDict(MAX_COUNTED_SHAPES)
        self._shape_bytes = (
            count_tensor_bytes(module.parameters()) if self._compilable and not compile_queue.uses_inductor else 0
        )
        self._lock = threading.RLock()
        self._numbers = count()

    @property
    def copied_bytes(self) -> int:
        """Bytes of the copies of weights in calls that are compiled or pending."""
        with self._lock:
            return self.ready_bytes + self._shape_bytes * len(self._pending)

    @property
    def ready_bytes(self) -> int:
        """Bytes of the copies of weights in calls that are compiled."""
        with self._lock:
            return sum(call.size_bytes for call in self._ready.values())

    @property
    def ready_count(self) -> int:
        """Number of compiled shapes."""
        return len(self._ready)

    @property
    def oldest_use_time(self) -> float | None:
        """Last use of the least recently used call on the monotonic clock; None when none has a size."""
        with self._lock:
            return min((call.last_used for call in self._ready.values() if call.size_bytes), default=None)

    def call_plain(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Call the module without compilation."""
        return self._call(self._module, *inputs)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Call the module, compiled if that is ready.

        Deterministic kernels always use the plain call, as do loops whose mask of circular rows is not an input.
        """
        if not self._compilable or is_circular() or torch.are_deterministic_algorithms_enabled():
            return self.call_plain(*inputs)
        rows = len(inputs[0])
        padded, shapes = self._prepare(inputs)
        if self._compile_queue.records_graphs:
            self._record_graph(padded, shapes)
        self._count_call(shapes)
        with self._lock:
            ready = self._ready.get(shapes)
            if ready is not None:
                self._ready.move_to_end(shapes)
                ready.last_used = time.monotonic()
        if ready is None:
            return self.call_plain(*inputs)
        with self._compile_queue.without_gil():
            return ready.call(*padded)[:rows]

    def call_without_graph(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Call the module, compiled if that is ready, never by a graph: for a call that is a part of a recording."""
        padded, shapes = self._prepare(inputs)
        with self._lock:
            ready = self._ready.get(shapes)
        if ready is None or ready.compiled is None:
            return self.call_plain(*inputs)
        return ready.compiled(*padded)[: len(inputs[0])]

    def has_compiled(self, inputs: Inputs) -> bool:
        """Tell if a compiled call is ready for inputs of these shapes."""
        _, shapes = self._prepare(inputs)
        with self._lock:
            ready = self._ready.get(shapes)
        return ready is not None and ready.compiled is not None

    def count_calls(self, inputs: Inputs, calls: int) -> None:
        """Count calls with inputs of these shapes that were made in a recording."""
        _, shapes = self._prepare(inputs)
        for _ in range(calls):
            self._count_call(shapes)

    def _prepare(self, inputs: Inputs) -> tuple[Inputs, Shapes]:
        """Return padded inputs and their shapes."""
        padded = self._pad(inputs)
        if self._compile_queue.records_graphs:
            padded = _pad_rows(padded)
        return padded, tuple(Shape.of(tensor) for tensor in padded)

    def request_earlier_shapes(self) -> None:
        """Request the shapes of earlier runs, the latest of all modules first."""
        if self._disk_cache is not None:
            max_shapes = self._max_shapes if self._compile_queue.uses_inductor else MAX_REPACKED_SHAPES
            for rank, shapes in enumerate(self._disk_cache.recorded_shapes(max_shapes), start=LATEST_RANK):
                self._request(shapes, rank, max_shapes)

    @property
    def latest_shapes(self) -> Shapes | None:
        """The latest shapes of earlier runs that were called often enough."""
        return next(iter(self._disk_cache.recorded_shapes(1)), None) if self._disk_cache is not None else None

    def drop_all(self) -> None:
        """Drop all compiled and pending calls, because the module's weights have moved."""
        with self._lock:
            self._ready.clear()
            self._pending.clear()
            self._failed.clear()
            self._call_counts.clear()

    def withdraw_pending(self) -> int:
        """Withdraw all pending shapes; returns the bytes that were reserved for them."""
        with self._lock:
            freed_bytes = self._shape_bytes * len(self._pending)
            for shapes in tuple(self._pending):
                self._withdraw(shapes)
            return freed_bytes

    def drop_oldest(self) -> int:
        """Drop the least recently used call with a size; returns its bytes."""
        with self._lock:
            sized = [(call.last_used, shapes) for shapes, call in self._ready.items() if call.size_bytes]
            if not sized:
                return 0
            shapes = min(sized, key=lambda entry: entry[0])[1]
            self._call_counts[shapes] = 0
            return self._ready.pop(shapes).size_bytes

    def _withdraw(self, shapes: Shapes) -> None:
        """Withdraw a pending shape, and count its calls from 0."""
        del self._pending[shapes]
        self._call_counts[shapes] = 0

    def _count_call(self, shapes: Shapes) -> None:
        self._call_counts[shapes] = call_count = self._call_counts.get(shapes, 0) + 1
        if call_count == CALLS_BEFORE_COMPILING:
            if self._disk_cache is not None:
                self._compile_queue.submit(partial(self._record_shapes, shapes))
            self._request(shapes)

    def _record_shapes(self, shapes: Shapes) -> None:
        assert self._disk_cache is not None
        try:
            self._disk_cache.record_shapes(shapes)
        except OSError as error:
            log.warning("shapes can't be recorded for the next start: %s", error)

    def _can_replace(self) -> bool:
        """Tell if there is a place for another packed shape, or one that has not been called for a while."""
        with self._lock:
            if len(self._ready) + len(self._pending) <= self._max_shapes:
                return True
            oldest = min((call.last_used for call in self._ready.values()), default=-math.inf)
        return time.monotonic() - oldest >= MIN_UNUSED_S

    def _request(self, shapes: Shapes, rank: int = 0, max_pending: int = MAX_PENDING_SHAPES) -> None:
        """Request the compilation of a shape; without room for it, its calls are counted from 0.

        Beyond `max_pending` pending shapes, or more than have a place, the oldest is withdrawn.
        """
        with self._lock:
            if shapes in self._pending or shapes in self._failed or shapes in self._ready:
                return
            number = self._pending[shapes] = next(self._numbers)
            while len(self._pending) > min(max_pending, self._max_shapes):
                self._withdraw(next(iter(self._pending)))
        if not self._shape_bytes or (self._can_replace() and self._compile_queue.has_room()):
            self._compile_queue.submit(partial(_compile_if_alive, weakref.ref(self), shapes, number), rank)
            return
        with self._lock:
            if shapes in self._pending:
                self._withdraw(shapes)

    def compile(self, shapes: Shapes, number: int) -> None:
        """Compile a shape, in the queue's thread, unless request `number` was withdrawn."""
        assert self._disk_cache is not None
        if self._pending.get(shapes) != number:
            return
        compiled = self._compile_queue.compile(self._call, self._module, shapes, self._disk_cache)
        with self._lock:
            if self._pending.get(shapes) != number:
                return
            del self._pending[shapes]
            if compiled is None:
                self._failed[shapes] = True
                return
            self._install(shapes, _ReadyCall(compiled, compiled.copied_bytes if self._shape_bytes else 0, compiled))
        self._compile_queue.keep_within_limit()

    def _install(self, shapes: Shapes, ready: _ReadyCall) -> None:
        with self._lock:
            self._ready[shapes] = ready
            self._ready.move_to_end(shapes)
            self._unrecordable.pop(shapes, None)
            while len(self._ready) > self._max_shapes:
                oldest, _ = self._ready.popitem(last=False)
                self._call_counts[oldest] = 0

    def _record_graph(self, inputs: Inputs, shapes: Shapes) -> None:
        """Record the plain call when its shapes come for the second time, and the compiled one once it is ready."""
        with self._lock:
            ready = self._ready.get(shapes)
        compiled = None if ready is None else ready.call
        if (
            isinstance(compiled, CudaGraphCall)
            or shapes in self._unrecordable
            or (compiled is None and not self._call_counts.get(shapes))
        ):
            return
        try:
            graph = CudaGraphCall(self.call_plain if compiled is None else compiled, inputs)
            self._install(shapes, _ReadyCall(graph, 0, compiled))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._unrecordable[shapes] = True
            log.warning("%s isn't recorded for %s: %s", type(self._module).__name__, shapes[0].size, first_line(error))


def _pad_rows(inputs: Inputs) -> Inputs:
    """Repeat the last row up to one of the batch sizes that calls are recorded for."""
    rows = len(inputs[0])
    missing = next((size for size in RECORDED_BATCH_ROWS if size >= rows), rows) - rows
    if not missing:
        return inputs
    return tuple(torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) for tensor in inputs)


def _compile_if_alive(calls: "weakref.ref[CompiledCalls]", shapes: Shapes, number: int) -> None:
    """Compile a call unless its module has been freed; pending tasks hold weak references only."""
    compiled_calls = calls()
    if compiled_calls is not None:
        compiled_calls.compile(shapes, number)


def _count_packable_shapes(module: torch.nn.Module) -> int:
    return max(1, min(MAX_PACKED_SHAPES, MAX_PACKED_BYTES // max(1, count_tensor_bytes(module.parameters()))))
