"""Frees what models held in a thread of its own, piece by piece: giving gigabytes back in one go takes as long as many
steps, with Python's lock held."""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Generic, TypeVar

import torch

from timbred.engine.memory.component_cache import let_go
from timbred.ipc.engine_messages import ModelSource

log = logging.getLogger("timbred.engine.memory")


@dataclass
class _FreeTask:
    """Modules, and the whole that has them; the files they came from, and what is done once they are gone."""

    whole: list[object]
    modules: list[torch.nn.Module]
    files: list[Path]
    then: Callable[[], None]


class DeferredFree:
    """Everything is freed in the order it was given; what is to come `after` waits for all of it."""

    def __init__(self, freed: Callable[[], None]) -> None:
        """`freed` is called in the thread after each model."""
        self._freed = freed
        self._tasks: queue.SimpleQueue[_FreeTask] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="releasing", daemon=True).start()

    def release(
        self, whole: list[object], modules: list[torch.nn.Module], files: list[Path], then: Callable[[], None]
    ) -> None:
        """Free these modules, which came from `files`, and first `whole`, which has them: both lists are emptied, for
        whoever calls keeps neither. `then` is called in the thread."""
        self._tasks.put(_FreeTask(whole[:], modules[:], files, then))
        whole.clear()
        modules.clear()

    def after(self, then: Callable[[], None]) -> None:
        """Have something called in the thread once all that was given so far is free."""
        self._tasks.put(_FreeTask([], [], [], then))

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                if task.whole:
                    _let_go(task)
                    self._freed()
            except Exception:  # whatever it is, loads that wait for the memory must not wait forever
                log.exception("memory couldn't be given back in pieces")
            task.then()


def _let_go(task: _FreeTask) -> None:
    """The whole first, then one part after the other, so that others may come between."""
    let_go([weight.data for module in task.modules for weight in module.parameters()], task.files)
    parts = [part for module in task.modules for part in module.modules()]
    task.whole.clear()
    task.modules.clear()
    while parts:
        parts.pop()


Model = TypeVar("Model")

NORMAL = 1
"""The rank of a load that no job waits for."""


@dataclass(frozen=True)
class LoadResult(Generic[Model]):
    """How a load ended: with a model, or with an error."""

    source: ModelSource
    model: Model | None
    error: Exception | None


@dataclass(eq=False)
class _Load:
    """A load under way: `rank` is that of the most urgent job that waits for it, as in `wire.Render`."""

    source: ModelSource
    number: int
    rank: int
    progress: float = 0.0


@dataclass
class _Turns:
    """Whose turn it is: the most urgent load goes on, the others rest where they are."""

    loads: dict[str, _Load] = field(default_factory=dict[str, _Load])
    changed: threading.Condition = field(default_factory=threading.Condition)

    def first(self) -> _Load:
        return min(self.loads.values(), key=lambda one: (one.rank, one.number))

    def await_turn(self, load: _Load) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.first() is load)


class Loader(Generic[Model]):
    """Loads the most urgent model first, also one that is asked for while another is under way: that one rests between
    two of its components. A model already asked for is not asked for twice."""

    def __init__(
        self, load: Callable[[ModelSource, Callable[[float], None]], Model], ended: Callable[[LoadResult[Model]], None]
    ) -> None:
        """`load` runs in a thread and reports its progress, 0 to 1, between components. `ended` is called there with
        each result, before any other load continues, so results come in the order in which the loads ended. It may
        call `want`; it must not wait for another load."""
        self._load = load
        self._ended = ended
        self._turns = _Turns()
        self._numbers = count()

    def want(self, source: ModelSource, rank: int = NORMAL) -> None:
        """Load a model, unless that is under way; `rank` 0 is the most urgent."""
        with self._turns.changed:
            load = self._turns.loads.get(source.name)
            if load is not None:
                load.rank = min(load.rank, rank)
            else:
                load = self._turns.loads[source.name] = _Load(source, next(self._numbers), rank)
                threading.Thread(target=self._run, args=(load,), name=f"load-{source.name}", daemon=True).start()
            self._turns.changed.notify_all()

    @property
    def is_busy(self) -> bool:
        """Whether any model is being loaded."""
        return bool(self._turns.loads)

    def progress(self, name: str) -> float | None:
        """How much of a model is in, 0 to 1; None when it isn't being loaded."""
        load = self._turns.loads.get(name)
        return None if load is None else load.progress

    def _run(self, load: _Load) -> None:
        self._turns.await_turn(load)
        result = self._result(load)
        with self._turns.changed:
            del self._turns.loads[load.source.name]
            try:
                self._ended(result)
            finally:
                self._turns.changed.notify_all()

    def _result(self, load: _Load) -> LoadResult[Model]:
        def told(fraction: float) -> None:
            load.progress = fraction
            self._turns.await_turn(load)

        try:
            return LoadResult(load.source, self._load(load.source, told), None)
        except Exception as error:  # noqa: BLE001  handed to the one who waits for it
            return LoadResult(load.source, None, error)
