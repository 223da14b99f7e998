"""mDNS announcement of the daemon's services: `_oscjson._tcp` (OSCQuery) and `_osc._udp`.

It is announced only on the interfaces that its ports are bound to: with 127.0.0.1 on the loopback interface only.
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

OSCQUERY_SERVICE_TYPE = "_oscjson._tcp.local."
OSC_SERVICE_TYPE = "_osc._udp.local."
ZMQ_REQUESTS_KEY = "zmq.requests"
ZMQ_EVENTS_KEY = "zmq.events"
"""Keys of the TXT record of `OSCQUERY_SERVICE_TYPE` with the ports of these settings, for `timbred.client`."""


@dataclass(frozen=True)
class AnnouncedAddress:
    """The numeric address that a daemon is bound to, and its ports."""

    address: str
    osc: int
    http: int
    zmq_requests: int
    zmq_events: int

    @property
    def is_on_all_interfaces(self) -> bool:
        """True if it is bound to every interface."""
        return ipaddress.ip_address(self.address).is_unspecified


def instance_name(name: str, http_port: int) -> str:
    """Return the name of a daemon's service: with its HTTP port if that isn't the default one.

    Two daemons on one machine need different names: mDNS responders on one machine may not receive each other's
    probes, so they can't resolve a conflict.

    >>> instance_name("timbred", 7773), instance_name("timbred", 8001)
    ('timbred', 'timbred-8001')
    """
    return name if http_port == NAMED["http.port"].default else f"{name}-{http_port}"


class MdnsAnnouncement:
    """The announcement of one daemon. `start` doesn't wait for the network; `stop` withdraws it."""

    def __init__(self, name: str, endpoint: AnnouncedAddress) -> None:
        self._name = instance_name(name, endpoint.http)
        self._endpoint = endpoint
        self._zeroconf: AsyncZeroconf | None = None
        self._announcing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Announce in the background. A failure is logged only."""
        self._announcing = asyncio.get_running_loop().create_task(self._announce(), name="announce")

    async def is_announced(self) -> bool:
        """Wait until the daemon is announced; return False if it can't be."""
        if self._announcing is not None:
            await asyncio.wait([self._announcing])
        return self._zeroconf is not None

    async def stop(self, timeout_s: float) -> None:
        """Withdraw the announcement, in at most `timeout_s` seconds."""
        if self._announcing is not None:
            self._announcing.cancel()
            await asyncio.wait([self._announcing])
        if self._zeroconf is not None:
            zeroconf, self._zeroconf = self._zeroconf, None
            try:
                await asyncio.wait_for(zeroconf.async_close(), timeout_s)
            except (TimeoutError, OSError) as error:
                log.warning("zeroconf: the announcement can't be withdrawn: %s", error or "no answer")

    async def _announce(self) -> None:
        try:
            self._zeroconf = await self._open()
            await asyncio.gather(
                *(self._register(self._zeroconf, info) for info in _services(self._name, self._endpoint))
            )
        except Exception as error:  # noqa: BLE001  the daemon works without being announced
            log.warning("zeroconf: not announced (%s); programs on this machine can still use the default ports", error)
            await self._discard()
        else:
            where = "on every interface" if self._endpoint.is_on_all_interfaces else f"on {self._endpoint.address}"
            log.info("zeroconf: announced as %s %s", self._name, where)

    @staticmethod
    async def _register(zeroconf: "AsyncZeroconf", info: "ServiceInfo") -> None:
        await (await zeroconf.async_register_service(info, allow_name_change=True))

    async def _open(self) -> "AsyncZeroconf":
        # importing the library takes a tenth of a second, during which the event loop must not block
        zeroconf, asyncio_ = await asyncio.to_thread(_import_zeroconf)
        chosen = zeroconf.InterfaceChoice.All if self._endpoint.is_on_all_interfaces else [self._endpoint.address]
        version = zeroconf.IPVersion.V6Only if ":" in self._endpoint.address else zeroconf.IPVersion.V4Only
        return asyncio_.AsyncZeroconf(interfaces=chosen, ip_version=version)

    async def _discard(self) -> None:
        zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is not None:
            with contextlib.suppress(OSError):  # it is closed because the network failed
                await zeroconf.async_close()


def _import_zeroconf():
    import zeroconf
    import zeroconf.asyncio

    return zeroconf, zeroconf.asyncio


def _services(name: str, endpoint: AnnouncedAddress) -> "tuple[ServiceInfo, ServiceInfo]":
    from zeroconf import ServiceInfo

    addresses = _own_addresses(":" in endpoint.address) if endpoint.is_on_all_interfaces else [endpoint.address]
    server = f"timbred-{endpoint.http}.local."  # unique to the daemon: two of them may run on one machine
    ports = {"txtvers": "1", ZMQ_REQUESTS_KEY: str(endpoint.zmq_requests), ZMQ_EVENTS_KEY: str(endpoint.zmq_events)}
    return (
        ServiceInfo(
            OSCQUERY_SERVICE_TYPE,
            f"{name}.{OSCQUERY_SERVICE_TYPE}",
            port=endpoint.http,
            properties=ports,
            server=server,
            parsed_addresses=addresses,
        ),
        ServiceInfo(
            OSC_SERVICE_TYPE,
            f"{name}.{OSC_SERVICE_TYPE}",
            port=endpoint.osc,
            properties={"txtvers": "1", "version": "1.1", "types": "ifhdsTF"},
            server=server,
            parsed_addresses=addresses,
        ),
    )


def _own_addresses(version_6: bool) -> list[str]:
    """Return the addresses of this machine, without loopback ones if it has others."""
    import ifaddr

    texts = [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    addresses = [text for text in texts if (":" in text) == version_6]
    return [text for text in addresses if not ipaddress.ip_address(text).is_loopback] or addresses
