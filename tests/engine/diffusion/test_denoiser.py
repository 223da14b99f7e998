"""Nobody hears what isn't a number: half precision is repeated in float32, and what is broken there too is told."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.families.test_latent_diffusion import loudened, order, ours
from timbred.engine import model_manager
from timbred.engine.families import audioldm
from timbred.engine.families.base import FamilySpec, LatentDiffusion
from timbred.engine.model_manager import make_resident
from timbred.errors import ModelError
from timbred.models import checkpoint
from timbred.models.families import Family


def load(folder: Path, precision: torch.dtype) -> LatentDiffusion:
    found = checkpoint.inspect(folder, "tiny", "")
    return loudened(make_resident(found, "tiny", torch.device("cpu"), precision, lambda _: None))


def overflowing(when: Callable[[torch.dtype], bool]) -> Callable[[Family], FamilySpec]:
    plainly = audioldm.AUDIOLDM.signature.evaluate

    def evaluate(unet: Any, *inputs: torch.Tensor) -> torch.Tensor:
        result = plainly(unet, *inputs)
        return result * float("nan") if when(unet.dtype) else result

    spec = replace(audioldm.AUDIOLDM, signature=replace(audioldm.AUDIOLDM.signature, evaluate=evaluate))
    return lambda family: spec


def test_denoiser_repeats_an_overflowing_network_in_full_precision(audioldm: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_manager, "spec_of", overflowing(lambda dtype: dtype != torch.float32))
    model = load(audioldm, torch.bfloat16)
    found = ours(model, order())
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0.0
    assert model.pipeline.unet.dtype == torch.bfloat16


def test_denoiser_reports_an_overflow_in_full_precision(audioldm: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_manager, "spec_of", overflowing(lambda _: True))
    for precision in (torch.float32, torch.bfloat16):
        with pytest.raises(ModelError, match="NaN or infinity"):
            ours(load(audioldm, precision), order())


def test_denoiser_repeats_an_overflowing_decoder_in_full_precision(audioldm: Path):
    model = load(audioldm, torch.bfloat16)
    vae = model.pipeline.vae
    plainly = vae.decode

    def decode(latents: torch.Tensor, **options: Any) -> Any:
        (result,) = plainly(latents, **options)
        return (result * float("nan") if vae.dtype != torch.float32 else result,)

    vae.decode = decode
    assert np.isfinite(ours(model, order())).all()
