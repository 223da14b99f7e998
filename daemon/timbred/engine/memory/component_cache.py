"""Weight files in memory: read before they are mapped, shared by content, and released in small blocks.

The libraries map a file and return views. A view's page is read at its first use, possibly during a step, and all pages
are released with the last view, which takes 50 ms for each GB; both with the GIL held.
"""

import ctypes
import hashlib
import mmap
import sys
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

_READ_BLOCK_BYTES = 1 << 26
_RELEASE_BLOCK_BYTES = 1 << 24
_MAPS_FILE = Path("/proc/self/maps")


def read_into_page_cache(files: Sequence[Path]) -> None:
    """Read files into the page cache, without the GIL."""
    with mmap.mmap(-1, _READ_BLOCK_BYTES) as buffer:  # unlike an array, not zeroed while holding the GIL
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def convert_weights(
    module: torch.nn.Module,
    precision: torch.dtype,
    unconverted_names: frozenset[str],
    files: Sequence[Path],
    on_host: bool,
) -> None:
    """Convert a module's floating-point weights to a precision, and detach them from their files where needed.

    Args:
        module: A module whose tensors are views of mapped files.
        precision: Target dtype.
        unconverted_names: Names; weights with one of them in their path keep their dtype.
        files: The mapped files.
        on_host: True if the module stays in host memory: views of the right dtype are kept, and their pages are
            loaded. False if it moves to a device: nothing stays a view.
    """
    views: list[torch.Tensor] = []

    def convert(path: str, tensor: torch.Tensor) -> torch.Tensor:
        unconverted = not tensor.is_floating_point() or not unconverted_names.isdisjoint(path.split("."))
        target_dtype = tensor.dtype if unconverted else precision
        if on_host and tensor.dtype == target_dtype:
            _load_pages(tensor)
            return tensor
        views.append(tensor)
        return tensor.to(target_dtype, copy=True)

    for path, parameter in module.named_parameters():
        parameter.data = convert(path, parameter.data)
    for path, buffer in tuple(module.named_buffers(remove_duplicate=False)):
        owner, _, name = path.rpartition(".")
        setattr(
            module.get_submodule(owner), name, convert(path, buffer)
        )  # assigning .data of a view would keep the base tensor
    if not on_host:
        release_pages(views, files)


def _load_pages(tensor: torch.Tensor) -> None:
    """Read one element of each page without the GIL, so that no thread that holds it waits for the page."""
    if tensor.is_contiguous():
        tensor.view(-1)[:: max(1, mmap.PAGESIZE // tensor.element_size())].count_nonzero()


def release_pages(views: Sequence[torch.Tensor], files: Sequence[Path]) -> None:
    """Release the pages of mapped files that these tensors are views of; a later use reads them again.

    On Linux only, by madvise(2) and proc_pid_maps(5); elsewhere they are released with the last view.
    """
    if not sys.platform.startswith("linux"):
        return
    advise = ctypes.CDLL(None, use_errno=True).madvise  # ctypes releases the GIL
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    addresses = [view.data_ptr() for view in views]
    for first, end in _mapped_ranges({str(path.resolve()) for path in files}):
        if not any(first <= address < end for address in addresses):
            continue  # mapped by another model
        for address in range(first, end, _RELEASE_BLOCK_BYTES):
            advise(address, min(_RELEASE_BLOCK_BYTES, end - address), mmap.MADV_DONTNEED)


def _mapped_ranges(paths: set[str]) -> Iterator[tuple[int, int]]:
    """Yield the address ranges at which files are mapped: first, and one past the last."""
    for line in _MAPS_FILE.read_text("utf-8", errors="surrogateescape").splitlines():
        addresses, _, rest = line.partition(" ")
        _, slash, path = rest.partition("/")
        if slash + path in paths:
            first, _, end = addresses.partition("-")
            yield int(first, 16), int(end, 16)


_HASH_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class _SharedEntry:
    files: tuple[Path, ...]
    component: "weakref.ref[torch.nn.Module]"


class SharedComponents:
    """Components in memory, by the content of their files; holds weak references only."""

    def __init__(self) -> None:
        self._entries: dict[tuple[object, ...], list[_SharedEntry]] = {}
        self._digests: dict[tuple[object, ...], bytes] = {}

    def find(self, kind: str, files: tuple[Path, ...]) -> torch.nn.Module | None:
        """Return a component of this class that was loaded from files of the same content, or None.

        Contents are compared only where class and sizes agree.
        """
        for entry in self._entries.get(_key(kind, files), []):
            component = entry.component()
            if component is not None and (entry.files == files or self._digest(entry.files) == self._digest(files)):
                return component
        return None

    def add(self, kind: str, files: tuple[Path, ...], component: torch.nn.Module) -> None:
        """Register a component for as long as a model holds it."""
        group = self._entries.setdefault(_key(kind, files), [])
        group[:] = [entry for entry in group if entry.component() is not None]
        group.append(_SharedEntry(files, weakref.ref(component)))

    def _digest(self, files: tuple[Path, ...]) -> bytes:
        """Return the digest of files; they are read once until they change."""
        stats = [(file, file.stat()) for file in files]
        key = tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)
        if key not in self._digests:
            self._digests[key] = _digest(files)
        return self._digests[key]


def _key(kind: str, files: tuple[Path, ...]) -> tuple[object, ...]:
    return kind, tuple(file.stat().st_size for file in files)


def _digest(files: tuple[Path, ...]) -> bytes:
    content = hashlib.blake2b()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(_HASH_BLOCK_BYTES):
                content.update(block)
    return content.digest()
