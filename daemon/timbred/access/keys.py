"""Files with the CURVE keys and the token, in the folder `keys` of the user's configuration folder.

    own.key             this user's key pair: the daemon's, and that of all clients of the user on this machine
    token               the token for HTTP, unless the setting `access.token` has one
    trusted/NAME.key    the public key of another machine, and the host whose daemon has it

The key files are TOML. Keys are in Z85, ZeroMQ's encoding of 32 bytes as 40 characters; commands print public keys as
64 hexadecimal digits, which no shell changes. Every file has to have the mode 0600 and to belong to this user. Windows
has no such modes; there the folder inherits the protection of the user's profile.
"""

import binascii
import contextlib
import logging
import os
import re
import secrets
import stat
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85

from timbred.config import parsed
from timbred.disk import describe_user, rename_to_free_name, user_folder
from timbred.errors import AccessDenied, BadRequest, from_foreign
from timbred.filenames import name_fault, printable

_log = logging.getLogger(__name__)

MAX_KEY_FILE_BYTES = 4096
"""Maximum size of a key file."""

MAX_TRUSTED_KEYS = 1000
"""Maximum number of trusted keys."""

MIN_TOKEN_CHARACTERS, MAX_TOKEN_CHARACTERS = 16, 256
"""Limits of a token's length."""

