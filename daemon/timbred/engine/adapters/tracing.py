"""A module's call as a flat graph for one set of shapes, its weights as arguments.

Made without touching the module: others may be calling it meanwhile.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen

Call = Callable[..., torch.Tensor]
"""Calls a module, the first argument, with tensors, the others."""


@dataclass(frozen=True)
class Shape:
    """What is known of a tensor before it is there."""

    size: tuple[int, ...]
    kind: str

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Shape":
        return cls(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    def example(self, device: torch.device) -> torch.Tensor:
        """A tensor like it, of zeros."""
        return torch.zeros(self.size, dtype=getattr(torch, self.kind), device=device)


Shapes = tuple[Shape, ...]


@dataclass(frozen=True)
class Traced:
    """`graph(*weights, *inputs)` is what the module's call gives. The weights are the module's own, but for `copies`:
    so many bytes are laid out anew for this call."""

    graph: Any
    weights: tuple[torch.Tensor, ...]
    copies: int = 0

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        result = self.graph(*self.weights, *inputs)
        return result if isinstance(result, torch.Tensor) else result[0]


class _Called(torch.nn.Module):
    def __init__(self, module: torch.nn.Module, call: Call) -> None:
        super().__init__()
        self.module = module
        self.call = call

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.call(self.module, *inputs)


@torch.no_grad()
def trace(call: Call, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Traced:
    """Follow a call through the module; only the shapes of `inputs` matter.

    Raises:
        Exception: of many kinds, where the call can't be followed.
    """
    names, weights = [f"module.{name}" for name in _named(module)], list(weights_of(module))
    hollow = _Called(_without_weights(module), call)

    def called(given: list[torch.Tensor], *rest: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(hollow, dict(zip(names, given, strict=True)), rest)

    graph: Any = make_fx(called, tracing_mode="fake", pre_dispatch=True)(weights, *inputs)
    graph.graph.set_codegen(CodeGen())  # plain arguments, not nested ones
    graph.recompile()
    return Traced(graph, tuple(weights))


def weights_of(module: torch.nn.Module) -> tuple[torch.Tensor, ...]:
    """A module's tensors as its traced calls take them."""
    return tuple(tensor.detach() for tensor in _named(module).values())


def _named(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])


def _without_weights(module: torch.nn.Module) -> torch.nn.Module:
    """The module's structure; its tensors take no memory."""
    known: dict[int, Any] = {id(one): torch.nn.Parameter(one.to("meta"), False) for one in module.parameters()}
    known |= {id(one): one.to("meta") for one in module.buffers()}
    return copy.deepcopy(module, known)
