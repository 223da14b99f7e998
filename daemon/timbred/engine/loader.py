"""Loads models in a thread of its own, so that those already resident go on sounding."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from timbred.engine.wire import ModelSource

Model = TypeVar("Model")


@dataclass(frozen=True)
class LoadResult(Generic[Model]):
    """How a load ended: with a model, or with an error."""

    source: ModelSource
    model: Model | None
    error: Exception | None


class Loader(Generic[Model]):
    """One load at a time, in the order asked for; a model already asked for is not asked for twice."""

    def __init__(
        self, load: Callable[[ModelSource, Callable[[float], None]], Model], ended: Callable[[LoadResult[Model]], None]
    ) -> None:
        """`load` runs in the thread and tells its progress, 0 to 1; `ended` is called there with each result."""
        self._load = load
        self._ended = ended
        self._waiting: queue.Queue[ModelSource] = queue.Queue()
        self._progress: dict[str, float] = {}
        threading.Thread(target=self._run, name="loader", daemon=True).start()

    def want(self, source: ModelSource) -> None:
        """Load a model, unless that is under way."""
        if source.name not in self._progress:
            self._progress[source.name] = 0.0
            self._waiting.put(source)

    def progress(self, name: str) -> float | None:
        """How much of a model is in, 0 to 1; None when it isn't being loaded."""
        return self._progress.get(name)

    def _run(self) -> None:
        while True:
            source = self._waiting.get()
            result = self._result(source)
            del self._progress[source.name]
            self._ended(result)

    def _result(self, source: ModelSource) -> LoadResult[Model]:
        def told(fraction: float) -> None:
            self._progress[source.name] = fraction

        try:
            return LoadResult(source, self._load(source, told), None)
        except Exception as error:  # noqa: BLE001  handed to the one who waits for it
            return LoadResult(source, None, error)