STAMP_RESOLUTION_NS = 50_000_000
"""Nanoseconds within which two changes of a folder may have the same time of modification."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST_NAME = re.compile(r"[A-Za-z0-9.:%_-]{1,253}")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_Z85_KEY_CHARACTERS, _HEX_KEY_CHARACTERS = 40, 64


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair in Z85."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class TrustedKey:
    """A public key in Z85, its name, and the host of the daemon that has it (empty: the name is the host)."""

    name: str
    public: bytes
    host: str = ""

    def is_of(self, host: str) -> bool:
        """Tell if the daemon at this host has this key."""
        return host.lower() == (self.host or self.name).lower()


@dataclass(frozen=True)
class CurveKeys:
    """Keys of a client's connection in Z85: its own pair, and the daemon's public key.

    Example:
        CurveKeys(public, secret, server), with the values of `public` and `secret` in `own.key`.
    """

    public: bytes
    secret: bytes = field(repr=False)
    server: bytes

    def apply_to(self, socket: zmq.Socket[Any]) -> None:
        """Let a socket use these keys for its later connections."""
        socket.set(zmq.CURVE_PUBLICKEY, self.public)
        socket.set(zmq.CURVE_SECRETKEY, self.secret)
        socket.set(zmq.CURVE_SERVERKEY, self.server)


def keys_folder() -> Path:
    """Return the path of the folder of keys, which may not exist.

    Raises:
        BadRequest: The user has no home folder.
    """
    folder = user_folder("config")
    if folder is None:
        raise BadRequest(
            f"keys: {describe_user()} has no home folder, so there is no place for keys; set HOME or XDG_CONFIG_HOME"
        )
    return folder / "keys"


def parse_public_key(text: str) -> bytes:
    """Return a public key in Z85 from its 64 hexadecimal digits, or from Z85.

    >>> parse_public_key("00" * 32)
    b'0000000000000000000000000000000000000000'

    Raises:
        BadRequest: It is neither.
    """
    text = text.strip()
    try:
        if len(text) == _HEX_KEY_CHARACTERS:
            return z85.encode(binascii.unhexlify(text))
        if len(text) == _Z85_KEY_CHARACTERS and text.isascii():
            key = text.encode()
            if len(z85.decode(key)) == 32 and z85.encode(z85.decode(key)) == key:
                return key
    except (ValueError, KeyError, IndexError, OverflowError, ArithmeticError):
        pass
    raise BadRequest(
        f"key: got {printable(text[:80])!r}, allowed are the 64 hexadecimal digits that `timbred keys` prints on the "
        "other machine (or 40 characters in Z85)"
    )


def hexadecimal(public: bytes) -> str:
    """Return a key in Z85 as 64 hexadecimal digits."""
    return z85.decode(public).hex()


def make_key_pair() -> KeyPair:
    """Return a new key pair."""
    return KeyPair(*zmq.curve_keypair())


def make_token() -> str:
    """Return a new token with 192 random bits."""
    return secrets.token_urlsafe(24)


def check_token(text: str) -> str:
    """Return a token if it is valid.

    Raises:
        BadRequest: It isn't; the message doesn't contain it.
    """
    if not MIN_TOKEN_CHARACTERS <= len(text) <= MAX_TOKEN_CHARACTERS or not _TOKEN.fullmatch(text):
        raise BadRequest(
            f"access.token: this token of {len(text)} characters can't be used; allowed are {MIN_TOKEN_CHARACTERS} to "
            f"{MAX_TOKEN_CHARACTERS} letters, digits and . _ ~ + / - (= at the end). `timbred keys make` makes one"
        )
    return text


def read_own_key(folder: Path) -> KeyPair | None:
    """Return this user's key pair; None if there is none.

    Raises:
        BadRequest: The file has wrong permissions or content; the message has the remedy.
    """
    path = folder / "own.key"
    content = _read_private(path)
    if content is None:
        return None
    table = _table(path, content)
    pair = KeyPair(_key_of(path, table, "public"), _key_of(path, table, "secret"))
    if zmq.curve_public(pair.secret) != pair.public:
        raise _damaged(path, "its public key doesn't belong to its secret key")
    return pair


def read_token(folder: Path) -> str:
    """Return the token in the folder of keys; empty if there is none.

    Raises:
        BadRequest: The file has wrong permissions or content; the message has the remedy.
    """
    path = folder / "token"
    content = _read_private(path)
    if content is None:
        return ""
    try:
        return check_token(content.decode("ascii").strip())
    except (UnicodeDecodeError, BadRequest):
        raise _damaged(path, "it contains no token") from None


def read_trusted_key(path: Path) -> TrustedKey:
    """Read one trusted key.

    Raises:
        BadRequest: The file is missing, or has wrong permissions or content; the message has the remedy.
    """
    content = _read_private(path)
    if content is None:
        raise BadRequest(f"the key file {printable(str(path))} doesn't exist")
    table = _table(path, content)
    host = table.get("host", "")
    if not isinstance(host, str) or (host and not _HOST_NAME.fullmatch(host)):
        raise _damaged(path, "its host isn't a host name or an address")
    return TrustedKey(path.stem, _key_of(path, table, "public"), host)


def trusted_files(folder: Path) -> list[Path]:
    """Return the files of trusted keys in the folder of keys, by name; empty if there are none.

    Raises:
        BadRequest: The folder can't be read, or others can write into it.
    """
    trusted = folder / "trusted"
    try:
        _check_folder(trusted)
        return sorted(file for file in trusted.iterdir() if file.suffix == ".key" and _KEY_NAME.fullmatch(file.stem))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(trusted, error) from error


def read_trusted_keys(folder: Path) -> list[TrustedKey]:
    """Return all trusted keys, by name.

    Raises:
        BadRequest: One of them has wrong permissions or content; the message has the remedy.
    """
    return [read_trusted_key(file) for file in trusted_files(folder)]


class TrustedKeys:
    """The public keys that may connect: the trusted ones and this user's own. Changes of the folder apply at once.

    Raises:
        BadRequest: As `read_trusted_keys`.
    """

    def __init__(self, folder: Path, own: KeyPair) -> None:
        self._folder = folder
        self._own = own
        self._stamp: tuple[int, int] | None = None
        self._is_settled = False
        self._names: dict[bytes, str] = {}
        self._reported: set[str] = set()
        self._load(read_trusted_keys(folder), self._new_stamp())

    @property
    def names(self) -> list[str]:
        """Names of the trusted keys, without this user's own."""
        self._refresh()
        return sorted(name for key, name in self._names.items() if key != z85.decode(self._own.public))

    def name_of(self, public: bytes) -> str | None:
        """Return the name of a public key of 32 bytes; None if it isn't trusted."""
        self._refresh()
        return self._names.get(public)

    def _refresh(self) -> None:
        """Read the folder again if it has changed; a file with a fault is reported once, and its key isn't trusted."""
        stamp = self._new_stamp()
        if stamp == self._stamp and self._is_settled:
            return
        trusted: list[TrustedKey] = []
        try:
            for file in trusted_files(self._folder):
                try:
                    trusted.append(read_trusted_key(file))
                except BadRequest as error:
                    self._report(error)
        except BadRequest as error:
            self._report(error)
        self._load(trusted, stamp)

    def _report(self, error: BadRequest) -> None:
        if error.message not in self._reported and len(self._reported) < MAX_TRUSTED_KEYS:
            self._reported.add(error.message)
            _log.warning("%s", error)

    def _load(self, trusted: list[TrustedKey], stamp: tuple[int, int] | None) -> None:
        self._names = {z85.decode(key.public): key.name for key in trusted}
        self._names[z85.decode(self._own.public)] = "this machine"
        self._stamp = stamp
        # a later change within the resolution of the file system's clock has the same stamp
        self._is_settled = stamp is None or time.time_ns() - stamp[0] > STAMP_RESOLUTION_NS

    def _new_stamp(self) -> tuple[int, int] | None:
        try:
            state = (self._folder / "trusted").stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_ino


