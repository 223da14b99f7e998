"""Denoising: from noise to latents, one step at a time.

Equal to the loops of diffusers' AudioLDM and AudioLDM 2 pipelines, but with one noise generator for each take, and with
a separate scheduler for each job, so that several jobs can share a network call.
"""

import copy
import inspect
from dataclasses import dataclass
from typing import Any

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
"""Values of `scheduler` on the wire, with the class and the configuration changes in diffusers."""


class SamplingStopped(Exception):
    """The job was cancelled between two steps."""


_schedulers: dict[tuple[str, str], Any] = {}


def make_scheduler(name: str, config: dict[str, Any]) -> Any:
    """Return the scheduler of this name with the checkpoint's noise schedule.

    It is a copy of a cached instance: constructing one takes five times as long.
    """
    key = (name, repr(config))
    if key not in _schedulers:
        kind, changes = SCHEDULERS[name]
        with torch.inference_mode(False):
            _schedulers[key] = getattr(diffusers, kind).from_config(config, **changes)
    return copy.deepcopy(_schedulers[key])


def draw_noise(shape: tuple[int, int, int], generators: list[torch.Generator]) -> torch.Tensor:
    """Return Gaussian noise of shape (takes, channels, time, bands), each take from its own generator.

    It is drawn on the CPU in float32, so that a seed gives the same noise on every device and in every batch. The
    generators are used further by the steps, so that noise added there differs from this noise.
    """
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in generators])


def resize_noise(noise: torch.Tensor, rows: int, generator: torch.Generator) -> torch.Tensor:
    """Return noise of another length: truncated, or continued with new noise from the same generator."""
    missing = rows - noise.shape[2]
    if missing <= 0:
        return noise[:, :, :rows]
    fresh = torch.randn((*noise.shape[:2], missing, noise.shape[3]), generator=generator)
    return torch.cat([noise, fresh], dim=2)


def make_generators(seeds: tuple[int, ...]) -> list[torch.Generator]:
    """Return a random generator for each seed."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


@dataclass(frozen=True)
class InitLatents:
    """Latents of init audio, (takes, channels, time, bands), from which denoising starts.

    Attributes:
        latents: The encoded init audio.
        strength: Fraction of the steps that are run, the last ones; 0 to 1.
        preserved: 1 where the init latents are preserved, 0 where they are not; values between preserve them for that
            fraction of the steps.
    """

    latents: torch.Tensor
    strength: float
    preserved: torch.Tensor | None = None


class SamplerState:
    """Denoising state of one job, advanced by one evaluation of the network at a time.

    It owns its scheduler, its random generators and its position in the steps, so that between two evaluations the job
    can wait, join another batch or be dropped.

    Args:
        scheduler: A diffusers scheduler that no other job uses.
        noise: Unit Gaussian noise, (takes, channels, time, bands), float32, on the model's device.
        steps: Number of steps of a full run.
        eta: DDIM's eta, 0 to 1.
        generators: One generator for each take, for schedulers that add noise.
        init_latents: Init latents; None starts from pure noise.
    """

    def __init__(
        self,
        scheduler: Any,
        noise: torch.Tensor,
        steps: int,
        eta: float,
        generators: list[torch.Generator],
        init_latents: InitLatents | None = None,
    ) -> None:
        scheduler.set_timesteps(steps)
        self.scheduler = scheduler
        self.noise = noise
        self.init_latents = init_latents
        self._extra = _extra_arguments(scheduler, eta, generators)
        self._first = 0 if init_latents is None else self._skip_steps(steps, init_latents.strength)
        self._evaluations = self._first
        self.steps = steps if init_latents is None else max(1, round(steps * init_latents.strength))
        self.latents = (
            noise * scheduler.init_noise_sigma if init_latents is None else self._noise_init_latents(init_latents)
        )
        self._input = self.latents
        self._last_evaluation: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    @property
    def done(self) -> bool:
        """True when all steps have been run."""
        return self._evaluations == len(self.scheduler.timesteps)

    @property
    def step(self) -> int:
        """Finished steps, 0 to `steps`; a second-order scheduler evaluates the network twice for each step."""
        done = self._evaluations - self._first
        if done == 0:
            return 0
        return max(1, self.steps * done // (len(self.scheduler.timesteps) - self._first))

    @property
    def timestep(self) -> torch.Tensor:
        """Noise level of the next evaluation, a scalar on the CPU."""
        return self.scheduler.timesteps[self._evaluations]

    def network_input(self) -> torch.Tensor:
        """Return the latents as the network takes them at `timestep`, float32."""
        self._input = self.scheduler.scale_model_input(self.latents, self.timestep)
        return self._input

    def advance(self, prediction: torch.Tensor) -> None:
        """Advance to the next noise level with the network's output."""
        self._last_evaluation = (self._input, prediction, self.timestep)
        self.latents = self.scheduler.step(prediction, self.timestep, self.latents, **self._extra).prev_sample
        self._evaluations += 1
        if self.init_latents is not None and self.init_latents.preserved is not None:
            self._restore_preserved(self.init_latents, self.init_latents.preserved)

    def _skip_steps(self, steps: int, strength: float) -> int:
        """Return the number of evaluations that are skipped at the start, in whole steps."""
        order = int(self.scheduler.order)
        steps_to_run = max(1, round(steps * strength))
        first = max(0, len(self.scheduler.timesteps) - steps_to_run * order)
        if hasattr(self.scheduler, "set_begin_index"):  # the others use the timestep only
            self.scheduler.set_begin_index(first)
        return first

    def _noise_init_latents(self, init_latents: InitLatents) -> torch.Tensor:
        """Return the init latents with the noise of the next evaluation."""
        return self.scheduler.add_noise(init_latents.latents, self.noise, self.timestep.reshape(1))

    def _restore_preserved(self, init_latents: InitLatents, preserved: torch.Tensor) -> None:
        """Restore the preserved init latents at the current noise level (RePaint, arXiv 2201.09865)."""
        noised = init_latents.latents if self.done else self._noise_init_latents(init_latents)
        done = (self._evaluations - self._first) / (len(self.scheduler.timesteps) - self._first)
        self.latents = torch.where(preserved >= done, noised, self.latents)

    def predict_x0(self) -> torch.Tensor:
        """Return the predicted noise-free latents of the latest evaluation.

        Equations 9 and 12 of arXiv 2010.02502, and appendix D of arXiv 2202.00512.

        Raises:
            RuntimeError: No evaluation has been run.
        """
        if self._last_evaluation is None:
            raise RuntimeError("no prediction exists before the first step; run one first")
        noisy, prediction, timestep = self._last_evaluation
        alpha_cumprod = self.scheduler.alphas_cumprod[int(timestep)].to(noisy.device)
        signal, noise = alpha_cumprod.sqrt(), (1 - alpha_cumprod).sqrt()
        if self.scheduler.config.prediction_type == "v_prediction":
            return signal * noisy - noise * prediction
        return (noisy - noise * prediction) / signal


def _extra_arguments(scheduler: Any, eta: float, generators: list[torch.Generator]) -> dict[str, Any]:
    accepted = inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {}
    if "eta" in accepted:
        extra["eta"] = eta
    if "generator" in accepted:
        extra["generator"] = generators
    return extra
