"""Where a daemon is: as the settings say, or as zeroconf tells."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from timbred import config

LOOPBACK = "127.0.0.1"
SERVICE = "_oscjson._tcp.local."
"""What daemons are announced as; see `timbred.discovery.announce`."""


@dataclass(frozen=True)
class Place:
    """A daemon's ZeroMQ ports."""

    host: str
    requests: int
    events: int

    def __str__(self) -> str:
        return f"{self.host}, port {self.requests}"

    @property
    def requests_url(self) -> str:
        return f"tcp://{self._host}:{self.requests}"

    @property
    def events_url(self) -> str:
        return f"tcp://{self._host}:{self.events}"

    @property
    def _host(self) -> str:
        host = reachable(self.host)
        return f"[{host}]" if ":" in host else host


def reachable(host: str) -> str:
    """The address to connect to for a daemon that is bound to `host`."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)


def place_of(settings: config.Config) -> Place:
    """Where these settings put a daemon."""
    return Place(settings["host"], settings["zmq.requests"], settings["zmq.events"])


def usual_place() -> Place:
    """Where the user's own settings put it: the file, the environment, else the defaults.

    Raises:
        BadRequest: the settings can't be read.
    """
    return place_of(config.load(None, os.environ, ()))


async def announced(within: float) -> list[Place]:
    """The daemons that zeroconf tells of on this machine's loopback interface, in at most `within` seconds."""
    found: list[Place] = []
    try:
        async with asyncio.timeout(within), aclosing(_browsed()) as browsed:
            async for place in browsed:
                found.append(place)
                break  # the first that answers: a performer waits
    except (TimeoutError, OSError):
        return found
    return found


async def _browsed() -> AsyncGenerator[Place]:
    from zeroconf import IPVersion, ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

    names: asyncio.Queue[str] = asyncio.Queue()

    def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Added:
            names.put_nowait(name)

    responder = AsyncZeroconf(interfaces=[LOOPBACK], ip_version=IPVersion.V4Only)
    try:
        AsyncServiceBrowser(responder.zeroconf, [SERVICE], handlers=[changed])
        while True:
            info = AsyncServiceInfo(SERVICE, await names.get())
            if await info.async_request(responder.zeroconf, 1000) and (place := _place(info)) is not None:
                yield place
    finally:
        await responder.async_close()


def _place(info: Any) -> Place | None:
    """Where an announced service is; None when it is none of timbred's."""
    told = {key.decode(): (value or b"").decode() for key, value in info.properties.items()}
    ports = [told.get(name, "") for name in ("zmq.requests", "zmq.events")]
    if not all(port.isdecimal() for port in ports) or not info.parsed_addresses():
        return None
    return Place(info.parsed_addresses()[0], int(ports[0]), int(ports[1]))
