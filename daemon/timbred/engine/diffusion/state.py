"""The state of one order between its first noise and its last step."""

from dataclasses import dataclass
from typing import Any

import torch

from timbred.engine.diffusion.conditioning import Tensors
from timbred.engine.diffusion.outpainting import Outpainting
from timbred.engine.diffusion.sampler import InitLatents, SamplerState, make_scheduler
from timbred.ipc.engine_messages import RenderOrder


@dataclass(eq=False)
class Generation:
    """One order during denoising.

    Attributes:
        order: The order, with its init audio at the model's level.
        scheduler_config: The checkpoint's scheduler configuration.
        sampling: Sampler state of the current window.
        conditioning: Conditioning of all takes; with guidance, the negative rows come first.
        guidance: Guidance scale; None without classifier-free guidance.
        randomness: One random generator for each take.
        extension: Outpainting state; None unless audio is continued.
        circular: Takes that are rendered as a circle; known once `laid_out` is set.
        laid_out: Set when the loop kinds are determined.
        before: Steps taken before the current sampler state.
        lift: Factor that the init audio was multiplied by; the output is divided by it.
    """

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
        """Total number of steps, over all windows."""
        return self.before + self.sampling.steps * (1 if self.extension is None else self.extension.count)

    @property
    def step(self) -> int:
        """Finished steps, 0 to `steps`."""
        before = 0 if self.extension is None else min(self.extension.done, self.extension.count - 1)
        return self.before + before * self.sampling.steps + self.sampling.step

    @property
    def around(self) -> torch.Tensor | None:
        """For loops: a mask with 1 for each circular row of the batch, else None."""
        if not self.order.loop:
            return None
        return torch.tensor(self.circular * (1 if self.guidance is None else 2), dtype=torch.float32)

    def begin_steps(self, noise: torch.Tensor, beginning: InitLatents | None = None) -> None:
        """Restart the sampler: for the same order, or for its next window."""
        self.sampling = make_sampler_state(self.order, self.scheduler_config, noise, self.randomness, beginning)

    def network_input(self) -> torch.Tensor:
        """Return the rows that this generation adds to a batch."""
        latents = self.sampling.network_input()
        return latents if self.guidance is None else torch.cat([latents, latents])

    def guided(self, prediction: torch.Tensor) -> torch.Tensor:
        """Apply classifier-free guidance (arXiv 2207.12598), as diffusers does."""
        if self.guidance is None:
            return prediction
        without, with_words = prediction.chunk(2)
        return without + self.guidance * (with_words - without)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape that generations of one batch share: channels, time and bands of the latents, and 1 for loops."""
        return *self.sampling.latents.shape[1:], int(self.order.loop)

    @property
    def rows(self) -> int:
        """Number of batch rows of this generation."""
        return len(self.sampling.latents) * (1 if self.guidance is None else 2)


def make_sampler_state(
    order: RenderOrder,
    scheduler_config: dict[str, Any],
    noise: torch.Tensor,
    randomness: list[torch.Generator],
    beginning: InitLatents | None,
) -> SamplerState:
    """Create the sampler state of an order, before its first step."""
    scheduler = make_scheduler(order.scheduler, scheduler_config)
    return SamplerState(scheduler, noise, order.steps, order.eta, randomness, beginning)
