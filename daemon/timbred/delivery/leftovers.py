"""Hidden names for files that are being written, and the removal of those that a crash left behind."""

import hashlib
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ABANDONED_AFTER = 86_400.0
"""Seconds after which an unfinished file of another computer (in a shared folder) counts as left behind."""

_PATTERN = re.compile(r"\.timbred-(?P<host>[0-9a-f]{8})-(?P<process>\d{1,10})-[0-9a-f]{16}\.part")

_in_use: set[str] = set()
_lock = threading.Lock()


@contextmanager
def hidden_file(folder: Path) -> Generator[Path]:
    """A hidden name in `folder` for a file to be written; whatever is left of it in the end is removed."""
    name = f".timbred-{_this_host()}-{os.getpid()}-{secrets.token_hex(8)}.part"
    with _lock:
        _in_use.add(name)
    try:
        yield folder / name
    finally:
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)
        with _lock:
            _in_use.discard(name)


def sweep(root: Path) -> list[Path]:
    """Remove what a crash left in `root` and its folders; what another living process writes is kept.

    Returns the paths that were removed.
    """
    removed: list[Path] = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            if _abandoned(path):
                with suppress(OSError):
                    path.unlink()
                    removed.append(path)
    return removed


def _abandoned(path: Path) -> bool:
    found = _PATTERN.fullmatch(path.name)
    if found is None:
        return False
    process = int(found["process"])
    if found["host"] != _this_host():
        return _age(path) > ABANDONED_AFTER
    if process == os.getpid():
        # In a container every daemon has the same number: only what this one holds is being written.
        with _lock:
            return path.name not in _in_use
    return not psutil.pid_exists(process)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _this_host() -> str:
    return hashlib.blake2b(platform.node().encode("utf-8", "replace"), digest_size=4).hexdigest()
