"""Traced calls as TorchScript functions."""

import gc
import weakref

import torch
from torch import nn

from timbred.engine.compile.traced_calls import pack_weights, script_graph, trace


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 8, 3, padding=1, stride=2)
        self.norm = nn.GroupNorm(2, 8)
        self.linear = nn.Linear(8, 5)
        self.register_buffer("shift", torch.full((5,), 0.25))

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        first, second = self.norm(self.convolution(x)).chunk(2, dim=1)
        mixed = torch.nn.functional.silu(torch.cat([second, first], dim=1))
        return self.linear(mixed.permute(0, 2, 3, 1)) * scale.reshape(-1, 1, 1, 1) + self.shift


def _call(module: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    return module(*inputs)


def _inputs(rows: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 4, 16, 12), torch.rand(rows) + 0.5


def test_script_graph_equals_the_graph_bit_for_bit() -> None:
    torch.manual_seed(1)
    inputs = _inputs()
    traced = trace(_call, _Block(), inputs)
    function = script_graph(traced.graph)
    for _ in range(4):  # the executor rewrites a function in its first calls
        others = _inputs()
        assert torch.equal(function(*traced.weights, *others), traced(*others))


def test_script_graph_calls_onednn_without_python() -> None:
    inputs = _inputs()
    packed = pack_weights(trace(_call, _Block(), inputs), inputs)
    operations = {node.kind() for node in packed.graph.graph.nodes()}
    assert {"mkldnn::_convolution_pointwise", "mkldnn::_linear_pointwise"} <= operations
    assert not any(operation.startswith(("timbred::", "prim::PythonOp")) for operation in operations)


def test_pack_weights_keeps_the_result_of_the_plain_call() -> None:
    torch.manual_seed(2)
    block, inputs = _Block(), _inputs()
    packed = pack_weights(trace(_call, block, inputs), inputs)
    with torch.no_grad():
        torch.testing.assert_close(packed(*inputs), block(*inputs), rtol=1e-5, atol=1e-5)


def _pack_and_drop() -> list[weakref.ref[torch.Tensor]]:
    """Return references to the weights of a packed call that was called once."""
    inputs = _inputs()
    packed = pack_weights(trace(_call, _Block(), inputs), inputs)
    packed(*inputs)
    return [weakref.ref(weight) for weight in packed.weights]


def test_script_graph_frees_its_weights_with_the_call() -> None:
    weights = _pack_and_drop()
    gc.collect()
    assert weights
    assert not any(weight() is not None for weight in weights)
