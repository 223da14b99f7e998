"""Hyperparameters and seeds of the embedded model.

Units are in the names or the comments: samples, frames (of `hop` samples), rows (latent frames of 8 mel frames),
seconds.
"""

from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RUNS = REPOSITORY / "training" / "runs"
EXPORT = REPOSITORY / "daemon" / "timbred" / "pocket" / "model"
CARD = REPOSITORY / "daemon" / "timbred" / "pocket" / "card.json"


@dataclass(frozen=True)
class Mel:
    """Log-mel analysis."""

    sample_rate: int = 32_000
    hop: int = 320
    fft_size: int = 1024
    bands: int = 64
    low_hertz: float = 30.0
    high_hertz: float = 16_000.0


@dataclass(frozen=True)
class Data:
    """The rendered data set: `sounds` recipes with windows of `window_rows` latent rows."""

    sounds: int = 26_000
    shard_sounds: int = 500
    seed: int = 20_240
    held_out_shards: int = 1
    audio_shards: int = 14
    window_rows: tuple[int, ...] = (7, 13, 25, 38, 63)
    window_weights: tuple[float, ...] = (0.12, 0.33, 0.44, 0.07, 0.04)


@dataclass(frozen=True)
class Codec:
    """The variational autoencoder of log mels: 8 x 8 compression to `latent_channels`."""

    block_channels: tuple[int, ...] = (16, 40, 80, 112)
    latent_channels: int = 16
    groups: int = 8
    layers_per_block: int = 1
    kl_weight: float = 5e-4
    learning_rate: float = 1.5e-3
    batch: int = 24
    crop_rows: int = 13
    seed: int = 1
    minutes: float = 16.0
    decoder_learning_rate: float = 8e-4
    decoder_noise: float = 0.3
    decoder_minutes: float = 6.0


@dataclass(frozen=True)
class Vocoder:
    """The spectral vocoder: ConvNeXt blocks at frame rate and an inverse-STFT head (arXiv 2306.00814)."""

    channels: int = 256
    hidden: int = 640
    blocks: int = 6
    noise_channels: int = 16
    fft_size: int = 1280
    learning_rate: float = 1e-3
    batch: int = 16
    crop_frames: int = 72
    seed: int = 2
    minutes: float = 8.0
    finetune_minutes: float = 6.0


@dataclass(frozen=True)
class Text:
    """The text encoders: CLAP text tower, T5 encoder, projection and GPT-2, all small."""

    vocabulary: int = 1400
    max_tokens: int = 64
    clap_width: int = 128
    clap_layers: int = 1
    t5_width: int = 160
    t5_layers: int = 3
    gpt_width: int = 192
    gpt_layers: int = 2
    generated_vectors: int = 8
    learning_rate: float = 1.5e-3
    batch: int = 128
    seed: int = 3
    minutes: float = 10.0


@dataclass(frozen=True)
class Diffusion:
    """The latent diffusion UNet and its objective."""

    block_channels: tuple[int, ...] = (96, 160, 192)
    layers_per_block: int = 1
    heads: int = 4
    groups: int = 16
    train_timesteps: int = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0195
    min_snr_gamma: float = 5.0
    caption_dropout: float = 0.1
    learning_rate: float = 8e-4
    warmup_steps: int = 150
    batch: int = 32
    ema_decay: float = 0.9985
    seed: int = 4
    minutes: float = 55.0


@dataclass(frozen=True)
class Guidance:
    """Strength of the distilled guidance, and its training."""

    strength: float = 3.0
    learning_rate: float = 3e-4
    warmup_steps: int = 100
    ema_decay: float = 0.998
    seed: int = 5
    minutes: float = 45.0


@dataclass(frozen=True)
class Inference:
    """Defaults in the exported card.

    Guidance is part of the weights; only a negative prompt requires two evaluations per step.
    """

    steps: int = 14
    guidance: float = 1.0
    negative_guidance: float = 2.0
    scheduler: str = "dpm++2m"
    default_seconds: float = 2.0
    min_seconds: float = 0.5
    max_seconds: float = 5.0


@dataclass(frozen=True)
class Settings:
    """All settings."""

    mel: Mel = field(default_factory=Mel)
    data: Data = field(default_factory=Data)
    codec: Codec = field(default_factory=Codec)
    vocoder: Vocoder = field(default_factory=Vocoder)
    text: Text = field(default_factory=Text)
    diffusion: Diffusion = field(default_factory=Diffusion)
    guidance: Guidance = field(default_factory=Guidance)
    inference: Inference = field(default_factory=Inference)


SETTINGS = Settings()
