"""How a command talks to timbred: to the running daemon, or to one of its own for this call."""

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

ANSWERS_WITHIN = 0.5
"""Seconds in which a daemon that is there answers."""


class CliConnection(Protocol):
    """A way to a daemon."""

    def ask(self, request: m.Request) -> AsyncIterator[m.Event | Sound]:
        """Send a request; its events as they come, the last one ends it.

        Raises:
            TimbredError: the request failed; as the daemon said it.
        """
        ...


class OwnDaemon:
    """A daemon inside this process, for one call."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def ask(self, request: m.Request) -> AsyncIterator[m.Event | Sound]:
        given = {name: getattr(request, name) for name in request.__struct_fields__}
        self._client.send(type=wire_name(request), **given)
        while True:
            event: m.Event = await self._client.next_event()
            if isinstance(event, m.Fail):
                raise error_of(event)
            yield event
            if ends(request, event):
                return


@asynccontextmanager
async def running_daemon(config: Config) -> AsyncGenerator[AsyncTimbred | None]:
    """The daemon that these settings point to, or None when there is none."""
    place = place_of(config)
    async with AsyncTimbred(place.host, place.requests, place.events) as timbred:
        try:
            await timbred.connect(ANSWERS_WITHIN)
        except DaemonNotFound:
            yield None
        else:
            yield timbred


@asynccontextmanager
async def own_daemon(config: Config) -> AsyncGenerator[OwnDaemon]:
    """A daemon for one call, on ports of its own."""
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
    """The running daemon or, if there is none, one of our own for this call."""
    async with running_daemon(config) as running:
        if running is not None:
            yield running
            return
    async with own_daemon(config) as own:
        yield own
