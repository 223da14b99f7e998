"""Connections of the commands: to the running daemon, or to one in this process for a single command."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol

from timbred.client import AsyncTimbred, DaemonNotFound, Sound
from timbred.client.async_client import ends, wire_name
from timbred.client.connection import error_of, place_of
from timbred.config import Config
from timbred.protocol import messages as m

ANSWER_TIMEOUT_S = 0.5
"""Seconds after which no daemon counts as running."""


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
    """Yield the client of the daemon with these settings, or None if it isn't running."""
    place = place_of(config)
    async with AsyncTimbred(place.host, place.requests, place.events) as timbred:
        try:
            await timbred.connect(ANSWER_TIMEOUT_S)
        except DaemonNotFound:
            yield None
        else:
            yield timbred


@asynccontextmanager
async def own_daemon(config: Config) -> AsyncGenerator[OwnDaemon]:
    """Run a daemon for one command, on free ports."""
    from timbred.server import Daemon

    own = {"osc.port": 0, "zmq.requests": 0, "zmq.events": 0, "http.port": 0, "discovery.announce": False}
    daemon = Daemon(replace(config, values={**config.values, **own, "models.preload": False}))
    await daemon.start()
    try:
        yield OwnDaemon(daemon.transports.client())
    finally:
        await asyncio.shield(daemon.stop())


@asynccontextmanager
async def any_daemon(config: Config) -> AsyncGenerator[CliConnection]:
    """Yield a connection to the running daemon or, if there is none, to one in this process."""
    async with running_daemon(config) as running:
        if running is not None:
            yield running
            return
    async with own_daemon(config) as own:
        yield own