def write_own_key(folder: Path, pair: KeyPair, replace: bool = False) -> Path:
    """Write this user's key pair; return the file's path.

    Raises:
        BadRequest: There is one, and `replace` is False.
        TimbredError: It can't be written.
    """
    text = (
        "# The CURVE key pair of this user on this machine. Keep this file private, and don't copy it: every machine "
        f'makes its own.\npublic = "{pair.public.decode()}"\nsecret = "{pair.secret.decode()}"\n'
    )
    return _write_private(folder / "own.key", text, replace, "timbred keys make --replace makes a new one")


def write_token(folder: Path, token: str, replace: bool = False) -> Path:
    """Write the token; return the file's path.

    Raises:
        BadRequest: There is one, and `replace` is False.
        TimbredError: It can't be written.
    """
    return _write_private(folder / "token", token + "\n", replace, "timbred keys make --replace makes a new one")


def write_trusted_key(folder: Path, key: TrustedKey, replace: bool = False) -> Path:
    """Write a trusted key; return the file's path.

    Raises:
        BadRequest: The name or the host isn't allowed, there are too many keys, or the name has a key and `replace` is
            False.
        TimbredError: It can't be written.
    """
    path = folder / "trusted" / f"{check_key_name(key.name)}.key"
    if key.host and not _HOST_NAME.fullmatch(key.host):
        raise BadRequest(f"--host: got {printable(key.host[:80])!r}, allowed is the name or address of a host")
    if len(trusted_files(folder)) >= MAX_TRUSTED_KEYS:
        raise BadRequest(f"{MAX_TRUSTED_KEYS} keys are trusted already; remove one with: timbred keys remove NAME")
    text = f'public = "{key.public.decode()}"\n' + (f'host = "{key.host}"\n' if key.host else "")
    return _write_private(path, text, replace, f"timbred keys trust {key.name} KEY --replace replaces it")


def remove_trusted_key(folder: Path, name: str) -> None:
    """Remove a trusted key.

    Raises:
        BadRequest: There is none of this name; the message lists all names.
        TimbredError: It can't be removed.
    """
    path = folder / "trusted" / f"{check_key_name(name)}.key"
    try:
        path.unlink()
    except FileNotFoundError:
        names = ", ".join(file.stem for file in trusted_files(folder)) or "none"
        raise BadRequest(f"no trusted key is called {name!r}; trusted are: {names}") from None
    except OSError as error:
        raise from_foreign(error) from error


def check_key_name(name: str) -> str:
    """Return the name of a trusted key if it can be a file's name.

    Raises:
        BadRequest: It can't.
    """
    if not _KEY_NAME.fullmatch(name):
        raise BadRequest(
            f"name: got {printable(name[:80])!r}, allowed are 1 to 64 letters, digits, dots, dashes and underscores; "
            "give an address with colons by --host"
        )
    if fault := name_fault(f"{name}.key"):
        raise BadRequest(f"name: {fault}; choose another name for the key")
    return name


def keys_for(host: str) -> CurveKeys | None:
    """Return the keys for the daemon at a host: the trusted key that is for it, with this user's own pair.

    None if there is no such key. The addresses 0.0.0.0 and :: stand for a daemon of this user on this machine.

    Raises:
        AccessDenied: A key file can't be used, or there is a key for the host but no own pair.
    """
    if host in ("0.0.0.0", "::"):
        return own_keys()
    if user_folder("config") is None:
        return None
    try:
        trusted = _trusted_key_for(keys_folder(), host)
        own = None if trusted is None else read_own_key(keys_folder())
    except BadRequest as error:
        raise AccessDenied(error.message) from error
    if trusted is None:
        return None
    if own is None:
        raise AccessDenied(
            f"there is a trusted key for {host}, but no own key; run `timbred keys make` here, and there "
            "`timbred keys trust NAME KEY` with the key that it prints"
        )
    return CurveKeys(own.public, own.secret, trusted.public)


