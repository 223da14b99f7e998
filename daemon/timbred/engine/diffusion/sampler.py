"""Denoising: from noise to latents, one step at a time.

Equal to the loops of diffusers' pipelines, but with one noise generator for each take, and with a separate scheduler
for each job, so that several jobs can share a network call.
"""

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import diffusers
import torch

from timbred.engine.diffusion.sampler_kinds import DiscreteSampling, LinearSteps

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
    "cosine-dpm": ("CosineDPMSolverMultistepScheduler", {}),
    "edm-dpm": ("EDMDPMSolverMultistepScheduler", {}),
    "edm-euler": ("EDMEulerScheduler", {}),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": False}),
    "ping-pong": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
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


def draw_noise(shape: tuple[int, ...], generators: list[torch.Generator]) -> torch.Tensor:
    """Return Gaussian noise, (takes, channels, time, ...), each take from its own generator.

    It is drawn on the CPU in float32, so that a seed gives the same noise on every device and in every batch. The
    generators are used further by the steps, so that noise added there differs from this noise.
    """
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in generators])


def resize_noise(noise: torch.Tensor, rows: int, generator: torch.Generator) -> torch.Tensor:
    """Return noise of another length: truncated, or continued with new noise from the same generator."""
    missing = rows - noise.shape[2]
    if missing <= 0:
        return noise[:, :, :rows]
    fresh = torch.randn((*noise.shape[:2], missing, *noise.shape[3:]), generator=generator)
    return torch.cat([noise, fresh], dim=2)


def make_generators(seeds: tuple[int, ...]) -> list[torch.Generator]:
    """Return a random generator for each seed."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


@dataclass(frozen=True)
class InitLatents:
    """Latents of init audio, (takes, channels, time, ...), from which denoising starts.

    Attributes:
        latents: The encoded init audio.
        strength: Noise that is added, 0 to 1: the fraction of the steps that are run, or the level of the first one.
        preserved: 1 where the init latents are preserved, 0 where they are not; values between preserve them for that
            fraction of the steps.
    """

    latents: torch.Tensor
    strength: float
    preserved: torch.Tensor | None = None


def start_beside_context(init_latents: InitLatents) -> InitLatents | None:
    """Return the initial latents for a network whose context contains the init latents.

    None, which stands for pure noise, at full strength; the sampler itself preserves nothing.
    """
    return None if init_latents.strength >= 1.0 else InitLatents(init_latents.latents, init_latents.strength)


@dataclass(frozen=True)
class _Evaluation:
    """An evaluation of the network: its index, the latents, the network's input, and its output."""

    index: int
    latents: torch.Tensor
    network_input: torch.Tensor
    output: torch.Tensor


DISCRETE = DiscreteSampling()
"""The kind of scheduler of networks trained on a discrete noise schedule."""


class SamplerState:
    """Denoising state of one job, advanced by one evaluation of the network at a time.

    It owns its scheduler, its random generators and its position in the steps, so that between two evaluations the job
    can wait, join another batch or be dropped.

    Args:
        scheduler: A diffusers scheduler that no other job uses.
        noise: Unit Gaussian noise, (takes, channels, time, ...), float32, on the model's device.
        steps: Number of steps of a full run.
        eta: DDIM's eta, 0 to 1.
        generators: One generator for each take, for schedulers that add noise.
        init_latents: Init latents; None starts from pure noise.
        kind: The kind of the scheduler.
    """

    def __init__(
        self,
        scheduler: Any,
        noise: torch.Tensor,
        steps: int,
        eta: float,
        generators: list[torch.Generator],
        init_latents: InitLatents | None = None,
        kind: DiscreteSampling = DISCRETE,
    ) -> None:
        self.scheduler = scheduler
        self.noise = noise
        self.init_latents = init_latents
        self._kind = kind
        self._generators = generators
        self._extra = _extra_arguments(scheduler, eta, generators)
        planned = kind.plan_steps(scheduler, steps, None if init_latents is None else init_latents.strength)
        self._first = self._evaluations = planned.first_evaluation
        self.steps = planned.steps
        self.latents = (
            kind.initial_latents(scheduler, noise) if init_latents is None else self._start_from(init_latents)
        )
        self._last_evaluation: _Evaluation | None = None
        self._input = self.latents

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
        self._input = self._kind.network_input(self.scheduler, self.latents, self.timestep)
        return self._input

    def advance(self, prediction: torch.Tensor) -> None:
        """Advance to the next noise level with the network's output."""
        self._last_evaluation = _Evaluation(self._evaluations, self.latents, self._input, prediction)
        self.latents = self.scheduler.step(prediction, self.timestep, self.latents, **self._extra).prev_sample
        self._evaluations += 1
        if self.init_latents is not None and self.init_latents.preserved is not None:
            self._restore_preserved(self.init_latents, self.init_latents.preserved)

    def linear_steps(self) -> LinearSteps | None:
        """Return all steps as weighted sums; None after the first, or where more than a sum is done in a step."""
        keeps_part = self.init_latents is not None and self.init_latents.preserved is not None
        return None if self._evaluations or keeps_part else self._kind.linear_steps(self.scheduler)

    def draw_step_noise(self, steps: int) -> torch.Tensor:
        """Draw the noise that `steps` steps add, in their order: (steps, takes, channels, time, ...)."""
        return torch.stack([draw_noise(self.latents.shape[1:], self._generators) for _ in range(steps)])

    def finish(self, latents: torch.Tensor) -> None:
        """Take the latents after all steps, which were run at once."""
        self.latents = latents
        self._evaluations = len(self.scheduler.timesteps)

    def _start_from(self, init_latents: InitLatents) -> torch.Tensor:
        """Return the init latents with the noise of the first evaluation."""
        return self._kind.noisy_init_latents(
            self.scheduler, init_latents.latents, self.noise, self.timestep, init_latents.strength
        )

    def _noise_init_latents(self, init_latents: InitLatents) -> torch.Tensor:
        """Return the init latents with the noise of the next evaluation."""
        return self._kind.add_noise(self.scheduler, init_latents.latents, self.noise, self.timestep)

    def _restore_preserved(self, init_latents: InitLatents, preserved: torch.Tensor) -> None:
        """Restore the preserved init latents at the current noise level (RePaint, arXiv 2201.09865)."""
        noised = init_latents.latents if self.done else self._noise_init_latents(init_latents)
        done = (self._evaluations - self._first) / (len(self.scheduler.timesteps) - self._first)
        self.latents = torch.where(preserved >= done, noised, self.latents)

    def predict_x0(self) -> torch.Tensor:
        """Return the predicted noise-free latents of the latest evaluation; the latents, if all were run at once.

        Raises:
            RuntimeError: No evaluation has been run.
        """
        last = self._last_evaluation
        if last is None and self.done:
            return self.latents
        if last is None:
            raise RuntimeError("no prediction exists before the first step; run one first")
        return self._kind.predict_x0(self.scheduler, last.index, last.latents, last.network_input, last.output)


def _extra_arguments(scheduler: Any, eta: float, generators: list[torch.Generator]) -> dict[str, Any]:
    accepted = inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {}
    if "eta" in accepted:
        extra["eta"] = eta
    if "generator" in accepted:
        extra["generator"] = generators
    return extra
