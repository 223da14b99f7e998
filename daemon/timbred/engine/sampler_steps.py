"""DPM-Solver++ (2M) (arXiv 2211.01095, algorithm 2) with all that doesn't hang on the latents worked out beforehand.

diffusers works out some fifty scalars at every step, each of them as a tensor. On a CPU that takes as long as a
thirtieth of a small network's step, and next to nothing this way. The results differ by rounding alone.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Weights:
    """One step. `clean = latents * latents_kept + prediction * predicted`; what follows is the sum of the latents, the
    clean ones and those of the step before, each times its weight here."""

    latents_kept: float
    predicted: float
    latents: float
    clean: float
    clean_before: float


def can_solve(scheduler: Any) -> bool:
    """Whether a scheduler, its steps set, does nothing but what is worked out here, from its first step on."""
    config = scheduler.config
    if type(scheduler).__name__ != "DPMSolverMultistepScheduler":
        return False
    plain = (
        config.algorithm_type == "dpmsolver++"
        and config.solver_order == 2
        and config.solver_type == "midpoint"
        and config.prediction_type in ("epsilon", "v_prediction")
        and config.variance_type is None
        and not config.thresholding
        and not config.use_flow_sigmas
    )
    if not plain or scheduler.index_for_timestep(scheduler.timesteps[0]) != 0:
        return False
    sigmas = scheduler.sigmas.tolist()
    falling = all(one > other for one, other in itertools.pairwise(sigmas))
    return falling and math.isfinite(sigmas[0]) and sigmas[-2] > 0


def weights_of(scheduler: Any) -> list[Weights]:
    """The weights of each step of a scheduler that `can_solve` takes."""
    sigmas: list[float] = scheduler.sigmas.tolist()
    steps = len(sigmas) - 1
    config = scheduler.config
    ends_plainly = (
        config.euler_at_final or (config.lower_order_final and steps < 15) or config.final_sigmas_type == "zero"
    )
    found: list[Weights] = []
    for step in range(steps):
        before = sigmas[step - 1] if step else None
        plain = before is None or (step == steps - 1 and ends_plainly)
        found.append(_weights(sigmas[step], sigmas[step + 1], None if plain else before, config.prediction_type))
    return found


def _weights(now: float, after: float, before: float | None, prediction_type: str) -> Weights:
    """From one ratio of noise to signal to the next; of first order where there is none before."""
    signal, signal_after = 1 / math.hypot(1, now), 1 / math.hypot(1, after)
    noise, noise_after = now * signal, after * signal_after
    if prediction_type == "epsilon":
        latents_kept, predicted = 1 / signal, -noise / signal
    else:
        latents_kept, predicted = signal, -noise
    gained = signal_after * (1 - after / now)
    bent = 0.0 if before is None else 0.5 * gained * math.log(now / after) / math.log(before / now)
    return Weights(latents_kept, predicted, noise_after / noise, gained + bent, -bent)


class Multistep:
    """The steps of one job."""

    def __init__(self, weights: Sequence[Weights]) -> None:
        self._weights = weights
        self._before: torch.Tensor | None = None
        self._step = 0

    def next(self, prediction: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The latents after the next step; what is given stays as it is."""
        weights = self._weights[self._step]
        clean = (latents * weights.latents_kept).add_(prediction, alpha=weights.predicted)
        result = (latents * weights.latents).add_(clean, alpha=weights.clean)
        if self._before is not None and weights.clean_before:
            result.add_(self._before, alpha=weights.clean_before)
        self._before = clean
        self._step += 1
        return result
