"""Loading of models in separate threads, and deferred freeing of their memory.

Building a network's modules is Python code. A thread that runs it holds the GIL for a switch interval each time that an
operation of a step has ended and needs it back, so that a step of a hundred operations takes several times as long. A
load therefore pauses at each torch function that it calls, until the step runs without the GIL or has ended.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from timbred.ipc.engine_messages import ModelSource

log = logging.getLogger("timbred.engine.memory")


@dataclass
class _FreeTask:
    """Modules with their owners, and a callback."""

    owners: list[object]
    modules: list[torch.nn.Module]
    callback: Callable[[], None]


class DeferredFree:
    """Frees memory in a background thread in the order of submission.

    Args:
        on_freed: Called in the thread after each model.
    """

    def __init__(self, on_freed: Callable[[], None]) -> None:
        self._on_freed = on_freed
        self._tasks: queue.SimpleQueue[_FreeTask] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="deferred-free", daemon=True).start()

    def release(self, owners: list[object], modules: list[torch.nn.Module], callback: Callable[[], None]) -> None:
        """Free modules, and first their owners.

        Both lists are emptied, so that the caller keeps no reference. `callback` is called in the thread.
        """
        self._tasks.put(_FreeTask(owners[:], modules[:], callback))
        owners.clear()
        modules.clear()

    def call_after(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the thread once everything submitted before is free."""
        self._tasks.put(_FreeTask([], [], callback))

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                if task.owners:
                    task.owners.clear()
                    task.modules.clear()
                    self._on_freed()
            except Exception:  # loads that wait for the memory must not block forever
                log.exception("memory could not be freed")
            task.callback()


Model = TypeVar("Model")

UNREQUESTED_LOAD_RANK = 1
"""Rank of a load that no job waits for."""


@dataclass(frozen=True)
class LoadResult(Generic[Model]):
    """Result of a load: a model or an error."""

    source: ModelSource
    model: Model | None
    error: Exception | None


@dataclass(eq=False)
class _Load:
    """A load in progress; `rank` is that of the most urgent job that waits for it, as in `RenderJob`."""

    source: ModelSource
    number: int
    rank: int
    progress: float = 0.0


@dataclass
class _LoadQueue:
    """The loads in progress, of which the most urgent one runs, and the models whose results are posted."""

    loads: dict[str, _Load] = field(default_factory=dict[str, _Load])
    posted: set[str] = field(default_factory=set[str])
    changed: threading.Condition = field(default_factory=threading.Condition)

    def first(self) -> _Load:
        """Return the most urgent load."""
        return min(self.loads.values(), key=lambda load: (load.rank, load.number))

    def await_turn(self, load: _Load) -> None:
        """Block until this load is the most urgent one."""
        with self.changed:
            self.changed.wait_for(lambda: self.first() is load)


class Loader(Generic[Model]):
    """Loads the most urgent model first; a less urgent load pauses between two of its components.

    A model is not loaded again while it is being loaded, nor from then until its result has been taken:

        absent -> being loaded -> posted -> absent
           (request_load)  (on_result)  (take_result)

    Args:
        load: Loads a model, in a thread; reports its progress, 0 to 1, between components.
        on_result: Called in that thread with each result, in order, before any other load continues; may
            call `take_result` and `request_load`, must not wait for another load.
    """

    def __init__(
        self,
        load: Callable[[ModelSource, Callable[[float], None]], Model],
        on_result: Callable[[LoadResult[Model]], None],
    ) -> None:
        self._load = load
        self._on_result = on_result
        self._load_queue = _LoadQueue()
        self._numbers = count()

    def request_load(self, source: ModelSource, rank: int = UNREQUESTED_LOAD_RANK) -> None:
        """Load a model unless that is in progress or its result waits to be taken; `rank` 0 is the most urgent."""
        with self._load_queue.changed:
            if source.name in self._load_queue.posted:
                return
            load = self._load_queue.loads.get(source.name)
            if load is not None:
                load.rank = min(load.rank, rank)
            else:
                load = self._load_queue.loads[source.name] = _Load(source, next(self._numbers), rank)
                threading.Thread(target=self._run, args=(load,), name=f"load-{source.name}", daemon=True).start()
            self._load_queue.changed.notify_all()

    def take_result(self, result: LoadResult[Model]) -> Model | None:
        """Return the model of a result, None if its load failed; from now on it is loaded again if it is requested."""
        with self._load_queue.changed:
            self._load_queue.posted.discard(result.source.name)
        return result.model

    @property
    def is_busy(self) -> bool:
        """True while any model is being loaded."""
        return bool(self._load_queue.loads)

    def progress(self, name: str) -> float | None:
        """Return a load's progress, 0 to 1; None when the model is not being loaded."""
        load = self._load_queue.loads.get(name)
        return None if load is None else load.progress

    def _run(self, load: _Load) -> None:
        self._load_queue.await_turn(load)
        result = self._result(load)
        with self._load_queue.changed:
            del self._load_queue.loads[load.source.name]
            self._load_queue.posted.add(load.source.name)
            try:
                self._on_result(result)
            finally:
                self._load_queue.changed.notify_all()

    def _result(self, load: _Load) -> LoadResult[Model]:
        def report_progress(fraction: float) -> None:
            load.progress = fraction
            self._load_queue.await_turn(load)

        try:
            return LoadResult(load.source, self._load(load.source, report_progress), None)
        except Exception as error:  # noqa: BLE001  returned in the result
            return LoadResult(load.source, None, error)


MAX_PAUSE_S = 0.01
"""Longest pause, so that a load makes progress during steps that need the GIL all the time."""

SLICE_S = 0.001
"""Time that a load runs after the longest pause before the next one."""


class LoadPacer:
    """Tells loads when the generating thread needs the GIL.

    One thread generates; any number of threads load.
    """

    def __init__(self) -> None:
        self._gil_free = threading.Event()
        self._gil_free.set()
        self._generating_thread: int | None = None
        self._slice_end = 0.0

    @contextmanager
    def step(self) -> Generator[None]:
        """A step of the generating thread, during which loads pause."""
        self._generating_thread = threading.get_ident()
        self._gil_free.clear()
        try:
            yield
        finally:
            self._generating_thread = None
            self._gil_free.set()

    @contextmanager
    def without_gil(self) -> Generator[None]:
        """A part of a step that runs without the GIL, during which loads continue.

        Without effect outside a step, and in other threads: a load renders too, to warm up its model.
        """
        if self._generating_thread != threading.get_ident():
            yield
            return
        self._gil_free.set()
        try:
            yield
        finally:
            self._gil_free.clear()

    @contextmanager
    def load(self) -> Generator[None]:
        """A load in the calling thread, which pauses at each call of a torch function."""
        with _PausingMode(self.pause):
            yield

    def pause(self) -> None:
        """Pause the calling thread while a step needs the GIL, `MAX_PAUSE_S` at most."""
        if self._gil_free.is_set() or time.monotonic() < self._slice_end:
            return
        if not self._gil_free.wait(MAX_PAUSE_S):
            self._slice_end = time.monotonic() + SLICE_S


class _PausingMode(TorchFunctionMode):
    """Calls `pause` before each torch function of the thread that entered it."""

    def __init__(self, pause: Callable[[], None]) -> None:
        super().__init__()
        self._pause = pause

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function."""
        self._pause()
        return func(*args, **(kwargs or {}))
