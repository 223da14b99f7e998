"""Traced calls as one TorchScript function, which runs without the GIL.

A graph module runs its operations from Python one by one, and each of them waits for the GIL at its end. Beside a
thread that runs Python code, such as a load, a call of 200 operations waits 200 times. A TorchScript function waits
once, and its results are the same bit for bit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

_onednn: Any = torch.ops.mkldnn
_internals: Any = getattr(torch, "_C")  # noqa: B009  has no public name

_CONVOLUTION = "packed_convolution(Tensor x, Tensor w, Tensor? b, int[] p, int[] s, int[] d, int groups) -> Tensor"
_LINEAR = "packed_linear(Tensor x, Tensor w, Tensor? b) -> Tensor"

_REPLACED = """
graph({arguments}):
  %result : Tensor = timbred::{name}({arguments})
  return (%result)"""

_REPLACEMENT = """
graph({arguments}):
  %attribute : str = prim::Constant[value="none"]()
  %scalars : Scalar?[] = prim::ListConstruct()
  %algorithm : str = prim::Constant[value=""]()
  %result : Tensor = mkldnn::{target}({arguments}, %attribute, %scalars, %algorithm)
  return (%result)"""

_OPERATIONS = {
    "packed_convolution": ("_convolution_pointwise", "%x, %w, %b, %p, %s, %d, %groups"),
    "packed_linear": ("_linear_pointwise", "%x, %w, %b"),
}
"""Stand-ins of oneDNN's operations: the tracer can't record a list of optional numbers, their last argument but one."""


def _define_stand_ins() -> torch.library.Library:
    library = torch.library.Library("timbred", "DEF")
    for schema in (_CONVOLUTION, _LINEAR):
        library.define(schema)
    for name, (target, _) in _OPERATIONS.items():
        operation = getattr(_onednn, target)

        def run(*arguments: Any, operation: Any = operation) -> torch.Tensor:
            return operation(*arguments, "none", [], "")

        library.impl(name, run, "CompositeExplicitAutograd")
    return library


_library = _define_stand_ins()


def stand_in(name: str) -> Any:
    """Return the operation `packed_convolution` or `packed_linear`: oneDNN's, without its last three arguments."""
    return getattr(torch.ops.timbred, name).default


def _no_name(_: torch.Tensor) -> str:
    """Return an intermediate result's name in the recorded graph: none."""
    return ""


@torch.no_grad()
def script_graph(
    graph: Callable[..., Any], weights: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]
) -> Callable[..., torch.Tensor]:
    """Return `graph(*weights, *inputs)` as one function for inputs of these shapes; it runs the graph once.

    Raises:
        RuntimeError: An operation can't be recorded.
    """

    def single(*tensors: torch.Tensor) -> torch.Tensor:
        result = graph(*tensors)
        return result if isinstance(result, torch.Tensor) else result[0]

    recorded, _ = _internals._create_graph_by_tracing(single, (*weights, *inputs), _no_name, True, False)
    for name, (target, arguments) in _OPERATIONS.items():
        before = _REPLACED.format(name=name, arguments=arguments)
        after = _REPLACEMENT.format(target=target, arguments=arguments)
        _internals._jit_pass_custom_pattern_based_rewrite_graph(before, after, recorded)
    return _internals._create_function_from_graph("forward", recorded)
