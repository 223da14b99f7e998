"""A sound that an order begins from: as latents, at the level that the model knows, and kept where it is to stay."""

import math

import numpy as np
import torch
from msgspec.structs import replace

from timbred.engine.codecs.mel import bands_between, inside, log_mel
from timbred.engine.codecs.mel_vae import MelVaeCodec
from timbred.engine.diffusion.sampler import InitLatents
from timbred.ipc.engine_messages import InitAudio, RenderOrder, Repaint

SILENT = 1e-5
"""The peak of a given sound below which it isn't lifted: its noise would be what is heard."""


def lifted(order: RenderOrder, codec: MelVaeCodec) -> tuple[RenderOrder, float]:
    """An order whose given sound has the level that the model learnt sounds at, and by what it was multiplied. Of
    a sound that is continued, only the end is given: as much as a window has room for."""
    if order.given is None:
        return order, 1.0
    samples = np.frombuffer(order.given.samples, dtype="<f4")
    heard = samples[-int(order.window * codec.grid.rate) :] if order.window else samples
    peak = float(np.abs(heard).max(initial=0.0))
    lift = codec.analysis.peak / peak if peak > SILENT else 1.0
    louder = (samples * np.float32(lift)).astype("<f4").tobytes()
    return replace(order, given=replace(order.given, samples=louder)), lift


def samples_of(given: InitAudio) -> torch.Tensor:
    """A given sound's samples, (frames,)."""
    return torch.frombuffer(bytearray(given.samples), dtype=torch.float32)


def beginning_of(order: RenderOrder, codec: MelVaeCodec) -> InitLatents | None:
    """The latents of a given sound, the same for each take, and which of them stay."""
    if order.given is None:
        return None
    latents = latents_of(samples_of(order.given), order.seconds, codec).float()
    kept = None if order.given.repaint is None else _kept(order.given.repaint, latents, codec)
    return InitLatents(latents.expand(len(order.seeds), *latents.shape[1:]), order.given.strength, kept)


@torch.inference_mode()
def latents_of(samples: torch.Tensor, seconds: float, codec: MelVaeCodec) -> torch.Tensor:
    """A sound of shape (frames,) at the native rate as latents of shape (1, channels, time, bands)."""
    return codec.encode(_as_long_as(samples, codec.grid.shape(seconds)[1] * codec.grid.row))


def _as_long_as(samples: torch.Tensor, frames: int) -> torch.Tensor:
    """A sound, followed by silence or cut."""
    return torch.nn.functional.pad(samples, (0, max(0, frames - len(samples))))[:frames]


def _kept(repaint: Repaint, latents: torch.Tensor, codec: MelVaeCodec) -> torch.Tensor:
    """1 where the given sound stays, 0 in the rectangle that is made anew."""
    grid = codec.grid
    rows_a_second = grid.rate / grid.hop / grid.factor
    first, last = (band / grid.factor for band in bands_between(codec.analysis, repaint.low, repaint.high))
    kept = torch.ones_like(latents[:1, :1])
    start, end = math.floor(repaint.start * rows_a_second), math.ceil(repaint.end * rows_a_second)
    kept[:, :, start:end, math.floor(first) : math.ceil(last)] = 0
    return kept


def around_the_part(order: RenderOrder, mel: torch.Tensor, codec: MelVaeCodec) -> torch.Tensor:
    """The spectrogram of a sound of which a part was made anew, with what is given outside of that part: the
    decoder hears all of the sound at once, and would change that too."""
    if order.given is None or order.given.repaint is None:
        return mel
    part, grid = order.given.repaint, codec.grid
    samples = _as_long_as(samples_of(order.given), mel.shape[1] * grid.hop)
    given = log_mel(samples, codec.analysis).to(mel.device, mel.dtype)
    frames = grid.rate / grid.hop
    times = inside(mel.shape[1], math.floor(part.start * frames), math.ceil(part.end * frames))
    bands = inside(mel.shape[2], *bands_between(codec.analysis, part.low, part.high))
    weight = (times[:, None] * bands).to(mel.device, mel.dtype)
    return given + (mel - given) * weight
