"""Decisions about access: what a daemon demands from clients, allowed addresses, tokens, and refused sources."""

import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from timbred.access.keys import KeyPair, TrustedKeys, check_token, keys_folder, read_own_key, read_token
from timbred.config import Config
from timbred.errors import BadRequest
from timbred.filenames import printable

_log = logging.getLogger(__name__)

MAX_SOURCES = 1024
"""Refused sources that are remembered; the least recently refused is forgotten first."""

REPORTS_PER_SECOND = 5.0
"""Newly refused sources that are told and logged per second on average: a sender of UDP can invent its address."""

MAX_BURST_REPORTS = 50.0
"""Newly refused sources that are told and logged together after a pause."""

MAX_ALLOWED_NETWORKS = 256
"""Maximum number of addresses and networks in `access.allow`."""

MAX_VERDICTS = 4096
"""Addresses whose verdict is remembered."""

COOKIE_LIFETIME_S = 30 * 24 * 3600
"""Seconds for which a browser's cookie is valid."""

LINK_LIFETIME_S = 600.0
"""Seconds for which a one-time link is valid."""

MAX_LINKS = 16
"""One-time links that are valid at the same time; the oldest becomes invalid first."""

_MAPPED_BITS = 96  # of ::ffff:0:0/96, IPv4 addresses written in IPv6
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*) *")
_COOKIE = re.compile(r"([0-9a-f]{1,12})\.([0-9a-f]{32})\.([0-9a-f]{64})")


class AllowList:
    """Addresses from which OSC is accepted: those of this machine's loopback interface, and the listed ones.

    Args:
        text: Addresses and networks, separated by spaces or commas.

    Raises:
        BadRequest: An entry is neither; names it.
    """

    def __init__(self, text: str) -> None:
        entries = text.replace(",", " ").split()
        if len(entries) > MAX_ALLOWED_NETWORKS:
            raise BadRequest(f"access.allow: {len(entries)} entries, allowed are at most {MAX_ALLOWED_NETWORKS}")
        self.networks: tuple[_Network, ...] = tuple(map(_parse_network, entries))
        self._verdicts: dict[str, bool] = {}

    def allows(self, address: str) -> bool:
        """Tell if a numeric address is allowed.

        >>> AllowList("192.168.1.0/24").allows("192.168.1.7")
        True
        """
        verdict = self._verdicts.get(address)
        if verdict is None:
            if len(self._verdicts) >= MAX_VERDICTS:
                self._verdicts.clear()
            verdict = self._verdicts[address] = self._decide(address)
        return verdict

    def _decide(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return parsed.is_loopback or any(parsed in network for network in self.networks)


def _parse_network(entry: str) -> _Network:
    try:
        network = ipaddress.ip_network(entry)
    except ValueError:
        pass
    else:
        mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
        is_mapped = mapped is not None and network.prefixlen >= _MAPPED_BITS
        return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_BITS)) if is_mapped else network
    try:
        loose = ipaddress.ip_interface(entry)
    except ValueError:
        raise BadRequest(
            f"access.allow: got {printable(entry[:80])!r}, allowed are numeric addresses and networks, "
            "as in 192.168.1.20 or 192.168.1.0/24"
        ) from None
    raise BadRequest(f"access.allow: got {entry}, which may be {loose.ip} or {loose.network}; write the one you mean")


class Denials:
    """The number of refused attempts, and the sources that were told and logged. Its size is bounded.

    Args:
        clock: Monotonic clock.
        max_sources: Sources that are remembered.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_sources: int = MAX_SOURCES) -> None:
        self.count = 0
        self._clock = clock
        self._sources: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._max_sources = max_sources
        self._reports = MAX_BURST_REPORTS
        self._counted_at = clock()

    def __len__(self) -> int:
        return len(self._sources)

    def record(self, transport: str, source: str, reason: str) -> bool:
        """Count a refused attempt; log it and return True if it is the first of its source.

        Args:
            transport: The transport's name.
            source: The source's address, without a port.
            reason: The reason for the log; contains nothing secret.
        """
        self.count += 1
        if (transport, source) in self._sources:
            self._sources.move_to_end((transport, source))
            return False
        now = self._clock()
        self._reports = min(MAX_BURST_REPORTS, self._reports + (now - self._counted_at) * REPORTS_PER_SECOND)
        self._counted_at = now
        if self._reports < 1.0:
            return False
        self._reports -= 1.0
        self._sources[transport, source] = None
        if len(self._sources) > self._max_sources:
            self._sources.popitem(last=False)
        _log.warning("access denied: %s from %s: %s; it is logged once", transport, source, reason)
        return True


class OneTimeLinks:
    """Codes of links that let one browser in. They are valid once, for ten minutes, and until the daemon stops."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._codes: OrderedDict[str, float] = OrderedDict()

    def make(self) -> str:
        """Return a new code."""
        code = secrets.token_urlsafe(24)
        self._codes[code] = self._clock() + LINK_LIFETIME_S
        while len(self._codes) > MAX_LINKS:
            self._codes.popitem(last=False)
        return code

    def is_valid(self, code: str) -> bool:
        """Tell if a code can still be used."""
        return self._find(code) is not None

    def use(self, code: str) -> bool:
        """Tell if a code can be used, and make it invalid."""
        known = self._find(code)
        if known is not None:
            del self._codes[known]
        return known is not None

    def _find(self, code: str) -> str | None:
        now = self._clock()
        for known in [known for known, end in self._codes.items() if end <= now]:
            del self._codes[known]
        return next((known for known in list(self._codes) if is_equal(code, known)), None)


