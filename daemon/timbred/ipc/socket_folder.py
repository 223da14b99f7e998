"""Owners of files and folders on disk: the process, and a check that it has exited."""

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
    """A process: its number and start, and the machine, boot and container that the number belongs to.

    `locked` says that the process holds a lock on the file that names it, for as long as it lives. Then whoever gets
    that lock knows that the process has ended, and `is_gone` needs not be asked: it is for file systems without locks.
    """

    host: str
    boot: str
    container: str
    pid: int
    start: str
    locked: bool = False

    @property
    def is_gone(self) -> bool:
        """Tell whether the process has ended. False where that can't be known from here."""
        here = this_process()
        if self.host != here.host:
            return False
        if self.boot != here.boot:
            return True
        return self.container == here.container and start_of(self.pid) != self.start


def this_process() -> Owner:
    """The process that asks."""
    return Owner(platform.node(), _boot(), _container(), os.getpid(), start_of(os.getpid()))


def start_of(pid: int) -> str:
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
        return ""  # elsewhere the moment of the boot changes with the clock


@cache
def _container() -> str:
    """The space in which process numbers are unique; empty where there is only one."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


log = logging.getLogger(__name__)

PREFIX = "timbred-"
"""First part of a scratch folder's name; the rest is random."""

PRIVATE = 0o700

LONGEST_NAME_BYTES = 107 if sys.platform == "linux" else 103
"""Bytes of a socket's path that the system takes."""


@dataclass(frozen=True)
class Record:
    """One folder: where it is, which names may be in it (patterns as in fnmatch), and whose it is.

    With `keeps_folder` the folder isn't timbred's: only the files of exactly these names are.
    """

    folder: str
    names: tuple[str, ...]
    owner: Owner
    keeps_folder: bool = False

    def remove(self) -> list[Path]:
        """Remove the recorded files, and the folder if it is ours and nothing else is in it.

        Returns:
            The files that were removed from a folder that stays, or the folder if it was there.
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
    """A file under a hidden, random name, from `make_file`. As a context manager it is removed at the end.

    Its record is kept, and locked where the file system has locks, until `remove` or `keep`.
    """

    def __init__(self, path: Path, file: Path | None, held: IO[str] | None) -> None:
        self.path = path
        self._file = file
        self._held = held

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
        """Remove the record alone: from now on the file is the user's."""
        _end_record(self._file, self._held)


class ScratchFolder:
    """A private folder. Its record is kept, and locked where the file system has locks, until `remove`."""

    def __init__(self, record: Record, file: Path | None, held: IO[str] | None) -> None:
        self.path = Path(record.folder)
        self._record = record
        self._file = file
        self._held = held

    @property
    def is_there(self) -> bool:
        """Tell whether it can still be used: cleaners of temporary folders remove what seems unused."""
        return os.access(self.path, os.W_OK | os.X_OK)

    def remove(self) -> None:
        """Remove the folder with the files that were recorded, and the record."""
        with contextlib.suppress(OSError):
            self._record.remove()
        _end_record(self._file, self._held)


def make_folder(names: Sequence[str], longest_name: str = "") -> ScratchFolder:
    """Make a private folder in the first place that allows it: see `places`.

    Args:
        names: Patterns of the files that will be in it. Only these are ever removed.
        longest_name: The longest name of a socket in it. Places whose path leaves no room for it are passed over.

    Raises:
        OSError: There is no place; names each that was tried, with the reason.
    """
    refused: list[str] = []
    for place in places():
        folder = place / f"{PREFIX}{secrets.token_hex(6)}"
        if longest_name and len(os.fsencode(folder / longest_name)) > LONGEST_NAME_BYTES:
            refused.append(f"{place} (its name is too long for a socket)")
            continue
        record = Record(str(folder), tuple(names), this_process())
        file, held = _write(record)
        made = ScratchFolder(record, file, held)
        try:
            if place in _own_places():
                make_private(place)
            folder.mkdir(mode=PRIVATE)
        except OSError as error:
            made.remove()
            refused.append(f"{place} ({error.strerror or error})")
            continue
        return made
    raise OSError(f"no private folder can be made in {', '.join(refused)}; set TMPDIR to a folder that can be written")


def make_file(folder: Path, prefix: str = f".{PREFIX}", suffix: str = ".part") -> TemporaryFile:
    """Make an empty file in `folder`, which exists, that only this user may read.

    Raises:
        OSError: It can't be made.
    """
    path = folder.absolute() / f"{prefix}{secrets.token_hex(8)}{suffix}"
    file, held = _write(Record(str(path.parent), (path.name,), this_process(), keeps_folder=True))
    made = TemporaryFile(path, file, held)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        made.keep()
        raise
    return made


@contextlib.contextmanager
def atomic_write(
    path: Path, rename: Callable[[Path, Path], object] = os.replace, prefix: str = f".{PREFIX}"
) -> Generator[Path]:
    """Yield an empty hidden file in the folder of `path`, and rename it to `path` once the block has filled it.

    The hidden file is removed if the block raises.

    Args:
        path: The final name; its folder exists.
        rename: Called with the hidden file and `path`. The default replaces a file of that name.
        prefix: First characters of the hidden name.

    Raises:
        OSError: The hidden file can't be made or renamed.
    """
    with make_file(path.parent, prefix) as hidden:
        yield hidden
        rename(hidden, path)


