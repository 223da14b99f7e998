"""The daemon's whole life: built from its settings, started in order, stopped in reverse."""

import asyncio
import logging
import os
import shlex
import signal
from collections.abc import Callable, Mapping

from timbred import errors
from timbred.config import Config, Value
from timbred.discovery.mdns import AnnouncedAddress, MdnsAnnouncement
from timbred.discovery.oscquery import OscQuery
from timbred.ipc import socket_folder
from timbred.ipc.engine_client import ENGINE_PROGRAM, EngineLink, EngineSettings
from timbred.ipc.heap import limit_arenas
from timbred.ipc.supervisor import SparePolicy
from timbred.models import registry
from timbred.player.client import PlayerClient
from timbred.requests.completion import BackgroundTasks
from timbred.requests.continuous.controller import InternalOutbox
from timbred.requests.handlers import LiveSettings, RequestHandlers
from timbred.requests.postprocess import Postprocessor
from timbred.requests.scheduler import JobScheduler
from timbred.storage.library import Library, open_library
from timbred.storage.takes_folder import AllowedFolders, TakesFolder
from timbred.task_supervision import Supervisor
from timbred.transports.base import Transports
from timbred.transports.sockets import Ports, resolve

log = logging.getLogger(__name__)

ENGINE_QUITS_WITHIN = 1.0
"""Seconds that the engine gets to leave by itself."""

PLAYER_QUITS_WITHIN = 2.5
"""Seconds that the player gets to close its device: usually tenths. Where it may not, a sound server stands still."""

PLAYER_SPARE_NEEDS_BYTES = 500_000_000
"""Memory that has to be available for a spare player, which holds about a tenth of it."""

PLAYER_SPARE_SETTLES_S = 0.5
"""Seconds of an engine that is up before a spare player is started: it takes little."""

MAX_ARENAS = 2
"""Arenas of the C library that the daemon's threads share: each may keep tens of MB of samples that were freed."""

WITHDRAWN_WITHIN = 1.0
"""Seconds that the network gets to hear that the daemon ends."""


