"""Denoising from noise to latents, one step at a time, with the noise schedulers and guidance of each kind of network.

`DiscreteSampling` is for networks trained on a discrete noise schedule (AudioLDM), `EdmSampling` for preconditioned
networks (Stable Audio; arXiv 2206.00364), `FlowSampling` and `ShiftedFlowSampling` for rectified flow (Stable Audio 3,
ACE-Step; arXiv 2209.03003). `SamplerState` equals the loops of diffusers' pipelines, but with one noise generator for
each take, and with a separate scheduler for each job, so that several jobs can share a network call.
"""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

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

    def make_scheduler(self, name: str, config: dict[str, Any]) -> Any:
        """Return the scheduler of this name for one job, with the checkpoint's noise schedule."""
        return make_scheduler(name, config)

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
        from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer  # imported only where it is used

        self._first, self._last = first, last
        self._momentum = MomentumBuffer(PROJECTED_MOMENTUM)

    def applies(self, level: float) -> bool:
        """Tell if the output at a noise level, 0 to 1, is guided."""
        return self._first <= 1.0 - level <= self._last

    def join(self, without: torch.Tensor, with_prompt: torch.Tensor, scale: Any) -> torch.Tensor:
        """Return the guided output; both have shape (takes, channels, time)."""
        from diffusers.guiders.adaptive_projected_guidance import normalized_guidance  # see `__init__`

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
        import diffusers  # imported only with a family that needs it

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


@dataclass(frozen=True)
class SteppedLatents:
    """The latents after a step."""

    prev_sample: torch.Tensor


class EulerSteps:
    """Euler's method for a network that predicts the sound; the steps lie closer together where there is more noise.

    It stands in for diffusers' schedulers, which take a second to import.
    """

    order = 1

    def __init__(self) -> None:
        self.timesteps = torch.zeros(0)
        self.levels = torch.zeros(1)

    def set_levels(self, levels: Sequence[float]) -> None:
        """Set the noise levels of the steps, and that after the last one."""
        self.levels = torch.tensor(levels)
        self.timesteps = self.levels[:-1]

    def step(self, output: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor) -> SteppedLatents:
        """Return the latents after the step that begins at `timestep`."""
        after = self.levels[1:][self.timesteps == timestep][0]
        return SteppedLatents(output + (after / timestep) * (latents - output))
