"""Stage `guidance`: a UNet that says in one evaluation what guidance needs two for.

Distillation of classifier-free guidance (arXiv 2210.03142, stage one, for one strength): the student starts as the
diffusion model and learns the teacher's guided answer. A take then costs half as many evaluations. Captions are still
replaced by "" now and then, where teacher and student agree, so that a negative prompt goes on to work.
"""

from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from training import diffusion, latents
from training.runtime import Budget, ThreadChoice, half_precision, load_checkpoint, save_checkpoint
from training.settings import SETTINGS


class Teacher:
    """The diffusion model with guidance."""

    def __init__(self, device: torch.device, empty: np.ndarray) -> None:
        """`empty` has the vectors of "" under several paddings, shape (paddings, 8, width)."""
        self.device = device
        self.model = diffusion.load(device).to(memory_format=torch.channels_last)
        if device.type == "cpu":
            self.model.set_attn_processor(AttnProcessor())
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
    model.to(device, memory_format=torch.channels_last)
    if device.type == "cpu":
        model.set_attn_processor(AttnProcessor())
    optimiser = torch.optim.AdamW(model.parameters(), settings.learning_rate, betas=(0.9, 0.99), fused=True)
    average = diffusion.Average(model, settings.ema_decay)
    state = load_checkpoint("guidance")
    step = 0
    if state:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average.weights = {name: value.to(device) for name, value in state["average"].items()}
        average.updates = step = state["step"]
    torch.manual_seed(settings.seed + step)
    batches = diffusion.Batches(examples, np.random.default_rng((settings.seed, step)), device)
    noising = diffusion.Noising(device)

    def save() -> None:
        save_checkpoint(
            "guidance",
            model=model.state_dict(),
            optimiser=optimiser.state_dict(),
            average=average.weights,
            step=step,
        )

    budget = Budget("guidance", minutes or settings.minutes, save)
    threads = ThreadChoice()
    going = True
    while going:
        if device.type == "cpu":
            threads.step()
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * diffusion.rate_factor(budget.fraction, step, settings.warmup_steps)
        clean, captions = batches.draw()
        noisy, _, times = noising(clean)
        target = teacher(noisy, times, captions)
        with half_precision(device):
            made = model(noisy, times, encoder_hidden_states=captions, return_dict=False)[0]
        loss = noising.loss(made, target, times)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model)
        step += 1
        going = budget.step(step, loss=loss.item(), threads=torch.get_num_threads())
    save()


def load(device: torch.device) -> Any:
    """The averaged student."""
    state = load_checkpoint("guidance")
    if state is None:
        raise FileNotFoundError("distil the guidance first: python -m training.train --stage guidance")
    model = diffusion.build()
    model.load_state_dict(state["average"])
    return model.eval().to(device)
