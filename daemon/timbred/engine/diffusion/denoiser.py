"""The denoising network: one evaluation on a batch, by a compiled call where one is ready."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from timbred.engine.batching import BatchSplitter
from timbred.engine.circular import circular_time
from timbred.engine.compile.compiled_calls import CompiledCalls, CompileQueue, Inputs, keep_inputs
from timbred.engine.device import ensure_finite, precision_of
from timbred.engine.diffusion.conditioning import Tensors
from timbred.engine.memory.device_memory import ModelStages


@dataclass(frozen=True)
class DenoiserSignature:
    """Signature of a family's network.

    Attributes:
        count: Number of tensors that `inputs` returns, for networks with circular convolution; None for others.
        inputs: Turns latents, noise levels and conditioning into tensors whose first axis is the batch.
        evaluate: Calls the network with these tensors.
        pad: Pads the tensors to fewer distinct shapes without changing the result.
    """

    count: int | None
    inputs: Callable[[torch.Tensor, torch.Tensor, Tensors], Inputs]
    evaluate: Callable[..., torch.Tensor]
    pad: Callable[[Inputs], Inputs] = keep_inputs

    def evaluate_rows(self, network: Any, *inputs: torch.Tensor) -> torch.Tensor:
        """Call the network; with one more tensor than `count`, that tensor is the mask of circular rows."""
        *plain, last = inputs
        if self.count is None or len(inputs) == self.count:
            return self.evaluate(network, *inputs)
        with circular_time(last):
            return self.evaluate(network, *plain)

    def pad_inputs(self, inputs: Inputs) -> Inputs:
        """Apply `pad`, and pass a mask of circular rows through."""
        count = len(inputs) if self.count is None else self.count
        return (*self.pad(inputs[:count]), *inputs[count:])


class Denoiser:
    """The network of a model that removes noise: a UNet or a transformer."""

    compiled_calls: CompiledCalls

    def __init__(
        self,
        network: Any,
        signature: DenoiserSignature,
        device: torch.device,
        stages: ModelStages,
        batch_splitter: BatchSplitter,
    ) -> None:
        self.network = network
        self.device = device
        self._signature = signature
        self._stages = stages
        self._batch_splitter = batch_splitter

    def use_compile_queue(self, compile_queue: CompileQueue) -> None:
        """Use a compile queue for the shapes that are called often."""
        self.compiled_calls = compile_queue.compiled_calls(
            self._signature.evaluate_rows, self.network, self._signature.pad_inputs
        )

    def __call__(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Tensors,
        circular_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Evaluate the network on a batch; repeated in float32 if half precision overflows.

        Args:
            latents: (rows, channels, time, ...).
            timestep: Noise level of each row, (rows,).
            conditioning: Named tensors with the batch as their first axis.
            circular_mask: For loops: 1 for each circular row, 0 for others.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        precision = precision_of(self.network)
        plain = self._signature.inputs(latents.to(precision), timestep, conditioning)
        inputs = plain if circular_mask is None else (*plain, circular_mask.to(precision))

        def predict() -> torch.Tensor:
            current_precision = precision_of(self.network)
            if current_precision == precision:
                return self._batch_splitter.call(self.compiled_calls, inputs)
            converted = (tensor.to(current_precision) if tensor.is_floating_point() else tensor for tensor in inputs)
            return self._signature.evaluate_rows(self.network, *converted)

        return self._stages.run_stage("denoiser", lambda: ensure_finite(self.network, predict))
