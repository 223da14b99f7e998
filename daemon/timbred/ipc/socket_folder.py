"""Private folders and temporary files with records of their owners, and addresses of sockets in such folders.

A record names the process that owns a folder or file. After a crash the next start removes the files of owners that
have exited.
"""

import contextlib
import errno
import itertools
import json
import logging
import os
import platform
import secrets
import stat
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import platformdirs
import psutil
import zmq
import zmq.asyncio

from timbred.disk import try_lock


@dataclass(frozen=True)
class Owner:
    """Identity of a process: its id and start time, and the machine, boot and container of the id.

    With `locked` the process holds a lock on the record until it exits, so a lock that can be acquired proves the exit.
    `is_gone` is for file systems without locks.
    """

    host: str
    boot: str
    container: str
    pid: int
    start: str
    locked: bool = False

    @property
    def is_gone(self) -> bool:
        """True if the process has certainly exited; False where that is unknown, as on another machine."""
        current = this_process()
        if self.host != current.host:
            return False
        if self.boot != current.boot:
            return True
        return self.container == current.container and read_start_time(self.pid) != self.start


def this_process() -> Owner:
    """Return the identity of the current process."""
    return Owner(platform.node(), _boot(), _container(), os.getpid(), read_start_time(os.getpid()))


def read_start_time(pid: int) -> str:
    """Return the start time of a process, in the system's unit; empty if there is no such process."""
    if sys.platform == "linux":
        try:
            # the second field, a name in parentheses, may hold anything
            return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
        except OSError:
            return ""
    try:
        return str(round(psutil.Process(pid).create_time()))
    except psutil.Error:
        return ""


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""  # on other systems the boot time changes with the clock


@cache
def _container() -> str:
    """Return the namespace of process ids; empty on systems with only one."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


log = logging.getLogger(__name__)

FOLDER_NAME_PREFIX = "timbred-"
"""Prefix of a scratch folder's name; the rest is random."""

PRIVATE_FOLDER_MODE = 0o700

MAX_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
"""Longest path of a socket on this system."""


@dataclass(frozen=True)
class Record:
    """Record of one folder.

    Attributes:
        folder: Absolute path.
        names: Patterns, as in fnmatch, of the files that may be removed.
        owner: The process that created it.
        keeps_folder: True if the folder is not timbred's; then `names` are exact file names.
    """

    folder: str
    names: tuple[str, ...]
    owner: Owner
    keeps_folder: bool = False

    def remove(self) -> list[Path]:
        """Remove the recorded files, and the folder if it is timbred's and contains nothing else.

        Returns:
            The removed files of a folder that is kept, or the removed folder.
        """
        return self._remove_files() if self.keeps_folder else self._remove_folder()

    def _remove_files(self) -> list[Path]:
        removed: list[Path] = []
        for name in self.names:
            path = Path(self.folder) / name
            if Path(name).name == name and path.is_absolute() and _is_regular(path):
                path.unlink()
                removed.append(path)
        return removed

    def _remove_folder(self) -> list[Path]:
        folder = Path(self.folder)
        if folder.is_symlink() or not folder.is_dir():
            return []
        for path in folder.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in self.names):
                path.unlink(missing_ok=True)
        folder.rmdir()
        return [folder]


class TemporaryFile:
    """A file under a hidden, random name, from `make_file`; as a context manager it is removed at the end.

    Its record exists, locked where the file system supports it, until `remove` or `keep`.
    """

    def __init__(self, path: Path, file: Path | None, lock_file: IO[str] | None) -> None:
        self.path = path
        self._file = file
        self._lock_file = lock_file

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the file if it is still under this name, and the record."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self.keep()

    def keep(self) -> None:
        """Remove the record only: from now on the file belongs to the user."""
        _end_record(self._file, self._lock_file)


class ScratchFolder:
    """A private folder; its record exists, locked where the file system supports it, until `remove`."""

    def __init__(self, record: Record, file: Path | None, lock_file: IO[str] | None) -> None:
        self.path = Path(record.folder)
        self._record = record
        self._file = file
        self._held = lock_file

    @property
    def is_usable(self) -> bool:
        """True if it can still be used: cleaners of temporary folders remove folders that seem unused."""
        return os.access(self.path, os.W_OK | os.X_OK)

    def remove(self) -> None:
        """Remove the recorded files, the folder and the record."""
        with contextlib.suppress(OSError):
            self._record.remove()
        _end_record(self._file, self._held)


