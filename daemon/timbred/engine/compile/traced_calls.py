"""Traced calls of a module, for one set of input shapes: packed for oneDNN, compiled by inductor, or as a CUDA graph.

A trace is a flat graph with the weights as arguments. The module is not modified, because other threads may be calling
it.

Inductor needs a C++ compiler for CPUs and triton for CUDA. Its compiled calls are cached on disk across restarts. A
cache file is code; it is read from the user's own cache folder only, and only if this version of torch wrote it.

On CPUs each weight is laid out once for oneDNN, which otherwise reorders the weights of a convolution at every call:
that takes a small model as long as the arithmetic. The call becomes one TorchScript function. A graph module runs its
operations from Python one by one, and each of them waits for the GIL at its end: next to a load, a call of 200
operations waits 200 times. The results differ from the plain call's by float32 rounding only. A second reference to
each weight, outside Python, is kept for the same reason: torch acquires the GIL when a tensor's references become one
again, the Python object's.
"""

import copy
import hashlib
import importlib
import json
import linecache
import logging
import operator
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import graph_module
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen
from torch.fx.node import Node
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from timbred.engine.device import count_tensor_bytes, precision_of
from timbred.ipc.socket_folder import atomic_write

log = logging.getLogger(__name__)


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
    structure = {name: value for name, value in dict(module.config).items() if name != "_name_or_path"}
    config = json.dumps(structure, sort_keys=True, default=str)
    description = f"{type(module).__qualname__} {precision_of(module)} {config}"
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
            return _inductor().CompiledArtifact.load(path=str(file), format="binary")
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
    compiled = _inductor().standalone_compile(traced.graph, arguments, dynamic_shapes="from_example_inputs", aot=True)
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


def _inductor() -> Any:
    """Return torch's compiler, whose import takes a second."""
    return importlib.import_module("torch._inductor")


MAX_MODULE_BYTES = 400_000_000
"""Maximum bytes of a module's weights: a copy of more would cost more than it gains."""

_aten: Any = torch.ops.aten
_onednn: Any = torch.ops.mkldnn
_internals: Any = getattr(torch, "_C")  # noqa: B009  has no public name
_reorder_convolution: Any = _internals._nn.mkldnn_reorder_conv2d_weight


def can_pack(module: torch.nn.Module) -> bool:
    """Tell if this machine has oneDNN, and the module is float32 and small enough."""
    weights = list(module.parameters())
    is_float32 = all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)
    return torch.backends.mkldnn.is_available() and is_float32 and count_tensor_bytes(weights) <= MAX_MODULE_BYTES


@torch.no_grad()
def pack_weights(traced: Traced, inputs: tuple[torch.Tensor, ...]) -> Traced:
    """Return the call with packed weights as a TorchScript function, for these shapes only."""
    graph, weights = traced.graph, list(traced.weights)
    FakeTensorProp(graph).propagate(*weights, *inputs)
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    packer = _Packer(graph, {node: index for index, node in enumerate(placeholders[: len(weights)])}, weights)
    for node in list(graph.graph.nodes):
        packer.visit(node)
    graph.graph.eliminate_dead_code()
    copied_bytes = sum(
        _count_weight_bytes(weight)
        for weight, before in zip(weights, traced.weights, strict=True)
        if weight is not before
    )
    call = script_graph(graph)
    take_graph_apart(graph)
    return Traced(call, tuple(weights), copied_bytes, references=_internals.ScriptList(weights))


def _count_weight_bytes(weight: torch.Tensor) -> int:
    """Return a weight's bytes, including oneDNN's padding."""
    return int(_onednn._nbytes(weight)) if weight.is_mkldnn else count_tensor_bytes((weight,))


