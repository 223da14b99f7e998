"""DPM-Solver++ worked out beforehand, against diffusers' own steps."""

from typing import Any

import diffusers
import pytest
import torch

from timbred.engine.diffusion.sampler import SamplerState
from timbred.engine.sampler_steps import Multistep, can_solve, weights_of

CONFIG: dict[str, Any] = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}


def scheduler(steps: int, **changes: Any) -> Any:
    found = diffusers.DPMSolverMultistepScheduler(**{**CONFIG, **changes})
    found.set_timesteps(steps)
    return found


def predictions(steps: int) -> list[torch.Tensor]:
    """What a network says that is neither constant nor small."""
    randomness = torch.Generator().manual_seed(1)
    return [torch.randn((2, 8, 6, 4), generator=randomness) * (1 + 0.3 * step) for step in range(steps)]


@pytest.mark.parametrize("steps", [1, 2, 3, 14, 15, 40])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"timestep_spacing": "trailing"},
        {"use_karras_sigmas": True},
        {"final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min", "euler_at_final": True},
    ],
)
def test_every_step_is_that_of_diffusers(steps: int, prediction_type: str, changes: dict[str, Any]):
    theirs = scheduler(steps, prediction_type=prediction_type, **changes)
    assert can_solve(theirs)
    ours = Multistep(weights_of(theirs))
    latents = expected = torch.randn((2, 8, 6, 4), generator=torch.Generator().manual_seed(2)) * theirs.init_noise_sigma
    for timestep, prediction in zip(theirs.timesteps, predictions(steps), strict=True):
        expected = theirs.step(prediction, timestep, expected).prev_sample
        latents = ours.next(prediction, latents)
        scale = float(expected.abs().max())
        assert torch.allclose(latents, expected, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm_type": "sde-dpmsolver++"},
        {"solver_order": 3},
        {"solver_order": 1},
        {"solver_type": "heun"},
        {"thresholding": True},
        {"prediction_type": "sample"},
    ],
)
def test_what_is_otherwise_is_left_to_diffusers(changes: dict[str, Any]):
    assert can_solve(scheduler(14))
    assert not can_solve(scheduler(14, **changes))


def test_other_schedulers_are_left_to_diffusers():
    other = diffusers.DDIMScheduler(**CONFIG)
    other.set_timesteps(14)
    assert not can_solve(other)


def test_what_went_in_stays_as_it_was():
    noise = torch.randn((1, 8, 6, 4), generator=torch.Generator().manual_seed(3))
    sampling = SamplerState(scheduler(3, prediction_type="v_prediction"), noise, 3, 0.0, [torch.Generator()])
    before = noise.clone()
    for prediction in predictions(3):
        given, kept = prediction[:1], prediction[:1].clone()
        sampling.network_input()
        sampling.advance(given)
        assert torch.equal(given, kept)
    assert sampling.done
    assert torch.equal(noise, before)
    assert torch.isfinite(sampling.clean()).all()
