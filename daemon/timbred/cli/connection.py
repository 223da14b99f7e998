"""How a command talks to timbred: to the running daemon, or to one of its own for this call."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol

import zmq
import zmq.asyncio

from timbred.config import Config
from timbred.errors import WorkerLost, from_code
from timbred.protocol import frames
from timbred.protocol.vocabulary import EVENTS

ANSWERS_WITHIN = 500
"""Milliseconds in which a daemon that is there answers a ping."""

SILENT_AFTER = 60_000
"""Milliseconds without any event after which a daemon is asked whether it is still there."""

TERMINAL = {entry.name for entry in EVENTS if entry.terminal}

Json = dict[str, Any]


class Connection(Protocol):
    """A way to a daemon."""

    def ask(self, request: Json) -> AsyncIterator[Json]:
        """Send a request; its events as they come, the last one ends it.

        Raises:
            TimbredError: the request failed; as the daemon said it.
        """
        ...


class RunningDaemon:
    """The daemon that runs on this machine, over ZeroMQ."""

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self._socket = socket

    async def ask(self, request: Json) -> AsyncIterator[Json]:
        await self._socket.send(json.dumps(request).encode())
        while True:
            event = await self._next()
            if event["type"] == "pong":
                continue
            yield _checked(event)
            if event["type"] in TERMINAL:
                return

    async def _next(self) -> Json:
        """The next event. A daemon that has been silent for long is asked for a sign of life."""
        if not await self._socket.poll(SILENT_AFTER):
            await self._socket.send(b'{"type": "ping"}')
            if not await self._socket.poll(SILENT_AFTER):
                raise WorkerLost(
                    "the daemon doesn't answer any more; look at its log, or start it again: timbred serve"
                )
        return json.loads(await self._socket.recv())


class OwnDaemon:
    """A daemon inside this process, for one call."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def ask(self, request: Json) -> AsyncIterator[Json]:
        self._client.send(**request)
        while True:
            event = json.loads(frames.encode_event(await self._client.next_event()))
            yield _checked(event)
            if event["type"] in TERMINAL:
                return


def _checked(event: Json) -> Json:
    if event["type"] == "fail":
        raise from_code(event["code"], f"{event['message']} ({event['code']})")
    return event


@asynccontextmanager
async def running_daemon(config: Config) -> AsyncGenerator[RunningDaemon | None]:
    """The daemon that these settings point to, or None when there is none."""
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    try:
        socket.connect(f"tcp://{config['host']}:{config['zmq.requests']}")
        await socket.send(b'{"type": "ping"}')
        there = bool(await socket.poll(ANSWERS_WITHIN))
        if there:
            await socket.recv()
        yield RunningDaemon(socket) if there else None
    finally:
        socket.close()
        context.term()


@asynccontextmanager
async def own_daemon(config: Config) -> AsyncGenerator[OwnDaemon]:
    """A daemon for one call, on ports of its own."""
    from timbred.app import Daemon

    ports = {"osc.port": 0, "zmq.requests": 0, "zmq.events": 0, "http.port": 0}
    daemon = Daemon(replace(config, values={**config.values, **ports, "models.preload": False}))
    await daemon.start()
    try:
        yield OwnDaemon(daemon.transports.client())
    finally:
        await asyncio.shield(daemon.stop())


@asynccontextmanager
async def any_daemon(config: Config) -> AsyncGenerator[Connection]:
    """The running daemon or, if there is none, one of our own for this call."""
    async with running_daemon(config) as running:
        if running is not None:
            yield running
            return
    async with own_daemon(config) as own:
        yield own