class _Packer:
    """Replaces operations in a graph; `weights` is modified in place."""

    def __init__(self, graph: Any, weight_indices: dict[Node, int], weights: list[torch.Tensor]) -> None:
        self.graph = graph
        self.weight_indices = weight_indices
        self.weights = weights

    def visit(self, node: Node) -> None:
        """Pack the weight of a convolution or linear layer, or remove an operation without effect."""
        if node.target is _aten.conv2d.default:
            self._pack_convolution(node)
        elif node.target is _aten.linear.default:
            self._pack_linear(node)
        elif _is_no_op(node):
            node.replace_all_uses_with(node.args[0])  # pyright: ignore[reportArgumentType]
            self.graph.graph.erase_node(node)

    def _pack_convolution(self, node: Node) -> None:
        complete_arguments: list[Any] = [*node.args, *(None, [1, 1], [0, 0], [1, 1], 1)[len(node.args) - 2 :]]
        source, weight, bias, stride, padding, dilation, groups = complete_arguments
        index = self._sole_use_index(weight)
        if index is None or isinstance(padding, str):
            return
        onednn_weight = self.weights[index].to_mkldnn()
        size = list(source.meta["val"].shape)
        self.weights[index] = _reorder_convolution(onednn_weight, padding, stride, dilation, groups, size)
        arguments = (source, weight, bias, padding, stride, dilation, groups, "none", [], "")
        self._replace(node, _onednn._convolution_pointwise.default, arguments)

    def _pack_linear(self, node: Node) -> None:
        source, weight, bias = (*node.args, None)[:3]
        index = self._sole_use_index(weight)
        if index is None:
            return
        size = source.meta["val"].shape  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
        rows = size.numel() // size[-1]
        self.weights[index] = _onednn._reorder_linear_weight(self.weights[index], rows)
        self._replace(node, _onednn._linear_pointwise.default, (source, weight, bias, "none", [], ""))

    def _sole_use_index(self, weight: Any) -> int | None:
        """Return the weight's argument index if this is its only use."""
        return self.weight_indices.get(weight) if isinstance(weight, Node) and len(weight.users) == 1 else None

    def _replace(self, node: Node, target: Any, arguments: tuple[Any, ...]) -> None:
        with self.graph.graph.inserting_before(node):
            replacement = self.graph.graph.call_function(target, arguments)
        replacement.meta = dict(node.meta)
        node.replace_all_uses_with(replacement)
        self.graph.graph.erase_node(node)


def _is_no_op(node: Node) -> bool:
    """Tell if a node is a dropout outside training, or a division by one."""
    if node.target is _aten.dropout.default:
        return not node.args[2]
    divides = node.target in {_aten.div.Tensor, operator.truediv}
    return divides and isinstance(node.args[1], int | float) and float(node.args[1]) == 1.0


@torch.no_grad()
def script_graph(graph: Any) -> Callable[..., torch.Tensor]:
    """Return a traced graph as one TorchScript function of the same arguments; nothing is run.

    Raises:
        AttributeError: A node calls a function that is no operation.
        RuntimeError: An argument can't be a constant.
    """
    script = _internals.Graph()
    values: dict[Node, Any] = {}
    results: dict[Node, list[Any]] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            values[node] = script.addInput(node.name)
        elif node.op == "get_attr":
            values[node] = script.insertConstant(getattr(graph, node.target))
        elif node.op == "output":
            (returned,) = node.args
            script.registerOutput(values[returned if isinstance(returned, Node) else returned[0]])
        elif node.target is operator.getitem:
            source, index = node.args
            values[node] = results[source][index]
        else:
            results[node] = _append_operation(script, node, values)
            if results[node]:
                values[node] = results[node][0]
    return _internals._create_function_from_graph("forward", script)


def _append_operation(script: Any, node: Node, values: dict[Node, Any]) -> list[Any]:
    """Append an operation with all arguments of its schema; returns its results."""
    target: Any = node.target
    schema = target._schema
    inputs: list[Any] = []
    for index, argument in enumerate(schema.arguments):
        value = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name, argument.default_value)
        inputs.append(_append_argument(script, value, argument.type, values))
    operation = script.create(schema.name, inputs, len(schema.returns))
    script.appendNode(operation)
    example = node.meta.get("val")
    if not isinstance(example, list):
        return list(operation.outputs())
    operation.output().setType(schema.returns[0].type)
    unpacked = script.create("prim::ListUnpack", [operation.output()], len(example))
    script.appendNode(unpacked)
    return list(unpacked.outputs())


def _append_argument(script: Any, value: Any, kind: Any, values: dict[Node, Any]) -> Any:
    """Return the value of an argument: a node's, a list, or a constant of the schema's type."""
    if isinstance(value, Node):
        return values[value]
    if isinstance(value, list | tuple) and (not value or any(isinstance(item, Node) for item in value)):
        items = [_append_argument(script, item, None, values) for item in value]
        listed = script.create("prim::ListConstruct", items, 1)
        listed.output().setType(kind)
        script.appendNode(listed)
        return listed.output()
    if isinstance(value, int) and not isinstance(value, bool) and "float" in str(kind):
        value = float(value)
    return script.insertConstant(list(value) if isinstance(value, tuple) else value)
