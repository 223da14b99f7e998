"""Log-mel spectrograms as the models were trained on, and operations on them."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Analysis:
    """Mel analysis of a family of models.

    Attributes:
        rate: Sample rate in Hz.
        hop: Samples between frames.
        fft: Window length in samples.
        bands: Number of mel bands.
        low: Lowest frequency in Hz.
        high: Highest frequency in Hz.
        slaney: True for the Auditory Toolbox's mel scale with area normalisation, False for O'Shaughnessy's (HTK)
            without.
        reflect_padding: True to pad the ends with their mirror image, False to pad with silence.
        peak: Peak of all training samples.
    """

    rate: int
    hop: int
    fft: int
    bands: int
    low: float
    high: float
    slaney: bool
    reflect_padding: bool
    peak: float = 0.5


def analysis_of(vocoder: Any) -> Analysis:
    """Return the analysis that a vocoder inverts.

    `SpectralVocoder` is timbred's own; `SpeechT5HifiGan` of AudioLDM and AudioLDM 2 uses HiFi-GAN's analysis (arXiv
    2010.05646) at 16 kHz.
    """
    config = vocoder.config
    hop = int(math.prod(config.upsample_rates))
    is_spectral = type(vocoder).__name__ == "SpectralVocoder"
    rate = int(config.sampling_rate)
    return Analysis(
        rate=rate,
        hop=hop,
        fft=1024,
        bands=int(config.model_in_dim),
        low=30.0 if is_spectral else 0.0,
        high=rate / 2,
        slaney=not is_spectral,
        reflect_padding=not is_spectral,
        peak=0.9 if is_spectral else 0.5,
    )


def log_mel(samples: torch.Tensor, analysis: Analysis) -> torch.Tensor:
    """Return the log-mel spectrogram of samples.

    Args:
        samples: (frames,) or (batch, frames), -1 to 1.
        analysis: Mel analysis.

    Returns:
        (frames // hop, bands) or (batch, frames // hop, bands). The own scaling ranges from -1 (-80 dB) to 1 (a
            full-scale band).
    """
    pad = (analysis.fft - analysis.hop) // 2
    mode = "reflect" if analysis.reflect_padding else "constant"
    padded = torch.nn.functional.pad(samples.reshape(-1, 1, samples.shape[-1]), (pad, pad), mode=mode)[:, 0]
    window = torch.hann_window(analysis.fft, device=samples.device)
    spectrum = torch.stft(padded, analysis.fft, analysis.hop, window=window, center=False, return_complex=True).abs()
    bands = spectrum.transpose(1, 2) @ filter_bank(analysis).to(samples.device)
    bands = bands.reshape(*samples.shape[:-1], *bands.shape[1:])
    if analysis.slaney:
        return bands.clamp(min=1e-5).log()
    magnitude = 2.0 * bands / window.sum()
    return 1.0 - 2.0 * magnitude.clamp(min=1e-4).log() / math.log(1e-4)


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
        norm="slaney" if analysis.slaney else None,
        mel_scale=_mel_scale(analysis),
    )
    return torch.from_numpy(filters).float()


def _mel_scale(analysis: Analysis) -> str:
    return "slaney" if analysis.slaney else "htk"


def bands_between(analysis: Analysis, low: float, high: float) -> tuple[int, int]:
    """Return the bands whose centres lie from `low` to `high` Hz: the first, and one past the last."""
    from transformers.audio_utils import hertz_to_mel, mel_to_hertz  # see `filter_bank`

    bottom, top = (hertz_to_mel(edge, _mel_scale(analysis)) for edge in (analysis.low, analysis.high))
    centres = np.asarray(mel_to_hertz(np.linspace(bottom, top, analysis.bands + 2)[1:-1], _mel_scale(analysis)))
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


def loudest_frames(mel: torch.Tensor, analysis: Analysis, count: int, min_distance: int) -> list[int]:
    """Return the frames of the highest power of a log-mel spectrogram, (takes, frames, bands), over all takes.

    At most `count` frames, at least `min_distance` from each other.
    """
    levels = frame_power(mel, analysis).amax(dim=0)
    frames: list[int] = []
    while len(frames) < count and bool((levels >= 0).any()):
        frames.append(int(levels.argmax()))
        levels[max(0, frames[-1] - min_distance + 1) : frames[-1] + min_distance] = -1.0
    return frames


def frame_power(mel: torch.Tensor, analysis: Analysis) -> torch.Tensor:
    """Return the power of each frame of a log-mel spectrogram, (..., frames, bands) to (..., frames)."""
    mel = mel.float()
    magnitude = mel.exp() if analysis.slaney else ((mel - 1.0) * (-math.log(1e-4) / 2.0)).exp()
    return magnitude.square().sum(dim=-1)


def amplify_mel(mel: torch.Tensor, decibels: torch.Tensor, analysis: Analysis) -> torch.Tensor:
    """Amplify a log-mel spectrogram by decibels of a broadcastable shape; never below its floor."""
    unit, floor = (math.log(10.0) / 20.0, math.log(1e-5)) if analysis.slaney else (1.0 / 40.0, -1.0)
    return torch.where(decibels == 0, mel, torch.maximum(mel + (decibels * unit).to(mel.dtype), mel.clamp(max=floor)))


LEVEL_AVERAGING_FRAMES, MAX_LEVEL_GAIN = 9, 2.0
"""Mel frames over which levels are averaged, and the largest gain either way (6 dB)."""


def match_mel_level(mel: torch.Tensor, samples: torch.Tensor, analysis: Analysis) -> torch.Tensor:
    """Match the level of vocoder output, (takes, samples), to its log-mel spectrogram, moment by moment.

    A vocoder makes tones swell and fade with the phases that it generates.
    """
    mel = mel.float().cpu()
    mel_power = frame_power(mel, analysis)
    sample_power = frame_power(log_mel(samples, analysis), analysis)
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
