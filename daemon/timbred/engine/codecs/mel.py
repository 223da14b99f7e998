"""Log-mel spectrograms as the models were trained on, and operations on them."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Analysis:
    """Mel analysis of a family of models: the Auditory Toolbox's mel scale with area normalisation, mirrored ends.

    Attributes:
        rate: Sample rate in Hz.
        hop: Samples between frames.
        fft: Window length in samples.
        bands: Number of mel bands.
        low: Lowest frequency in Hz.
        high: Highest frequency in Hz.
        peak: Peak of all training samples.
    """

    rate: int
    hop: int
    fft: int
    bands: int
    low: float
    high: float
    peak: float = 0.5


MEL_SCALE = "slaney"

SILENT_MAGNITUDE = 1e-5
"""Magnitude of a silent band."""


def analysis_of(vocoder: Any) -> Analysis:
    """Return the analysis that `SpeechT5HifiGan` inverts: HiFi-GAN's (arXiv 2010.05646)."""
    config = vocoder.config
    hop, rate = int(math.prod(config.upsample_rates)), int(config.sampling_rate)
    return Analysis(rate=rate, hop=hop, fft=1024, bands=int(config.model_in_dim), low=0.0, high=rate / 2)


def log_mel(samples: torch.Tensor, analysis: Analysis) -> torch.Tensor:
    """Return the log-mel spectrogram of samples.

    Args:
        samples: (frames,) or (batch, frames), -1 to 1.
        analysis: Mel analysis.

    Returns:
        (frames // hop, bands) or (batch, frames // hop, bands), natural logarithms of at least 1e-5.
    """
    pad = (analysis.fft - analysis.hop) // 2
    padded = torch.nn.functional.pad(samples.reshape(-1, 1, samples.shape[-1]), (pad, pad), mode="reflect")[:, 0]
    window = torch.hann_window(analysis.fft, device=samples.device)
    spectrum = torch.stft(padded, analysis.fft, analysis.hop, window=window, center=False, return_complex=True).abs()
    bands = spectrum.transpose(1, 2) @ filter_bank(analysis).to(samples.device)
    return bands.reshape(*samples.shape[:-1], *bands.shape[1:]).clamp(min=SILENT_MAGNITUDE).log()


@cache
def filter_bank(analysis: Analysis) -> torch.Tensor:
    """Return the triangular mel filters, (bins, bands), float32."""
    from transformers.audio_utils import mel_filter_bank  # imported only with a family that needs it

    filters = mel_filter_bank(
        num_frequency_bins=analysis.fft // 2 + 1,
        num_mel_filters=analysis.bands,
        min_frequency=analysis.low,
        max_frequency=analysis.high,
        sampling_rate=analysis.rate,
        norm="slaney",
        mel_scale=MEL_SCALE,
    )
    return torch.from_numpy(filters).float()


def bands_between(analysis: Analysis, low: float, high: float) -> tuple[int, int]:
    """Return the bands whose centres lie from `low` to `high` Hz: the first, and one past the last."""
    from transformers.audio_utils import hertz_to_mel, mel_to_hertz  # see `filter_bank`

    bottom, top = (hertz_to_mel(edge, MEL_SCALE) for edge in (analysis.low, analysis.high))
    centres = np.asarray(mel_to_hertz(np.linspace(bottom, top, analysis.bands + 2)[1:-1], MEL_SCALE))
    (selected,) = np.nonzero((centres >= low) & (centres <= high))
    return (int(selected[0]), int(selected[-1]) + 1) if len(selected) else (0, 0)


REGION_FADE_FRAMES = 4
"""Frames or bands inside the regenerated region over which it fades into its surroundings."""


def region_weights(count: int, first: int, last: int) -> torch.Tensor:
    """Return the weight of each of `count` frames or bands in the regenerated region [first, last), 0 to 1.

    The weight ramps at edges of the region that are not edges of the whole.
    """
    positions = torch.arange(count)
    weight = ((positions >= first) & (positions < last)).float()
    if first > 0:
        weight = weight * ((positions - first + 1) / REGION_FADE_FRAMES).clamp(0, 1)
    if last < count:
        weight = weight * ((last - positions) / REGION_FADE_FRAMES).clamp(0, 1)
    return weight


def loudest_frames(mel: torch.Tensor, count: int, min_distance: int) -> list[int]:
    """Return the frames of the highest power of a log-mel spectrogram, (takes, frames, bands), over all takes.

    At most `count` frames, at least `min_distance` from each other.
    """
    levels = frame_power(mel).amax(dim=0)
    frames: list[int] = []
    while len(frames) < count and bool((levels >= 0).any()):
        frames.append(int(levels.argmax()))
        levels[max(0, frames[-1] - min_distance + 1) : frames[-1] + min_distance] = -1.0
    return frames


def frame_power(mel: torch.Tensor) -> torch.Tensor:
    """Return the power of each frame of a log-mel spectrogram, (..., frames, bands) to (..., frames)."""
    return mel.float().exp().square().sum(dim=-1)


def amplify_mel(mel: torch.Tensor, decibels: torch.Tensor) -> torch.Tensor:
    """Amplify a log-mel spectrogram by decibels of a broadcastable shape; never below its floor."""
    louder = mel + (decibels * (math.log(10.0) / 20.0)).to(mel.dtype)
    return torch.where(decibels == 0, mel, torch.maximum(louder, mel.clamp(max=math.log(SILENT_MAGNITUDE))))


LEVEL_AVERAGING_FRAMES, MAX_LEVEL_GAIN = 9, 2.0
"""Mel frames over which levels are averaged, and the largest gain either way (6 dB)."""


def match_mel_level(mel: torch.Tensor, samples: torch.Tensor, analysis: Analysis) -> torch.Tensor:
    """Match the level of vocoder output, (takes, samples), to its log-mel spectrogram, moment by moment.

    A vocoder makes tones swell and fade with the phases that it generates.
    """
    mel = mel.float().cpu()
    mel_power = frame_power(mel)
    sample_power = frame_power(log_mel(samples, analysis))
    frames = min(mel_power.shape[1], sample_power.shape[1])
    smooth = torch.hann_window(LEVEL_AVERAGING_FRAMES + 2, periodic=False)[1:-1][None, None]
    powers = torch.stack([mel_power[:, :frames], sample_power[:, :frames]]).flatten(0, 1)[:, None]
    mel_power, sample_power = torch.nn.functional.conv1d(powers, smooth, padding=LEVEL_AVERAGING_FRAMES // 2)[
        :, 0
    ].chunk(2)
    gain = (mel_power / sample_power.clamp(min=1e-12)).sqrt().clamp(1 / MAX_LEVEL_GAIN, MAX_LEVEL_GAIN)
    gain[:, :2], gain[:, -2:] = gain[:, 2:3], gain[:, -3:-2]  # the analysis window covers padding beyond the ends
    positions = ((torch.arange(samples.shape[1]) + 0.5) / analysis.hop - 0.5).clamp(0, frames - 1)
    lower = positions.floor().long().clamp(max=frames - 1)
    upper, fraction = (lower + 1).clamp(max=frames - 1), positions - lower
    return samples * (gain[:, lower] * (1 - fraction) + gain[:, upper] * fraction)
