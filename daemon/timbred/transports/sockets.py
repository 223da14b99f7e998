"""Binding the daemon's ports, with an error that says which setting to change."""

import contextlib
import errno
import ipaddress
import logging
import socket
import sys
from dataclasses import dataclass

from timbred.errors import BadRequest, TimbredError

_TRIES = 50
_RECEIVE_BUFFERS = tuple(1 << power for power in range(22, 16, -1))
"""Bytes of room for datagrams, the first that the system allows. More would not be better: beside a flood everyone's
datagrams wait behind all that the room holds."""
_SO_RCVBUFFORCE = 33


@dataclass(frozen=True)
class Ports:
    """The ports in use, as numbers."""

    osc: int
    requests: int
    events: int
    http: int

    @property
    def settings(self) -> dict[str, int]:
        """The same by the names of their settings."""
        return {
            "osc.port": self.osc,
            "zmq.requests": self.requests,
            "zmq.events": self.events,
            "http.port": self.http,
        }


def resolve(host: str) -> tuple[socket.AddressFamily, str]:
    """The numeric address of the setting `host`.

    Raises:
        BadRequest: no such host.
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BadRequest(
            f"host: there is no {host!r} ({error}); use 127.0.0.1, or an address of this machine"
        ) from error
    found.sort(key=lambda one: one[0] != socket.AF_INET)
    return found[0][0], str(found[0][4][0])


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches a numeric address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def refused(setting: str, host: str, port: int, error: OSError) -> TimbredError:
    """Why a port can't be had, and what to do."""
    # Windows says "not allowed" of a port that another program holds for itself
    if error.errno == errno.EADDRINUSE or (sys.platform == "win32" and error.errno == errno.EACCES):
        return BadRequest(
            f"{setting}: port {port} is taken: is another timbred running? "
            f"End it, or take a free port: timbred serve --set {setting}=0"
        )
    if error.errno == errno.EACCES:
        return BadRequest(
            f"{setting}: port {port} needs an administrator's rights; take one above 1023, "
            f"as in: timbred serve --set {setting}=0"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return BadRequest(f"host: {host} is no address of this machine; use 127.0.0.1")
    return BadRequest(f"{setting}: port {port} on {host} can't be used: {error.strerror or error}")


def tcp_listener(setting: str, host: str, port: int) -> socket.socket:
    """A bound TCP socket, not listening yet.

    Raises:
        BadRequest: naming the setting and the port.
    """
    return _bound(setting, host, port, socket.SOCK_STREAM)


def osc_pair(setting: str, host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on the same port number; port 0 finds one that both can have.

    Raises:
        BadRequest: naming the setting and the port.
    """
    for left in reversed(range(_TRIES)):
        udp = _bound(setting, host, port, socket.SOCK_DGRAM)
        try:
            return udp, tcp_listener(setting, host, udp.getsockname()[1])
        except BadRequest:
            udp.close()
            if port != 0 or not left:
                raise
    raise AssertionError


def _bound(setting: str, host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family, address = resolve(host)
    made = socket.socket(family, kind)
    try:
        _claim(made, kind)
        made.setblocking(False)
        made.bind((address, port))
    except OSError as error:
        made.close()
        raise refused(setting, host, port, error) from error
    return made


def _claim(made: socket.socket, kind: socket.SocketKind) -> None:
    if sys.platform == "win32":
        # without it another program could take the same port and half of the datagrams
        made.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    elif kind == socket.SOCK_STREAM:
        # a port whose last connections have just been closed can be bound again at once
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def enlarge_receive_buffer(udp: socket.socket) -> int:
    """Let as many datagrams wait as the system allows; returns the bytes it gave."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # only an administrator may go over the system's limit
            udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFERS[0])
            return udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    for size in _RECEIVE_BUFFERS:
        try:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            break
        except OSError:
            continue
    return udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


_log = logging.getLogger(__name__)


def warn_beyond_loopback(host: str) -> None:
    """Warn in the log when `host` isn't a loopback address.

    Raises:
        BadRequest: no such host.
    """
    _, address = resolve(host)
    if not is_loopback(address):
        _log.warning(
            "host is %s: anybody who reaches this machine can send requests, fill its disk and read the takes; "
            "nothing is encrypted. For this machine alone: --set host=127.0.0.1",
            host,
        )
