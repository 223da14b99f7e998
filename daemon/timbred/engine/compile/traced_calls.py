"""Traced calls of a module, for one set of input shapes: as a graph, compiled by inductor, or as a CUDA graph.

A trace is a flat graph with the weights as arguments. The module is not modified, because other threads may be calling
it.

Inductor needs a C++ compiler for CPUs and triton for CUDA. Its compiled calls are cached on disk across restarts. A
cache file is code; it is read from the user's own cache folder only, and only if this version of torch wrote it.
"""

import copy
import hashlib
import json
import linecache
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch._inductor  # pyright: ignore[reportUnusedImport]
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import graph_module
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen

from timbred.engine.device import count_tensor_bytes
from timbred.ipc.socket_folder import atomic_write

log = logging.getLogger(__name__)

_inductor: Any = getattr(torch, "_inductor")  # noqa: B009  has no other name

CACHE_FORMAT_VERSION = 1
"""Version of the cache files; files of another version are not read."""

MAX_RECORDED_SHAPES = 64
"""Maximum number of recorded shapes of one module across restarts."""

Call = Callable[..., torch.Tensor]
"""Calls a module, the first argument, with tensors, the others."""


@dataclass(frozen=True)
class Shape:
    """Size and dtype name of a tensor."""

    size: tuple[int, ...]
    kind: str

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Shape":
        """Return the shape of a tensor."""
        return cls(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    def example(self, device: torch.device) -> torch.Tensor:
        """Return a tensor of zeros of this shape."""
        return torch.zeros(self.size, dtype=getattr(torch, self.kind), device=device)


Shapes = tuple[Shape, ...]


@dataclass(frozen=True)
class Traced:
    """A traced call: `graph(*weights, *inputs)` equals the module's call.

    The weights are the module's own, except for `copied_bytes` bytes that are copied in another layout.
    `references` holds the other objects that the graph needs.
    """

    graph: Any
    weights: tuple[torch.Tensor, ...]
    copied_bytes: int = 0
    references: object = None

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run the graph on inputs."""
        result = self.graph(*self.weights, *inputs)
        return result if isinstance(result, torch.Tensor) else result[0]


class _CallModule(torch.nn.Module):
    def __init__(self, module: torch.nn.Module, call: Call) -> None:
        super().__init__()
        self.module = module
        self.call = call

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.call(self.module, *inputs)


@torch.no_grad()
def trace(call: Call, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Traced:
    """Trace a call through the module; only the shapes of `inputs` matter.

    Raises:
        Exception: Of many types, where the call can't be traced.
    """
    names, weights = [f"module.{name}" for name in _named_tensors(module)], list(weights_of(module))
    weightless = _CallModule(_without_weights(module), call)

    def call_with_weights(tensors: list[torch.Tensor], *call_inputs: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(weightless, dict(zip(names, tensors, strict=True)), call_inputs)

    graph: Any = make_fx(call_with_weights, tracing_mode="fake", pre_dispatch=True)(weights, *inputs)
    graph.graph.set_codegen(CodeGen())  # plain arguments, not nested ones
    graph.recompile()
    return Traced(graph, tuple(weights))


def take_graph_apart(graph: Any) -> None:
    """Free the nodes of a graph module that is no longer used.

    With metadata of every intermediate result they take several MB for a network. They form reference cycles, which
    would otherwise stay in memory until a garbage collection.
    """
    for node in reversed(list(graph.graph.nodes)):
        node.meta.clear()
        graph.graph.erase_node(node)


def clear_trace_caches() -> None:
    """Clear torch's caches of traces: results by operation and shapes, and the source of generated code.

    Neither is needed after tracing; together they take 2 MB for each shape of a network.
    """
    FakeTensorMode.cache_clear()
    loader = getattr(graph_module, "_loader", None)
    for name in list(getattr(loader, "eval_cache", ())):
        loader.eval_cache.pop(name, None)  # pyright: ignore[reportOptionalMemberAccess]
        linecache.cache.pop(name, None)


def weights_of(module: torch.nn.Module) -> tuple[torch.Tensor, ...]:
    """Return a module's tensors in the order of its traced calls' arguments."""
    return tuple(tensor.detach() for tensor in _named_tensors(module).values())


def _named_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])


def _without_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Copy a module with all tensors on the meta device."""
    meta_tensors: dict[int, Any] = {
        id(tensor): torch.nn.Parameter(tensor.to("meta"), False) for tensor in module.parameters()
    }
    meta_tensors |= {id(tensor): tensor.to("meta") for tensor in module.buffers()}
    return copy.deepcopy(module, meta_tensors)


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


_memory_pools: dict[torch.device, Any] = {}


def _shared_pool(device: torch.device) -> Any:
    """Return the memory pool that the graphs of a device share."""
    if device not in _memory_pools:
        _memory_pools[device] = torch.cuda.graph_pool_handle()
    return _memory_pools[device]


class CudaGraphCall:
    """A CUDA graph of a call for the shapes of `inputs`; created and used in one thread.

    Args:
        call: The call to record.
        inputs: Example inputs.
        has_own_memory: True for memory that is freed with the graph; False for the memory that graphs share, because
            they never run at the same time.

    Attributes:
        size_bytes: Bytes that recording it added to the device's memory.

    Raises:
        RuntimeError: The call can't be recorded.
    """

    def __init__(
        self, call: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], has_own_memory: bool = False
    ) -> None:
        device = inputs[0].device
        pool = torch.cuda.graph_pool_handle() if has_own_memory else _shared_pool(device)
        self._inputs = [tensor.clone() for tensor in inputs]
        stream: Any = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            call(*self._inputs)  # allocates handles and workspaces before the recording
        torch.cuda.current_stream(device).wait_stream(stream)
        self._graph: Any = torch.cuda.CUDAGraph()
        # another thread may allocate memory for a load meanwhile
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            bytes_before = torch.cuda.memory_reserved(device)
            self._output = call(*self._inputs)
            added_bytes = torch.cuda.memory_reserved(device) - bytes_before
        self.size_bytes = max(0, added_bytes) + count_tensor_bytes(self._inputs)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Replay the graph with new inputs of the same shapes."""
        for static_input, tensor in zip(self._inputs, inputs, strict=True):
            static_input.copy_(tensor)
        self._graph.replay()
        return self._output.clone()  # the next graph's result may use the same memory
