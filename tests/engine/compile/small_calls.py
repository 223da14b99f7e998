"""A module that is compiled soon, in a file that child processes import without the tests and their libraries."""

from typing import Any

import torch

from timbred.engine.compile.compiled_calls import CompiledCalls, CompileQueue


class Small(torch.nn.Module):
    """A module that a compiler is quick with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.convolution = torch.nn.Conv2d(4, 4, 3, padding=1)
        self.config: dict[str, Any] = {"channels": 4}
        self.requires_grad_(False)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.silu(self.convolution(given)) * 2


def small_calls(compile_queue: CompileQueue) -> CompiledCalls:
    return CompiledCalls(Small.__call__, Small().eval(), compile_queue)
