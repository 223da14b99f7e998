"""The network that denoises: one evaluation on a batch, the fast way if that is ready."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from timbred.engine.batching import BatchSplitter
from timbred.engine.circular import circular_time
from timbred.engine.compile.compiled_calls import CompiledCalls, CompileQueue, Inputs, as_they_are
from timbred.engine.device import finite, precision_of
from timbred.engine.diffusion.conditioning import Tensors
from timbred.engine.memory.device_memory import ModelStages


@dataclass(frozen=True)
class DenoiserCall:
    """How a family's network is called.

    `inputs` turns latents, noise levels and the conditioning into so many tensors (`count`), each with the batch as its
    first axis; `evaluate` takes the network and them. `fitted` gives inputs for the same result, of fewer kinds of
    shapes.
    """

    count: int
    inputs: Callable[[torch.Tensor, torch.Tensor, Tensors], Inputs]
    evaluate: Callable[..., torch.Tensor]
    fitted: Callable[[Inputs], Inputs] = as_they_are

    def evaluated(self, unet: Any, *inputs: torch.Tensor) -> torch.Tensor:
        """`evaluate`; for loops the last of the inputs says which rows go around."""
        *plain, last = inputs
        if len(inputs) == self.count:
            return self.evaluate(unet, *inputs)
        with circular_time(last):
            return self.evaluate(unet, *plain)

    def fitted_all(self, inputs: Inputs) -> Inputs:
        """`fitted`, for loops too."""
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
        """Have it made fast for the shapes that come often."""
        self.fast = workshop.calls(self._calling.evaluated, self.unet, self._calling.fitted_all)

    def __call__(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Tensors,
        around: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One evaluation on a batch, the fast way if that is ready; once more in float32 if half precision overflows.

        `around` is given for loops: 1 for each row that goes around, 0 for others.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        precision = precision_of(self.unet)
        plain = self._calling.inputs(latents.to(precision), timestep, conditioning)
        inputs = plain if around is None else (*plain, around.to(precision))

        def predicted() -> torch.Tensor:
            now = precision_of(self.unet)
            if now == precision:
                return self._batches.call(self.fast, inputs)
            given = (one.to(now) if one.is_floating_point() else one for one in inputs)
            return self._calling.evaluated(self.unet, *given)

        return self._stages.at_work("network", lambda: finite(self.unet, predicted))
