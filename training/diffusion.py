"""Stage `diffusion`: the latent diffusion UNet.

v-prediction (arXiv 2202.00512) with min-SNR weighting (arXiv 2303.09556), an exponential moving average of the
weights, and captions that are randomly replaced by "" for classifier-free guidance (arXiv 2207.12598). The UNet attends
to the eight vectors of the language model only, because they already contain the information of the T5 states.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from training import latents
from training.components import AudioLDM2UNet2DConditionModel
from training.latents import Examples
from training.runtime import Budget, ThreadChoice, half_precision, load_checkpoint, save_checkpoint
from training.settings import SETTINGS, Diffusion, Guidance


def build() -> Any:
    """Create an untrained UNet. Latents are (batch, 16, rows, 8)."""
    settings = SETTINGS.diffusion
    return AudioLDM2UNet2DConditionModel(
        sample_size=25,
        in_channels=SETTINGS.codec.latent_channels,
        out_channels=SETTINGS.codec.latent_channels,
        block_out_channels=settings.block_channels,
        layers_per_block=settings.layers_per_block,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=settings.groups,
        attention_head_dim=settings.heads,
        cross_attention_dim=SETTINGS.text.gpt_width,
    )


def scheduler() -> DPMSolverMultistepScheduler:
    """Create a DPM-Solver++ 2M scheduler (arXiv 2211.01095); its config fits other schedulers of diffusers."""
    settings = SETTINGS.diffusion
    return DPMSolverMultistepScheduler(
        num_train_timesteps=settings.train_timesteps,
        beta_start=settings.beta_start,
        beta_end=settings.beta_end,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        algorithm_type="dpmsolver++",
        solver_order=2,
    )


class Average:
    """Exponential moving average of a model's weights."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Include the model's current weights; early updates have a smaller decay."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        new = list(model.state_dict().values())
        for mean, value in zip(self.weights.values(), new, strict=True):
            mean.lerp_(value, 1 - decay)


