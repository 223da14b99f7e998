"""The daemon: built from its settings, started in order, stopped in reverse order."""

import asyncio
import logging
import os
import shlex
import signal
import time
from collections.abc import Callable, Mapping

from timbred import errors
from timbred.config import Config, Value
from timbred.discovery.mdns import AnnouncedAddress, MdnsAnnouncement
from timbred.discovery.oscquery import OscQuery
from timbred.ipc import socket_folder
from timbred.ipc.devices import EnginePlace, list_cuda_devices, read_places, share_of_machine
from timbred.ipc.engine_client import ENGINE_PROGRAM, EngineLink, EngineSettings
from timbred.ipc.isolation import python_command
from timbred.ipc.supervisor import SparePolicy
from timbred.models import registry
from timbred.models.lora import LoraRegistry
from timbred.player.client import PlayerClient
from timbred.process_memory import limit_arenas
from timbred.requests.completion import BackgroundTasks, InternalOutbox
from timbred.requests.continuous.controller import FlowController, FlowControllers
from timbred.requests.handlers import LiveSettings, RequestHandlers, SoundOutputs
from timbred.requests.loras import LoraHandlers
from timbred.requests.playback import PlaybackHandlers
from timbred.requests.postprocess import Postprocessor
from timbred.requests.scheduler import JobScheduler
from timbred.requests.scsynth_buffers import ScsynthBuffers
from timbred.storage.library import Library, open_library
from timbred.storage.paths import AllowedFolders
from timbred.storage.takes_folder import TakesFolder
from timbred.task_supervision import Supervisor
from timbred.transports.base import Transports
from timbred.transports.sockets import Ports, resolve

log = logging.getLogger(__name__)

STOP_PATIENCE_S = 2.0
"""Seconds for which running jobs may continue when the daemon stops, which takes at most five seconds in all."""

ENGINE_QUIT_TIMEOUT_S = 1.0
"""Seconds in which the engine has to quit before it is killed."""

PLAYER_QUIT_TIMEOUT_S = 2.5
"""Seconds in which the player has to close its device, which usually takes tenths; if killed before, JACK may block."""

MIN_BYTES_FOR_SPARE_PLAYER = 500_000_000
"""Memory that has to be available for a spare player, which uses about a tenth of it."""

SPARE_PLAYER_DELAY_S = 0.5
"""Seconds after the engine's start before a spare player is started; short, because it needs few resources."""

MAX_ARENAS = 2
"""Arenas of the C library that the daemon's threads share: each may keep tens of MB of freed samples."""

CLUSTER_RELAY_MODULE = "timbred.cluster"
"""Module of the program that connects the daemon with one engine on a Ray cluster."""

MDNS_WITHDRAW_TIMEOUT_S = 1.0
"""Seconds in which the mDNS announcement has to be withdrawn."""


