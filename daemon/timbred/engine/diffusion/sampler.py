"""Denoising: from noise to latents, one step at a time.

Equal to the loops of diffusers' AudioLDM and AudioLDM 2 pipelines, but with one noise generator for each take, and
so that many jobs can share the network while each keeps its own steps.
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
"""Short names, as in `scheduler`, and what they stand for in diffusers."""


class SamplingStopped(Exception):
    """The job was cancelled; raised between two steps."""


_made: dict[tuple[str, str], Any] = {}


def make_scheduler(name: str, config: dict[str, Any]) -> Any:
    """The scheduler of this short name, with the checkpoint's noise schedule: a copy of one that was made before, since
    making one anew takes diffusers five times as long."""
    key = (name, repr(config))
    if key not in _made:
        kind, changes = SCHEDULERS[name]
        with torch.inference_mode(False):
            _made[key] = getattr(diffusers, kind).from_config(config, **changes)
    return copy.deepcopy(_made[key])


def starting_noise(shape: tuple[int, int, int], randomness: list[torch.Generator]) -> torch.Tensor:
    """Gaussian noise of shape (takes, channels, time, bands), each take from its own generator.

    Made on the CPU in float32, so that a seed means the same on every device and in every batch. The same generators
    go on to the steps: noise that is added there must not be this noise again.
    """
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in randomness])


def carried_over(noise: torch.Tensor, rows: int, generator: torch.Generator) -> torch.Tensor:
    """Noise of another length: its beginning, or all of it and then fresh noise from the same generator."""
    missing = rows - noise.shape[2]
    if missing <= 0:
        return noise[:, :, :rows]
    fresh = torch.randn((*noise.shape[:2], missing, noise.shape[3]), generator=generator)
    return torch.cat([noise, fresh], dim=2)


def generators(seeds: tuple[int, ...]) -> list[torch.Generator]:
    """A random generator for each take."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


@dataclass(frozen=True)
class InitLatents:
    """Latents of a given sound, (takes, channels, time, bands), to begin from in place of pure noise.

    `strength` is the part of the steps that is run, the last ones. `kept` is 1 where the given latents stay, 0 where
    they don't, and between where they stay for that part of the steps and are then free to fit what was made beside.
    """

    latents: torch.Tensor
    strength: float
    kept: torch.Tensor | None = None


class SamplerState:
    """One job on its way from noise to latents, one evaluation of the network at a time.

    Between two evaluations it can wait, go on in other company, or be dropped: it holds its own scheduler, its own
    random generators and its own place in the steps.
    """

    def __init__(
        self,
        scheduler: Any,
        noise: torch.Tensor,
        steps: int,
        eta: float,
        randomness: list[torch.Generator],
        beginning: InitLatents | None = None,
    ) -> None:
        """`noise` is unit Gaussian, (takes, channels, time, bands), float32, on the model's device; `randomness` has
        a generator for each take, for schedulers that add noise at their steps."""
        scheduler.set_timesteps(steps)
        self.scheduler = scheduler
        self.noise = noise
        self.beginning = beginning
        self._extra = _extra_arguments(scheduler, eta, randomness)
        self._first = 0 if beginning is None else self._skipped(steps, beginning.strength)
        self._evaluations = self._first
        self.steps = steps if beginning is None else max(1, round(steps * beginning.strength))
        self.latents = noise * scheduler.init_noise_sigma if beginning is None else self._noised(beginning)
        self._input = self.latents
        self._predicted: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    @property
    def done(self) -> bool:
        """Whether all steps have been run."""
        return self._evaluations == len(self.scheduler.timesteps)

    @property
    def step(self) -> int:
        """Finished steps, 0 to `steps`; a scheduler of second order evaluates the network twice in a step."""
        done = self._evaluations - self._first
        if done == 0:
            return 0
        return max(1, self.steps * done // (len(self.scheduler.timesteps) - self._first))

    @property
    def timestep(self) -> torch.Tensor:
        """The noise level that comes next, a scalar on the CPU."""
        return self.scheduler.timesteps[self._evaluations]

    def network_input(self) -> torch.Tensor:
        """The latents as the network wants them at `timestep`, float32."""
        self._input = self.scheduler.scale_model_input(self.latents, self.timestep)
        return self._input

    def advance(self, prediction: torch.Tensor) -> None:
        """Take what the network said, and go to the next noise level."""
        self._predicted = (self._input, prediction, self.timestep)
        self.latents = self.scheduler.step(prediction, self.timestep, self.latents, **self._extra).prev_sample
        self._evaluations += 1
        if self.beginning is not None and self.beginning.kept is not None:
            self._keep(self.beginning, self.beginning.kept)

    def _skipped(self, steps: int, strength: float) -> int:
        """Evaluations that are left out at the start, whole steps of them."""
        order = int(self.scheduler.order)
        run = max(1, round(steps * strength))
        first = max(0, len(self.scheduler.timesteps) - run * order)
        if hasattr(self.scheduler, "set_begin_index"):  # the others go by the timestep alone
            self.scheduler.set_begin_index(first)
        return first

    def _noised(self, beginning: InitLatents) -> torch.Tensor:
        """The given latents with as much noise as belongs to the next evaluation."""
        return self.scheduler.add_noise(beginning.latents, self.noise, self.timestep.reshape(1))

    def _keep(self, beginning: InitLatents, kept: torch.Tensor) -> None:
        """Put the given latents back where they stay, at the noise level reached (RePaint, arXiv 2201.09865)."""
        given = beginning.latents if self.done else self._noised(beginning)
        done = (self._evaluations - self._first) / (len(self.scheduler.timesteps) - self._first)
        self.latents = torch.where(kept >= done, given, self.latents)

    def clean(self) -> torch.Tensor:
        """The latents without noise, as the network's last word has them; equations 9 and 12 of arXiv 2010.02502 and
        appendix D of arXiv 2202.00512.

        Raises:
            RuntimeError: the network hasn't been asked yet.
        """
        if self._predicted is None:
            raise RuntimeError("there is no prediction before the first step")
        noisy, prediction, timestep = self._predicted
        kept = self.scheduler.alphas_cumprod[int(timestep)].to(noisy.device)
        signal, noise = kept.sqrt(), (1 - kept).sqrt()
        if self.scheduler.config.prediction_type == "v_prediction":
            return signal * noisy - noise * prediction
        return (noisy - noise * prediction) / signal


def _extra_arguments(scheduler: Any, eta: float, randomness: list[torch.Generator]) -> dict[str, Any]:
    accepted = inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {}
    if "eta" in accepted:
        extra["eta"] = eta
    if "generator" in accepted:
        extra["generator"] = randomness
    return extra
