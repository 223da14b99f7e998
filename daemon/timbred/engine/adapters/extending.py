"""A sound continued beyond its end, and beyond what a model makes at once.

The vocoder goes over all windows at once. So there is but one join of two sounds: where the given one ends. That one is
made in its own rate and channels, where the sound is finished (`timbred.render.keeping`); for it, what was made begins
a little before, with the model's own idea of the given end.
"""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.adapters.codec import Codec
from timbred.engine.adapters.given import samples_of
from timbred.engine.adapters.sounding import LONGEST_PIECE
from timbred.engine.adapters.spectrogram import as_loud_as
from timbred.engine.adapters.windows import Extension, windows
from timbred.engine.sampling import Beginning, starting_noise
from timbred.engine.wire import RenderOrder


def extension_of(order: RenderOrder, codec: Codec) -> Extension | None:
    """How an order's given sound is continued, if that is what it wants."""
    if not order.window or order.given is None:
        return None
    grid = codec.grid
    samples = samples_of(order.given)
    there, wanted = len(samples), round(order.seconds * grid.rate)
    rows = math.ceil((wanted - there) / grid.row)
    plan = windows(max(1, there // grid.row), rows, int(order.window * grid.rate) // grid.row)
    known = codec.encode(_with_mirror(samples, plan[0].known * grid.row, plan[0].rows * grid.row))
    known = known[:, :, : plan[0].known]
    latents = known.float().expand(len(order.seeds), *known.shape[1:])
    return Extension(latents, plan, there, wanted, grid.factor, codec.analysis)


def _with_mirror(samples: torch.Tensor, known: int, frames: int) -> torch.Tensor:
    """The last `known` of some samples and their mirror image, in turns, up to so many frames. Of a sound with fewer,
    the mirror image stands before it."""
    end = samples[-known:]
    circle = torch.cat([end, end.flip(0)])
    return circle[torch.arange(len(end) - known, frames - known + len(end)) % len(circle)]


def next_window(
    extension: Extension, randomness: list[torch.Generator], device: torch.device
) -> tuple[torch.Tensor, Beginning]:
    """The noise of the next window of a sound that is continued, and its beginning, which is kept: each take's own."""
    latents = extension.beginning
    _, channels, rows, bands = latents.shape
    noise = starting_noise((channels, rows, bands), randomness).to(device)
    kept = extension.kept.expand(1, 1, *latents.shape[2:]).to(device)
    return noise, Beginning(latents, 1.0, kept)


def continued(extension: Extension, mel: torch.Tensor, codec: Codec) -> NDArray[np.float32]:
    """The waveforms, (takes, frames), of what was made so far after a given sound, from shortly before its end on."""
    vocoding = codec.vocoding(mel)
    skipped, last = extension.begins // codec.grid.hop, mel.shape[1]
    edges = [*range(skipped, last, LONGEST_PIECE), last]
    pieces = [codec.vocoded(partial(vocoding.piece, start, end)) for start, end in pairwise(edges)]
    level = as_loud_as(mel[:, skipped:], torch.cat(pieces, dim=1), codec.analysis)
    made = level.numpy()[:, extension.begins - skipped * codec.grid.hop :]
    return made[:, : extension.wanted - extension.first]
