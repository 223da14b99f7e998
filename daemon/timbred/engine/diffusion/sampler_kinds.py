"""Kinds of guidance and noise schedulers: the differences of networks that predict noise, EDM's, and flow matching.

`DiscreteSampling` is for networks trained on a discrete noise schedule (AudioLDM), `EdmSampling` for preconditioned
networks (Stable Audio; arXiv 2206.00364), `FlowSampling` and `ShiftedFlowSampling` for rectified flow (Stable Audio 3,
ACE-Step; arXiv 2209.03003).
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance

from timbred.engine.diffusion.conditioning import given_number, given_tensors
from timbred.ipc.engine_messages import RenderOrder

MIN_NOISE_LEVEL = 0.01
"""Least noise that is added to init audio for flow matching, whose schedule begins at this level."""


@dataclass(frozen=True)
class PlannedSteps:
    """The evaluations of a run: the first one, counted from that of a full run, and the number of steps."""

    first_evaluation: int
    steps: int


@dataclass(frozen=True)
class LinearSteps:
    """All steps of a run, each a weighted sum of the latents, the network's output, and new noise.

    Attributes:
        weights: The three weights of each step, (steps, 3), float32.
        levels: Noise level of each step as the network takes it, (steps,).
        adds_noise: True if noise is drawn at each step, also where its weight is 0.
    """

    weights: torch.Tensor
    levels: torch.Tensor
    adds_noise: bool


class DiscreteSampling:
    """Networks that were trained on a discrete noise schedule, with its cumulative products as `alphas_cumprod`."""

    def for_order(self, order: RenderOrder) -> "DiscreteSampling":
        """Return this kind with the numbers that an order brings along."""
        del order
        return self

    def plan_steps(self, scheduler: Any, steps: int, strength: float | None) -> PlannedSteps:
        """Set a scheduler's steps; with `strength` (0 to 1), only that fraction of them is run, the last ones."""
        scheduler.set_timesteps(steps)
        if strength is None:
            return PlannedSteps(0, steps)
        run = max(1, round(steps * strength))
        first = max(0, len(scheduler.timesteps) - run * int(scheduler.order))
        if hasattr(scheduler, "set_begin_index"):  # the others use the timestep only
            scheduler.set_begin_index(first)
        return PlannedSteps(first, run)

    def initial_latents(self, scheduler: Any, noise: torch.Tensor) -> torch.Tensor:
        """Return unit noise at the level of a scheduler's first step."""
        return noise * scheduler.init_noise_sigma

    def noisy_init_latents(
        self, scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor, strength: float
    ) -> torch.Tensor:
        """Return init latents with the noise of the first step that is run."""
        del strength
        return self.add_noise(scheduler, latents, noise, timestep)

    def add_noise(
        self, scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        """Return latents with the noise of a step."""
        return scheduler.add_noise(latents, noise, timestep.reshape(1))

    def network_input(self, scheduler: Any, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Return latents as the network takes them at a step."""
        return scheduler.scale_model_input(latents, timestep)

    def linear_steps(self, scheduler: Any) -> LinearSteps | None:
        """Return a scheduler's steps as weighted sums, where the network takes the latents as they are; else None."""
        del scheduler
        return None

    def predict_x0(
        self, scheduler: Any, evaluation: int, latents: torch.Tensor, network_input: torch.Tensor, output: torch.Tensor
    ) -> torch.Tensor:
        """Return the noise-free latents that the network's output predicts.

        Equations 9 and 12 of arXiv 2010.02502, and appendix D of arXiv 2202.00512.

        Args:
            scheduler: The scheduler.
            evaluation: Index of the evaluation.
            latents: Latents before the step.
            network_input: The same as the network took them.
            output: The network's output.
        """
        del latents
        kept = scheduler.alphas_cumprod[int(scheduler.timesteps[evaluation])].to(network_input.device)
        signal, noise = kept.sqrt(), (1 - kept).sqrt()
        if scheduler.config.prediction_type == "v_prediction":
            return signal * network_input - noise * output
        return (network_input - noise * output) / signal


class EdmSampling(DiscreteSampling):
    """Preconditioned networks, whose noise is added to latents of the same size (arXiv 2206.00364)."""

    def noisy_init_latents(
        self, scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor, strength: float
    ) -> torch.Tensor:
        """Return init latents with the noise of the first step that is run; in a full run, that of pure noise."""
        if strength >= 1.0:
            return latents + self.initial_latents(scheduler, noise)
        return self.add_noise(scheduler, latents, noise, timestep)

    def predict_x0(
        self, scheduler: Any, evaluation: int, latents: torch.Tensor, network_input: torch.Tensor, output: torch.Tensor
    ) -> torch.Tensor:
        """Return the noise-free latents that the network's output predicts."""
        del network_input
        return scheduler.precondition_outputs(latents, output, scheduler.sigmas[evaluation])


@dataclass(frozen=True)
class FlowSampling(DiscreteSampling):
    """Networks of rectified flow: latents are a mixture of signal and noise, the output is their difference.

    Attributes:
        min_log_snr: Logarithm of the signal-to-noise ratio at the start of the schedule.
        max_log_snr: The same at its end.
    """

    min_log_snr: float = -6.2
    max_log_snr: float = 2.0

    def for_order(self, order: RenderOrder) -> DiscreteSampling:
        """Return this kind with an order's own `logsnr_min` and `logsnr_max`."""
        return replace(
            self,
            min_log_snr=given_number(order, "logsnr_min", self.min_log_snr),
            max_log_snr=given_number(order, "logsnr_max", self.max_log_snr),
        )

    def plan_steps(self, scheduler: Any, steps: int, strength: float | None) -> PlannedSteps:
        """Set a scheduler's steps; with `strength` (0 to 1), all of them are run, from that noise level on."""
        level = 1.0 if strength is None else max(MIN_NOISE_LEVEL, strength)
        levels = self.noise_levels(steps, level)
        scheduler.set_timesteps(sigmas=levels.tolist())
        scheduler.set_begin_index(0)
        return PlannedSteps(0, len(levels))

    def noise_levels(self, steps: int, level: float) -> torch.Tensor:
        """Return the noise level of each step, from `level` down, (steps,), float32; the last one is above 0."""
        places = torch.linspace(level, 0.0, steps + 1)
        sigmas = torch.sigmoid(places * (self.max_log_snr - self.min_log_snr) - self.max_log_snr)
        sigmas[0] = level
        return sigmas[:-1]

    def initial_latents(self, scheduler: Any, noise: torch.Tensor) -> torch.Tensor:
        """Return unit noise, with which the flow begins."""
        del scheduler
        return noise

    def add_noise(
        self, scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        """Return the mixture of latents and noise at a step."""
        return scheduler.scale_noise(latents, timestep.reshape(1), noise)

    def network_input(self, scheduler: Any, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Return the latents, which the network takes as they are."""
        del scheduler, timestep
        return latents

    def linear_steps(self, scheduler: Any) -> LinearSteps | None:
        """Return a scheduler's steps as weighted sums: Euler's, or ping-pong's, which adds new noise to the signal."""
        level, next_level = scheduler.sigmas[:-1], scheduler.sigmas[1:]
        if scheduler.config.stochastic_sampling:
            signal = 1.0 - next_level
            weights = torch.stack([signal, -signal * level, next_level], dim=1)
        else:
            weights = torch.stack([torch.ones_like(level), next_level - level, torch.zeros_like(level)], dim=1)
        return LinearSteps(weights, scheduler.timesteps, bool(scheduler.config.stochastic_sampling))

    def predict_x0(
        self, scheduler: Any, evaluation: int, latents: torch.Tensor, network_input: torch.Tensor, output: torch.Tensor
    ) -> torch.Tensor:
        """Return the noise-free latents that the network's output predicts."""
        del network_input
        return latents - scheduler.sigmas[evaluation] * output


@dataclass(frozen=True)
class ShiftedFlowSampling(FlowSampling):
    """Networks of rectified flow whose steps lie closer together where there is more noise (arXiv 2403.03206).

    Attributes:
        shift: Ratio of the steps' density at full noise to that at none.
        levels: The noise level of each step, instead of those that follow from the shift; none if empty.
    """

    shift: float = 3.0
    levels: tuple[float, ...] = ()

    def for_order(self, order: RenderOrder) -> DiscreteSampling:
        """Return this kind with an order's own `shift` or `timesteps`."""
        levels = given_tensors(order).get("timesteps")
        return replace(
            self,
            shift=given_number(order, "shift", self.shift),
            levels=() if levels is None else tuple(levels.tolist()),
        )

    def noise_levels(self, steps: int, level: float) -> torch.Tensor:
        """Return the noise level of each step, from `level` down, (steps,), float32; the last one is above 0."""
        if self.levels:
            return level * torch.tensor(self.levels)
        places = torch.linspace(1.0, 0.0, steps + 1)[:-1]
        return level * self.shift * places / (1 + (self.shift - 1) * places)


class ClassifierFreeGuidance:
    """Guidance by the difference of both outputs (arXiv 2207.12598)."""

    is_stateless: ClassVar[bool] = True
    """True if all steps are guided, and none depends on earlier ones."""

    def applies(self, level: float) -> bool:
        """Tell if the output at a noise level, 0 to 1, is guided."""
        del level
        return True

    def join(self, without: torch.Tensor, with_prompt: torch.Tensor, scale: Any) -> torch.Tensor:
        """Return the guided output; both have shape (takes, channels, time, ...), the scale is a number or scalar."""
        return without + scale * (with_prompt - without)


PROJECTED_MOMENTUM, PROJECTED_NORM = -0.75, 2.5
"""Momentum of the difference between steps, and its largest norm over time, with which ACE-Step was tuned."""

TIME_AXIS = 2
"""Axis of time in latents."""


class ProjectedGuidance(ClassifierFreeGuidance):
    """Guidance by the part of the difference that is orthogonal to the output (arXiv 2410.02416).

    It remembers earlier steps, so each generation has its own.

    Args:
        first: Share of the way from noise to sound from which on the output is guided.
        last: The share up to which it is.
    """

    is_stateless = False

    def __init__(self, first: float = 0.0, last: float = 1.0) -> None:
        self._first, self._last = first, last
        self._momentum = MomentumBuffer(PROJECTED_MOMENTUM)

    def applies(self, level: float) -> bool:
        """Tell if the output at a noise level, 0 to 1, is guided."""
        return self._first <= 1.0 - level <= self._last

    def join(self, without: torch.Tensor, with_prompt: torch.Tensor, scale: Any) -> torch.Tensor:
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
