"""Binding of the daemon's ports, with errors that name the setting to change."""

import contextlib
import errno
import ipaddress
import logging
import socket
import sys
from dataclasses import dataclass

from timbred.errors import BadRequest, TimbredError

_PORT_TRIES = 50
_RECEIVE_BUFFER_BYTES = tuple(1 << power for power in range(22, 16, -1))
"""Sizes of the UDP receive buffer; the first one that the system allows is used. A larger one would increase the delay
during a flood, since all datagrams wait in one queue."""
_SO_RCVBUFFORCE = 33
_OPEN_FILES = 16384


@dataclass(frozen=True)
class Ports:
    """Numbers of the ports in use."""

    osc: int
    requests: int
    events: int
    http: int

    @property
    def settings(self) -> dict[str, int]:
        """The ports by the names of their settings."""
        return {
            "osc.port": self.osc,
            "zmq.requests": self.requests,
            "zmq.events": self.events,
            "http.port": self.http,
        }


def resolve(host: str) -> tuple[socket.AddressFamily, str]:
    """Resolve the setting `host` to a numeric address, IPv4 if it has one.

    Raises:
        BadRequest: There is no such host.
    """
    try:
        addresses = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BadRequest(
            f"host: {host!r} can't be resolved ({error}); use 127.0.0.1, or an address of this machine"
        ) from error
    addresses.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return addresses[0][0], str(addresses[0][4][0])


def is_loopback(address: str) -> bool:
    """Tell if a numeric address can be reached from this machine only."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def refused(setting: str, host: str, port: int, error: OSError) -> TimbredError:
    """Return the error for a port that can't be bound, with the remedy."""
    # Windows reports EACCES for a port that another program uses exclusively
    if error.errno == errno.EADDRINUSE or (sys.platform == "win32" and error.errno == errno.EACCES):
        return BadRequest(
            f"{setting}: port {port} is in use; another timbred may be running. "
            f"Stop it, or use a free port: timbred serve --set {setting}=0"
        )
    if error.errno == errno.EACCES:
        return BadRequest(
            f"{setting}: port {port} needs administrator rights; use one above 1023, "
            f"as in: timbred serve --set {setting}=0"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return BadRequest(f"host: {host} isn't an address of this machine; use 127.0.0.1")
    return BadRequest(f"{setting}: port {port} on {host} can't be used: {error.strerror or error}")


def tcp_listener(setting: str, host: str, port: int) -> socket.socket:
    """Return a bound TCP socket that doesn't listen yet.

    Raises:
        BadRequest: It can't be bound; names the setting and the port.
    """
    return _bind(setting, host, port, socket.SOCK_STREAM)


def osc_pair(setting: str, host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a TCP socket bound to the same port number; 0 chooses one that is free for both.

    Raises:
        BadRequest: They can't be bound; names the setting and the port.
    """
    for tries_left in reversed(range(_PORT_TRIES)):
        udp = _bind(setting, host, port, socket.SOCK_DGRAM)
        try:
            return udp, tcp_listener(setting, host, udp.getsockname()[1])
        except BadRequest:
            udp.close()
            if port != 0 or not tries_left:
                raise
    raise AssertionError


def _bind(setting: str, host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family, address = resolve(host)
    bound = socket.socket(family, kind)
    try:
        _set_reuse(bound, kind)
        bound.setblocking(False)
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        raise refused(setting, host, port, error) from error
    return bound


def _set_reuse(unbound: socket.socket, kind: socket.SocketKind) -> None:
    if sys.platform == "win32":
        # without it another program could bind the same port and get part of the datagrams
        unbound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    elif kind == socket.SOCK_STREAM:
        # a port with connections that were just closed can be bound again
        unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def enlarge_receive_buffer(udp: socket.socket) -> int:
    """Set the receive buffer to the largest size that the system allows; return its bytes."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # only an administrator may exceed the system's limit
            udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES[0])
            return udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    for size in _RECEIVE_BUFFER_BYTES:
        try:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            break
        except OSError:
            continue
    return udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


_log = logging.getLogger(__name__)


def is_beyond_loopback(host: str) -> bool:
    """Tell if ports bound to `host` can be reached from other machines.

    Raises:
        BadRequest: There is no such host.
    """
    return not is_loopback(resolve(host)[1])


def is_own_address(host: str) -> bool:
    """Tell if ports of this machine can be bound to `host`.

    Raises:
        BadRequest: There is no such host.
    """
    family, address = resolve(host)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def warn_of_open_access(host: str) -> None:
    """Log a warning about a daemon that anyone in the network can use."""
    _log.warning(
        "host is %s, and access.open is set: anyone who can reach this machine can send requests, fill its disk and "
        "read the takes; nothing is encrypted. For this machine only: --set host=127.0.0.1",
        host,
    )


def raise_file_limit() -> None:
    """Raise this process's limit of open files: strangers' connections use some until they are refused."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(OSError, ValueError):  # macOS has another, lower limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
