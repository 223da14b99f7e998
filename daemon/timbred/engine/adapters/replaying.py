"""CUDA graphs: a call's kernels are recorded once and then started together, which takes the launches' time away.

After https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs: what is recorded reads and writes fixed places
in memory, so inputs are copied in and the result is copied out.
"""

from collections.abc import Callable
from typing import Any

import torch

_pools: dict[torch.device, Any] = {}


class Replayed:
    """A call recorded for the shapes of `inputs`; made and used in one thread."""

    def __init__(self, call: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...]) -> None:
        """Raises:
        RuntimeError: the call does something that can't be recorded.
        """
        device = inputs[0].device
        if device not in _pools:
            _pools[device] = torch.cuda.graph_pool_handle()  # one for all: they never run at the same time
        self._inputs = [given.clone() for given in inputs]
        stream: Any = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            call(*self._inputs)  # handles and workspaces must be there before the recording
        torch.cuda.current_stream(device).wait_stream(stream)
        self._graph: Any = torch.cuda.CUDAGraph()
        # a model that loads in another thread may allocate meanwhile
        with torch.cuda.graph(self._graph, pool=_pools[device], stream=stream, capture_error_mode="thread_local"):
            self._output = call(*self._inputs)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._graph.replay()
        return self._output.clone()  # the next recording's result may lie in the same place
