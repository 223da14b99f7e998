"""Components with equal content are held once, however many models they come with.

The AudioLDM 2 checkpoints have the same text encoders, VAE and vocoder: two thirds of their weight.
"""

import hashlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

_READ_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class _Held:
    files: tuple[Path, ...]
    component: "weakref.ref[torch.nn.Module]"


class SharedComponents:
    """What is in memory, by the files it came from. Keeps nothing alive by itself."""

    def __init__(self) -> None:
        self._held: dict[tuple[object, ...], list[_Held]] = {}
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
        group.append(_Held(files, weakref.ref(component)))

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
            while block := file.read(_READ_AT_ONCE):
                content.update(block)
    return content.digest()
