"""The log mel of the autoencoder, the diffusion model and the vocoder, computed by the engine's code."""

import torch

from timbred.engine.codecs import mel
from training.settings import SETTINGS

ANALYSIS = mel.Analysis(
    rate=SETTINGS.mel.sample_rate,
    hop=SETTINGS.mel.hop,
    fft=SETTINGS.mel.fft_size,
    bands=SETTINGS.mel.bands,
    low=SETTINGS.mel.low_hertz,
    high=SETTINGS.mel.high_hertz,
    slaney=False,
    reflect_padding=False,
)


def log_mel(samples: torch.Tensor) -> torch.Tensor:
    """Return the log mel (batch, samples // hop, bands), about -1..1, of samples (batch, samples), -1..1."""
    return mel.log_mel(samples, ANALYSIS)
