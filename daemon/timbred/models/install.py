"""Installation of a model from a folder or an archive, and the record of the files that timbred wrote.

The record is in the model's folder, one JSON object a line. When a newer model replaces the folder only files that are
still the recorded ones (inode, size, time) are deleted; a folder that contains any other file is kept under another
name.

    {"timbred": "model", "origin": ["/downloads/m.zip", 123, 1700000000000000000]}
    {"path": "unet/config.json.part", "part": true}                  a file that is being written
    {"path": "unet/config.json", "inode": 12, "size": 345, "mtime_ns": 1700000000000000000}
"""

import hashlib
import itertools
import json
import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO, Any

from timbred.disk import rename_to_free_name
from timbred.errors import BadRequest, MissingWeights, ModelError, TimbredError
from timbred.filenames import comparison_key, name_fault
from timbred.models import checkpoint, clap, stability
from timbred.models.pocket import CARD_NAME

RECORD_NAME = ".timbred-files.jsonl"
"""The record's name in the folder."""

Origin = list[Any]
"""Identifies the source of the files."""


def begin_record(folder: Path, origin: Origin) -> None:
    """Create a folder and its record, if they don't exist.

    Raises:
        OSError: The file system's error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / RECORD_NAME).exists():
        (folder / RECORD_NAME).write_text(json.dumps({"timbred": "model", "origin": origin}) + "\n", "utf-8")


def origin_of(folder: Path) -> Origin | None:
    """Return the origin of a folder's files; None if timbred didn't create it."""
    lines = _lines(folder)
    return lines[0]["origin"] if lines else None


def record_file(folder: Path, path: Path) -> None:
    """Record a file that timbred wrote, if the folder has a record.

    Raises:
        OSError: The file system's error.
    """
    if _lines(folder):
        _append(folder, path, _identity(path))


def record_part(folder: Path, path: Path) -> None:
    """Record a file that timbred is about to write, in a folder of its own.

    Raises:
        OSError: The file system's error.
    """
    _append(folder, path, {"part": True})


def _append(folder: Path, path: Path, facts: dict[str, Any]) -> None:
    with (folder / RECORD_NAME).open("a", encoding="utf-8") as record:
        record.write(json.dumps({"path": path.relative_to(folder).as_posix(), **facts}) + "\n")


def remove_or_rename(folder: Path, name: str) -> Path | None:
    """Delete a folder that contains only files of timbred; otherwise rename it to a free `NAME.before-N`.

    Returns:
        The new path of a folder that was kept.

    Raises:
        OSError: The file system's error.
    """
    if not os.path.lexists(folder):
        return None
    if folder.is_dir() and not folder.is_symlink() and _is_unchanged(folder):
        _remove(folder)
        return None
    for number in itertools.count(1):
        renamed = folder.with_name(f"{name}.before-{number}")
        try:
            rename_to_free_name(folder, renamed)
        except FileExistsError:
            continue
        return renamed
    raise AssertionError


def _is_unchanged(folder: Path) -> bool:
    lines = _lines(folder)
    recorded = {entry["path"]: entry for entry in lines[1:]}
    files = [path for path in _files(folder) if path != folder / RECORD_NAME]
    return bool(lines) and all(_is_own(path, recorded.get(path.relative_to(folder).as_posix())) for path in files)


def _is_own(path: Path, entry: dict[str, Any] | None) -> bool:
    if entry is None:
        return False
    return entry.get("part") is True or {key: entry.get(key) for key in _IDENTITY_KEYS} == _identity(path)


def _remove(folder: Path) -> None:
    """Delete the files, which were just checked, and the folders that are then empty."""
    for path in _files(folder):
        path.unlink()
    for parent, _, _ in os.walk(folder, topdown=False):
        Path(parent).rmdir()


def _files(folder: Path) -> list[Path]:
    """Return everything in the folder that isn't a folder; a link to a folder counts as a file."""
    files_and_links: list[Path] = []
    for parent, folders, files in os.walk(folder):
        files_and_links += [Path(parent) / name for name in files]
        files_and_links += [Path(parent) / name for name in folders if (Path(parent) / name).is_symlink()]
    return files_and_links


def _lines(folder: Path) -> list[dict[str, Any]]:
    """Return the record's lines, the first one first; empty if there is none, or it isn't timbred's."""
    try:
        text = (folder / RECORD_NAME).read_text("utf-8", "replace")
    except OSError:
        return []
    lines = [entry for entry in map(_parse_line, text.splitlines()) if entry is not None]
    is_own = bool(lines) and lines[0].get("timbred") == "model" and isinstance(lines[0].get("origin"), list)
    return [lines[0], *(entry for entry in lines[1:] if isinstance(entry.get("path"), str))] if is_own else []


