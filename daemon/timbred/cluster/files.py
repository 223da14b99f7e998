"""Files that an engine on another machine reads by their paths: their hashes, and the copies on a node.

A *bundle* is the list of the files of a model's folder, or one file such as a LoRA's, with their SHA-256. Two bundles
with the same files are the same, wherever they lie. A node that has the files already uses them where they are; any
other keeps one copy in its cache folder, under the bundle's digest:

    models/DIGEST          a complete copy; renamed to this name once every hash is right
    models/DIGEST.part     a copy that is being written
    models/DIGEST.lock     locked by the process that writes it, so that two actors of a node fetch it once
"""

import contextlib
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from timbred.disk import rename_to_free_name, try_lock
from timbred.errors import Internal, MissingWeights, ModelError
from timbred.ipc.engine_messages import LoadModel, ModelSource, RenderJob
from timbred.models.install import sha256

MAX_BUNDLE_FILES = 10_000
"""Files of a model's folder; one with more is a mistake, such as a home folder."""


class BundleFile(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One file: its path within the bundle with `/`, its size in bytes, and its SHA-256 in hexadecimal digits."""

    name: str
    size: int
    sha256: str


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """The files that one path of an order stands for; `is_folder` is False for a single file."""

    files: tuple[BundleFile, ...]
    is_folder: bool

    @property
    def digest(self) -> str:
        """Name of the bundle: a hash of its names and hashes."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def check_names(self) -> None:
        """Refuse names that lead out of the folder into which the files are written.

        Raises:
            ModelError: One does.
        """
        for file in self.files:
            path = PurePosixPath(file.name)
            if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in file.name or "\0" in file.name:
                raise ModelError(f"{file.name!r} isn't a name of a model's file; install the model again")


class FileHashes:
    """SHA-256 of files, computed again only when a file's size, time or inode has changed. Thread-safe."""

    def __init__(self) -> None:
        self._hashes: dict[Path, tuple[tuple[int, ...], str]] = {}
        self._lock = threading.Lock()

    def of(self, path: Path) -> str:
        """Return a file's SHA-256.

        Raises:
            OSError: It can't be read.
        """
        key = _fingerprint(path)
        with self._lock:
            known = self._hashes.get(path)
        if known is not None and known[0] == key:
            return known[1]
        digest = sha256(path)
        with self._lock:
            self._hashes[path] = (key, digest)
        return digest


def _fingerprint(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def folder_fingerprint(path: Path) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return names, sizes, times and inodes of a path's files: equal as long as its bundle is; reads no file.

    Raises:
        OSError: The path can't be read.
        MissingWeights, ModelError: As `list_files`.
    """
    return tuple((file.name, _fingerprint(file)) for file in list_files(path))


def list_files(path: Path) -> list[Path]:
    """Return the files that a path stands for: itself, or those of a folder without hidden ones, in order.

    Raises:
        OSError: The path can't be read.
        MissingWeights: There is nothing at the path.
        ModelError: It has too many files, or a pipe or a device.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise MissingWeights(f"there is no file or folder {path}; install the model again")
    found: list[Path] = []
    for folder, folders, names in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            file = Path(folder) / name
            if not stat.S_ISREG(file.stat().st_mode):
                raise ModelError(f"{file} isn't a regular file; install the model again")
            found.append(file)
        if len(found) > MAX_BUNDLE_FILES:
            raise ModelError(f"{path} has more than {MAX_BUNDLE_FILES} files: it isn't a model's folder")
    return sorted(found)


def make_bundle(path: Path, hashes: FileHashes) -> Bundle:
    """Return the bundle of a file or a folder.

    Raises:
        OSError: It can't be read.
        MissingWeights, ModelError: As `list_files`.
    """
    files = list_files(path)
    is_folder = path.is_dir()
    names = [file.relative_to(path).as_posix() if is_folder else file.name for file in files]
    entries = (
        BundleFile(name=name, size=file.stat().st_size, sha256=hashes.of(file))
        for name, file in zip(names, files, strict=True)
    )
    return Bundle(files=tuple(sorted(entries)), is_folder=is_folder)


def holds(path: Path, bundle: Bundle, hashes: FileHashes) -> bool:
    """Return True if a path has these files with these hashes and, in a folder, no others that aren't hidden."""
    try:
        files = list_files(path)
        if path.is_dir() != bundle.is_folder or len(files) != len(bundle.files):
            return False
        if sorted(file.stat().st_size for file in files) != sorted(file.size for file in bundle.files):
            return False
        return make_bundle(path, hashes) == bundle
    except (OSError, MissingWeights, ModelError):
        return False


def file_paths(order: LoadModel | RenderJob) -> tuple[str, ...]:
    """Return the paths in an order: of the model, of the CLAP and of the LoRAs; an empty one is left out."""
    paths = [order.model.folder]
    if isinstance(order, RenderJob):
        paths += [order.clap.folder] if order.clap is not None else []
        paths += [lora.path for lora in order.order.loras]
    return tuple(dict.fromkeys(path for path in paths if path))


def with_paths(order: LoadModel | RenderJob, places: dict[str, str]) -> LoadModel | RenderJob:
    """Return an order with its paths replaced by those on a node.

    Args:
        order: The daemon's order.
        places: The path on the node by the path in the order; others are left as they are.
    """

    def replaced(source: ModelSource) -> ModelSource:
        return msgspec.structs.replace(source, folder=places.get(source.folder, source.folder))

    if isinstance(order, LoadModel):
        return msgspec.structs.replace(order, model=replaced(order.model))
    loras = tuple(msgspec.structs.replace(lora, path=places.get(lora.path, lora.path)) for lora in order.order.loras)
    return msgspec.structs.replace(
        order,
        model=replaced(order.model),
        clap=None if order.clap is None else replaced(order.clap),
        order=msgspec.structs.replace(order.order, loras=loras),
    )


class NodeCache:
    """The copies of bundles on one node; the folder is shared by all actors of the node. Not thread-safe.

    Args:
        folder: Folder of the copies, created when the first one is written.
        hashes: Hashes of the files.
    """

    def __init__(self, folder: Path, hashes: FileHashes | None = None) -> None:
        self._folder = folder
        self._hashes = hashes or FileHashes()
        self._locks: dict[str, IO[str]] = {}

    def find(self, bundle: Bundle, candidates: Iterable[Path]) -> Path | None:
        """Return the path of these files on the node; None if they have to be fetched.

        Args:
            bundle: The files.
            candidates: Paths outside the cache that may have them.
        """
        copy = self._copy(bundle)
        own = copy if bundle.is_folder else copy / bundle.files[0].name
        if holds(own, bundle, self._hashes):
            return own
        return next((path for path in candidates if holds(path, bundle, self._hashes)), None)

    def begin(self, bundle: Bundle) -> bool:
        """Begin a copy; returns False while another process of the node writes the same one.

        Raises:
            ModelError: A name leads out of the folder.
            OSError: The folder can't be written.
        """
        bundle.check_names()
        self._folder.mkdir(parents=True, exist_ok=True)
        lock_file = (self._folder / f"{bundle.digest}.lock").open("w", encoding="utf-8")
        try:
            try_lock(lock_file)
        except BlockingIOError:
            lock_file.close()
            return False
        part = self._part(bundle)
        shutil.rmtree(part, ignore_errors=True)  # of a process that ended while it wrote
        part.mkdir()
        self._locks[bundle.digest] = lock_file
        return True

    def write(self, bundle: Bundle, name: str, offset: int, data: bytes) -> None:
        """Write bytes of a file at an offset.

        Raises:
            Internal: The copy wasn't begun, or it has no such file.
            OSError: They can't be written.
        """
        if bundle.digest not in self._locks or all(file.name != name for file in bundle.files):
            raise Internal(f"no copy of {name} was begun on this node")
        path = self._part(bundle) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)

    def finish(self, bundle: Bundle) -> Path:
        """Check a copy's hashes, give it its name, and return the path for orders.

        Raises:
            ModelError: A hash is wrong; the copy is removed.
            OSError: The folder can't be written.
        """
        part, copy = self._part(bundle), self._copy(bundle)
        try:
            source = part if bundle.is_folder else part / bundle.files[0].name
            if not holds(source, bundle, FileHashes()):
                raise ModelError(f"the copy in {part} differs from the daemon's files; send the request again")
            shutil.rmtree(copy, ignore_errors=True)  # a damaged one, or `find` would have returned it
            rename_to_free_name(part, copy)
        finally:
            self.give_up(bundle)
        return copy if bundle.is_folder else copy / bundle.files[0].name

    def give_up(self, bundle: Bundle) -> None:
        """Remove an incomplete copy, if there is one, and let other processes begin."""
        shutil.rmtree(self._part(bundle), ignore_errors=True)
        lock_file = self._locks.pop(bundle.digest, None)
        if lock_file is not None:
            lock_file.close()

    def close(self) -> None:
        """Let other processes begin the copies that this one hasn't completed."""
        for lock_file in self._locks.values():
            with contextlib.suppress(OSError):
                lock_file.close()
        self._locks.clear()

    def _copy(self, bundle: Bundle) -> Path:
        return self._folder / bundle.digest

    def _part(self, bundle: Bundle) -> Path:
        return self._folder / f"{bundle.digest}.part"
