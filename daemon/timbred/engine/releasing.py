"""Frees what models held in a thread of its own, piece by piece: giving gigabytes back in one go takes as long as many
steps, with Python's lock held."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from timbred.engine.adapters.weight_files import let_go
from timbred.engine.precedence import Precedence


@dataclass
class _Task:
    """What nobody else holds any more, the whole before its parts, and what is done once it is gone."""

    held: list[object]
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
        held: list[object] = [part for module in modules for part in module.modules()]
        modules.clear()
        held.extend(whole)
        whole.clear()
        self._tasks.put(_Task(held, files, then))

    def after(self, then: Callable[[], None]) -> None:
        """Have something called in the thread once all that was given so far is free."""
        self._tasks.put(_Task([], [], then))

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            if task.held:
                self._precedence.behind(partial(_let_go, task.held, task.files))
                self._freed()
            task.then()


def _let_go(held: list[object], files: list[Path]) -> None:
    """The last first; one after the other, so that others may come between."""
    modules = [part for part in held if isinstance(part, torch.nn.Module)]
    let_go([weight.data for part in modules for weight in part.parameters(recurse=False)], files)
    modules.clear()
    while held:
        held.pop()
