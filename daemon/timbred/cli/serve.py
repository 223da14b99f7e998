"""`timbred serve`, and the connections of other commands: to a running daemon, or to one in their own process."""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from timbred.cli.terminal import print_error_line
from timbred.client import AsyncTimbred, DaemonNotFound, Sound
from timbred.client.connection import LOOPBACK, address_of_daemon, error_of
from timbred.config import Config, load
from timbred.protocol import messages as m
from timbred.protocol.schema import ends, wire_name
from timbred.transports.sockets import is_own_address

Result = TypeVar("Result")


def settings_from(file: Path | None, flags: list[str]) -> Config:
    """Return the settings of a command: file < environment < flags. Prints warnings on standard error."""
    config = load(file, os.environ, flags)
    for warning in config.warnings:
        print_error_line(f"timbred: warning: {warning}")
    return config


def serve(file: Path | None, flags: list[str]) -> None:
    """Run the daemon until it is stopped."""
    from timbred import server  # what only a daemon needs takes as long as the rest of a command

    config = settings_from(file, flags)
    start_logging(config["log.level"])
    run(server.serve(config, _print_line))


def _print_line(line: str) -> None:
    """Print a line; log a warning if standard output can't be written."""
    try:
        print(line, flush=True)
    except OSError as error:
        logging.getLogger(__name__).warning(
            "standard output can't be written (%s); the line was: %s", error.strerror, line
        )


def start_logging(level: str) -> None:
    """Start logging to standard error."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on an event loop that ZeroMQ can use: the selector loop on Windows.

    Garbage is collected from now on, but not among the imported objects.
    """
    gc.freeze()
    gc.enable()
    if sys.platform == "win32":
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(main)
    return asyncio.run(main)


ANSWER_TIMEOUT_S = 0.5
"""Seconds after which no daemon counts as running on this machine."""

REMOTE_ANSWER_TIMEOUT_S = 5.0
"""Seconds after which no daemon counts as running on another machine."""


class CliConnection(Protocol):
    """Interface of the connections to a daemon."""

    def ask(self, request: m.Request) -> AsyncIterator[m.Event | Sound]:
        """Send a request and yield its events, up to the terminal one.

        Raises:
            TimbredError: The request failed; with the daemon's message.
        """
        ...


class OwnDaemon:
    """Connection to a daemon in this process, for one command."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def ask(self, request: m.Request) -> AsyncIterator[m.Event | Sound]:
        """Send a request and yield its events; see `CliConnection`."""
        keys = {name: getattr(request, name) for name in request.__struct_fields__}
        self._client.send(type=wire_name(request), **keys)
        while True:
            event: m.Event = await self._client.next_event()
            if isinstance(event, m.Fail):
                raise error_of(event)
            yield event
            if ends(request, event):
                return


@asynccontextmanager
async def running_daemon(config: Config) -> AsyncGenerator[AsyncTimbred | None]:
    """Yield the client of the daemon with these settings, or None if it isn't running.

    Raises:
        AccessDenied: It refuses this user's keys.
    """
    address = address_of_daemon(config)
    within_s = ANSWER_TIMEOUT_S if is_own_address(address.host) else REMOTE_ANSWER_TIMEOUT_S
    async with AsyncTimbred(address.host, address.requests, address.events) as timbred:
        try:
            await timbred.connect(within_s)
        except DaemonNotFound:
            yield None
        else:
            yield timbred


@asynccontextmanager
async def own_daemon(config: Config) -> AsyncGenerator[OwnDaemon]:
    """Run a daemon for one command, on free ports that only this machine can reach."""
    from timbred.server import Daemon

    own = {
        "host": LOOPBACK,
        "osc.port": 0,
        "zmq.requests": 0,
        "zmq.events": 0,
        "http.port": 0,
        "discovery.announce": False,
    }
    daemon = Daemon(replace(config, values={**config.values, **own, "models.preload": False}), single_engine=True)
    await daemon.start()
    try:
        yield OwnDaemon(daemon.transports.client())
    finally:
        await asyncio.shield(daemon.stop())


@asynccontextmanager
async def any_daemon(config: Config) -> AsyncGenerator[CliConnection]:
    """Yield a connection to the running daemon or, if there is none, to one in this process.

    Raises:
        DaemonNotFound: None is running at an address of another machine.
        AccessDenied: It refuses this user's keys.
    """
    async with running_daemon(config) as running:
        if running is not None:
            yield running
            return
    if not is_own_address(config["host"]):
        raise DaemonNotFound(
            f"no timbred answers at {address_of_daemon(config)}; start it there with: timbred serve. For a sound from "
            f"this machine: --set host={LOOPBACK}"
        )
    async with own_daemon(config) as own:
        yield own