def _parse_line(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


_IDENTITY_KEYS = ("inode", "size", "mtime_ns")


def _identity(path: Path) -> dict[str, int]:
    status = path.lstat()
    return dict(zip(_IDENTITY_KEYS, (status.st_ino, status.st_size, status.st_mtime_ns), strict=True))


INSTALLED_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin")
"""Patterns of the files that are installed; all others are ignored."""

HASH_LIST_NAME = "SHA256SUMS"
"""A list of the files' hashes as written by `sha256sum`; in the archive or folder, or beside it."""

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
"""Endings of archives."""

MAX_FILES = 10_000
"""Files of a model at most."""
MAX_EXPANSION_RATIO = 50
"""Largest ratio of an archive's content to its size: weights hardly compress."""

MIN_CONTENT_LIMIT_BYTES = 50_000_000
"""Bytes of content that are allowed whatever the archive's size."""

ARCHIVE_ERRORS: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
)
"""Exceptions of the standard library for damaged archives."""

_BLOCK_BYTES = 1 << 20
_HASH_LINE_PATTERN = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(.+)")

ProgressCallback = Callable[[int, int], None]
"""Called with the bytes done and the total."""


@dataclass(frozen=True)
class Source:
    """A file to install: its path in the model, its size in bytes, and a function that opens it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def install(
    source: Path, target: Path, name: str, on_progress: ProgressCallback = lambda _done, _all: None
) -> Path | None:
    """Copy or unpack a model into the folder `target`, which appears when all files are complete and checked.

    An interrupted installation is continued.

    Returns:
        The new path of the folder that was there before, if it was kept.

    Raises:
        BadRequest: the source is neither a folder nor an archive, or a folder that timbred didn't create is in the way.
        ModelError: the archive contains something that no model needs, or a hash is wrong.
        MissingWeights: the model is incomplete.
        OSError: it can't be read or written.
    """
    staging = staging_for(target)
    _check_archive(source)
    with _open_source(source, name) as sources:
        files = _relative_to_index(_select_files(sources, source, name), name)
        begin_install(staging, target, _origin(source))
        _copy(files, staging, on_progress)
    check_sums(staging, name)
    return finish(staging, target, name)


def finish(staging: Path, target: Path, name: str) -> Path | None:
    """Replace the target by a complete staging folder; one in Stability AI's layout is converted first.

    The previous folder is deleted if it contains only unchanged files of timbred; otherwise it is kept.

    Returns:
        The new path of the previous folder, if it was kept.

    Raises:
        MissingWeights, ModelError: the staging folder isn't a complete model; the target is unchanged.
        OSError: from the file system; the target is unchanged.
    """
    if stability.is_stability(staging):
        stability.convert(staging, name, lambda file: record_file(staging, file))
    remedy = "the source is incomplete: get it again"
    if name == clap.CLAP_NAME:
        clap.inspect(staging, remedy)
    else:
        checkpoint.inspect(staging, name, remedy)
    before = target.with_name(f".{target.name}.before")
    earlier = remove_or_rename(before, target.name)  # of a process that was killed between the renames
    if target.exists():
        rename_to_free_name(target, before)
    try:
        rename_to_free_name(staging, target)
    except OSError:
        if before.exists() and not target.exists():
            rename_to_free_name(before, target)
        raise
    return remove_or_rename(before, target.name) or earlier


def sha256(file: Path) -> str:
    """Return a file's hash in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def check_sums(folder: Path, name: str) -> None:
    """Compare files with the hashes listed in the folder, if there is a list.

    Raises:
        ModelError: one differs or is missing; the wrong file is deleted, so that the next attempt fetches it again.
    """
    listed = folder / HASH_LIST_NAME
    text = listed.read_text("utf-8", "replace") if listed.exists() else ""
    for line in text.splitlines():
        if match := _HASH_LINE_PATTERN.fullmatch(line.strip()):
            check_file(folder, match[2].removeprefix("./"), match[1], name)


def check_file(folder: Path, listed: str, expected: str, name: str) -> None:
    """Compare one file with its hash; files that aren't installed are skipped.

    Raises:
        ModelError: it differs or is missing.
    """
    path = PurePosixPath(listed)
    if not _is_installed(path.name) or path.is_absolute() or ".." in path.parts:
        return
    file = _find_listed(folder, path)
    if file is None:
        raise ModelError(f"{name}: {listed} is in the list of hashes but not among the files; install the model again")
    if sha256(file) != expected.lower():
        file.unlink()
        raise ModelError(f"{name}: {listed} doesn't match its hash; get it again")


