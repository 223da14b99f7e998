"""The record of a model folder: which files timbred wrote into it.

It lies in the folder, one JSON object a line. When the folder gives way to a newer model only files that are still what
was recorded (inode, size, time) are removed; a folder in which anything else lies is kept under another name.

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
from timbred.models import checkpoint

RECORD = ".timbred-files.jsonl"
"""The record's name in the folder."""

Origin = list[Any]
"""Identifies where the files come from."""


def begin_record(folder: Path, origin: Origin) -> None:
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


TAKEN = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin")
"""Files that are taken; all others stay where they are."""

SUMS = "SHA256SUMS"
"""A list of the files' hashes, as `sha256sum` writes it; in the archive or folder, or beside it."""

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")

MOST_FILES = 10_000
MOST_SWOLLEN = 50
"""Times larger than the archive that its content may be: weights hardly compress."""

ROOM_FOR_SMALL = 50_000_000
"""Bytes that an archive may swell to whatever its own size."""

DAMAGED: tuple[type[Exception], ...] = (
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
"""What the standard library raises at damaged archives."""

_BLOCK = 1 << 20
_SUM = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(.+)")

Told = Callable[[int, int], None]
"""Hears how many bytes of how many are in."""


@dataclass(frozen=True)
class Source:
    """A file to take: its path in the model, its size in bytes, and how to open it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def install(source: Path, target: Path, name: str, told: Told = lambda _done, _all: None) -> Path | None:
    """Copy or unpack a model into the folder `target`, which appears when all is there and checked. One that was cut
    off is taken up where it stopped. Returns the new path of the folder that was there before, if it was kept.

    Raises:
        BadRequest: the source is neither a folder nor an archive, or a folder is in the way that timbred didn't make.
        ModelError: the archive tries something that no model needs, or a hash is wrong.
        MissingWeights: it isn't a whole model.
        OSError: it can't be read or written.
    """
    staging = staging_for(target)
    _check_archive(source)
    with _opened(source, name) as sources:
        files = _from_top(_taken(sources, source, name), name)
        begin_install(staging, target, _origin(source))
        _copy(files, staging, told)
    check_sums(staging, name)
    return finish(staging, target, name)


def finish(staging: Path, target: Path, name: str) -> Path | None:
    """Let a complete staging folder take the target's place. The folder that was there before is removed if timbred
    wrote all that is in it and nothing was changed since; else it is kept, and its new path returned.

    Raises:
        MissingWeights, ModelError: what is in there isn't a whole model; the target stays as it was.
        OSError: from the file system; the target stays as it was.
    """
    checkpoint.inspect(staging, name, "the source isn't whole: get it anew")
    before = target.with_name(f".{target.name}.before")
    kept = retire(before, target.name)  # of a process that was killed between the renames
    if target.exists():
        rename_to_free_name(target, before)
    try:
        rename_to_free_name(staging, target)
    except OSError:
        if before.exists() and not target.exists():
            rename_to_free_name(before, target)
        raise
    return retire(before, target.name) or kept


def sha256(file: Path) -> str:
    """A file's hash, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def check_sums(folder: Path, name: str) -> None:
    """Compare files with the hashes that are listed in the folder, if they are.

    Raises:
        ModelError: one differs or isn't there; the wrong file is removed, so that the next try fetches it again.
    """
    listed = folder / SUMS
    text = listed.read_text("utf-8", "replace") if listed.exists() else ""
    for line in text.splitlines():
        if found := _SUM.fullmatch(line.strip()):
            check_file(folder, found[2].removeprefix("./"), found[1], name)


def check_file(folder: Path, listed: str, expected: str, name: str) -> None:
    """Compare one file with its hash; files that aren't taken from a source are passed over.

    Raises:
        ModelError: it differs or isn't there.
    """
    path = PurePosixPath(listed)
    if not _is_taken(path.name) or path.is_absolute() or ".." in path.parts:
        return
    file = _found(folder, path)
    if file is None:
        raise ModelError(f"{name}: {listed} is in the list of hashes but not among the files; get the model anew")
    if sha256(file) != expected.lower():
        file.unlink()
        raise ModelError(f"{name}: {listed} isn't the file that its hash says; get it anew")


def _found(folder: Path, path: PurePosixPath) -> Path | None:
    """The file, also where the list was made from one folder further up."""
    tries = [folder.joinpath(*path.parts), folder.joinpath(*path.parts[1:])]
    return next((file for file in tries if file.is_file()), None)


def _check_archive(source: Path) -> None:
    """Compare the archive itself with the list of hashes beside it, if there is one that names it.

    Raises:
        ModelError: it isn't the one that is meant.
    """
    listed = source.parent / SUMS
    if not source.is_file() or not listed.is_file():
        return
    for line in listed.read_text("utf-8", "replace").splitlines():
        found = _SUM.fullmatch(line.strip())
        if found and found[2].removeprefix("./") == source.name and sha256(source) != found[1].lower():
            raise ModelError(f"{source} isn't the file that {listed} says; get it anew")


# staging


def staging_for(target: Path) -> Path:
    """The folder beside a model's own in which it is put together."""
    return target.with_name(f".{target.name}.partial")


def begin_install(staging: Path, target: Path, origin: Origin) -> None:
    """Keep what is there from the same source, retire what is from another.

    Raises:
        BadRequest: a folder is in the way that timbred didn't make.
        OSError: from the file system.
    """
    if staging.exists() and (there := origin_of(staging)) != origin:
        if there is None:
            raise BadRequest(f"{staging} is in the way, and timbred didn't make it: move it elsewhere")
        retire(staging, target.name)
    begin_record(staging, origin)


def _origin(source: Path) -> Origin:
    stat = source.stat()
    return [str(source.resolve()), stat.st_size, stat.st_mtime_ns]


def _copy(files: list[Source], staging: Path, told: Told) -> None:
    total, done = sum(file.size for file in files), 0
    told(0, total)
    for file in files:
        path = staging.joinpath(*PurePosixPath(file.name).parts)
        if not (path.is_file() and path.stat().st_size == file.size):
            part = path.with_name(f"{path.name}.part")
            path.parent.mkdir(parents=True, exist_ok=True)
            add_part(staging, part)
            _copy_one(file, path, part, lambda part, before=done: told(before + part, total))
            add(staging, path)
        done += file.size
        told(done, total)


def _copy_one(file: Source, path: Path, part: Path, told: Callable[[int], None]) -> None:
    """A file has its name only once it is whole, and no more is written than was announced."""
    written = 0
    with file.open() as content, part.open("wb") as out:
        while block := content.read(min(_BLOCK, file.size - written + 1)):
            written += len(block)
            if written > file.size:
                raise ModelError(f"{file.name} is longer than its archive says; nothing was installed")
            out.write(block)
            told(written)
    if written != file.size:
        raise ModelError(f"{file.name} ends after {written} of {file.size} bytes; get the archive anew")
    part.replace(path)


# sources


@contextmanager
def _opened(source: Path, name: str) -> Generator[list[Source]]:
    try:
        if source.is_dir():
            yield _in_folder(source)
        elif source.name.endswith(".zip"):
            with zipfile.ZipFile(source) as archive:
                yield _in_zip(archive, name)
        elif source.name.endswith(ARCHIVES):
            with tarfile.open(source) as archive:
                yield _in_tar(archive, name)
        elif source.exists():
            raise BadRequest(f"{source} is neither a folder nor one of {', '.join(ARCHIVES)}")
        else:
            raise BadRequest(f"{source} isn't there; name a folder or an archive ({', '.join(ARCHIVES)})")
    except TimbredError:
        raise
    except DAMAGED as error:
        raise ModelError(f"{name}: {source} is damaged or can't be unpacked ({error}); get it anew") from error
    except OSError as error:
        if error.errno is None or "gzip" in str(error).lower():
            raise ModelError(f"{name}: {source} is damaged ({error}); get it anew") from error
        raise


def _in_folder(folder: Path) -> list[Source]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and _is_taken(path.name))
    return [Source(file.relative_to(folder).as_posix(), file.stat().st_size, _file_opener(file)) for file in files]


