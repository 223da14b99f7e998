"""Codecs of waveforms decode a sound in parts exactly as in one."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from tests.engine.families.renders import load
from timbred.engine.codecs import waveform
from timbred.engine.codecs.waveform import WaveCodec, oobleck_context, same_context

ROWS = 90


@pytest.fixture(scope="module", params=["stable_audio", "stable_audio_3"])
def codec(request: pytest.FixtureRequest) -> WaveCodec:
    folder: Path = request.getfixturevalue(request.param)
    found = load(folder).codec
    assert isinstance(found, WaveCodec)
    return found


def latents(codec: WaveCodec) -> torch.Tensor:
    return torch.randn((2, codec.latent_layout.channels, ROWS), generator=torch.Generator().manual_seed(3))


def test_waveform_decode_in_windows_equals_whole(codec: WaveCodec, monkeypatch: pytest.MonkeyPatch):
    whole = codec.vae.decode(latents(codec)).sample.transpose(1, 2).numpy()
    assert np.abs(whole).max() > 0.01
    monkeypatch.setattr(waveform, "DECODED_ROWS", 17)
    np.testing.assert_allclose(codec.decode(latents(codec)), whole.clip(-1.0, 1.0), atol=1e-5)


def test_waveform_decode_of_the_beginning_equals_beginning_of_whole(codec: WaveCodec):
    whole, part = codec.decode(latents(codec)), codec.decode(latents(codec), 700)
    assert part.shape == (2, 700, 2)
    np.testing.assert_allclose(part, whole[:, :700], atol=1e-5)


def test_waveform_context_covers_all_that_a_row_depends_on(codec: WaveCodec):
    """Derivatives of one row's samples reach no further than the context, and nearly as far."""
    given = latents(codec)[:1].requires_grad_()
    row, middle = codec.latent_layout.samples_per_row, ROWS // 2
    samples = codec.vae.decode(given).sample[:, :, middle * row : (middle + 1) * row]
    (gradient,) = torch.autograd.grad(samples.square().sum(), given)
    reached = gradient[0].abs().sum(dim=0).nonzero()
    assert codec.context is not None
    reach = max(middle - int(reached.min()), int(reached.max()) - middle)
    assert codec.context - 2 <= reach <= codec.context


def test_waveform_contexts_of_published_codecs():
    oobleck: Any = diffusers.AutoencoderOobleck().config
    assert oobleck_context(oobleck.downsampling_ratios) == 10
    config: Any = diffusers.AutoencoderSAME().config
    assert same_context(config.encoder_transformer_depths, config.encoder_strides, config.sliding_window) == 6