def places() -> Iterator[Path]:
    """Folders that scratch folders may be made in, the preferred one first. Never the working folder."""
    named = [os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")]
    usual = [] if sys.platform == "win32" else ["/tmp", "/var/tmp"]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folders = [Path(part) for part in (*named, *usual, runtime) if part and Path(part).is_absolute()]
    yield from dict.fromkeys((*folders, *_own_places()))


def sweep() -> list[Path]:
    """Remove the folders and files of owners that are gone. Returns those that were there."""
    removed: list[Path] = []
    for file in records():
        try:
            removed += _take_over(file)
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.debug("%s isn't read: %s", file, error)
    return removed


def _take_over(file: Path) -> list[Path]:
    """Remove what one record names if its owner is gone; what was there."""
    with file.open("r+", encoding="utf-8") as held:
        raw: dict[str, Any] = json.load(held)
        record = Record(raw["folder"], tuple(raw["names"]), Owner(**raw["owner"]), raw.get("keeps_folder") is True)
        try:
            locked = try_lock(held)
        except BlockingIOError:  # its owner lives
            return []
        if not (locked if record.owner.locked else record.owner.is_gone):
            return []
        try:
            removed = record.remove()
        except OSError as error:
            log.debug("%s stays: %s", record.folder, error)
            return []
    file.unlink(missing_ok=True)
    return removed


def _write(record: Record) -> tuple[Path | None, IO[str] | None]:
    """Write a record and hold it; (None, None) where no place for records can be written to."""
    for place in _own_places():
        file = place / f"{record.owner.pid}-{secrets.token_hex(6)}.json"
        try:
            make_private(place)
            held = file.open("x", encoding="utf-8")
        except OSError:
            continue
        owner = replace(record.owner, locked=try_lock(held))
        json.dump(asdict(replace(record, owner=owner)), held)
        held.flush()
        return file, held
    log.warning("no folder for timbred's own records can be written to: what a kill leaves behind is not removed")
    return None, None


def _end_record(file: Path | None, held: IO[str] | None) -> None:
    if held is not None:
        held.close()
    if file is not None:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def records() -> Iterator[Path]:
    """The files of all records."""
    for place in _own_places():
        with contextlib.suppress(OSError):
            if not place.is_symlink() and (sys.platform == "win32" or place.stat().st_uid == os.geteuid()):
                yield from sorted(place.glob("*.json"))


def _own_places() -> list[Path]:
    """Folders of timbred's own for records, and the last resort for scratch folders."""
    found: list[Path] = []
    for ask in (platformdirs.user_state_path, platformdirs.user_cache_path):
        with contextlib.suppress(OSError, RuntimeError, KeyError):  # no home folder, no passwd entry
            found.append(ask("timbred", appauthor=False) / "scratch")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime:
        found.append(Path(runtime) / "timbred" / "scratch")
    if sys.platform != "win32":
        found.append(Path(f"/tmp/timbred-of-{os.geteuid()}"))
    return [place for place in found if place.is_absolute()]


def make_private(place: Path) -> None:
    """Make one of timbred's own folders.

    Raises:
        OSError: It can't be made, or it is somebody else's.
    """
    place.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    if sys.platform != "win32" and (place.is_symlink() or place.stat().st_uid != os.geteuid()):
        raise PermissionError(errno.EPERM, "it is another user's", str(place))


TRIES = 2
"""Times that a socket file is tried: the second time in a new folder, since the first one may have been deleted."""

LONGEST_NUMBER = 9_999_999


class Addresses:
    """Addresses for the lives of one child process.

    Each is a socket file in a private folder. Where no such folder can be made, and on Windows, it is a loopback port.
    Others could connect to that one, so whoever connects has to show the token.
    """

    def __init__(self, name: str) -> None:
        """`name` is the child's, the first part of each socket file's name."""
        self._name = name
        self._numbers = itertools.count(1)
        self._folder: ScratchFolder | None = None
        self._warned = False

    def bind(self, socket: zmq.asyncio.Socket) -> str:
        """Bind a socket to a new address.

        Raises:
            zmq.ZMQError: Not even a loopback port is to be had.
        """
        if sys.platform != "win32":
            try:
                return self._bind_file(socket)
            except (OSError, zmq.ZMQError) as error:
                if not self._warned:
                    log.warning("the %s is spoken to over a loopback port: %s", self._name, error)
                self._warned = True
        return f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"

    def remove(self) -> None:
        """Remove the folder."""
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.remove()

    def _bind_file(self, socket: zmq.asyncio.Socket) -> str:
        if self._folder is not None and not self._folder.is_there:
            self.remove()
        for tries_left in reversed(range(TRIES)):
            if self._folder is None:
                self._folder = make_folder([f"{self._name}-*"], longest_name=f"{self._name}-{LONGEST_NUMBER}")
            address = f"ipc://{self._folder.path / f'{self._name}-{next(self._numbers)}'}"
            try:
                socket.bind(address)
            except zmq.ZMQError:
                self.remove()
                if not tries_left:
                    raise
            else:
                return address
        raise AssertionError("every try returns or raises")