def _trusted_key_for(folder: Path, host: str) -> TrustedKey | None:
    """Return the trusted key for a host; None if there is none.

    Raises:
        BadRequest: There is none, but a file with a fault may be for it. Plain connections to loopback go on.
    """
    fault: BadRequest | None = None
    try:
        for file in trusted_files(folder):
            try:
                key = read_trusted_key(file)
            except BadRequest as error:
                fault = error
                continue
            if key.is_of(host):
                return key
    except BadRequest as error:
        fault = error
    if fault is not None and host not in ("localhost", "::1") and not host.startswith("127."):
        raise fault
    return None


def own_keys() -> CurveKeys | None:
    """Return the keys for a daemon of this user on this machine; None if the user has no key pair.

    Raises:
        AccessDenied: The key file can't be used.
    """
    if user_folder("config") is None:
        return None
    try:
        own = read_own_key(keys_folder())
    except BadRequest as error:
        raise AccessDenied(error.message) from error
    return None if own is None else CurveKeys(own.public, own.secret, own.public)


def _table(path: Path, content: bytes) -> dict[str, object]:
    try:
        return parsed(content)
    except (ValueError, RecursionError):
        raise _damaged(path, "it isn't a key file") from None


def _key_of(path: Path, table: dict[str, object], name: str) -> bytes:
    value = table.get(name)
    try:
        return parse_public_key(value if isinstance(value, str) else "")
    except BadRequest:
        raise _damaged(path, f"it has no valid `{name}`") from None


def _damaged(path: Path, fault: str) -> BadRequest:
    return BadRequest(f"the key file {printable(str(path))} can't be used: {fault}; remove it, and make it again")


def _unreadable(path: Path, error: OSError) -> BadRequest:
    return BadRequest(f"the key file {printable(str(path))} can't be read: {error.strerror or error}")


def _read_private(path: Path) -> bytes | None:
    """Return the content of a file that only this user can read and write; None if it doesn't exist.

    Raises:
        BadRequest: Others can, or it can't be read.
    """
    try:
        _check_folder(path.parent)
        # a FIFO must not block the daemon
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        state = os.fstat(number)
        if not stat.S_ISREG(state.st_mode):
            raise _damaged(path, "it isn't a file")
        _check_owner(path, state, _OTHERS, "chmod 600")
        content = b""
        while len(content) <= MAX_KEY_FILE_BYTES and (part := os.read(number, MAX_KEY_FILE_BYTES + 1)):
            content += part
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(number)
    if len(content) > MAX_KEY_FILE_BYTES:
        raise _damaged(path, f"it is larger than {MAX_KEY_FILE_BYTES} bytes")
    return content


def _check_folder(folder: Path) -> None:
    """Check that only this user can write into a folder.

    Raises:
        BadRequest: Others can.
        OSError: It doesn't exist.
    """
    _check_owner(folder, folder.stat(), stat.S_IWGRP | stat.S_IWOTH, "chmod 700")


def _check_owner(path: Path, state: os.stat_result, forbidden: int, remedy: str) -> None:
    if sys.platform == "win32":
        return
    shown = printable(str(path))
    if state.st_uid != os.geteuid():
        raise BadRequest(f"{shown} belongs to user {state.st_uid}, not to {describe_user()}: chown it, or remove it")
    if state.st_mode & forbidden:
        mode = stat.S_IMODE(state.st_mode)
        raise BadRequest(f"other users can use {shown} (its mode is {mode:04o}): run {remedy} {shown}")


def _write_private(path: Path, text: str, replace: bool, remedy: str) -> Path:
    """Write a file with the mode 0600, complete or not at all."""
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_folder(path.parent)
        number = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(text.encode("ascii"))
                file.flush()
                os.fsync(number)
            if replace:
                hidden.replace(path)
            else:
                rename_to_free_name(hidden, path)
        finally:
            with contextlib.suppress(OSError):
                hidden.unlink()
    except FileExistsError:
        raise BadRequest(f"{printable(str(path))} exists already; {remedy}") from None
    except OSError as error:
        raise from_foreign(error) from error
    return path
