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
class DenoiserCall:
    """Signature of a family's network.

    Attributes:
        count: Number of tensors that `inputs` returns.
        inputs: Turns latents, noise levels and conditioning into tensors whose first axis is the batch.
        evaluate: Calls the network with these tensors.
        fitted: Pads the tensors to fewer distinct shapes without changing the result.
    """

    count: int
    inputs: Callable[[torch.Tensor, torch.Tensor, Tensors], Inputs]
    evaluate: Callable[..., torch.Tensor]
    fitted: Callable[[Inputs], Inputs] = keep_inputs

    def evaluate_rows(self, unet: Any, *inputs: torch.Tensor) -> torch.Tensor:
        """Call the network; with one more tensor than `count`, that tensor is the mask of circular rows."""
        *plain, last = inputs
        if len(inputs) == self.count:
            return self.evaluate(unet, *inputs)
        with circular_time(last):
            return self.evaluate(unet, *plain)

    def pad_inputs(self, inputs: Inputs) -> Inputs:
        """Apply `fitted`, and pass a mask of circular rows through."""
        return (*self.fitted(inputs[: self.count]), *inputs[self.count :])


class Denoiser:
    """The UNet of a model."""

    fast: CompiledCalls

    def __init__(
        self, unet: Any, calling: DenoiserCall, device: torch.device, stages: ModelStages, batches: BatchSplitter
    ) -> None:
        self.unet = unet
        self.device = device
        self._calling = calling
        self._stages = stages
        self._batches = batches

    def prepare(self, workshop: CompileQueue) -> None:
        """Use a compile queue for the shapes that are called often."""
        self.fast = workshop.calls(self._calling.evaluate_rows, self.unet, self._calling.pad_inputs)

    def __call__(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Tensors,
        around: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Evaluate the network on a batch; repeated in float32 if half precision overflows.

        Args:
            latents: (rows, channels, time, bands).
            timestep: Noise level of each row, (rows,).
            conditioning: Named tensors with the batch as their first axis.
            around: For loops: 1 for each circular row, 0 for others.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        precision = precision_of(self.unet)
        plain = self._calling.inputs(latents.to(precision), timestep, conditioning)
        inputs = plain if around is None else (*plain, around.to(precision))

        def predicted() -> torch.Tensor:
            now = precision_of(self.unet)
            if now == precision:
                return self._batches.call(self.fast, inputs)
            given = (one.to(now) if one.is_floating_point() else one for one in inputs)
            return self._calling.evaluate_rows(self.unet, *given)

        return self._stages.run_stage("network", lambda: ensure_finite(self.unet, predicted))