def make_folder(names: Sequence[str], longest_name: str = "") -> ScratchFolder:
    """Create a private folder in the first of `candidate_folders` that allows it.

    Args:
        names: Patterns of the files that it will contain; only these are ever removed.
        longest_name: The longest name of a socket in it; folders whose path is too long for it are skipped.

    Raises:
        OSError: No folder can be created; names each candidate with the reason.
    """
    failures: list[str] = []
    for parent in candidate_folders():
        folder = parent / f"{FOLDER_NAME_PREFIX}{secrets.token_hex(6)}"
        if longest_name and len(os.fsencode(folder / longest_name)) > MAX_SOCKET_PATH_BYTES:
            failures.append(f"{parent} (its name is too long for a socket)")
            continue
        record = Record(str(folder), tuple(names), this_process())
        file, lock_file = _write_record(record)
        scratch_folder = ScratchFolder(record, file, lock_file)
        try:
            if parent in _own_folders():
                make_private(parent)
            folder.mkdir(mode=PRIVATE_FOLDER_MODE)
        except OSError as error:
            scratch_folder.remove()
            failures.append(f"{parent} ({error.strerror or error})")
            continue
        return scratch_folder
    raise OSError(f"no private folder can be created in {', '.join(failures)}; set TMPDIR to a writable folder")


def make_file(folder: Path, prefix: str = f".{FOLDER_NAME_PREFIX}", suffix: str = ".part") -> TemporaryFile:
    """Create an empty file in an existing `folder`, readable by this user only.

    Raises:
        OSError: It can't be created.
    """
    path = folder.absolute() / f"{prefix}{secrets.token_hex(8)}{suffix}"
    file, lock_file = _write_record(Record(str(path.parent), (path.name,), this_process(), keeps_folder=True))
    temporary_file = TemporaryFile(path, file, lock_file)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        temporary_file.keep()
        raise
    return temporary_file


@contextlib.contextmanager
def atomic_write(
    path: Path, rename: Callable[[Path, Path], object] = os.replace, prefix: str = f".{FOLDER_NAME_PREFIX}"
) -> Generator[Path]:
    """Yield an empty hidden file in the folder of `path`, and rename it to `path` once the block has filled it.

    The hidden file is removed if the block raises.

    Args:
        path: The final name; its folder exists.
        rename: Called with the hidden file and `path`. The default replaces a file of that name.
        prefix: First characters of the hidden name.

    Raises:
        OSError: The hidden file can't be created or renamed.
    """
    with make_file(path.parent, prefix) as hidden:
        yield hidden
        rename(hidden, path)


