"""Stage `guidance`: a UNet with distilled guidance, which needs one evaluation per step instead of two.

Distillation of classifier-free guidance (arXiv 2210.03142, stage one, for one strength): the student starts as a copy
of the diffusion model and learns the teacher's guided output. Captions are still replaced by "" at random, for which
the outputs of teacher and student are equal, so that negative prompts still work.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from training import diffusion, latents
from training.runtime import half_precision
from training.settings import SETTINGS


class Teacher:
    """The diffusion model with guidance.

    `empty` has the vectors of "" with several paddings, shape (paddings, 8, width).
    """

    def __init__(self, device: torch.device, empty: np.ndarray) -> None:
        self.device = device
        self.model = diffusion.in_fast_layout(diffusion.load(device), device)
        self.empty = torch.from_numpy(empty.astype(np.float32)).to(device)

    @torch.no_grad()
    def __call__(self, noisy: Tensor, times: Tensor, captions: Tensor) -> Tensor:
        """Return the guided velocity."""
        unconditional = self.empty[torch.randint(len(self.empty), (len(noisy),), device=self.device)]
        with half_precision(self.device):
            both = self.model(
                torch.cat([noisy, noisy]),
                torch.cat([times, times]),
                encoder_hidden_states=torch.cat([unconditional, captions]),
                return_dict=False,
            )[0].float()
        without_prompt, with_prompt = both.chunk(2)
        return without_prompt + SETTINGS.guidance.strength * (with_prompt - without_prompt)


def train(device: torch.device, minutes: float | None = None) -> None:
    """Train the student, from its checkpoint if there is one."""
    settings = SETTINGS.guidance
    examples = latents.load()
    teacher = Teacher(device, examples.empty)
    model = diffusion.build()
    model.load_state_dict(teacher.model.state_dict())
    model = diffusion.in_fast_layout(model, device)
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, betas=(0.9, 0.99), fused=True)

    def guided_velocity(noisy: Tensor, times: Tensor, captions: Tensor, true: Tensor) -> Tensor:
        del true
        return teacher(noisy, times, captions)

    diffusion.fit("guidance", settings, model, optimiser, examples, guided_velocity, device, minutes)


def load(device: torch.device) -> Any:
    """Load the averaged student."""
    return diffusion.load_averaged("guidance", device, "distil the guidance first")
