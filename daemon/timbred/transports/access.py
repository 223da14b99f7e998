"""Says so when others than this machine can reach the daemon."""

import logging

from timbred.transports.ports import is_loopback, resolve

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