class Daemon:
    """The daemon, independent of its process: one process can run several.

    Args:
        config: The settings.
        engine_program: Command that starts an engine; None for the one that the environment names.
        clock: Monotonic clock of rendering times, deadlines and flows.
        single_engine: Start the first engine only, for a daemon that makes one sound.

    Raises:
        UnknownModel: No model has the name of the default model.
    """

    def __init__(
        self,
        config: Config,
        engine_program: tuple[str, ...] | None = None,
        clock: Callable[[], float] = time.monotonic,
        single_engine: bool = False,
    ) -> None:
        self.config = config
        self.single_engine = single_engine
        self.clock = clock
        self.engine_program = engine_program or engine_program_from(os.environ)
        self.models = registry.build(config.models_folder, config.sources)
        _ = self.models[config["models.default"]]
        self.loras = LoraRegistry(config.loras_folder, self.models)
        self.supervisor = Supervisor()
        self.transports = Transports(config, self.supervisor)

    async def start(self) -> Ports:
        """Bind the ports and accept requests; the engine and its model follow later.

        Returns:
            The bound ports.

        Raises:
            BadRequest: A port is in use, a setting can't be used, or keys, token or allowed addresses are missing.
        """
        config, outbox = self.config, InternalOutbox(self.transports.outbox)
        self.places = await asyncio.to_thread(self._read_places)
        for folder in await asyncio.to_thread(socket_folder.remove_abandoned):
            log.info("removed a file that a killed daemon left: %s", folder)
        self.library = self._open_library()
        self.folder = TakesFolder(config.takes_folder, self.library)
        self._check_folder()
        self.settings = LiveSettings(config, self._check_setting, self._apply_setting, self._announce_setting)
        self.addresses = OscQuery(
            config["discovery.name"], self.settings.__getitem__, {"models.default": tuple(self.models.entries)}
        )
        self.player = PlayerClient(
            outbox,
            config,
            supervisor=self.supervisor,
            spare=SparePolicy(
                lambda: all(engine.process.state != "starting" for engine in self.engines),
                MIN_BYTES_FOR_SPARE_PLAYER,
                SPARE_PLAYER_DELAY_S,
            ),
            on_tempo=lambda bpm: self.settings.follow("tempo", bpm),
            on_rate=lambda rate: self.settings.follow_unless_set("audio.rate", rate),
        )
        self.postprocessor = Postprocessor(
            self.folder,
            self.library,
            lambda name: self.models[name].card.licence,
            lambda name: self.models[name].card.version,
        )
        allowed = AllowedFolders(config.readable_folders)
        flows_by_voice: dict[int, FlowController] = {}
        playback = PlaybackHandlers(outbox, self.player, self.library, allowed, self.supervisor, flows_by_voice)
        buffers = ScsynthBuffers(outbox, self.supervisor)
        self.scheduler = JobScheduler(
            outbox,
            self.models,
            self.postprocessor,
            self._connect_engines,
            SoundOutputs(playback, buffers),
            config["queue.length"],
            config["engine.jobs"],
            BackgroundTasks(self.supervisor),
            self.clock,
        )
        flows = FlowControllers(
            outbox, self.player, self.scheduler, lambda: self.settings.session, flows_by_voice, self.clock
        )
        self.handlers = RequestHandlers(
            outbox,
            self.models,
            self.scheduler,
            self.library,
            self.folder,
            allowed,
            self.settings,
            self.player,
            playback,
            buffers,
            flows,
            LoraHandlers(outbox, self.loras),
            self.supervisor,
            lambda: self.transports.denied,
        )
        self.scheduler.engines.set_yield(config["engine.yield"])
        try:
            ports = await self.transports.start(self.handlers, self.library, self.addresses)
        except BaseException:
            self._close_library()
            raise
        for name, port in ports.settings.items():
            self.settings.follow(name, port)
        if config["models.preload"]:
            self.scheduler.loads.preload(config["models.default"])
        for engine in self.engines:
            engine.start()
        self.player.start()
        self.announcement = self._announced(ports)
        return ports

    def _read_places(self) -> tuple[EnginePlace, ...]:
        """Return where the engines run. Asks the CUDA driver, in a child process, if the settings don't say it.

        Raises:
            BadRequest: The settings can't be used on this machine.
        """
        list_cuda = tuple if self.single_engine else list_cuda_devices
        places = read_places(self.config["engines"], self.config["device"], list_cuda)
        return places[:1] if self.single_engine else places

    def _connect_engines(self, scheduler: JobScheduler) -> list[EngineLink]:
        """Create the links to the engines, which report to the scheduler; `start` starts their processes later."""
        config, places = self.config, self.places
        is_single = len(places) == 1
        shares = [
            share_of_machine(place, places, config["device.threads"], config["engine.memory"]) for place in places
        ]
        self.engines = [
            EngineLink(
                EngineSettings(
                    device=place.device,
                    threads=share.threads,
                    memory=share.memory_mb,
                    compile=config["engine.compile"],
                    cache=config["engine.cache"],
                    timeout_s=config["engine.patience"],
                    log_level=config["log.level"],
                    spare="off" if config["engine.spare"] == "auto" and not is_single else config["engine.spare"],
                    program=engine_command(place, self.engine_program),
                ),
                scheduler,
                self.supervisor,
                lambda: scheduler.is_idle,
                place,
                "engine" if is_single else f"engine-{place.number}",
            )
            for place, share in zip(places, shares, strict=True)
        ]
        return self.engines

    async def stop(self, patience_s: float = STOP_PATIENCE_S) -> None:
        """Finish or fail running jobs, answer their clients, and end both child processes; no partial file is left.

        Args:
            patience_s: Seconds for which running jobs may continue.
        """
        withdrawing = asyncio.create_task(self._withdraw())
        self.handlers.flows.end_all()
        await self.scheduler.stop(patience_s)
        self.player.end_all()
        await self.handlers.stop()
        await asyncio.gather(
            self.transports.stop(),
            *(engine.stop(ENGINE_QUIT_TIMEOUT_S) for engine in self.engines),
            self.player.stop(PLAYER_QUIT_TIMEOUT_S),
        )
        await withdrawing
        self.postprocessor.drop_previews()
        await asyncio.to_thread(self.folder.settle)
        self.folder.close()
        self._close_library()

    def _announced(self, ports: Ports) -> MdnsAnnouncement | None:
        """Start and return the mDNS announcement, or return None if it is switched off."""
        if not self.config["discovery.announce"]:
            return None
        _, address = resolve(self.config["host"])
        announced = AnnouncedAddress(address, ports.osc, ports.http, ports.requests, ports.events)
        announcement = MdnsAnnouncement(self.config["discovery.name"], announced)
        announcement.start()
        return announcement

    async def _withdraw(self) -> None:
        if self.announcement is not None:
            await self.announcement.stop(MDNS_WITHDRAW_TIMEOUT_S)

    def _check_setting(self, name: str, value: Value) -> None:
        """Check a change of a setting.

        Raises:
            UnknownModel: No model has the name of the new default model.
        """
        if name == "models.default":
            _ = self.models[str(value)]

    def _apply_setting(self, name: str, value: Value) -> None:
        """Apply a change of a setting whose value isn't read at each use."""
        match name:
            case "queue.length":
                self.scheduler.queue_length = int(value)
            case "tempo":
                self.player.set_tempo(bpm=float(value))
            case "player.gain":
                self.player.set_level(float(value))
            case "engine.yield":
                self.scheduler.engines.set_yield(float(value))
            case "beats_per_bar":
                self.player.set_tempo(beats_per_bar=float(value))
            case _:
                pass

    def _announce_setting(self, name: str, value: Value) -> None:
        """Send a changed setting to OSCQuery clients that listen to it."""
        self.addresses.setting_changed(name, value)

    def _check_folder(self) -> None:
        """Log an unusable takes folder; requests are refused with the reason until it is usable."""
        try:
            self.folder.check()
            for leftover in self.folder.sweep():
                log.info("removed a file that a killed daemon left: %s", leftover)
        except errors.TimbredError as error:
            log.error("%s", error)

    def _open_library(self) -> Library:
        """Open the library, or one in memory if that fails."""
        try:
            return open_library(self.config.library_file, self.config.spare_library_folder)
        except errors.TimbredError as error:
            log.error("takes are stored only until the daemon stops: %s", error)
            return Library(self.config.library_file, in_memory=True)

    def _close_library(self) -> None:
        self.library.close()


