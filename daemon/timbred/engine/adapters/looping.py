"""What is particular about loops: which takes go around, and how they are decoded then.

Two kinds of sound are looped. One goes on (a pad, rain): there time is a circle while it is denoised, decoded and
vocoded, and the seam is a place like any other. Another has a beginning of its own (a kick, a bell): made on a circle
it would have none, and a model that learnt that sounds begin where they begin then makes next to nothing of them. So
the model lays the sound out with its own beginning and end in the first steps; if it begins far louder than it ends,
it stays so, and what is left of the end dies away under the next beginning; else it is begun anew, going around.
(Going around only from there on, a slow beginning would stay in it as a hole.)
"""

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.adapters.circles import frames_of_circle, loops_of, stretched
from timbred.engine.adapters.codec import Codec
from timbred.engine.adapters.run import Run
from timbred.engine.adapters.spectrogram import Analysis, energy

LAID_OUT = 0.15
"""Part of the steps after which it shows whether a sound has a beginning of its own."""

EDGE = 0.15
"""Seconds at both ends that are compared."""

BEGINS = 10.0
"""A beginning of so many times the power of the end (10 dB) is one."""


def begins(mel: torch.Tensor, analysis: Analysis) -> bool:
    """Whether a sound, log mel of shape (frames, bands), begins far louder than it ends."""
    levels = energy(mel, analysis)
    edge = min(len(levels) // 2, max(2, round(EDGE * analysis.rate / analysis.hop)))
    return edge > 0 and float(levels[:edge].max()) > BEGINS * float(levels[-edge:].mean())


def shows(run: Run) -> bool:
    """Whether it is time to see which takes of a run go around: of loops, once."""
    return run.order.loop and not run.laid_out and run.sampling.step >= LAID_OUT * run.order.steps


def lay_out(run: Run, codec: Codec) -> None:
    """See which takes of a loop have a beginning of their own. If others haven't, the steps begin anew, for those
    to go around from the first one on."""
    frames = round(run.order.seconds * codec.grid.rate / codec.grid.hop)
    expected = codec.spectrogram(run.sampling.clean())[:, :frames]
    run.circular = tuple(not begins(mel, codec.analysis) for mel in expected)
    run.laid_out = True
    if any(run.circular):
        run.before = run.sampling.step
        run.begin_steps(run.sampling.noise)


def looped(latents: torch.Tensor, circular: tuple[bool, ...], seconds: float, codec: Codec) -> NDArray[np.float32]:
    """Loops, (takes, frames): those that go around at their exact length, and on from their start; others with what
    follows."""
    frames = max(1, round(seconds * codec.grid.rate))
    going = [index for index, goes in enumerate(circular) if goes]
    staying = [index for index, goes in enumerate(circular) if not goes]
    waveforms = np.zeros((len(latents), latents.shape[2] * codec.grid.row), dtype=np.float32)
    if staying:
        made = codec.decode(latents[staying])[:, : waveforms.shape[1]]
        waveforms[staying, : made.shape[1]] = made
    if going:
        made = _around(latents[going], frames, codec)
        waveforms[going] = made[:, np.arange(waveforms.shape[1]) % frames]
    return waveforms


def _around(latents: torch.Tensor, frames: int, codec: Codec) -> NDArray[np.float32]:
    """Latents that go around, decoded and vocoded so: (takes, frames)."""
    mel = codec.spectrogram(latents, torch.ones(len(latents), device=codec.device))
    circles = [
        codec.vocoded(codec.vocoding(stretched(mel, count), circular=True).whole).numpy()
        for count in frames_of_circle(frames, codec.grid.hop)
    ]
    return loops_of(circles, frames, codec.grid.rate)
