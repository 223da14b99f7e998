"""Init audio: encoded to latents, at the level the model was trained on, with a mask of what is preserved."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from msgspec.structs import replace

from timbred.engine.codecs.mel import bands_between, log_mel, region_weights
from timbred.engine.codecs.mel_vae import MelVaeCodec
from timbred.engine.diffusion.sampler import InitLatents
from timbred.ipc.engine_messages import InitAudio, RenderOrder, Repaint

SILENT_PEAK = 1e-5
"""Peak of init audio below which it is not amplified, because only its noise would be audible."""


def match_init_level(order: RenderOrder, codec: MelVaeCodec) -> tuple[RenderOrder, float]:
    """Bring the init audio of an order to the model's training level; returns the order and the factor.

    For outpainting only the end that fits into a window determines the factor.
    """
    if order.init_audio is None:
        return order, 1.0
    samples = np.frombuffer(order.init_audio.samples, dtype="<f4")
    measured = samples[-int(order.window * codec.latent_layout.rate) :] if order.window else samples
    peak = float(np.abs(measured).max(initial=0.0))
    gain = codec.analysis.peak / peak if peak > SILENT_PEAK else 1.0
    amplified = (samples * np.float32(gain)).astype("<f4").tobytes()
    return replace(order, init_audio=replace(order.init_audio, samples=amplified)), gain


def init_samples(init_audio: InitAudio) -> torch.Tensor:
    """Return the samples of init audio, (frames,), float32."""
    return torch.frombuffer(bytearray(init_audio.samples), dtype=torch.float32)


def init_channels(init_audio: InitAudio) -> torch.Tensor:
    """Return the samples of init audio, (channels, frames), float32."""
    return init_samples(init_audio).reshape(-1, init_audio.channels).T.contiguous()


def encode_init_audio(order: RenderOrder, codec: MelVaeCodec) -> InitLatents | None:
    """Return the init latents of an order, the same for each take, with the mask of what is preserved."""
    if order.init_audio is None:
        return None
    latents = encode_samples(init_samples(order.init_audio), order.seconds, codec).float()
    preserved = _preserved_mask(order.init_audio.repaint, latents, codec) if order.init_audio.repaint else None
    return InitLatents(latents.expand(len(order.seeds), *latents.shape[1:]), order.init_audio.strength, preserved)


@torch.inference_mode()
def encode_samples(samples: torch.Tensor, seconds: float, codec: MelVaeCodec) -> torch.Tensor:
    """Encode samples, (frames,) at the native rate, to latents, (1, channels, time, bands)."""
    return codec.encode(
        _fit_frames(samples, codec.latent_layout.shape(seconds)[1] * codec.latent_layout.samples_per_row)
    )


def _fit_frames(samples: torch.Tensor, frames: int) -> torch.Tensor:
    """Pad samples with silence, or truncate them."""
    return torch.nn.functional.pad(samples, (0, max(0, frames - len(samples))))[:frames]


def _preserved_mask(regions: Sequence[Repaint], latents: torch.Tensor, codec: MelVaeCodec) -> torch.Tensor:
    """Return a mask: 1 where the init audio is preserved, 0 in the regions that are regenerated."""
    layout = codec.latent_layout
    rows_per_second = layout.rate / layout.hop / layout.frames_per_row
    preserved = torch.ones_like(latents[:1, :1])
    for region in regions:
        first, last = (band / layout.frames_per_row for band in bands_between(codec.analysis, region.low, region.high))
        start, end = math.floor(region.start * rows_per_second), math.ceil(region.end * rows_per_second)
        preserved[:, :, start:end, math.floor(first) : math.ceil(last)] = 0
    return preserved


def keep_outside_region(order: RenderOrder, mel: torch.Tensor, codec: MelVaeCodec) -> torch.Tensor:
    """Return a mel spectrogram with the init audio outside the regenerated regions.

    The decoder's receptive field covers the whole clip, so it would change the audio there too.
    """
    if order.init_audio is None or not order.init_audio.repaint:
        return mel
    layout = codec.latent_layout
    samples = _fit_frames(init_samples(order.init_audio), mel.shape[1] * layout.hop)
    init_mel = log_mel(samples, codec.analysis).to(mel.device, mel.dtype)
    frames_per_second = layout.rate / layout.hop
    weight = torch.zeros(mel.shape[1:])
    for region in order.init_audio.repaint:
        frame_weights = region_weights(
            mel.shape[1], math.floor(region.start * frames_per_second), math.ceil(region.end * frames_per_second)
        )
        band_weights = region_weights(mel.shape[2], *bands_between(codec.analysis, region.low, region.high))
        weight = torch.maximum(weight, frame_weights[:, None] * band_weights)
    return init_mel + (mel - init_mel) * weight.to(mel.device, mel.dtype)