def engine_program_from(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command that starts an engine: the one in TIMBRED_ENGINE_PROGRAM (for tests), or the default."""
    other = environment.get("TIMBRED_ENGINE_PROGRAM")
    return tuple(shlex.split(other)) if other else ENGINE_PROGRAM


def engine_command(place: EnginePlace, program: tuple[str, ...] = ENGINE_PROGRAM) -> tuple[str, ...]:
    """Return the command that starts an engine at a place; `EngineSettings` adds the options of an engine to it.

    An engine on a Ray cluster is the daemon's child too: a relay that speaks to the engine on the cluster. Its first
    arguments are the cluster's address, and its index among the engines there.

    Args:
        place: Where the engine runs.
        program: Command of an engine on this machine.
    """
    return python_command(CLUSTER_RELAY_MODULE, place.address, str(place.index)) if place.address else program


async def serve(config: Config, ready: Callable[[str], None]) -> None:
    """Run a daemon until SIGINT or SIGTERM.

    Args:
        config: The settings.
        ready: Called with one line once requests are accepted.

    Raises:
        BadRequest: A port is in use, or a setting can't be used.
        Internal: A required task failed.
    """
    limit_arenas(MAX_ARENAS)
    stopping = asyncio.Event()
    _on_signals(stopping.set)
    daemon = Daemon(config)
    daemon.supervisor.watch_loop()
    ports = await daemon.start()
    ready(f"ready osc={ports.osc} zmq={ports.requests},{ports.events} http={ports.http}")
    try:
        await _wait_first(stopping, daemon.supervisor.broken)
        log.info("stopping")
    finally:
        await daemon.stop()
    if daemon.supervisor.reason:
        raise errors.Internal(daemon.supervisor.reason)


async def _wait_first(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waiters = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiters:
            task.cancel()


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda _number, _frame: loop.call_soon_threadsafe(stop))
