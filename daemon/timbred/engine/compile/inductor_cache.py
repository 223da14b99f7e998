"""Calls compiled by torch's inductor, cached on disk across restarts.

Inductor needs a C++ compiler for CPUs and triton for CUDA. A cache file is code; it is read from the user's own cache
folder only, and only if this version of torch wrote it.
"""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch._inductor  # pyright: ignore[reportUnusedImport]

from timbred.engine.compile.tracing import Shape, Shapes, Traced
from timbred.ipc.socket_folder import atomic_write

log = logging.getLogger(__name__)

_inductor: Any = getattr(torch, "_inductor")  # noqa: B009  has no other name

CACHE_FORMAT_VERSION = 1
"""Version of the cache files; files of another version are not read."""


def device_key(device: torch.device) -> str:
    """Return a name for torch's version and the device's kind, which compiled code depends on besides the model."""
    kind = torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        kind = f"{torch.cuda.get_device_name(device)}-{major}.{minor}"
    safe_kind = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in kind)
    return f"{CACHE_FORMAT_VERSION}-torch-{torch.__version__}-{device.type}-{safe_kind}"


def module_key(module: Any) -> str:
    """Return a name that is equal for modules of equal structure and precision."""
    first = next(iter(module.parameters()))
    structure = {name: value for name, value in dict(module.config).items() if name != "_name_or_path"}
    config = json.dumps(structure, sort_keys=True, default=str)
    description = f"{type(module).__qualname__} {first.dtype} {config}"
    return hashlib.sha256(description.encode()).hexdigest()[:24]


MAX_RECORDED_SHAPES = 64
"""Maximum number of recorded shapes of one module across restarts."""


@dataclass(frozen=True)
class CompileCache:
    """The folder for one module on one device: the shapes of its calls, and their compiled calls.

    Without a folder nothing is stored.
    """

    folder: Path | None

    def recorded_shapes(self, limit: int) -> list[Shapes]:
        """Return the shapes of earlier runs, the latest first. Invalid files are skipped."""
        records = [_read_shapes(file) for file in self._record_files()[:limit]]
        return [shapes for shapes in records if shapes is not None]

    def record_shapes(self, shapes: Shapes) -> None:
        """Record that these shapes are in use; beyond `MAX_RECORDED_SHAPES` the oldest records are removed."""
        if self.folder is not None:
            file = self.folder / _file_name(shapes, "json")
            _write(file, json.dumps([asdict(shape) for shape in shapes]).encode())
            for old in self._record_files()[MAX_RECORDED_SHAPES:]:
                recorded = _read_shapes(old)
                if recorded is not None and old.name == _file_name(recorded, "json"):  # another program's file
                    old.unlink(missing_ok=True)

    def read(self, shapes: Shapes) -> Any | None:
        """Return the compiled call for these shapes, if it is cached and this version of torch can read it."""
        file = None if self.folder is None else self.folder / _file_name(shapes, "compiled")
        if file is None or not file.exists():
            return None
        try:
            return _inductor.CompiledArtifact.load(path=str(file), format="binary")
        except Exception as error:  # noqa: BLE001  a damaged or foreign file only costs a compilation
            log.warning("%s can't be read and is compiled again: %s", file, error)
            return None

    def write(self, shapes: Shapes, compiled: Any) -> None:
        """Store a compiled call."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / _file_name(shapes, "compiled"), prefix=".writing-") as hidden:
            compiled.save(path=str(hidden), format="binary")

    def _record_files(self) -> list[Path]:
        """Return the files that record shapes, the latest first."""
        files = [] if self.folder is None else self.folder.glob("*.json")
        times = {file: mtime for file in files if (mtime := _modification_time(file)) is not None}
        return sorted(times, key=lambda file: times[file], reverse=True)


def _file_name(shapes: Shapes, kind: str) -> str:
    return f"{hashlib.sha256(repr(shapes).encode()).hexdigest()[:24]}.{kind}"


def load_or_compile(
    traced: Traced, inputs: tuple[torch.Tensor, ...], shapes: Shapes, disk_cache: CompileCache
) -> Traced:
    """Compile a call, and store it in the cache.

    Raises:
        Exception: Of many types, where inductor or its compiler fails.
    """
    arguments = [*traced.weights, *inputs]
    compiled = _inductor.standalone_compile(traced.graph, arguments, dynamic_shapes="from_example_inputs", aot=True)
    try:
        disk_cache.write(shapes, compiled)
    except OSError as error:
        log.warning("a compiled call can't be stored for the next start: %s", error)
    return Traced(compiled, traced.weights)


def _read_shapes(file: Path) -> Shapes | None:
    try:
        entries: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
        shapes = tuple(Shape(tuple(map(int, entry["size"])), str(entry["kind"])) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = all(isinstance(getattr(torch, shape.kind, None), torch.dtype) for shape in shapes)
    return shapes if shapes and known else None


def _modification_time(file: Path) -> int | None:
    """Return a file's modification time in ns; None if another process has removed it."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, prefix=".writing-") as hidden:
        hidden.write_bytes(content)
