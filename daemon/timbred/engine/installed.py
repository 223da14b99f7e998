"""The record of a model folder: which files timbred wrote into it.

It lies in the folder, one JSON object a line. When the folder gives way to a newer model only files that are still what
was recorded (inode, size, time) are removed; a folder in which anything else lies is kept under another name.

    {"timbred": "model", "origin": ["/downloads/m.zip", 123, 1700000000000000000]}
    {"path": "unet/config.json.part", "part": true}                  a file that is being written
    {"path": "unet/config.json", "inode": 12, "size": 345, "mtime_ns": 1700000000000000000}
"""

import itertools
import json
import os
from pathlib import Path
from typing import Any

from timbred.renaming import rename_to_free_name

RECORD = ".timbred-files.jsonl"
"""The record's name in the folder."""

Origin = list[Any]
"""Identifies where the files come from."""


def begin(folder: Path, origin: Origin) -> None:
    """Make a folder and its record, if they aren't there.

    Raises:
        OSError: from the file system.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / RECORD).exists():
        (folder / RECORD).write_text(json.dumps({"timbred": "model", "origin": origin}) + "\n", "utf-8")


def origin_of(folder: Path) -> Origin | None:
    """Origin of a folder's files; None if timbred didn't make it."""
    lines = _lines(folder)
    return lines[0]["origin"] if lines else None


def add(folder: Path, path: Path) -> None:
    """Record a file that timbred wrote, if the folder has a record.

    Raises:
        OSError: from the file system.
    """
    if _lines(folder):
        _append(folder, path, _identity(path))


def add_part(folder: Path, path: Path) -> None:
    """Record a file that timbred is about to write, in a folder of its own.

    Raises:
        OSError: from the file system.
    """
    _append(folder, path, {"part": True})


def _append(folder: Path, path: Path, facts: dict[str, Any]) -> None:
    with (folder / RECORD).open("a", encoding="utf-8") as record:
        record.write(json.dumps({"path": path.relative_to(folder).as_posix(), **facts}) + "\n")


def retire(folder: Path, name: str) -> Path | None:
    """Remove a folder in which there is nothing but what timbred wrote; else rename it to a free `NAME.before-N`.

    Returns the new path of a folder that was kept.

    Raises:
        OSError: from the file system.
    """
    if not os.path.lexists(folder):
        return None
    if folder.is_dir() and not folder.is_symlink() and _is_unchanged(folder):
        _remove(folder)
        return None
    for number in itertools.count(1):
        kept = folder.with_name(f"{name}.before-{number}")
        try:
            rename_to_free_name(folder, kept)
        except FileExistsError:
            continue
        return kept
    raise AssertionError


def _is_unchanged(folder: Path) -> bool:
    lines = _lines(folder)
    recorded = {entry["path"]: entry for entry in lines[1:]}
    files = [path for path in _files(folder) if path != folder / RECORD]
    return bool(lines) and all(_is_own(path, recorded.get(path.relative_to(folder).as_posix())) for path in files)


def _is_own(path: Path, entry: dict[str, Any] | None) -> bool:
    if entry is None:
        return False
    return entry.get("part") is True or {key: entry.get(key) for key in _KEYS} == _identity(path)


def _remove(folder: Path) -> None:
    """Remove the files that were just seen to be ours, and the folders that are empty then."""
    for path in _files(folder):
        path.unlink()
    for parent, _, _ in os.walk(folder, topdown=False):
        Path(parent).rmdir()


def _files(folder: Path) -> list[Path]:
    """Everything in the folder that isn't a folder; a link to a folder counts as a file."""
    found: list[Path] = []
    for parent, folders, files in os.walk(folder):
        found += [Path(parent) / name for name in files]
        found += [Path(parent) / name for name in folders if (Path(parent) / name).is_symlink()]
    return found


def _lines(folder: Path) -> list[dict[str, Any]]:
    """The record's lines, the head first; empty if there is none, or it isn't ours."""
    try:
        text = (folder / RECORD).read_text("utf-8", "replace")
    except OSError:
        return []
    lines = [entry for entry in map(_parsed, text.splitlines()) if entry is not None]
    is_own = bool(lines) and lines[0].get("timbred") == "model" and isinstance(lines[0].get("origin"), list)
    return [lines[0], *(entry for entry in lines[1:] if isinstance(entry.get("path"), str))] if is_own else []


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


_KEYS = ("inode", "size", "mtime_ns")


def _identity(path: Path) -> dict[str, int]:
    status = path.lstat()
    return dict(zip(_KEYS, (status.st_ino, status.st_size, status.st_mtime_ns), strict=True))
