"""Weight files as memory: read before they are mapped, and let go of in small pieces.

The libraries map a file and hand out views of it. A view's page comes from the disk when it is first used, which may be
in the midst of a step, and all pages go back at once with the last view, which takes a twentieth of a second for each
gigabyte; both with Python's lock held, so that every thread waits.
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
_MAPS = Path("/proc/self/maps")


def read_through(files: Sequence[Path]) -> None:
    """Have the system hold the files' content in memory, as fast as the disk gives it."""
    with mmap.mmap(-1, _READ_BLOCK_BYTES) as buffer:  # unlike an array, not filled with zeros under Python's lock
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def take_over(
    module: torch.nn.Module, precision: torch.dtype, kept: frozenset[str], files: Sequence[Path], stays: bool
) -> None:
    """Bring a module's floating-point weights to a precision; those with a name of `kept` in their path stay as precise
    as they are. Where it `stays` in the computer's memory, views that are precise enough go on being views, and all of
    them are there; where it moves on, nothing is a view any more.
    """
    views: list[torch.Tensor] = []

    def settled(path: str, tensor: torch.Tensor) -> torch.Tensor:
        as_it_is = not tensor.is_floating_point() or not kept.isdisjoint(path.split("."))
        wanted = tensor.dtype if as_it_is else precision
        if stays and tensor.dtype == wanted:
            _touch(tensor)
            return tensor
        views.append(tensor)
        return tensor.to(wanted, copy=True)

    for path, parameter in module.named_parameters():
        parameter.data = settled(path, parameter.data)
    for path, buffer in tuple(module.named_buffers(remove_duplicate=False)):
        owner, _, name = path.rpartition(".")
        setattr(module.get_submodule(owner), name, settled(path, buffer))  # another tensor's view keeps that for good
    if not stays:
        let_go(views, files)


def _touch(tensor: torch.Tensor) -> None:
    """Use one number of each page, without Python's lock, so that nobody who has it waits for the page."""
    if tensor.is_contiguous():
        tensor.view(-1)[:: max(1, mmap.PAGESIZE // tensor.element_size())].count_nonzero()


def let_go(views: Sequence[torch.Tensor], files: Sequence[Path]) -> None:
    """Give the pages of mapped files back that these tensors are views of; they come again from the file if they are
    used after all. Linux only; elsewhere they go with the last view.

    madvise(2), proc_pid_maps(5).
    """
    if not sys.platform.startswith("linux"):
        return
    advise = ctypes.CDLL(None, use_errno=True).madvise  # called without Python's lock
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    addresses = [view.data_ptr() for view in views]
    for first, end in _mapped({str(path.resolve()) for path in files}):
        if not any(first <= address < end for address in addresses):
            continue  # somebody else's
        for place in range(first, end, _RELEASE_BLOCK_BYTES):
            advise(place, min(_RELEASE_BLOCK_BYTES, end - place), mmap.MADV_DONTNEED)


def _mapped(paths: set[str]) -> Iterator[tuple[int, int]]:
    """The addresses at which files are mapped, each as its first and the one after its last."""
    for line in _MAPS.read_text("utf-8", errors="surrogateescape").splitlines():
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
    """What is in memory, by the files it came from. Keeps nothing alive by itself."""

    def __init__(self) -> None:
        self._held: dict[tuple[object, ...], list[_SharedEntry]] = {}
        self._digests: dict[tuple[object, ...], bytes] = {}

    def find(self, kind: str, files: tuple[Path, ...]) -> torch.nn.Module | None:
        """A component of this class that was loaded from files of the same content, if there is one.

        Contents are only read where class and sizes agree.
        """
        for held in self._held.get(_key(kind, files), []):
            component = held.component()
            if component is not None and (held.files == files or self._digest(held.files) == self._digest(files)):
                return component
        return None

    def files(self, components: Sequence[torch.nn.Module]) -> list[Path]:
        """Those that these components came from."""
        wanted = {id(component) for component in components}
        held = [one for group in self._held.values() for one in group if id(one.component()) in wanted]
        return [file for one in held for file in one.files]

    def add(self, kind: str, files: tuple[Path, ...], component: torch.nn.Module) -> None:
        """Remember a component for as long as a model holds it."""
        group = self._held.setdefault(_key(kind, files), [])
        group[:] = [held for held in group if held.component() is not None]
        group.append(_SharedEntry(files, weakref.ref(component)))

    def _digest(self, files: tuple[Path, ...]) -> bytes:
        """The content's digest; files are read once, until they change."""
        found = [(file, file.stat()) for file in files]
        key = tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in found)
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
