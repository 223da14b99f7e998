"""The journal of files that timbred created in the takes folder and may delete again: unfinished files and previews.

No file is deleted because of its folder or its name. Each process that writes has a hidden journal in the takes
folder, one JSON object a line, written before the file that it describes. The journal is locked while its process
lives. A later start reads the journals of processes that ended without removing theirs, and deletes the files named
there that are still the same: same inode, size and modification time. A file that was changed, replaced or moved is
left alone.

    {"timbred": "created", "token": "5f0c..."}                   the first line; the token is in the journal's name too
    {"kind": "part", "path": "set/.timbred-5f0c...-1.part"}      an unfinished file; its name is random
    {"kind": "file", "path": "previews/pad-0001.wav", "inode": 12, "size": 4096, "mtime_ns": 1700000000000000000}
    {"kind": "gone", "path": "..."}                              earlier entries for this path are void
"""

import hashlib
import json
import logging
import os
import platform
import re
import secrets
import stat
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from timbred.disk import try_lock

ABANDONED_AFTER_S = 86_400.0
"""Seconds without an entry after which the unlocked journal of another computer, in a shared folder, is abandoned."""

COMPACT_ABOVE_BYTES = 65_536
"""Size of the journal above which it is rewritten without void entries."""

MAX_JOURNAL_BYTES = 16_000_000
"""Bytes of a journal that are read."""

_JOURNAL = re.compile(r"\.timbred-created-(?P<host>[0-9a-f]{8})-(?P<process>\d{1,10})-(?P<token>[0-9a-f]{16})\.jsonl")

Entry = dict[str, Any]

log = logging.getLogger(__name__)


