"""Traces of a module's call: a flat graph for one set of input shapes, with the weights as arguments.

The module is not modified, because other threads may be calling it.
"""

import copy
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import graph_module
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen

from timbred.engine.device import count_tensor_bytes

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
