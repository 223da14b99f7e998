"""`timbred keys`: the keys and the token for access from other machines."""

import http.client
import json
import socket
import sys
from pathlib import Path
from typing import Any

from timbred import errors
from timbred.access.keys import (
    KeyPair,
    TrustedKey,
    check_key_name,
    hexadecimal,
    keys_folder,
    make_key_pair,
    make_token,
    parse_public_key,
    read_own_key,
    read_token,
    read_trusted_key,
    read_trusted_keys,
    remove_trusted_key,
    write_own_key,
    write_token,
    write_trusted_key,
)
from timbred.access.policy import read_access_token
from timbred.cli.serve import settings_from
from timbred.cli.terminal import show
from timbred.client.connection import reachable
from timbred.config import Config
from timbred.transports.sockets import is_loopback, resolve

LINK_TIMEOUT_S = 5.0
"""Seconds in which the running daemon has to answer."""

MAX_ANSWER_BYTES = 65536
"""Bytes of an answer that are read."""

COLUMNS = {"name": "name", "key": "public key", "host": "host", "remark": "remark"}


def keys(as_json: bool) -> None:
    """Print this user's public key and the trusted keys.

    Raises:
        BadRequest: A key file has wrong permissions or content; the message has the remedy.
    """
    folder = keys_folder()
    own = read_own_key(folder)
    rows: list[dict[str, Any]] = []
    if own is not None:
        has_token = bool(read_token(folder))
        remark = "this machine's, to be trusted by others" + ("" if has_token else "; no token")
        rows.append({"name": "own key", "kind": "own", "key": hexadecimal(own.public), "host": "", "remark": remark})
    rows += [
        {
            "name": key.name,
            "kind": "trusted",
            "key": hexadecimal(key.public),
            "host": key.host or key.name,
            "remark": "",
        }
        for key in read_trusted_keys(folder)
    ]
    show(rows, COLUMNS, as_json, "no keys yet: timbred keys make")


def make(replace: bool) -> None:
    """Make the key pair and the token, unless they exist, and print the public key.

    Raises:
        BadRequest: Both exist, and `replace` is False.
    """
    folder = keys_folder()
    own, token = (None, "") if replace else (read_own_key(folder), read_token(folder))
    if own is not None and token:
        raise errors.BadRequest(
            f"{folder} has a key pair and a token already; `timbred keys` shows the key, and "
            "`timbred keys make --replace` makes new ones"
        )
    if own is None:
        own = make_key_pair()
        write_own_key(folder, own, replace)
    if not token:
        write_token(folder, make_token(), replace)
    _print_own(own)


def _print_own(own: KeyPair) -> None:
    print("public key of this machine; on the other machine, run:", file=sys.stderr)
    print(f"  timbred keys trust {_own_name()} {hexadecimal(own.public)}", file=sys.stderr)
    print(hexadecimal(own.public))


def _own_name() -> str:
    """Return this machine's name if it can be the name of a key."""
    name = socket.gethostname().partition(".")[0]
    try:
        return check_key_name(name)
    except errors.BadRequest:
        return "NAME"


def trust(name: str, key: str | None, host: str | None, replace: bool) -> None:
    """Store a trusted key, or change its host, and print its file's path.

    Raises:
        BadRequest: The key, the name or the host isn't allowed, or NAME has another key.
    """
    folder = keys_folder()
    path = folder / "trusted" / f"{check_key_name(name)}.key"
    if key is None and host is not None and path.exists():
        known = read_trusted_key(path)
        print(write_trusted_key(folder, TrustedKey(name, known.public, host), replace=True))
        return
    public = parse_public_key(_read_key(name) if key is None else key)
    own = read_own_key(folder)
    if own is not None and own.public == public:
        raise errors.BadRequest(f"{hexadecimal(public)} is this machine's own key; give the one of the other machine")
    same = next((trusted for trusted in read_trusted_keys(folder) if trusted.public == public), None)
    if same is not None and same.name != name:
        raise errors.BadRequest(f"this key is trusted already, as {same.name!r}: timbred keys remove {same.name}")
    print(write_trusted_key(folder, TrustedKey(name, public, host or ""), replace or same is not None))


def _read_key(name: str) -> str:
    """Read a key from standard input."""
    if sys.stdin is None or sys.stdin.isatty():
        raise errors.BadRequest(
            f"key: a public key is required, as in `timbred keys trust {name} KEY`; `timbred keys make` prints it on "
            "the other machine"
        )
    return sys.stdin.readline(200)


def remove(name: str) -> None:
    """Remove a trusted key.

    Raises:
        BadRequest: There is none of this name.
    """
    remove_trusted_key(keys_folder(), name)


def token(file: Path | None, flags: list[str]) -> None:
    """Print the token.

    Raises:
        BadRequest: There is none, or it can't be used.
    """
    print(_token(settings_from(file, flags)))


def _token(config: Config) -> str:
    known = read_access_token(config)
    if not known:
        raise errors.BadRequest("there is no token: make one with `timbred keys make`, or set access.token")
    return known


def link(host: str | None, file: Path | None, flags: list[str]) -> None:
    """Request a one-time link from the running daemon, and print it.

    Raises:
        ShuttingDown: No daemon answers.
        AccessDenied: It has another token.
        BadRequest: It demands no token, or there is none here.
    """
    config = settings_from(file, flags)
    address, port = reachable(config["host"]), int(config["http.port"])
    path = request_link(address, port, _token(config))
    shown = host or (_own_address() if is_loopback(resolve(address)[1]) else address)
    print(f"http://{f'[{shown}]' if ':' in shown else shown}:{port}{path}")


def request_link(host: str, port: int, token: str) -> str:
    """Request a one-time link from a daemon; return its path.

    Raises:
        ShuttingDown, AccessDenied, BadRequest: As `link`.
    """
    connection = http.client.HTTPConnection(host, port, timeout=LINK_TIMEOUT_S)
    try:
        connection.request("POST", "/access/links", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        content = answer.read(MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise errors.ShuttingDown(
            f"no timbred answers at {host}, HTTP port {port} ({error}); start it with: timbred serve"
        ) from error
    finally:
        connection.close()
    if answer.status == 401:
        raise errors.AccessDenied(f"timbred at {host} has another token; set access.token to the one that it uses")
    if answer.status != 200:
        raise errors.BadRequest(f"timbred at {host} demands no token: open http://{host}:{port}/ in a browser")
    return str(json.loads(content)["path"])


def _own_address() -> str:
    """Return the address of this machine that others in its network probably reach; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