def _file_opener(file: Path) -> Callable[[], IO[bytes]]:
    """Opens a file later."""
    return lambda: file.open("rb")


def _in_zip(archive: zipfile.ZipFile, name: str) -> list[Source]:
    found: list[Source] = []
    for entry in archive.infolist():
        kind = entry.external_attr >> 28
        if kind not in {0, 0o4, 0o10}:  # neither unsaid nor folder nor file: a link, a device
            raise _nasty(name, entry.filename, "is a link or a device")
        if not entry.is_dir():
            found.append(Source(entry.filename, entry.file_size, _zip_opener(archive, entry)))
    return found


def _zip_opener(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(entry)


def _in_tar(archive: tarfile.TarFile, name: str) -> list[Source]:
    found: list[Source] = []
    for entry in archive:
        if len(found) > MOST_FILES:
            break
        if not (entry.isfile() or entry.isdir()):
            raise _nasty(name, entry.name, "is a link or a device")
        if entry.isfile():
            found.append(Source(entry.name, entry.size, _tar_opener(archive, entry)))
    return found


def _tar_opener(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        content = archive.extractfile(entry)
        if content is None:
            raise ModelError(f"{entry.name} can't be read")
        return content

    return opened


def _is_taken(name: str) -> bool:
    return name == SUMS or any(fnmatch(name.lower(), pattern) for pattern in TAKEN)


def _taken(sources: list[Source], archive: Path, name: str) -> list[Source]:
    """What a model consists of.

    Raises:
        ModelError: a path leads out of the folder, two are the same, or there is far too much.
    """
    if len(sources) > MOST_FILES:
        raise ModelError(f"{name}: {archive} has more than {MOST_FILES} files: that isn't a model")
    for source in sources:
        _check_path(source.name, name)
    files = [source for source in sources if _is_taken(PurePosixPath(source.name).name)]
    for source in files:
        _check_names(source.name, name)
    names = [comparison_key(str(PurePosixPath(file.name))) for file in files]
    if twice := {one for one in names if names.count(one) > 1}:
        raise _nasty(name, min(twice), "is there twice")
    if parents := {str(one) for path in names for one in PurePosixPath(path).parents} & set(names):
        raise _nasty(name, min(parents), "is a file and a folder")
    total = sum(file.size for file in files)
    if archive.is_file() and total > max(ROOM_FOR_SMALL, MOST_SWOLLEN * archive.stat().st_size):
        raise ModelError(f"{name}: {archive} would swell to {total / 1e9:.1f} GB: that isn't a model")
    return files


def _check_path(path: str, name: str) -> None:
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or "\x00" in path or ":" in path or ".." in parts:
        raise _nasty(name, path, "leads out of the model's folder")


def _check_names(path: str, name: str) -> None:
    if any(name_fault(part) for part in path.split("/") if part not in ("", ".")):
        raise _nasty(name, path, "has a name that can't be a file's on every system")


def _nasty(name: str, path: str, why: str) -> ModelError:
    return ModelError(f"{name}: {path[:100]!r} in the archive {why}; nothing was installed")


def _from_top(files: list[Source], name: str) -> list[Source]:
    """Paths from the folder that has the pipeline's index, which may be one folder down."""
    indexes = sorted((PurePosixPath(file.name) for file in files), key=lambda path: len(path.parts))
    top = next((path.parent for path in indexes if path.name == checkpoint.INDEX), None)
    if top is None:
        raise MissingWeights(f"{name}: there is no {checkpoint.INDEX} in it: it isn't a model in diffusers' format")
    inside = [file for file in files if PurePosixPath(file.name).is_relative_to(top)]
    return [Source(PurePosixPath(file.name).relative_to(top).as_posix(), file.size, file.open) for file in inside]
