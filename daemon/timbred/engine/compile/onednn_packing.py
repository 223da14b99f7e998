"""Traced calls for CPUs with each weight laid out once for oneDNN, as one TorchScript function.

Otherwise oneDNN reorders the weights of a convolution at every call, which takes a small model as long as the
arithmetic. The results differ from the plain call's by float32 rounding only.

A graph module runs its operations from Python one by one, and each of them waits for the GIL at its end: next to a
thread that runs Python code, such as a load, a call of 200 operations waits 200 times. A TorchScript function waits
once, and its results are those of the graph bit for bit. A second reference to each weight, outside Python, is kept for
the same reason: torch acquires the GIL when a tensor's references become one again, the Python object's.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx.node import Node
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from timbred.engine.compile.traced_calls import Traced, take_graph_apart
from timbred.engine.device import count_tensor_bytes

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
