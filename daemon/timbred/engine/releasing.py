"""Frees what models held in a thread of its own, piece by piece: giving gigabytes back in one go takes as long as many
steps, with Python's lock held."""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from timbred.engine.adapters.weight_files import let_go
from timbred.engine.precedence import Precedence

log = logging.getLogger("timbred.engine.memory")


@dataclass
class _Task:
    """Modules, and the whole that has them; the files they came from, and what is done once they are gone."""

    whole: list[object]
    modules: list[torch.nn.Module]
    files: list[Path]
    then: Callable[[], None]


class Releasing:
    """Everything is freed in the order it was given; what is to come `after` waits for all of it."""

    def __init__(self, precedence: Precedence, freed: Callable[[], None]) -> None:
        """`freed` is called in the thread after each model."""
        self._precedence = precedence
        self._freed = freed
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="releasing", daemon=True).start()

    def release(
        self, whole: list[object], modules: list[torch.nn.Module], files: list[Path], then: Callable[[], None]
    ) -> None:
        """Free these modules, which came from `files`, and first `whole`, which has them: both lists are emptied, for
        whoever calls keeps neither. `then` is called in the thread."""
        self._tasks.put(_Task(whole[:], modules[:], files, then))
        whole.clear()
        modules.clear()

    def after(self, then: Callable[[], None]) -> None:
        """Have something called in the thread once all that was given so far is free."""
        self._tasks.put(_Task([], [], [], then))

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                if task.whole:
                    self._precedence.behind(partial(_let_go, task))
                    self._freed()
            except Exception:  # whatever it is, loads that wait for the memory must not wait forever
                log.exception("memory couldn't be given back in pieces")
            task.then()


def _let_go(task: _Task) -> None:
    """The whole first, then one part after the other, so that others may come between."""
    let_go([weight.data for module in task.modules for weight in module.parameters()], task.files)
    parts = [part for module in task.modules for part in module.modules()]
    task.whole.clear()
    task.modules.clear()
    while parts:
        parts.pop()
