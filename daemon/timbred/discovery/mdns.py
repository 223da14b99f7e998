"""Tells the network, by zeroconf, where the daemon is: `_oscjson._tcp` (OSCQuery) and `_osc._udp`.

Only where the ports can be reached: bound to 127.0.0.1, the daemon is announced on the loopback interface alone.
Source: RFC 6762 and RFC 6763; the OSCQuery proposal for the first service, opensoundcontrol.org for the second.
"""

import asyncio
import contextlib
import ipaddress
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from timbred.config import NAMED

if TYPE_CHECKING:
    from zeroconf import ServiceInfo
    from zeroconf.asyncio import AsyncZeroconf

log = logging.getLogger(__name__)

OSCQUERY = "_oscjson._tcp.local."
OSC = "_osc._udp.local."
ZMQ_REQUESTS = "zmq.requests"
ZMQ_EVENTS = "zmq.events"
"""Keys of OSCQUERY's TXT record: the ports of those names, for `timbred.client`."""


@dataclass(frozen=True)
class AnnouncedAddress:
    """Where a daemon listens: the numeric address that it is bound to, and its ports."""

    address: str
    osc: int
    http: int
    zmq_requests: int
    zmq_events: int

    @property
    def everywhere(self) -> bool:
        """Whether it is bound to every interface."""
        return ipaddress.ip_address(self.address).is_unspecified


def instance_name(name: str, http_port: int) -> str:
    """What a daemon is called: one that isn't at the usual port adds its own, as two may run on one machine.

    Responders on one machine share a socket's port and may not hear each other's claims, so that they can't settle it.

    >>> instance_name("timbred", 7773), instance_name("timbred", 8001)
    ('timbred', 'timbred-8001')
    """
    return name if http_port == NAMED["http.port"].default else f"{name}-{http_port}"


class MdnsAnnouncement:
    """Begun by `start`, which doesn't wait for the network, and taken back by `stop`."""

    def __init__(self, name: str, place: AnnouncedAddress) -> None:
        self._name = instance_name(name, place.http)
        self._place = place
        self._zeroconf: AsyncZeroconf | None = None
        self._telling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Announce in the background. A network that can't be told is logged; it ends nothing."""
        self._telling = asyncio.get_running_loop().create_task(self._tell(), name="announce")

    async def told(self) -> bool:
        """Wait until it is announced; False when it can't be."""
        if self._telling is not None:
            await asyncio.wait([self._telling])
        return self._zeroconf is not None

    async def stop(self, patience: float) -> None:
        """Take it back, so that nobody is shown a daemon that has gone; gives up after `patience` seconds."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
        if self._zeroconf is not None:
            zeroconf, self._zeroconf = self._zeroconf, None
            try:
                await asyncio.wait_for(zeroconf.async_close(), patience)
            except (TimeoutError, OSError) as error:
                log.warning("zeroconf: it can't be said that the daemon ends: %s", error or "no answer")

    async def _tell(self) -> None:
        try:
            self._zeroconf = await self._open()
            await asyncio.gather(*(self._register(self._zeroconf, info) for info in _services(self._name, self._place)))
        except Exception as error:  # noqa: BLE001  whatever the network does, the daemon works without being announced
            log.warning(
                "zeroconf: not announced (%s); programs on this machine find the usual ports all the same", error
            )
            await self._drop()
        else:
            where = "on every interface" if self._place.everywhere else f"on {self._place.address}"
            log.info("zeroconf: announced as %s %s", self._name, where)

    @staticmethod
    async def _register(zeroconf: "AsyncZeroconf", info: "ServiceInfo") -> None:
        await (await zeroconf.async_register_service(info, allow_name_change=True))

    async def _open(self) -> "AsyncZeroconf":
        # the library takes a tenth of a second to be read: nobody is kept waiting meanwhile
        zeroconf, asyncio_ = await asyncio.to_thread(_libraries)
        chosen = zeroconf.InterfaceChoice.All if self._place.everywhere else [self._place.address]
        version = zeroconf.IPVersion.V6Only if ":" in self._place.address else zeroconf.IPVersion.V4Only
        return asyncio_.AsyncZeroconf(interfaces=chosen, ip_version=version)

    async def _drop(self) -> None:
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is not None:
            with contextlib.suppress(OSError):  # it is given up because of its network
                await zeroconf.async_close()


def _libraries():
    import zeroconf
    import zeroconf.asyncio

    return zeroconf, zeroconf.asyncio


def _services(name: str, place: AnnouncedAddress) -> "tuple[ServiceInfo, ServiceInfo]":
    from zeroconf import ServiceInfo

    addresses = _own_addresses(":" in place.address) if place.everywhere else [place.address]
    server = f"timbred-{place.http}.local."  # one for each daemon: two of them may share a machine
    found = {"txtvers": "1", ZMQ_REQUESTS: str(place.zmq_requests), ZMQ_EVENTS: str(place.zmq_events)}
    return (
        ServiceInfo(
            OSCQUERY, f"{name}.{OSCQUERY}", port=place.http, properties=found, server=server, parsed_addresses=addresses
        ),
        ServiceInfo(
            OSC,
            f"{name}.{OSC}",
            port=place.osc,
            properties={"txtvers": "1", "version": "1.1", "types": "ifhdsTF"},
            server=server,
            parsed_addresses=addresses,
        ),
    )


def _own_addresses(version_6: bool) -> list[str]:
    """The addresses that others reach this machine at; its loopback's when it has no other."""
    import ifaddr

    texts = [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    found = [text for text in texts if (":" in text) == version_6]
    return [text for text in found if not ipaddress.ip_address(text).is_loopback] or found
