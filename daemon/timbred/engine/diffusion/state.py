"""An order while it is denoised."""

from dataclasses import dataclass
from typing import Any

import torch

from timbred.engine.diffusion.conditioning import Tensors
from timbred.engine.diffusion.outpainting import Outpainting
from timbred.engine.diffusion.sampler import InitLatents, SamplerState, make_scheduler
from timbred.ipc.engine_messages import RenderOrder


@dataclass(eq=False)
class Generation:
    """One order while it is denoised. `guidance` is None where the words aren't weighed against the negative ones;
    else the conditioning's batch axis holds first the negative ones for all takes, then the prompt for all.

    Of a loop, `circular` says which takes go around, once that has shown (`laid_out`), after `before` steps. A given
    sound was multiplied by `lift`, and what is made is divided by it. `scheduler_config` is the checkpoint's."""

    order: RenderOrder
    scheduler_config: dict[str, Any]
    sampling: SamplerState
    conditioning: Tensors
    guidance: float | None
    randomness: list[torch.Generator]
    extension: Outpainting | None = None
    circular: tuple[bool, ...] = ()
    laid_out: bool = False
    before: int = 0
    lift: float = 1.0

    def __post_init__(self) -> None:
        self.circular = self.circular or (False,) * len(self.order.seeds)

    @property
    def steps(self) -> int:
        """Steps in all, of all windows of a sound that is continued."""
        return self.before + self.sampling.steps * (1 if self.extension is None else self.extension.count)

    @property
    def step(self) -> int:
        """Steps that are done, 0 to `steps`."""
        before = 0 if self.extension is None else min(self.extension.done, self.extension.count - 1)
        return self.before + before * self.sampling.steps + self.sampling.step

    @property
    def around(self) -> torch.Tensor | None:
        """Of a loop: 1 for each row that goes around, 0 for the others."""
        if not self.order.loop:
            return None
        return torch.tensor(self.circular * (1 if self.guidance is None else 2), dtype=torch.float32)

    def begin_steps(self, noise: torch.Tensor, beginning: InitLatents | None = None) -> None:
        """Begin the steps anew: on the same way, or on that of the next window."""
        self.sampling = steps_of(self.order, self.scheduler_config, noise, self.randomness, beginning)

    def network_input(self) -> torch.Tensor:
        """The rows that this run puts into a batch."""
        latents = self.sampling.network_input()
        return latents if self.guidance is None else torch.cat([latents, latents])

    def guided(self, prediction: torch.Tensor) -> torch.Tensor:
        """Classifier-free guidance (arXiv 2207.12598), as diffusers applies it."""
        if self.guidance is None:
            return prediction
        without, with_words = prediction.chunk(2)
        return without + self.guidance * (with_words - without)

    @property
    def shape(self) -> tuple[int, ...]:
        """What must be equal for runs to share a call: channels, time and bands of the latents, and whether they are
        loops."""
        return *self.sampling.latents.shape[1:], int(self.order.loop)

    @property
    def rows(self) -> int:
        """How much of a batch the run takes."""
        return len(self.sampling.latents) * (1 if self.guidance is None else 2)


def steps_of(
    order: RenderOrder,
    scheduler_config: dict[str, Any],
    noise: torch.Tensor,
    randomness: list[torch.Generator],
    beginning: InitLatents | None,
) -> SamplerState:
    """The steps of an order, none of them taken yet."""
    scheduler = make_scheduler(order.scheduler, scheduler_config)
    return SamplerState(scheduler, noise, order.steps, order.eta, randomness, beginning)
