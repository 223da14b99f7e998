"""Stage `guidance`: a UNet that says in one evaluation what guidance needs two for.

Distillation of classifier-free guidance (arXiv 2210.03142, stage one, for one strength): the student starts as the
diffusion model and learns the teacher's guided answer. A take then costs half as many evaluations. Captions are still
replaced by "" now and then, where teacher and student agree, so that a negative prompt goes on to work.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from training import diffusion, latents
from training.runtime import half_precision
from training.settings import SETTINGS


class Teacher:
    """The diffusion model with guidance."""

    def __init__(self, device: torch.device, empty: np.ndarray) -> None:
        """`empty` has the vectors of "" under several paddings, shape (paddings, 8, width)."""
        self.device = device
        self.model = diffusion.in_fast_layout(diffusion.load(device), device)
        self.empty = torch.from_numpy(empty.astype(np.float32)).to(device)

    @torch.no_grad()
    def __call__(self, noisy: Tensor, times: Tensor, captions: Tensor) -> Tensor:
        """The guided velocity."""
        without = self.empty[torch.randint(len(self.empty), (len(noisy),), device=self.device)]
        with half_precision(self.device):
            both = self.model(
                torch.cat([noisy, noisy]),
                torch.cat([times, times]),
                encoder_hidden_states=torch.cat([without, captions]),
                return_dict=False,
            )[0].float()
        plain, told = both.chunk(2)
        return plain + SETTINGS.guidance.strength * (told - plain)


def train(device: torch.device, minutes: float | None = None) -> None:
    """Train (or train on) the student."""
    settings = SETTINGS.guidance
    examples = latents.load()
    teacher = Teacher(device, examples.empty)
    model = diffusion.build()
    model.load_state_dict(teacher.model.state_dict())
    model = diffusion.in_fast_layout(model, device)
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, betas=(0.9, 0.99), fused=True)

    def guided(noisy: Tensor, times: Tensor, captions: Tensor, true: Tensor) -> Tensor:
        del true
        return teacher(noisy, times, captions)

    diffusion.fit("guidance", settings, model, optimiser, examples, guided, device, minutes)


def load(device: torch.device) -> Any:
    """The averaged student."""
    return diffusion.averaged("guidance", device, "distil the guidance first")
