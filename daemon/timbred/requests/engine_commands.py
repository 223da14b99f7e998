"""What the engine is told."""

from typing import Literal, Protocol

from timbred import errors
from timbred.ipc import engine_messages
from timbred.models.registry import Registry
from timbred.requests.resolve import Parameters


class EngineConnection(Protocol):
    """The part of `engine.link.EngineLink` that is used here."""

    @property
    def up(self) -> bool: ...

    def send(self, message: engine_messages.ToEngine) -> bool: ...


class EngineCommands:
    """Orders for the engine. One that finds none there isn't lost: the next engine is told all that still holds, and
    what the last one worked on is given to it again."""

    def __init__(self, registry: Registry) -> None:
        self.engine: EngineConnection | None = None
        self.trouble = ""
        """Why no engine can be started; empty as long as one is up or may still come up."""
        self._registry = registry
        self._way = engine_messages.SetYield(frame_rate=0.0)

    @property
    def taken(self) -> bool:
        """Whether there is an engine that takes orders."""
        return self.engine is not None and self.engine.up

    @property
    def state(self) -> Literal["starting", "up", "failed"]:
        """Whether there is an engine, and if not, whether one is expected to be soon."""
        if self.taken:
            return "up"
        return "failed" if self.trouble else "starting"

    def check_engine(self) -> None:
        """Whether there is an engine, or may soon be one.

        Raises:
            WorkerLost: None can be started; says why.
        """
        if self.trouble:
            raise errors.WorkerLost(f"the engine can't be started: {self.trouble} (timbred tries again by itself)")

    def give_way(self, frame_rate: float) -> None:
        """Let the engine rest after each step for a render loop of this many frames a second; 0: never."""
        self._way = engine_messages.SetYield(frame_rate=frame_rate)
        self._tell(self._way)

    def give_way_again(self) -> None:
        """Tell a new engine how it is to rest."""
        self._tell(self._way)

    def render(
        self, number: int, parameters: Parameters, rank: int, within: float | None, given: bytes | None = None
    ) -> None:
        """Make a sound, under this number. A lower rank goes first; `within` are the seconds until a deadline."""
        source, order = self.source_of(parameters.model), parameters.order(given)
        self._tell(engine_messages.RenderJob(job=number, model=source, order=order, rank=rank, within=within))

    def cancel(self, number: int) -> None:
        """Leave a sound at the next step."""
        self._tell(engine_messages.CancelJob(job=number))

    def load(self, source: engine_messages.ModelSource) -> None:
        """Take a model into memory."""
        self._tell(engine_messages.LoadModel(model=source))

    def unload(self, name: str) -> None:
        """Free a model's memory."""
        self._tell(engine_messages.UnloadModel(name=name))

    def source_of(self, name: str) -> engine_messages.ModelSource:
        """A model as the engine is told of it."""
        return engine_messages.ModelSource(name=name, folder=str(self._registry[name].folder))

    def _tell(self, message: engine_messages.ToEngine) -> None:
        if self.engine is not None:
            self.engine.send(message)
