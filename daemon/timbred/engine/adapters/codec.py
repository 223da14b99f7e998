"""Between latents and sound: the VAE, whose other side are mel spectrograms, and the vocoder."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.adapters.batches import Batches
from timbred.engine.adapters.finite import finite
from timbred.engine.adapters.grid import Grid
from timbred.engine.adapters.notes import NamedNote
from timbred.engine.adapters.precision import precision_of
from timbred.engine.adapters.prepared import PreparedCalls, Workshop
from timbred.engine.adapters.spectrogram import analysis_of, log_mel
from timbred.engine.adapters.stages import Stages
from timbred.engine.adapters.vocoding import Vocoding
from timbred.engine.adapters.wrapping import going_around


class Codec:
    """A model's VAE and vocoder. All that is made raises ModelError if it isn't finite, even in full precision."""

    fast: PreparedCalls

    def __init__(self, pipeline: Any, device: torch.device, stages: Stages, batches: Batches) -> None:
        self.vae = pipeline.vae
        self.vocoder = pipeline.vocoder
        self.device = device
        self.grid = Grid.of(pipeline)
        self.analysis = analysis_of(pipeline.vocoder)
        self._stages = stages
        self._batches = batches
        self._note: NamedNote | None = None

    def prepare(self, workshop: Workshop) -> None:
        """Have the VAE made fast for the shapes that come often."""
        self.fast = workshop.calls(_decoded, self.vae)

    def playing(self, note: NamedNote | None) -> "Codec":
        """The same, for tones of this pitch, if the vocoder can be told one."""
        if note == self._note or type(self.vocoder).__name__ != "SpectralVocoder":
            return self
        found = copy.copy(self)
        found._note = note
        return found

    def encode(self, samples: torch.Tensor) -> torch.Tensor:
        """A sound of whole rows of latents, (frames,) at the native rate, as (1, channels, time, bands)."""
        spectrogram = log_mel(samples, self.analysis)[None, None]
        given = spectrogram.to(self.device, precision_of(self.vae))
        found = self._stages.at_work("sound", lambda: self.vae.encode(given)).latent_dist.mode()
        return found * self.vae.config.scaling_factor

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> NDArray[np.float32]:
        """From latents to waveforms of shape (takes, frames)."""
        return self.waveforms(self.spectrogram(latents))

    def spectrogram(self, latents: torch.Tensor, around: torch.Tensor | None = None) -> torch.Tensor:
        """From latents to the log-mel spectrogram that the vocoder takes, (takes, frames, bands). `around` is given for
        loops: 1 for each row that goes around, 0 for others."""
        precision = precision_of(self.vae)

        def decoded() -> torch.Tensor:
            now = precision_of(self.vae)
            scaled = (latents / self.vae.config.scaling_factor).to(now)
            fast = self.fast if now == precision else partial(_decoded, self.vae)
            inputs = (scaled,) if around is None else (scaled, around.to(now))
            return self._batches.call(fast, inputs).squeeze(1)

        return self._stages.at_work("sound", lambda: finite(self.vae, decoded))

    def waveforms(self, mel: torch.Tensor) -> NDArray[np.float32]:
        """From mel spectrograms to waveforms of shape (takes, frames)."""
        vocoding = self.vocoding(mel)
        return np.ascontiguousarray(self.vocoded(vocoding.whole).numpy(), dtype=np.float32)

    def vocoding(self, mel: torch.Tensor, circular: bool = False) -> Vocoding:
        """A mel spectrogram on its way to sound; what that calls of the vocoder, `vocoded` must make."""
        return Vocoding(self.vocoder, mel, circular, self._note)

    def vocoded(self, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What `make` gives by way of the vocoder."""
        return self._stages.at_work("sound", lambda: finite(self.vocoder, make))


def _decoded(vae: Any, latents: torch.Tensor, around: torch.Tensor | None = None) -> torch.Tensor:
    with nullcontext() if around is None else going_around(around):
        return vae.decode(latents, return_dict=False)[0]
