"""Guidance: the network's outputs with and without the prompt, joined to one."""

import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance


class ClassifierFreeGuidance:
    """Guidance by the difference of both outputs (arXiv 2207.12598)."""

    def join(self, without: torch.Tensor, with_prompt: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the guided output; both have shape (takes, channels, time, ...)."""
        return without + scale * (with_prompt - without)


PROJECTED_MOMENTUM, PROJECTED_NORM = -0.75, 2.5
"""Momentum of the difference between steps, and its largest norm over time, with which ACE-Step was tuned."""

TIME_AXIS = 2
"""Axis of time in latents."""


class ProjectedGuidance(ClassifierFreeGuidance):
    """Guidance by the part of the difference that is orthogonal to the output (arXiv 2410.02416).

    It remembers earlier steps, so each generation has its own.
    """

    def __init__(self) -> None:
        self._momentum = MomentumBuffer(PROJECTED_MOMENTUM)

    def join(self, without: torch.Tensor, with_prompt: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the guided output; both have shape (takes, channels, time)."""
        return normalized_guidance(
            pred_cond=with_prompt,
            pred_uncond=without,
            guidance_scale=scale - 1.0,
            momentum_buffer=self._momentum,
            eta=0.0,
            norm_threshold=PROJECTED_NORM,
            use_original_formulation=True,
            norm_dim=(TIME_AXIS,),
        )
