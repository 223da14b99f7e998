"""The daemon's client of one engine process."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from timbred.ipc import engine_messages
from timbred.ipc.devices import EnginePlace
from timbred.ipc.isolation import torch_command
from timbred.ipc.supervisor import ProcessSpec, ProcessView, SparePolicy, SupervisedProcess
from timbred.task_supervision import Supervisor

log = logging.getLogger(__name__)

ENGINE_PROGRAM = torch_command("timbred.engine.__main__")
"""The command that starts an engine."""

MIN_BYTES_FOR_SPARE_ENGINE = 3_000_000_000
"""Available memory from which `auto` starts a spare engine: several times the memory of its imports."""

HEARTBEATS_PER_TIMEOUT = 4
"""Number of heartbeats that an engine sends at least within the time after which a silent one is restarted."""

ENGINE_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # models are read from folders; the engine uses no network
    "HF_DEACTIVATE_ASYNC_LOAD": "1",  # weights are read in the loader thread only
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # required by `exact` on CUDA
    # oneDNN primitives by shape, for each thread and for the process: 50 kB each, some 100 for each length of a sound
    "LRU_CACHE_CAPACITY": "512",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024",
    # threads that wait for each other spin for microseconds only: a host's threads use the same cores, and spinning for
    # a thread that they have displaced takes whole time slices, a sound of two seconds 3 s instead of 0.1 s
    "GOMP_SPINCOUNT": "1000",
    # large pages avoid thousands of page faults in each decoding; few arenas, because each load is a new thread, and
    # an unloaded model leaves its gaps in the arena of its load; blocks from 2 MiB, the size of a large page, are
    # mapped one by one, because the heap retains gaps between samples and weights of many lengths, which grow for an
    # hour (smaller ones too would be twice the time of a decoding: their pages are faulted in again each time)
    "GLIBC_TUNABLES": (
        "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=2"
        ":glibc.malloc.mmap_threshold=2097152:glibc.malloc.trim_threshold=268435456"
    ),
}


ANY_PLACE = EnginePlace()
"""The place of a single engine, which chooses its device itself."""


class EngineObserver(Protocol):
    """Receives the state changes and messages of the engine with a number, on the event loop."""

    def engine_ready(self, number: int, ready: engine_messages.EngineReady) -> None:
        """Handle a process that accepts orders."""
        ...

    def engine_lost(self, number: int, reason: str) -> None:
        """Handle the loss of the process with its state, by exit or timeout; it is restarted automatically."""
        ...

    def engine_cannot_start(self, number: int, reason: str) -> None:
        """Handle a failed start; called after each attempt, which is repeated automatically."""
        ...

    def engine_message_received(
        self, engine: int, message: engine_messages.FromEngine, payload: Sequence[memoryview]
    ) -> None:
        """Handle a message of the engine and the payload frames that follow it."""
        ...


@dataclass(frozen=True)
class EngineSettings:
    """Options of an engine process, from the settings of the same names; `memory` is in MB.

    `heartbeat_s` is the longest interval between heartbeats: at least `HEARTBEATS_PER_TIMEOUT` of them fit into
    `timeout_s`, the setting `engine.patience`.
    """

    device: str = "auto"
    threads: int = 0
    memory: float = 0.0
    compile: str = "off"
    cache: str = ""
    heartbeat_s: float = engine_messages.ENGINE_HEARTBEAT_INTERVAL_S
    timeout_s: float = 30.0
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
            "--heartbeat", str(min(self.heartbeat_s, self.timeout_s / HEARTBEATS_PER_TIMEOUT)),
            "--log-level", self.log_level,
        )  # fmt: skip


class EngineLink:
    """A supervised engine process. Implements `ProcessObserver` for it.

    Args:
        settings: Options of the process.
        observer: Receives state changes and messages.
        supervisor: Runs background tasks.
        is_idle: Tells if the engine has no work; a spare process is started only then.
        place: Where the engine runs; its number is in messages to the observer.
        name: Name of the process in messages to the performer.
    """

    def __init__(
        self,
        settings: EngineSettings,
        observer: EngineObserver,
        supervisor: Supervisor | None = None,
        is_idle: Callable[[], bool] = lambda: True,
        place: EnginePlace = ANY_PLACE,
        name: str = "engine",
    ) -> None:
        self.observer = observer
        self.place = place
        self._number = place.number
        spec = ProcessSpec(
            name=name,
            command=settings.command,
            ready_type=engine_messages.EngineReady,
            refusal_type=engine_messages.EngineCannotStart,
            wire_version=engine_messages.WIRE_VERSION,
            encode=engine_messages.encode,
            decode=engine_messages.read_in_daemon,
            quit_message=engine_messages.QuitEngine(),
            timeout_s=settings.timeout_s,
            environment=ENGINE_ENVIRONMENT,
        )
        policy = None
        if settings.spare != "off":
            policy = SparePolicy(is_idle, MIN_BYTES_FOR_SPARE_ENGINE if settings.spare == "auto" else 0)
        self._child = SupervisedProcess(spec, self, supervisor, policy)

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
        """Send an order; returns False while no engine accepts orders."""
        return self._child.send(message)

    async def stop(self, timeout_s: float) -> None:
        """Ask the process to quit, and kill it if it does not within `timeout_s` seconds."""
        await self._child.stop(timeout_s)

    def child_ready(self, ready: engine_messages.EngineReady) -> None:
        """See `ProcessObserver`."""
        device = f"{ready.device} ({ready.device_name}, {ready.precision})"
        log.info("%s ready on %s, pid %d", self._child.spec.name, device, ready.pid)
        self.observer.engine_ready(self._number, ready)

    def child_lost(self, reason: str) -> None:
        """See `ProcessObserver`."""
        self.observer.engine_lost(self._number, reason)

    def child_cannot_start(self, reason: str) -> None:
        """See `ProcessObserver`."""
        self.observer.engine_cannot_start(self._number, reason)

    def child_message_received(self, message: engine_messages.FromEngine, payload: Sequence[memoryview]) -> None:
        """See `ProcessObserver`."""
        if isinstance(message, engine_messages.JobRendered):
            self._child.record_success()
        elif isinstance(message, engine_messages.ModelLoaded):
            self._child.allow_spare()
        self.observer.engine_message_received(self._number, message, payload)
