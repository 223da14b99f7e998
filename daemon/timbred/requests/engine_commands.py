"""Commands to the engine process."""

from typing import Literal, Protocol

from timbred import errors
from timbred.ipc import engine_messages
from timbred.models.registry import Registry
from timbred.requests.resolve import Parameters


class EngineConnection(Protocol):
    """The part of `timbred.ipc.engine_client.EngineLink` that is used here."""

    @property
    def up(self) -> bool:
        """True if an engine takes commands."""
        ...

    def send(self, message: engine_messages.ToEngine) -> bool:
        """Send a message; return whether an engine took it."""
        ...


class EngineCommands:
    """Sends commands to the engine. None is lost without one: a new engine gets those that still apply, and the jobs.

    Args:
        registry: The models.
        engine: The connection to the engine.
    """

    def __init__(self, registry: Registry, engine: EngineConnection) -> None:
        self.trouble = ""
        """Reason why no engine can be started; empty while one is up or may still start."""
        self.engine = engine
        self._registry = registry
        self._set_yield = engine_messages.SetYield(frame_rate=0.0)

    @property
    def state(self) -> Literal["starting", "up", "failed"]:
        """State of the engine as in `status`."""
        if self.engine.up:
            return "up"
        return "failed" if self.trouble else "starting"

    def check_engine(self) -> None:
        """Check that an engine is up or may start.

        Raises:
            WorkerLost: No engine can be started; says why.
        """
        if self.trouble:
            raise errors.WorkerLost(f"the engine can't be started: {self.trouble} (timbred tries again by itself)")

    def set_yield(self, frame_rate: float) -> None:
        """Have the engine pause after each step for a render loop of `frame_rate` frames a second; 0 for never."""
        self._set_yield = engine_messages.SetYield(frame_rate=frame_rate)
        self.engine.send(self._set_yield)

    def repeat_yield(self) -> None:
        """Send the last `set_yield` to a new engine."""
        self.engine.send(self._set_yield)

    def render(
        self,
        number: int,
        parameters: Parameters,
        rank: int,
        time_left_s: float | None,
        init_samples: bytes | None = None,
    ) -> None:
        """Render a sound.

        Args:
            number: Number of the job or trial.
            parameters: What to render.
            rank: A lower rank runs first.
            time_left_s: Seconds until the deadline; None without one.
            init_samples: Init audio: float32 little-endian, at the model's rate and channels.
        """
        source, order = self.source_of(parameters.model), parameters.order(init_samples)
        self.engine.send(
            engine_messages.RenderJob(job=number, model=source, order=order, rank=rank, within=time_left_s)
        )

    def cancel(self, number: int) -> None:
        """Stop a rendering at its next step."""
        self.engine.send(engine_messages.CancelJob(job=number))

    def load(self, source: engine_messages.ModelSource) -> None:
        """Load a model into memory."""
        self.engine.send(engine_messages.LoadModel(model=source))

    def unload(self, name: str) -> None:
        """Free a model's memory."""
        self.engine.send(engine_messages.UnloadModel(name=name))

    def source_of(self, name: str) -> engine_messages.ModelSource:
        """Return a model's name and folder."""
        return engine_messages.ModelSource(name=name, folder=str(self._registry[name].folder))