def is_equal(text: str, secret: str) -> bool:
    """Tell if a text is a secret, in a time that doesn't depend on the position of the first difference."""
    return hmac.compare_digest(_hash(text), _hash(secret))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def read_bearer(header: str) -> str | None:
    """Return the token in an Authorization header; None if it has another form.

    >>> read_bearer("Bearer abc=")
    'abc='
    """
    match = _BEARER.fullmatch(header)
    return None if match is None else match[1]


def make_cookie(token: str, now_s: float) -> str:
    """Return a cookie's value: its end in seconds since 1970, a random number, and their authentication code."""
    signed = f"{int(now_s) + COOKIE_LIFETIME_S:x}.{secrets.token_hex(16)}"
    return f"{signed}.{_sign(token, signed)}"


def is_cookie(value: str, token: str, now_s: float) -> bool:
    """Tell if a cookie's value was made for this token, and isn't at its end."""
    match = _COOKIE.fullmatch(value)
    if match is None:
        return False
    is_signed = hmac.compare_digest(match[3], _sign(token, f"{match[1]}.{match[2]}"))
    return is_signed and now_s < int(match[1], 16) <= now_s + 2 * COOKIE_LIFETIME_S


def _sign(token: str, text: str) -> str:
    return hmac.new(token.encode(), f"timbred cookie {text}".encode(), "sha256").hexdigest()


def read_cookie(header: str, name: str) -> str | None:
    """Return the value of a cookie in a Cookie header; None if it has none of this name.

    >>> read_cookie("a=1; timbred=xyz", "timbred")
    'xyz'
    """
    for pair in header.split(";"):
        key, equals, value = pair.strip().partition("=")
        if equals and key == name:
            return value
    return None


@dataclass(frozen=True)
class AccessRules:
    """The demands of a daemon that can be reached from other machines.

    Attributes:
        own: The daemon's key pair.
        trusted: The public keys that may connect by ZeroMQ.
        token: The token for HTTP.
        allow: The addresses whose OSC is accepted.
        denials: The refused attempts.
        links: The one-time links for browsers.
    """

    own: KeyPair
    trusted: TrustedKeys
    token: str = field(repr=False)
    allow: AllowList
    denials: Denials = field(default_factory=Denials)
    links: OneTimeLinks = field(default_factory=OneTimeLinks)


def read_access_token(config: Config) -> str:
    """Return the token: the setting, or the file in the folder of keys; empty if there is none.

    Raises:
        BadRequest: It can't be used.
    """
    setting = str(config["access.token"])
    return check_token(setting) if setting else read_token(keys_folder())


def access_rules(config: Config) -> AccessRules:
    """Return what a daemon with these settings demands beyond loopback.

    Raises:
        BadRequest: Something is missing, or a file or a setting can't be used; the message says what to do.
    """
    folder = keys_folder()
    own = read_own_key(folder)
    token = read_access_token(config)
    allow = AllowList(config["access.allow"])
    missing: list[str] = []
    if own is None:
        missing.append("ZeroMQ has no key (run: timbred keys make)")
    if not token:
        missing.append("HTTP has no token (`timbred keys make` makes one, or set access.token)")
    if not allow.networks:
        missing.append("OSC has no allowed address (set access.allow, as in 192.168.1.20; 127.0.0.1 for none)")
    if own is None or missing:
        raise BadRequest(
            f"host: {config['host']} can be reached from other machines, and {'; '.join(missing)}. To let in anybody "
            "who can reach this machine: --set access.open=true. For this machine only: --set host=127.0.0.1"
        )
    return AccessRules(own, TrustedKeys(folder, own), token, allow)