def _find_listed(folder: Path, path: PurePosixPath) -> Path | None:
    """Return the file, also if the list was created one folder further up."""
    tries = [folder.joinpath(*path.parts), folder.joinpath(*path.parts[1:])]
    return next((file for file in tries if file.is_file()), None)


def _check_archive(source: Path) -> None:
    """Compare the archive itself with the list of hashes beside it, if there is one that names it.

    Raises:
        ModelError: it has another hash.
    """
    listed = source.parent / HASH_LIST_NAME
    if not source.is_file() or not listed.is_file():
        return
    for line in listed.read_text("utf-8", "replace").splitlines():
        match = _HASH_LINE_PATTERN.fullmatch(line.strip())
        if match and match[2].removeprefix("./") == source.name and sha256(source) != match[1].lower():
            raise ModelError(f"{source} doesn't match its hash in {listed}; get it again")


# staging


def staging_for(target: Path) -> Path:
    """Return the folder beside a model's own in which it is assembled."""
    return target.with_name(f".{target.name}.partial")


def begin_install(staging: Path, target: Path, origin: Origin) -> None:
    """Create the staging folder, or keep one from the same source; one from another source is retired.

    Raises:
        BadRequest: a folder that timbred didn't create is in the way.
        OSError: The file system's error.
    """
    if staging.exists() and (present_origin := origin_of(staging)) != origin:
        if present_origin is None:
            raise BadRequest(f"{staging} is in the way, and timbred didn't make it: move it elsewhere")
        remove_or_rename(staging, target.name)
    begin_record(staging, origin)


def _origin(source: Path) -> Origin:
    stat = source.stat()
    return [str(source.resolve()), stat.st_size, stat.st_mtime_ns]


def _copy(files: list[Source], staging: Path, on_progress: ProgressCallback) -> None:
    total, copied_bytes = sum(file.size for file in files), 0
    on_progress(0, total)
    for file in files:
        path = staging.joinpath(*PurePosixPath(file.name).parts)
        if not (path.is_file() and path.stat().st_size == file.size):
            part = path.with_name(f"{path.name}.part")
            path.parent.mkdir(parents=True, exist_ok=True)
            record_part(staging, part)
            _copy_one(file, path, part, lambda part, before=copied_bytes: on_progress(before + part, total))
            record_file(staging, path)
        copied_bytes += file.size
        on_progress(copied_bytes, total)


def _copy_one(file: Source, path: Path, part: Path, on_progress: Callable[[int], None]) -> None:
    """Copy a file, which gets its name only when it is complete, up to the announced size."""
    written = 0
    with file.open() as content, part.open("wb") as out:
        while block := content.read(min(_BLOCK_BYTES, file.size - written + 1)):
            written += len(block)
            if written > file.size:
                raise ModelError(f"{file.name} is longer than its archive says; nothing was installed")
            out.write(block)
            on_progress(written)
    if written != file.size:
        raise ModelError(f"{file.name} ends after {written} of {file.size} bytes; get the archive again")
    part.replace(path)


# sources


@contextmanager
def _open_source(source: Path, name: str) -> Generator[list[Source]]:
    try:
        if source.is_dir():
            yield _list_folder(source)
        elif source.name.endswith(".zip"):
            with zipfile.ZipFile(source) as archive:
                yield _list_zip(archive, name)
        elif source.name.endswith(ARCHIVE_SUFFIXES):
            with tarfile.open(source) as archive:
                yield _list_tar(archive, name)
        elif source.exists():
            raise BadRequest(f"{source} is neither a folder nor one of {', '.join(ARCHIVE_SUFFIXES)}")
        else:
            raise BadRequest(f"{source} doesn't exist; choose a folder or an archive ({', '.join(ARCHIVE_SUFFIXES)})")
    except TimbredError:
        raise
    except ARCHIVE_ERRORS as error:
        raise ModelError(f"{name}: {source} is damaged or can't be unpacked ({error}); get it again") from error
    except OSError as error:
        if error.errno is None or "gzip" in str(error).lower():
            raise ModelError(f"{name}: {source} is damaged ({error}); get it again") from error
        raise


def _list_folder(folder: Path) -> list[Source]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and _is_installed(path.name))
    return [Source(file.relative_to(folder).as_posix(), file.stat().st_size, _file_opener(file)) for file in files]


