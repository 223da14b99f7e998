"""SamplerState against a plain loop over a diffusers scheduler."""

from typing import Any

import diffusers
import pytest
import torch

from timbred.engine.diffusion.sampler import SamplerState, make_generators

CONFIG: dict[str, Any] = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}


def scheduler(steps: int, **changes: Any) -> Any:
    multistep = diffusers.DPMSolverMultistepScheduler(**{**CONFIG, **changes})
    multistep.set_timesteps(steps)
    return multistep


def predictions(steps: int) -> list[torch.Tensor]:
    """Return model outputs that are neither constant nor small, one for each step."""
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
def test_sampler_state_advance_equals_scheduler_step(steps: int, prediction_type: str, changes: dict[str, Any]):
    reference = scheduler(steps, prediction_type=prediction_type, **changes)
    noise = torch.randn((2, 8, 6, 4), generator=torch.Generator().manual_seed(2))
    state = SamplerState(
        scheduler(steps, prediction_type=prediction_type, **changes), noise, steps, 0.0, make_generators((1, 2))
    )
    expected = noise * reference.init_noise_sigma
    for timestep, prediction in zip(reference.timesteps, predictions(steps), strict=True):
        expected = reference.step(prediction, timestep, expected).prev_sample
        state.network_input()
        state.advance(prediction)
        scale = float(expected.abs().max())
        assert torch.allclose(state.latents, expected, rtol=0, atol=2e-5 * scale)
    assert state.done


def test_sampler_state_leaves_inputs_unchanged():
    noise = torch.randn((1, 8, 6, 4), generator=torch.Generator().manual_seed(3))
    sampling = SamplerState(scheduler(3, prediction_type="v_prediction"), noise, 3, 0.0, [torch.Generator()])
    before = noise.clone()
    for prediction in predictions(3):
        output, copy = prediction[:1], prediction[:1].clone()
        sampling.network_input()
        sampling.advance(output)
        assert torch.equal(output, copy)
    assert sampling.done
    assert torch.equal(noise, before)
    assert torch.isfinite(sampling.predict_x0()).all()