class Batches:
    """Random batches, each of one window length, with random captions, some of which are empty."""

    def __init__(self, examples: Examples, random: np.random.Generator, device: torch.device) -> None:
        self.examples, self.random, self.device = examples, random, device
        self.members = {int(rows): np.flatnonzero(examples.rows == rows) for rows in np.unique(examples.rows)}
        counts = np.array([len(indices) for indices in self.members.values()], dtype=float)
        sizes = np.array([self.size(rows) for rows in self.members])
        self.weights = (counts / sizes) / (counts / sizes).sum()

    @staticmethod
    def size(rows: int) -> int:
        """Return the number of sounds in a batch of windows of `rows`: up to twice as many for short windows."""
        return int(min(2.0, 25 / rows) * SETTINGS.diffusion.batch)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Return latents (batch, channels, rows, columns) and caption vectors (batch, 8, width)."""
        random, examples = self.random, self.examples
        rows = int(random.choice(list(self.members), p=self.weights))
        chosen = random.choice(self.members[rows], self.size(rows))
        clean = torch.stack([examples.latent_of(int(index)) for index in chosen])
        captions = examples.vectors[chosen, random.integers(examples.vectors.shape[1], size=len(chosen))]
        dropped = random.uniform(size=len(chosen)) < SETTINGS.diffusion.caption_dropout
        captions[dropped] = examples.empty[random.integers(len(examples.empty), size=int(dropped.sum()))]
        return clean.to(self.device), torch.from_numpy(captions.astype(np.float32)).to(self.device)


class Noising:
    """Noising of latents, the target of the network, and the weights of the loss."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.alphas_cumprod = scheduler().alphas_cumprod.to(device)
        ratio = self.alphas_cumprod / (1 - self.alphas_cumprod)
        weights = ratio.clamp(max=SETTINGS.diffusion.min_snr_gamma) / (ratio + 1)
        self.weights = weights / weights.mean()

    def __call__(self, clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return noisy latents, their velocity v, and the times (batch,), which are stratified over the batch."""
        count, steps = len(clean), SETTINGS.diffusion.train_timesteps
        # one time from each of `count` equal intervals: the same expectation with less variance
        times = (torch.randperm(count, device=self.device) + torch.rand(count, device=self.device)) / count
        times = (times * steps).long().clamp(max=steps - 1)
        signal = self.alphas_cumprod[times].sqrt()[:, None, None, None]
        level = (1 - self.alphas_cumprod[times]).sqrt()[:, None, None, None]
        noise = torch.randn_like(clean)
        noisy = (signal * clean + level * noise).contiguous(memory_format=torch.channels_last)
        return noisy, signal * noise - level * clean, times

    def loss(self, predicted: Tensor, target: Tensor, times: Tensor) -> Tensor:
        """Return the weighted mean squared error."""
        return (self.weights[times] * (predicted.float() - target).square().mean((1, 2, 3))).mean()


def rate_factor(fraction: float, step: int, warmup: int) -> float:
    """Return the learning-rate factor: warm-up, then constant, then from 60 % of the budget linearly to 3 %."""
    return min(1.0, (step + 1) / warmup) * (1.0 if fraction < 0.6 else max(0.03, (1 - fraction) / 0.4))


def in_fast_layout(model: Any, device: torch.device) -> Any:
    """Return the UNet in the memory format and with the attention that train fastest on this device."""
    model = model.to(device, memory_format=torch.channels_last)
    if device.type == "cpu":
        # plain matrix products are a quarter faster on the CPU than the backward pass of fused attention
        model.set_attn_processor(AttnProcessor())
    return model


def train(device: torch.device, minutes: float | None = None) -> None:
    """Train the UNet, from its checkpoint if there is one."""
    settings = SETTINGS.diffusion
    torch.manual_seed(settings.seed)
    model = in_fast_layout(build(), device)
    optimiser = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
    )

    def true_velocity(noisy: Tensor, times: Tensor, captions: Tensor, true: Tensor) -> Tensor:
        del noisy, times, captions
        return true

    fit("diffusion", settings, model, optimiser, latents.load(), true_velocity, device, minutes)


def fit(
    stage: str,
    settings: Diffusion | Guidance,
    model: Any,
    optimiser: torch.optim.Optimizer,
    examples: Examples,
    target_of: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    device: torch.device,
    minutes: float | None,
) -> None:
    """Train until the budget is used up, from the stage's checkpoint if there is one.

    `target_of` returns the network's target for noisy latents, their times, the captions and the true velocity.
    """
    average = Average(model, settings.ema_decay)
    state = load_checkpoint(stage)
    step = 0
    if state:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average.weights = {name: value.to(device) for name, value in state["average"].items()}
        average.updates = step = state["step"]
    torch.manual_seed(settings.seed + step)
    batches = Batches(examples, np.random.default_rng((settings.seed, step)), device)
    noising = Noising(device)

    def save() -> None:
        save_checkpoint(
            stage,
            model=model.state_dict(),
            optimiser=optimiser.state_dict(),
            average=average.weights,
            step=step,
        )

    budget = Budget(stage, minutes or settings.minutes, save)
    threads = ThreadChoice()
    going = True
    while going:
        if device.type == "cpu":
            threads.step()
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * rate_factor(budget.fraction, step, settings.warmup_steps)
        clean, captions = batches.draw()
        noisy, true, times = noising(clean)
        target = target_of(noisy, times, captions, true)
        with half_precision(device):
            predicted = model(noisy, times, encoder_hidden_states=captions, return_dict=False)[0]
        loss = noising.loss(predicted, target, times)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update(model)
        step += 1
        going = budget.step(step, loss=loss.item(), threads=torch.get_num_threads())
    save()


def load(device: torch.device) -> Any:
    """Load the averaged UNet."""
    return load_averaged("diffusion", device, "train the UNet first")


def load_averaged(stage: str, device: torch.device, remedy: str) -> Any:
    """Load a stage's UNet with its averaged weights.

    Raises:
        FileNotFoundError: It hasn't been trained; the message contains `remedy`.
    """
    state = load_checkpoint(stage)
    if state is None:
        raise FileNotFoundError(f"{remedy}: python -m training.train --stage {stage}")
    model = build()
    model.load_state_dict(state["average"])
    return model.eval().to(device)