def _file_opener(file: Path) -> Callable[[], IO[bytes]]:
    """Return a function that opens a file."""
    return lambda: file.open("rb")


def _list_zip(archive: zipfile.ZipFile, name: str) -> list[Source]:
    sources: list[Source] = []
    for entry in archive.infolist():
        kind = entry.external_attr >> 28
        if kind not in {0, 0o4, 0o10}:  # neither unspecified nor a folder nor a file
            raise _archive_error(name, entry.filename, "is a link or a device")
        if not entry.is_dir():
            sources.append(Source(entry.filename, entry.file_size, _zip_opener(archive, entry)))
    return sources


def _zip_opener(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(entry)


def _list_tar(archive: tarfile.TarFile, name: str) -> list[Source]:
    sources: list[Source] = []
    for entry in archive:
        if len(sources) > MAX_FILES:
            break
        if not (entry.isfile() or entry.isdir()):
            raise _archive_error(name, entry.name, "is a link or a device")
        if entry.isfile():
            sources.append(Source(entry.name, entry.size, _tar_opener(archive, entry)))
    return sources


def _tar_opener(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def open_member() -> IO[bytes]:
        content = archive.extractfile(entry)
        if content is None:
            raise ModelError(f"{entry.name} can't be read")
        return content

    return open_member


def _is_installed(name: str) -> bool:
    return name == HASH_LIST_NAME or any(fnmatch(name.lower(), pattern) for pattern in INSTALLED_PATTERNS)


def _select_files(sources: list[Source], archive: Path, name: str) -> list[Source]:
    """Return the files of the model.

    Raises:
        ModelError: a path leads out of the folder, two are the same, or there is far too much.
    """
    if len(sources) > MAX_FILES:
        raise ModelError(f"{name}: {archive} has more than {MAX_FILES} files: that isn't a model")
    for source in sources:
        _check_path(source.name, name)
    files = [source for source in sources if _is_installed(PurePosixPath(source.name).name)]
    for source in files:
        _check_names(source.name, name)
    names = [comparison_key(str(PurePosixPath(file.name))) for file in files]
    if twice := {path for path in names if names.count(path) > 1}:
        raise _archive_error(name, min(twice), "occurs twice")
    if parents := {str(parent) for path in names for parent in PurePosixPath(path).parents} & set(names):
        raise _archive_error(name, min(parents), "is a file and a folder")
    total = sum(file.size for file in files)
    if archive.is_file() and total > max(MIN_CONTENT_LIMIT_BYTES, MAX_EXPANSION_RATIO * archive.stat().st_size):
        raise ModelError(f"{name}: {archive} would expand to {total / 1e9:.1f} GB: that isn't a model")
    return files


def _check_path(path: str, name: str) -> None:
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or "\x00" in path or ":" in path or ".." in parts:
        raise _archive_error(name, path, "leads out of the model's folder")


def _check_names(path: str, name: str) -> None:
    if any(name_fault(part) for part in path.split("/") if part not in ("", ".")):
        raise _archive_error(name, path, "has a name that can't be a file's on every system")


def _archive_error(name: str, path: str, why: str) -> ModelError:
    return ModelError(f"{name}: {path[:100]!r} in the archive {why}; nothing was installed")


def _relative_to_index(files: list[Source], name: str) -> list[Source]:
    """Return the files with paths relative to the folder of the pipeline's index, which may be one folder down.

    Without an index, that of Stability AI's configuration counts; for a CLAP, that of its configuration.
    """
    paths = sorted((PurePosixPath(file.name) for file in files), key=lambda path: len(path.parts))
    is_clap = name == clap.CLAP_NAME
    indices = (clap.CONFIG_NAME,) if is_clap else (checkpoint.INDEX_NAME, stability.CONFIG_NAME, CARD_NAME)
    tops = [path.parent for index in indices for path in paths if path.name == index]
    if not tops and is_clap:
        raise MissingWeights(f"{name}: there is no {clap.CONFIG_NAME} in it: it isn't laid out as {clap.CLAP_SOURCE}")
    if not tops:
        raise MissingWeights(
            f"{name}: there is no {checkpoint.INDEX_NAME} in it: it isn't a model in diffusers' format, nor in "
            f"Stability AI's, which has a {stability.CONFIG_NAME}; a CLAP is installed under the name {clap.CLAP_NAME}"
        )
    top = tops[0]
    inside = [file for file in files if PurePosixPath(file.name).is_relative_to(top)]
    return [Source(PurePosixPath(file.name).relative_to(top).as_posix(), file.size, file.open) for file in inside]
