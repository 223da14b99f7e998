"""The vocoder's contract: shapes, determinism, chunks, and an exact overlap-add."""

from typing import Any

import torch

from timbred.engine.codecs.spectral_vocoder import SpectralVocoder
from training.mel import log_mel


def small() -> SpectralVocoder:
    """An untrained small vocoder."""
    torch.manual_seed(0)
    return SpectralVocoder(channels=16, hidden=32, blocks=2).eval()


@torch.no_grad()
def test_spectral_vocoder_has_shapes_with_and_without_a_batch() -> None:
    model, mel = small(), torch.randn(3, 20, 64)
    assert model(mel).shape == (3, 20 * 320)
    assert model(mel[0]).shape == (20 * 320,)
    assert torch.allclose(model(mel)[0], model(mel[0]), atol=1e-5)
    config: Any = model.config
    assert config.model_in_dim == 64
    assert config.sampling_rate == 32_000


@torch.no_grad()
def test_spectral_vocoder_chunk_with_context_is_exact() -> None:
    model, mel = small(), torch.randn(1, 60, 64)
    whole = model(mel)
    context = 3 * 3 + 2
    chunk = model(mel[:, 20 - context : 40 + context], torch.arange(20 - context, 40 + context))
    middle = chunk[:, context * 320 : (context + 20) * 320]
    assert torch.allclose(middle, whole[:, 20 * 320 : 40 * 320], atol=1e-5)


@torch.no_grad()
def test_spectral_vocoder_inverse_transform_inverts() -> None:
    model = small()
    samples = torch.randn(1, 40 * 320)
    pad = (1280 - 320) // 2
    frames = torch.nn.functional.pad(samples, (pad, pad)).unfold(1, 1280, 320)
    spectrum = torch.fft.rfft(frames * torch.hann_window(1280), dim=-1)
    assert torch.allclose(model.overlap_add(spectrum), samples, atol=1e-4)


def test_log_mel_has_the_scale_and_frame_count() -> None:
    time = torch.arange(32_000) / 32_000
    mel = log_mel(torch.sin(2 * torch.pi * 1000 * time)[None])
    assert mel.shape == (1, 100, 64)
    assert -0.1 < float(mel[0, 50].max()) - 1 < 0.3
    assert float(log_mel(torch.zeros(1, 3200)).max()) == -1