class Daemon:
    """Everything but the process: two of them can live in one test."""

    def __init__(self, config: Config, engine_program: tuple[str, ...] | None = None) -> None:
        """`engine_program` is the command that starts an engine, in place of the one that the environment names.

        Raises:
            UnknownModel: the default model is none of those there are.
        """
        self.config = config
        self.engine_program = engine_program or engine_program_from(os.environ)
        self.models = registry.build(config.models_folder, config.sources)
        _ = self.models[config["models.default"]]
        self.supervisor = Supervisor()
        self.transports = Transports(config, self.supervisor)

    async def start(self) -> Ports:
        """Take requests as soon as the ports are bound; the engine and its model come when they come.

        Raises:
            BadRequest: a port is taken, or a setting can't be used.
        """
        config, outbox = self.config, InternalOutbox(self.transports.outbox)
        for folder in await asyncio.to_thread(socket_folder.sweep):
            log.info("removed what a killed daemon left: %s", folder)
        self.library = self._open_library()
        self.folder = TakesFolder(config.takes_folder, self.library)
        self._check_folder()
        self.finishing = Postprocessor(self.folder, self.library, lambda name: self.models[name].card.licence)
        self.dispatcher = JobScheduler(
            outbox,
            self.models,
            self.finishing,
            config["queue.length"],
            config["requests.remembered"],
            config["engine.jobs"],
            background=BackgroundTasks(self.supervisor),
        )
        spare = SparePolicy(
            lambda: self.engine.process.state != "starting", PLAYER_SPARE_NEEDS_BYTES, PLAYER_SPARE_SETTLES_S
        )
        self.player = PlayerClient(outbox, config, supervisor=self.supervisor, spare=spare)
        self.settings = LiveSettings(config, self._check_change)
        self.addresses = OscQuery(
            config["discovery.name"], self.settings.__getitem__, {"models.default": tuple(self.models.entries)}
        )
        self.settings.on_change = self.addresses.setting_changed
        self.intake = RequestHandlers(
            outbox,
            self.models,
            self.dispatcher,
            self.library,
            self.folder,
            AllowedFolders(config.readable_folders),
            self.settings,
            self.player,
            self.supervisor,
        )
        self.engine = EngineLink(
            EngineSettings(
                device=config["device"],
                threads=config["device.threads"],
                memory=config["engine.memory"],
                compile=config["engine.compile"],
                cache=config["engine.cache"],
                heartbeat=config["engine.heartbeat"],
                patience=config["engine.patience"],
                log_level=config["log.level"],
                spare=config["engine.spare"],
                program=self.engine_program,
            ),
            self.dispatcher,
            self.supervisor,
            lambda: self.dispatcher.is_idle,
        )
        self.dispatcher.orders.engine = self.engine
        self.dispatcher.orders.give_way(config["engine.yield"])
        try:
            ports = await self.transports.start(self.intake, self.library, self.addresses)
        except BaseException:
            self._close_library()
            raise
        for name, port in ports.settings.items():
            self.settings.follow(name, port)
        if config["models.preload"]:
            self.dispatcher.loads.preload(config["models.default"])
        self.engine.start()
        self.player.start()
        self.announcement = self._announced(ports)
        return ports

    async def stop(self) -> None:
        """Finish or fail what is running, tell its clients, leave no process and no half-written file."""
        withdrawing = asyncio.create_task(self._withdraw())
        self.intake.flows.end_all()
        await self.dispatcher.stop(self.config["stop.patience"])
        self.player.end_all()
        await self.intake.stop()
        await asyncio.gather(
            self.transports.stop(), self.engine.stop(ENGINE_QUITS_WITHIN), self.player.stop(PLAYER_QUITS_WITHIN)
        )
        await withdrawing
        self.finishing.drop_previews()
        await asyncio.to_thread(self.folder.settle)
        self.folder.close()
        self._close_library()

    def _announced(self, ports: Ports) -> MdnsAnnouncement | None:
        if not self.config["discovery.announce"]:
            return None
        _, address = resolve(self.config["host"])
        place = AnnouncedAddress(address, ports.osc, ports.http, ports.requests, ports.events)
        announcement = MdnsAnnouncement(self.config["discovery.name"], place)
        announcement.start()
        return announcement

    async def _withdraw(self) -> None:
        if self.announcement is not None:
            await self.announcement.stop(WITHDRAWN_WITHIN)

    def _check_change(self, name: str, value: Value) -> None:
        """A setting is about to change while the daemon runs.

        Raises:
            UnknownModel: the default model is to be one that there isn't.
        """
        if name == "models.default":
            _ = self.models[str(value)]
        if name == "queue.length":
            self.dispatcher.queue.limit = int(value)
        if name == "tempo":
            self.player.set_tempo(bpm=float(value))
        if name == "player.gain":
            self.player.set_level(float(value))
        if name == "engine.yield":
            self.dispatcher.orders.give_way(float(value))
        if name == "beats_per_bar":
            self.player.set_tempo(beats_per_bar=float(value))

    def _check_folder(self) -> None:
        """A takes folder that can't be used is told at the start, and to each request; it ends nothing."""
        try:
            self.folder.check()
            for leftover in self.folder.sweep():
                log.info("removed what a killed daemon left: %s", leftover)
        except errors.TimbredError as error:
            log.error("%s", error)

    def _open_library(self) -> Library:
        try:
            return open_library(self.config.library_file, self.config.spare_library_folder)
        except errors.TimbredError as error:
            log.error("takes are remembered only until the daemon stops: %s", error)
            return Library(self.config.library_file, in_memory=True)

    def _close_library(self) -> None:
        self.library.close()


def engine_program_from(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The command that starts an engine: ours, or the one in TIMBRED_ENGINE_PROGRAM (for tests of the daemon)."""
    other = environment.get("TIMBRED_ENGINE_PROGRAM")
    return tuple(shlex.split(other)) if other else ENGINE_PROGRAM


async def serve(config: Config, ready: Callable[[str], None]) -> None:
    """Run until SIGINT or SIGTERM. `ready` is called with one line once requests are taken.

    Raises:
        BadRequest: a port is taken, or a setting can't be used.
        Internal: a part without which the daemon can't go on failed.
    """
    limit_arenas(MAX_ARENAS)
    stopping = asyncio.Event()
    _on_signals(stopping.set)
    daemon = Daemon(config)
    daemon.supervisor.watch_loop()
    ports = await daemon.start()
    ready(f"ready osc={ports.osc} zmq={ports.requests},{ports.events} http={ports.http}")
    try:
        await _first_of(stopping, daemon.supervisor.broken)
        log.info("stopping")
    finally:
        await daemon.stop()
    if daemon.supervisor.reason:
        raise errors.Internal(daemon.supervisor.reason)


async def _first_of(*events: asyncio.Event) -> None:
    """Wait until one of these is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda _number, _frame: loop.call_soon_threadsafe(stop))
