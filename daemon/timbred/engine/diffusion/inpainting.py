"""Init audio: encoded to latents, at the level the model was trained on, with a mask of what is preserved."""

import math

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
    if order.given is None:
        return order, 1.0
    samples = np.frombuffer(order.given.samples, dtype="<f4")
    heard = samples[-int(order.window * codec.grid.rate) :] if order.window else samples
    peak = float(np.abs(heard).max(initial=0.0))
    lift = codec.analysis.peak / peak if peak > SILENT_PEAK else 1.0
    louder = (samples * np.float32(lift)).astype("<f4").tobytes()
    return replace(order, given=replace(order.given, samples=louder)), lift


def init_samples(given: InitAudio) -> torch.Tensor:
    """Return the samples of init audio, (frames,), float32."""
    return torch.frombuffer(bytearray(given.samples), dtype=torch.float32)


def encode_init_audio(order: RenderOrder, codec: MelVaeCodec) -> InitLatents | None:
    """Return the init latents of an order, the same for each take, with the mask of what is preserved."""
    if order.given is None:
        return None
    latents = encode_samples(init_samples(order.given), order.seconds, codec).float()
    kept = None if order.given.repaint is None else _kept(order.given.repaint, latents, codec)
    return InitLatents(latents.expand(len(order.seeds), *latents.shape[1:]), order.given.strength, kept)


@torch.inference_mode()
def encode_samples(samples: torch.Tensor, seconds: float, codec: MelVaeCodec) -> torch.Tensor:
    """Encode samples, (frames,) at the native rate, to latents, (1, channels, time, bands)."""
    return codec.encode(_fit_frames(samples, codec.grid.shape(seconds)[1] * codec.grid.row))


def _fit_frames(samples: torch.Tensor, frames: int) -> torch.Tensor:
    """Pad samples with silence, or truncate them."""
    return torch.nn.functional.pad(samples, (0, max(0, frames - len(samples))))[:frames]


def _kept(repaint: Repaint, latents: torch.Tensor, codec: MelVaeCodec) -> torch.Tensor:
    """Return a mask: 1 where the init audio is preserved, 0 in the region that is regenerated."""
    grid = codec.grid
    rows_a_second = grid.rate / grid.hop / grid.factor
    first, last = (band / grid.factor for band in bands_between(codec.analysis, repaint.low, repaint.high))
    kept = torch.ones_like(latents[:1, :1])
    start, end = math.floor(repaint.start * rows_a_second), math.ceil(repaint.end * rows_a_second)
    kept[:, :, start:end, math.floor(first) : math.ceil(last)] = 0
    return kept


def keep_outside_region(order: RenderOrder, mel: torch.Tensor, codec: MelVaeCodec) -> torch.Tensor:
    """Return a mel spectrogram with the init audio outside the regenerated region.

    The decoder's receptive field covers the whole clip, so it would change the audio there too.
    """
    if order.given is None or order.given.repaint is None:
        return mel
    part, grid = order.given.repaint, codec.grid
    samples = _fit_frames(init_samples(order.given), mel.shape[1] * grid.hop)
    given = log_mel(samples, codec.analysis).to(mel.device, mel.dtype)
    frames = grid.rate / grid.hop
    times = region_weights(mel.shape[1], math.floor(part.start * frames), math.ceil(part.end * frames))
    bands = region_weights(mel.shape[2], *bands_between(codec.analysis, part.low, part.high))
    weight = (times[:, None] * bands).to(mel.device, mel.dtype)
    return given + (mel - given) * weight
