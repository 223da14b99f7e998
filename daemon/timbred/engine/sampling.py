"""The denoising loop: from noise to latents, one step at a time, stoppable between steps.

Equal to the loops of diffusers' AudioLDM and AudioLDM 2 pipelines, but with progress, cancellation and one
noise generator for each take.
"""

import inspect
from collections.abc import Callable
from typing import Any, Protocol

import diffusers
import torch

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {}),
    "dpm++2m-karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
"""Short names, as in `scheduler`, and what they stand for in diffusers."""


class StoppedByRequest(Exception):
    """The job was cancelled; raised between two steps."""


class Denoiser(Protocol):
    """The network as the loop sees it."""

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """What the network says of noisy latents, guidance applied. Shapes (takes, channels, time, bands)."""
        ...


def make_scheduler(name: str, config: dict[str, Any]) -> Any:
    """The scheduler of this short name, with the checkpoint's noise schedule."""
    kind, changes = SCHEDULERS[name]
    return getattr(diffusers, kind).from_config(config, **changes)


def starting_noise(shape: tuple[int, int, int], randomness: list[torch.Generator]) -> torch.Tensor:
    """Gaussian noise of shape (takes, channels, time, bands), each take from its own generator.

    Made on the CPU in float32, so that a seed means the same on every device and in every batch. The same generators
    go on to the steps: noise that is added there must not be this noise again.
    """
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in randomness])


def generators(seeds: tuple[int, ...]) -> list[torch.Generator]:
    """A random generator for each take."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def denoise(
    denoiser: Denoiser,
    scheduler: Any,
    noise: torch.Tensor,
    steps: int,
    eta: float,
    randomness: list[torch.Generator],
    on_step: Callable[[int], None],
    stopped: Callable[[], bool],
) -> torch.Tensor:
    """Run all steps.

    Args:
        noise: unit Gaussian noise, (takes, channels, time, bands), on the model's device.
        randomness: a generator for each take, for schedulers that add noise at their steps.
        on_step: hears the number of finished steps, 1 to `steps`.
        stopped: asked before each evaluation of the network.

    Raises:
        StoppedByRequest: `stopped` said so.
    """
    scheduler.set_timesteps(steps)
    extra = _extra_arguments(scheduler, eta, randomness)
    latents = noise * scheduler.init_noise_sigma
    timesteps = scheduler.timesteps
    device_timesteps = timesteps.to(latents.device)
    for index in range(len(timesteps)):
        if stopped():
            raise StoppedByRequest
        scaled = scheduler.scale_model_input(latents, timesteps[index]).to(noise.dtype)
        prediction = denoiser.predict(scaled, device_timesteps[index])
        latents = scheduler.step(prediction, timesteps[index], latents, **extra).prev_sample
        on_step(max(1, steps * (index + 1) // len(timesteps)))
    return latents


def _extra_arguments(scheduler: Any, eta: float, randomness: list[torch.Generator]) -> dict[str, Any]:
    accepted = inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {}
    if "eta" in accepted:
        extra["eta"] = eta
    if "generator" in accepted:
        extra["generator"] = randomness
    return extra


def scheduler_takes_eta(name: str) -> bool:
    """Whether `eta` means anything to this scheduler."""
    return name == "ddim"
