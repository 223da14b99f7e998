"""A stand-in for CUDA graphs on a CPU: a call's operations are recorded once, and replayed on the same memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from timbred.engine.device import count_tensor_bytes

aten = torch.ops.aten

READS_VALUES = {aten._local_scalar_dense.default, aten.is_nonzero.default, aten.nonzero.default}
"""Operations that wait for values on the CPU, which isn't possible while a graph is recorded."""

DRAWS_NOISE = {aten.randn.default, aten.randn.generator, aten.normal_.default, aten.rand.default, aten.uniform_.default}
"""Operations whose results a replay would not repeat for another seed."""


class _Recorder(TorchDispatchMode):
    """Records operations with the tensors that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READS_VALUES | DRAWS_NOISE:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, _tensors(result)))
        return result


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


class RecordedCall:
    """Replays a call as `CudaGraphCall` does: only its inputs change, everything else is what it was at first.

    Attributes:
        replays: Number of replays of all calls with memory of their own.
        fails_with: Error that recording a call with memory of its own raises.
        size_bytes: Bytes of its inputs.
    """

    replays = 0
    fails_with: Exception | None = None

    def __init__(
        self, call: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], has_own_memory: bool = False
    ) -> None:
        self.has_own_memory = has_own_memory
        if has_own_memory and RecordedCall.fails_with is not None:
            raise RecordedCall.fails_with
        self._inputs = [tensor.clone() for tensor in inputs]
        with _Recorder() as recorder:
            self._output = call(*self._inputs)
        self._operations = recorder.operations
        self.size_bytes = count_tensor_bytes(self._inputs)
        for tensor in self._inputs:
            tensor.zero_()  # a replay that reads the first inputs would be wrong

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        for static_input, tensor in zip(self._inputs, inputs, strict=True):
            static_input.copy_(tensor)
        for func, args, kwargs, results in self._operations:
            for recorded, result in zip(results, _tensors(func(*args, **kwargs)), strict=True):
                if recorded.data_ptr() != result.data_ptr():
                    recorded.copy_(result)
        RecordedCall.replays += self.has_own_memory
        return self._output.clone()
