"""From a run's latents to its sound: as it will be, as it is, or piece by piece."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.adapters.codec import Codec
from timbred.engine.adapters.extending import continued
from timbred.engine.adapters.given import around_the_part
from timbred.engine.adapters.hearing import Hearing
from timbred.engine.adapters.looping import looped
from timbred.engine.adapters.run import Run
from timbred.engine.adapters.sounding import Sounding
from timbred.engine.adapters.spectrogram import as_loud_as
from timbred.engine.adapters.windows import Extension


@dataclass(frozen=True)
class Sounds:
    """Rendered takes. `waveforms` has shape (takes, frames), float32, at the model's native rate.

    `looped` says of each take of a loop whether its end meets its start; it then goes on from there as long as others,
    which have their own end. `first` is the frame of the whole that they begin with, where a sound is continued.
    `heard` is there once the model has listened.
    """

    waveforms: NDArray[np.float32]
    rate: int
    first: int = 0
    looped: tuple[bool, ...] = ()
    heard: Hearing | None = None


def joined(parts: Sequence[Sounds]) -> Sounds:
    """The takes of several runs of one job, which differ by their seeds alone."""
    if len(parts) == 1:
        return parts[0]
    looped = tuple(goes for part in parts for goes in part.looped)
    return Sounds(np.concatenate([part.waveforms for part in parts]), parts[0].rate, parts[0].first, looped)


def expected(run: Run, codec: Codec) -> Sounds:
    """The first take as it will be, roughly; of a sound that is continued, as far as it has come."""
    latents = run.sampling.clean()[:1]
    if run.extension is not None:
        mel = run.extension.with_window(codec.spectrogram(latents))
        return _continued(run, run.extension, mel, codec)
    return _sounds(run, latents, codec)


def finished(run: Run, codec: Codec) -> Sounds:
    """The takes of a run that is done."""
    if run.extension is not None and run.extension.mel is not None:
        return _continued(run, run.extension, run.extension.mel, codec)
    return _sounds(run, run.sampling.latents, codec)


def piece_by_piece(run: Run, codec: Codec) -> Sounding:
    """A run that is done, decoded up to the vocoder, whose pieces can then be heard one after the other."""
    vocoding = codec.vocoding(around_the_part(run.order, codec.spectrogram(run.sampling.latents), codec))

    def vocoded(make: Callable[[], torch.Tensor]) -> torch.Tensor:
        return codec.vocoded(make) / run.lift

    rate = codec.grid.rate
    return Sounding(vocoding, int(run.order.seconds * rate), rate, codec.analysis, vocoded)


def _sounds(run: Run, latents: torch.Tensor, codec: Codec) -> Sounds:
    """The sound of latents of this run, at the length that was asked for."""
    order, rate = run.order, codec.grid.rate
    if order.loop:
        circular = run.circular[: len(latents)]
        return Sounds(looped(latents, circular, order.seconds, codec), rate, looped=circular)
    mel = around_the_part(order, codec.spectrogram(latents), codec)
    made = codec.waveforms(mel)
    if order.given is not None and order.given.repaint is not None:
        made = as_loud_as(mel, torch.from_numpy(made), codec.analysis).numpy()
    return Sounds(_lowered(made[:, : int(order.seconds * rate)], run), rate)


def _continued(run: Run, extension: Extension, mel: torch.Tensor, codec: Codec) -> Sounds:
    return Sounds(_lowered(continued(extension, mel, codec), run), codec.grid.rate, extension.first)


def _lowered(waveforms: NDArray[np.float32], run: Run) -> NDArray[np.float32]:
    """At the level that the given sound had, if there was one."""
    return (waveforms / run.lift).astype(np.float32)
