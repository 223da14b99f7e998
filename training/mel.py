"""Log-mel analysis, the picture that the autoencoder, the diffusion model and the vocoder share.

`log_mel` maps natural-log magnitude to about -1 (floor, -80 dB) .. 1 (a full-scale band): mel = 2 ln(a) / 9.21 + 1.
Frames are centred on (i + 1/2) hop, so `samples / hop` frames cover a clip exactly.
"""

import functools
import math

import numpy as np
import torch

from training.settings import SETTINGS, Mel


def _to_mel(hertz: float) -> float:
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


@functools.cache
def filter_bank(settings: Mel = SETTINGS.mel) -> torch.Tensor:
    """Triangular filters of height 1, equally spaced on the mel scale: (bins, bands)."""
    mels = np.linspace(_to_mel(settings.low_hertz), _to_mel(settings.high_hertz), settings.bands + 2)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins = np.linspace(0, settings.sample_rate / 2, settings.fft_size // 2 + 1)
    rising = (bins[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[None, 2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.from_numpy(np.maximum(0, np.minimum(rising, falling))).float()


def log_mel(samples: torch.Tensor, settings: Mel = SETTINGS.mel) -> torch.Tensor:
    """(batch, samples) at -1..1 -> (batch, samples // hop, bands), about -1..1."""
    pad = (settings.fft_size - settings.hop) // 2
    window = torch.hann_window(settings.fft_size, device=samples.device)
    padded = torch.nn.functional.pad(samples, (pad, pad))
    spectrum = torch.stft(
        padded, settings.fft_size, settings.hop, window=window, center=False, return_complex=True
    ).abs()
    magnitude = 2.0 * spectrum / window.sum()
    bands = magnitude.transpose(1, 2) @ filter_bank(settings).to(samples.device)
    return 1.0 - 2.0 * torch.log(bands.clamp(min=settings.floor)) / math.log(settings.floor)