def candidate_folders() -> Iterator[Path]:
    """Yield the folders in which scratch folders may be created, the preferred one first; never the working folder."""
    configured = [os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")]
    usual = [] if sys.platform == "win32" else ["/tmp", "/var/tmp"]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folders = [Path(part) for part in (*configured, *usual, runtime) if part and Path(part).is_absolute()]
    yield from dict.fromkeys((*folders, *_own_folders()))


def remove_abandoned() -> list[Path]:
    """Remove the folders and files of processes that have exited, and return them."""
    removed: list[Path] = []
    for file in records():
        try:
            removed += _remove_abandoned(file)
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.debug("%s can't be read: %s", file, error)
    return removed


def _remove_abandoned(file: Path) -> list[Path]:
    """Remove the files of one record if its owner has exited, and return them."""
    with file.open("r+", encoding="utf-8") as record_file:
        raw: dict[str, Any] = json.load(record_file)
        record = Record(raw["folder"], tuple(raw["names"]), Owner(**raw["owner"]), raw.get("keeps_folder") is True)
        try:
            locked = try_lock(record_file)
        except BlockingIOError:  # its owner runs
            return []
        if not (locked if record.owner.locked else record.owner.is_gone):
            return []
        try:
            removed = record.remove()
        except OSError as error:
            log.debug("%s can't be removed: %s", record.folder, error)
            return []
    file.unlink(missing_ok=True)
    return removed


def _write_record(record: Record) -> tuple[Path | None, IO[str] | None]:
    """Write a record, and return it with its locked file; (None, None) if no folder for records is writable."""
    for place in _own_folders():
        file = place / f"{record.owner.pid}-{secrets.token_hex(6)}.json"
        try:
            make_private(place)
            record_file = file.open("x", encoding="utf-8")
        except OSError:
            continue
        owner = replace(record.owner, locked=try_lock(record_file))
        json.dump(asdict(replace(record, owner=owner)), record_file)
        record_file.flush()
        return file, record_file
    log.warning("no folder for timbred's records is writable: the files of killed processes won't be removed")
    return None, None


def _end_record(file: Path | None, lock_file: IO[str] | None) -> None:
    if lock_file is not None:
        lock_file.close()
    if file is not None:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def records() -> Iterator[Path]:
    """Yield the files of all records."""
    for place in _own_folders():
        with contextlib.suppress(OSError):
            if not place.is_symlink() and (sys.platform == "win32" or place.stat().st_uid == os.geteuid()):
                yield from sorted(place.glob("*.json"))


def _own_folders() -> list[Path]:
    """Return timbred's own folders for records, which are also the last candidates for scratch folders."""
    folders: list[Path] = []
    for platform_path in (platformdirs.user_state_path, platformdirs.user_cache_path):
        with contextlib.suppress(OSError, RuntimeError, KeyError):  # no home folder, no passwd entry
            folders.append(platform_path("timbred", appauthor=False) / "scratch")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime:
        folders.append(Path(runtime) / "timbred" / "scratch")
    if sys.platform != "win32":
        folders.append(Path(f"/tmp/timbred-of-{os.geteuid()}"))
    return [place for place in folders if place.is_absolute()]


def make_private(folder: Path) -> None:
    """Create one of timbred's own folders.

    Raises:
        OSError: It can't be created, or it belongs to another user.
    """
    folder.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
    if sys.platform != "win32" and (folder.is_symlink() or folder.stat().st_uid != os.geteuid()):
        raise PermissionError(errno.EPERM, "it belongs to another user", str(folder))


MAX_BIND_ATTEMPTS = 2
"""Attempts to bind a socket file: the second one in a new folder, because the first one may have been deleted."""

MAX_SOCKET_NUMBER = 9_999_999


class Addresses:
    """Addresses of the sockets for one child process, a new one for each start.

    Each is a socket file in a private folder. Where no such folder can be created, and on Windows, it is a loopback
    port, to which other programs can connect; so the child must send its token.

    Args:
        name: Name of the child, the prefix of each socket file's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._numbers = itertools.count(1)
        self._folder: ScratchFolder | None = None
        self._warned = False

    def bind(self, socket: zmq.asyncio.Socket) -> str:
        """Bind a socket to a new address.

        Raises:
            zmq.ZMQError: No loopback port is available either.
        """
        if sys.platform != "win32":
            try:
                return self._bind_file(socket)
            except (OSError, zmq.ZMQError) as error:
                if not self._warned:
                    log.warning("the %s is connected over a loopback port: %s", self._name, error)
                self._warned = True
        return f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"

    def remove(self) -> None:
        """Remove the folder."""
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.remove()

    def _bind_file(self, socket: zmq.asyncio.Socket) -> str:
        if self._folder is not None and not self._folder.is_usable:
            self.remove()
        for attempts_left in reversed(range(MAX_BIND_ATTEMPTS)):
            if self._folder is None:
                self._folder = make_folder([f"{self._name}-*"], longest_name=f"{self._name}-{MAX_SOCKET_NUMBER}")
            address = f"ipc://{self._folder.path / f'{self._name}-{next(self._numbers)}'}"
            try:
                socket.bind(address)
            except zmq.ZMQError:
                self.remove()
                if not attempts_left:
                    raise
            else:
                return address
        raise AssertionError("every try returns or raises")
