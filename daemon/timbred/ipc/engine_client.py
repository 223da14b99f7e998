"""The daemon's end of one engine process."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from timbred.ipc import engine_messages
from timbred.ipc.isolation import python_command
from timbred.ipc.supervisor import ProcessSpec, ProcessView, SparePolicy, SupervisedProcess
from timbred.task_supervision import Supervisor

log = logging.getLogger(__name__)

ENGINE_PROGRAM = python_command("timbred.engine.__main__")
"""The command that starts an engine."""

SPARE_NEEDS_BYTES = 3_000_000_000
"""Memory that has to be available for a spare engine to be started with `auto`: several times what its imports take."""

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # models are read from folders: nothing in the engine asks a network for anything
    "HF_DEACTIVATE_ASYNC_LOAD": "1",  # weights are read in the thread that loads, which gives way, and in no others
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what `exact` needs on CUDA
    # oneDNN's calls by shape, in each thread and for the process: 50 kB each, some 100 for each length of a sound
    "LRU_CACHE_CAPACITY": "512",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024",
    # large pages, else each decoding faults thousands of small ones in; and few arenas, which keep what is freed apart
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=8",
}


class EngineUser(Protocol):
    """The user of the link: receives the engine's state changes and messages, on the event loop."""

    def engine_up(self, ready: engine_messages.EngineReady) -> None:
        """A process is there and takes orders."""
        ...

    def engine_down(self, reason: str) -> None:
        """The process ended or fell silent; what it held is lost. A new one comes by itself."""
        ...

    def engine_cannot_start(self, reason: str) -> None:
        """No engine can be started, and the reason. It is tried again by itself; called after each such try."""
        ...

    def engine_said(self, message: engine_messages.FromEngine, payload: Sequence[memoryview]) -> None:
        """The engine sent a message; `payload` are the frames that follow it."""
        ...


@dataclass(frozen=True)
class EngineSettings:
    """Options of an engine process: see the settings of the same names. `memory` is in MB."""

    device: str = "auto"
    threads: int = 0
    memory: float = 0.0
    compile: str = "off"
    cache: str = ""
    heartbeat: float = 1.0
    patience: float = 30.0
    log_level: str = "info"
    spare: Literal["auto", "on", "off"] = "off"
    program: tuple[str, ...] = ENGINE_PROGRAM

    @property
    def command(self) -> tuple[str, ...]:
        """Command line of the engine process, without its address."""
        return (
            *self.program,
            "--device", self.device,
            "--threads", str(self.threads),
            "--memory", str(int(self.memory * 1e6)),
            "--compile", self.compile,
            "--cache", self.cache,
            "--heartbeat", str(self.heartbeat),
            "--log-level", self.log_level,
        )  # fmt: skip


class EngineLink:
    """One engine process, kept alive. Implements `processes.child.ChildUser` for its child."""

    def __init__(
        self,
        settings: EngineSettings,
        user: EngineUser,
        supervisor: Supervisor | None = None,
        is_idle: Callable[[], bool] = lambda: True,
    ) -> None:
        """`is_idle` says that the engine has nothing to do: a spare process is started only then."""
        self.user = user
        trade = ProcessSpec(
            name="engine",
            command=settings.command,
            introduction=engine_messages.EngineReady,
            refusal=engine_messages.EngineCannotStart,
            wire_version=engine_messages.WIRE_VERSION,
            encode=engine_messages.encode,
            decode=engine_messages.read_in_daemon,
            quit=engine_messages.QuitEngine(),
            patience=settings.patience,
            environment=ENVIRONMENT,
        )
        policy = None
        if settings.spare != "off":
            policy = SparePolicy(is_idle, SPARE_NEEDS_BYTES if settings.spare == "auto" else 0)
        self._child = SupervisedProcess(trade, self, supervisor, policy)

    @property
    def up(self) -> bool:
        """True while a process accepts orders."""
        return self._child.up

    @property
    def process(self) -> ProcessView:
        """State of the engine process."""
        return self._child

    def start(self) -> None:
        """Start the process and keep it alive until `stop`."""
        self._child.start()

    def send(self, message: engine_messages.ToEngine) -> bool:
        """Send an order; False when no engine is there to take it."""
        return self._child.send(message)

    async def stop(self, patience: float) -> None:
        """Ask the process to quit, and end it if it doesn't within `patience` seconds."""
        await self._child.stop(patience)

    def child_up(self, ready: engine_messages.EngineReady) -> None:
        """See `ChildUser`."""
        log.info("engine ready on %s (%s, %s), pid %d", ready.device, ready.device_name, ready.precision, ready.pid)
        self.user.engine_up(ready)

    def child_down(self, reason: str) -> None:
        """See `ChildUser`."""
        self.user.engine_down(reason)

    def child_cannot_start(self, reason: str) -> None:
        """See `ChildUser`."""
        self.user.engine_cannot_start(reason)

    def child_said(self, message: engine_messages.FromEngine, payload: Sequence[memoryview]) -> None:
        """See `ChildUser`."""
        if isinstance(message, engine_messages.JobRendered):
            self._child.succeeded()
        elif isinstance(message, engine_messages.ModelLoaded):
            self._child.allow_spare()
        self.user.engine_said(message, payload)