class Created:
    """The files that this process created under one folder. Thread-safe; several processes may share the folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._token = secrets.token_hex(8)
        self._path = root / f".timbred-created-{_this_host()}-{os.getpid()}-{self._token}.jsonl"
        self._journal: BinaryIO | None = None
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()

    @contextmanager
    def part(self, folder: Path) -> Generator[Path]:
        """Provide a hidden name in `folder` for a file to be written; a file that still has it in the end is deleted.

        Raises:
            OSError: the journal can't be written.
        """
        path = folder / f".timbred-{self._token}-{secrets.token_hex(8)}.part"
        self._record("part", path, {})
        try:
            yield path
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)
                self.forget(path)

    def add(self, path: Path, status: os.stat_result) -> None:
        """Record a file that is deleted when the process ends; `status` identifies it."""
        self._record("file", path, _identity(status))

    def forget(self, path: Path) -> None:
        """Record that this file must not be deleted any more."""
        relative = path.relative_to(self._root).as_posix()
        with self._lock:
            if self._entries.pop(relative, None) is None:
                return
            try:
                self._write({"kind": "gone", "path": relative})
            except OSError as error:  # a stale entry is harmless: its file is missing or isn't the same
                log.debug("%s can't be written: %s", self._path, error.strerror)

    def remove_files(self) -> list[Path]:
        """Delete the unchanged files of `add`, and forget the others. Returns the deleted ones."""
        with self._lock:
            recorded = [entry for entry in self._entries.values() if entry["kind"] == "file"]
        removed: list[Path] = []
        for entry in recorded:
            path = self._root / entry["path"]
            try:
                if _remove(path, entry):
                    removed.append(path)
            except OSError as error:
                log.warning("%s can't be removed: %s", path, error.strerror)
                continue
            self.forget(path)
        return removed

    def close(self) -> None:
        """Close the journal, and delete it if nothing is recorded. It is opened again when needed."""
        with self._lock:
            journal, self._journal = self._journal, None
            if journal is None:
                return
            if not self._entries:
                with suppress(OSError):
                    self._path.unlink(missing_ok=True)
            with suppress(OSError):
                journal.close()

    def _record(self, kind: str, path: Path, identity: Entry) -> None:
        relative = path.relative_to(self._root).as_posix()
        with self._lock:
            if self._journal is None or not _is_same_file(self._journal, self._path):
                self._open()
            entry = {"kind": kind, "path": relative, **identity}
            self._write(entry)
            self._entries[relative] = entry

    def _open(self) -> None:
        if self._journal is not None:  # the takes folder was deleted or replaced
            self._journal.close()
            self._journal = None
            self._path = self._path.with_name(self._path.name.replace(self._token, token := secrets.token_hex(8)))
            self._token = token
            self._entries.clear()
        journal = self._path.open("x+b", buffering=0)
        try_lock(journal)
        self._journal = journal
        journal.write(self._content())

    def _write(self, entry: Entry) -> None:
        if self._journal is None:
            return
        if self._journal.tell() > COMPACT_ABOVE_BYTES:
            content = self._content()
            self._journal.seek(0)
            self._journal.write(content)
            self._journal.truncate()
        self._journal.write(_line(entry))

    def _content(self) -> bytes:
        head = {"timbred": "created", "token": self._token}
        return b"".join(map(_line, (head, *self._entries.values())))


def sweep(root: Path) -> list[Path]:
    """Delete the files named by the journals of ended processes in `root`, and these journals. Returns the files."""
    removed: list[Path] = []
    try:
        names = [entry.name for entry in os.scandir(root)]
    except OSError:
        return removed
    for name in names:
        match = _JOURNAL.fullmatch(name)
        if match is not None:
            try:
                removed += _sweep_journal(root, root / name, match)
            except OSError as error:
                log.warning("%s can't be read: %s", root / name, error.strerror)
    return removed


def _sweep_journal(root: Path, path: Path, name: re.Match[str]) -> list[Path]:
    if path.is_symlink():
        return []
    with path.open("r+b", buffering=0) as journal:
        if not _is_abandoned(journal, name):
            return []
        entries = _entries(journal.read(MAX_JOURNAL_BYTES), name["token"])
        if entries is None:
            return []
        removed = [path_removed for entry in entries if (path_removed := _delete_entry(root, entry)) is not None]
        if sys.platform != "win32":  # elsewhere an open file can't be removed
            path.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    return removed


def _is_abandoned(journal: BinaryIO, name: re.Match[str]) -> bool:
    try:
        locked = try_lock(journal)
    except BlockingIOError:
        return False
    if name["host"] != _this_host():
        return time.time() - os.fstat(journal.fileno()).st_mtime > ABANDONED_AFTER_S
    process = int(name["process"])
    return locked or process == os.getpid() or not psutil.pid_exists(process)


def _entries(content: bytes, token: str) -> list[Entry] | None:
    """Parse a journal: the last entry of each path; None if it isn't one of timbred's. A torn last line is ignored."""
    lines = [entry for entry in map(_parse_line, content.split(b"\n")) if entry is not None]
    if not lines or lines[0].get("timbred") != "created" or lines[0].get("token") != token:
        return None
    entries: dict[str, Entry] = {}
    for entry in lines[1:]:
        path = entry.get("path")
        if isinstance(path, str):
            entries[path] = entry
    return list(entries.values())


def _parse_line(line: bytes) -> Entry | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _delete_entry(root: Path, entry: Entry) -> Path | None:
    """Delete the file of a journal's entry; return its path if it was there and timbred's."""
    parts = entry["path"].split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        return None
    path = root.joinpath(*parts)
    try:
        if not path.parent.resolve().is_relative_to(root.resolve()):
            return None
        return path if _remove(path, entry) else None
    except (OSError, RuntimeError, ValueError) as error:
        log.warning("%s can't be removed: %s", path, error)
        return None


def _remove(path: Path, entry: Entry) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    is_own = entry.get("kind") == "part" or (
        entry.get("kind") == "file" and all(entry.get(key) == value for key, value in _identity(status).items())
    )
    if not is_own or not stat.S_ISREG(status.st_mode):
        return False
    path.unlink()
    return True


def _identity(status: os.stat_result) -> Entry:
    return {"inode": status.st_ino, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _line(entry: Entry) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _is_same_file(journal: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(journal.fileno()), path.lstat())
    except OSError:
        return False


def _this_host() -> str:
    return hashlib.blake2b(platform.node().encode("utf-8", "replace"), digest_size=4).hexdigest()
