"""What AudioLDM and AudioLDM 2 have in common: latents of a mel spectrogram, a VAE, a vocoder.

Papers: AudioLDM, arXiv 2301.12503; AudioLDM 2, arXiv 2308.05734.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray

from timbred.engine import sampling
from timbred.engine.adapters.emphasis import lean, without
from timbred.engine.adapters.prepared import Inputs, PreparedCalls, Workshop
from timbred.engine.adapters.sounding import Sounding
from timbred.engine.adapters.spectrogram import analysis_of, bands_between, log_mel
from timbred.engine.adapters.vocoding import Vocoding
from timbred.engine.wire import RenderOrder, Repaint, Words
from timbred.errors import ModelError

Tensors = dict[str, torch.Tensor]
"""What the network is conditioned on: named tensors whose first axis is the batch."""

REMEMBERED_WORDS = 64
"""Conditionings kept, so that a prompt heard before costs no text encoding."""


@dataclass(frozen=True)
class Sounds:
    """Rendered takes. `waveforms` has shape (takes, frames), float32, at the model's native rate."""

    waveforms: NDArray[np.float32]
    rate: int


class LatentDiffusion:
    """A resident model. Subclasses say how words become conditioning and how the network is called."""

    def __init__(self, pipeline: Any, device: torch.device, scheduler_config: dict[str, Any]) -> None:
        self.pipeline = pipeline
        self.device = device
        self.scheduler_config = scheduler_config
        vocoder = pipeline.vocoder.config
        self.rate = int(vocoder.sampling_rate)
        self.hop = int(math.prod(vocoder.upsample_rates))
        self.bands = int(vocoder.model_in_dim)
        self.factor = int(pipeline.vae_scale_factor)
        self._heard: OrderedDict[tuple[Words, bool], Tensors] = OrderedDict()
        self.prepare(Workshop("off", device, Path()))

    def prepare(self, workshop: Workshop) -> None:
        """Have the network and the VAE made fast for the shapes that come often."""
        self.fast_unet = PreparedCalls(self.evaluate, self.pipeline.unet, workshop, self.fitted)
        self.fast_vae = PreparedCalls(_decoded, self.pipeline.vae, workshop)
        for calls in (self.fast_unet, self.fast_vae):
            calls.recall()

    @property
    def tensors(self) -> dict[int, int]:
        """Bytes of every weight by its place in memory, so that what models share is counted once."""
        modules = [part for part in self.pipeline.components.values() if isinstance(part, torch.nn.Module)]
        return {
            tensor.data_ptr(): tensor.numel() * tensor.element_size()
            for module in modules
            for tensor in (*module.parameters(), *module.buffers())
        }

    @property
    def memory(self) -> int:
        """Bytes of all weights."""
        return sum(self.tensors.values())

    def encode(self, words: Words, guided: bool) -> Tensors:
        """The conditioning for one take; with guidance, the batch axis holds first the negative, then the prompt."""
        raise NotImplementedError

    def weighted(self, words: Words, guided: bool) -> Tensors:
        """The conditioning with some words counting more or less."""
        plain = replace(words, weights=())
        whole = self.encode(plain, guided)
        leaning = dict(whole)
        for word, weight in words.weights:
            lacking = self.encode(replace(plain, prompt=without(words.prompt, word)), guided)
            for name in self.leaning:
                leaning[name] = leaning[name] + (lean(whole[name], lacking[name], weight) - whole[name])
        return leaning

    leaning: ClassVar[tuple[str, ...]] = ()
    """Names of the conditioning that are one summary of the whole prompt, and lean towards or away from a word."""

    def inputs(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> Inputs:
        """What `evaluate` takes, each with the batch as its first axis."""
        raise NotImplementedError

    @staticmethod
    def evaluate(unet: Any, *inputs: torch.Tensor) -> torch.Tensor:
        """One evaluation of the UNet on a batch."""
        raise NotImplementedError

    def fitted(self, inputs: Inputs) -> Inputs:
        """Inputs that give the same, of fewer kinds of shapes."""
        return inputs

    def network(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> torch.Tensor:
        """One evaluation on a batch, the fast way if that is ready; once more in float32 if half precision overflows.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        unet = self.pipeline.unet
        precision, inputs = unet.dtype, self.inputs(latents.to(unet.dtype), timestep, conditioning)

        def predicted() -> torch.Tensor:
            if unet.dtype == precision:
                return self.fast_unet(*inputs)
            return self.evaluate(unet, *(one.to(unet.dtype) if one.is_floating_point() else one for one in inputs))

        return finite(unet, predicted)

    def render(self, order: RenderOrder, on_step: Callable[[int], None], stopped: Callable[[], bool]) -> Sounds:
        """Make one sound for each seed of the order, alone.

        Raises:
            StoppedByRequest: `stopped` said so between two steps.
            ModelError: the result isn't finite, even in full precision.
        """
        run = self.begin(order)
        while not run.sampling.done:
            if stopped():
                raise sampling.StoppedByRequest
            self.advance([run])
            on_step(run.sampling.step)
        return self.finish(run)

    def scores(self, prompt: str, sounds: Sounds) -> list[float]:
        """How like the prompt each take is, -1 to 1. Only models that hear as well as read can say.

        Raises:
            ModelError: this one can't.
        """
        raise ModelError(f"this model can't compare sounds with words ({len(sounds.waveforms)} takes, {prompt!r})")

    @torch.inference_mode()
    def begin(self, order: RenderOrder) -> "Run":
        """Encode the words and draw the noise."""
        guided = order.guidance > 1.0
        conditioning = _repeated(self.mixed(order.words, guided), len(order.seeds), guided)
        randomness = sampling.generators(order.seeds)
        noise = self._noise(order, randomness).to(self.device)
        scheduler = sampling.make_scheduler(order.scheduler, self.scheduler_config)
        return Run(
            order,
            sampling.Sampling(scheduler, noise, order.steps, order.eta, randomness, self._beginning(order)),
            conditioning,
            order.guidance if guided else None,
        )

    @torch.inference_mode()
    def advance(self, runs: Sequence["Run"]) -> None:
        """Take several runs of this model one evaluation further, in one call of the network.

        Their latents must have the same shape but for the number of takes; each has its own noise level.
        """
        inputs = [run.network_input() for run in runs]
        timesteps = [run.sampling.timestep.expand(len(rows)) for run, rows in zip(runs, inputs, strict=True)]
        levels = torch.cat(timesteps).to(self.device)
        prediction = self.network(torch.cat(inputs), levels, together([run.conditioning for run in runs])).float()
        for run, part in zip(runs, prediction.split([len(rows) for rows in inputs]), strict=True):
            run.sampling.advance(run.guided(part))

    @torch.inference_mode()
    def finish(self, run: "Run") -> Sounds:
        """Decode a run that is done.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        waveforms = self.decode(run.sampling.latents)[:, : int(run.order.seconds * self.rate)]
        return Sounds(waveforms, self.rate)

    def _beginning(self, order: RenderOrder) -> sampling.Beginning | None:
        """The latents of a given sound, the same for each take, and which of them stay."""
        if order.given is None:
            return None
        samples = torch.frombuffer(bytearray(order.given.samples), dtype=torch.float32)
        latents = self.encode_sound(samples, order.seconds).float()
        kept = None if order.given.repaint is None else self._kept(order.given.repaint, latents)
        return sampling.Beginning(latents.expand(len(order.seeds), *latents.shape[1:]), order.given.strength, kept)

    @torch.inference_mode()
    def encode_sound(self, samples: torch.Tensor, seconds: float) -> torch.Tensor:
        """A sound of shape (frames,) at the native rate as latents of shape (1, channels, time, bands)."""
        vae = self.pipeline.vae
        rows = self.latent_shape(seconds)[1] * self.factor
        missing = rows * self.hop - len(samples)
        whole = torch.nn.functional.pad(samples, (0, max(0, missing)))[: rows * self.hop]
        spectrogram = log_mel(whole, analysis_of(self.pipeline.vocoder))[None, None]
        found = vae.encode(spectrogram.to(self.device, vae.dtype)).latent_dist.mode()
        return found * vae.config.scaling_factor

    def _kept(self, repaint: Repaint, latents: torch.Tensor) -> torch.Tensor:
        """1 where the given sound stays, 0 in the rectangle that is made anew."""
        rows_a_second = self.rate / self.hop / self.factor
        first, last = (
            band / self.factor for band in bands_between(analysis_of(self.pipeline.vocoder), repaint.low, repaint.high)
        )
        kept = torch.ones_like(latents[:1, :1])
        start, end = math.floor(repaint.start * rows_a_second), math.ceil(repaint.end * rows_a_second)
        kept[:, :, start:end, math.floor(first) : math.ceil(last)] = 0
        return kept

    def _noise(self, order: RenderOrder, randomness: list[torch.Generator]) -> torch.Tensor:
        """Fresh noise for each take, or an earlier take's for all of them."""
        shape = self.latent_shape(order.seconds)
        if order.noise is None:
            return sampling.starting_noise(shape, randomness)
        earlier = sampling.generators((order.noise.seed,))
        noise = sampling.starting_noise(self.latent_shape(order.noise.seconds), earlier)
        return sampling.carried_over(noise, shape[1], earlier[0]).expand(len(order.seeds), *shape)

    @torch.inference_mode()
    def preview(self, run: "Run") -> Sounds:
        """The run's first take as it will be, roughly: decoded from the latents that the network now expects."""
        clean = self.decode(run.sampling.clean()[:1])
        return Sounds(clean[:, : int(run.order.seconds * self.rate)], self.rate)

    def mixed(self, words: Words, guided: bool) -> Tensors:
        """The conditioning, between two prompts if there are two; `mix` 0 and 1 are the plain ones."""
        plain = replace(words, prompt2="", mix=0.0)
        if not words.prompt2 or words.mix == 0.0:
            return self.conditioning(plain, guided)
        other = self.conditioning(replace(plain, prompt=words.prompt2, weights=()), guided)
        return other if words.mix == 1.0 else between(self.conditioning(plain, guided), other, words.mix)

    def conditioning(self, words: Words, guided: bool) -> Tensors:
        """`encode`, remembered for the prompts heard last."""
        key = (words, guided)
        if key not in self._heard:
            self._heard[key] = self.weighted(words, guided) if words.weights else self.encode(words, guided)
            if len(self._heard) > REMEMBERED_WORDS:
                self._heard.popitem(last=False)
        self._heard.move_to_end(key)
        return self._heard[key]

    def latent_shape(self, seconds: float) -> tuple[int, int, int]:
        """Channels, time and bands of the latents for a length, rounded up to what the VAE can decode."""
        rows = max(self.factor, int(seconds * self.rate / self.hop))
        return (
            int(self.pipeline.unet.config.in_channels),
            math.ceil(rows / self.factor),
            self.bands // self.factor,
        )

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> NDArray[np.float32]:
        """From latents to waveforms of shape (takes, frames); once more in float32 if half precision overflows.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        vocoding = Vocoding(self.pipeline.vocoder, self.spectrogram(latents))
        return np.ascontiguousarray(self._vocoded(vocoding.whole).numpy(), dtype=np.float32)

    def spectrogram(self, latents: torch.Tensor) -> torch.Tensor:
        """From latents to the log-mel spectrogram that the vocoder takes, (takes, frames, bands).

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        vae = self.pipeline.vae

        precision = vae.dtype

        def decoded() -> torch.Tensor:
            scaled = (latents / vae.config.scaling_factor).to(vae.dtype)
            return (self.fast_vae(scaled) if vae.dtype == precision else _decoded(vae, scaled)).squeeze(1)

        return finite(vae, decoded)

    def _vocoded(self, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        return finite(self.pipeline.vocoder, make)

    @torch.inference_mode()
    def sounding(self, run: "Run") -> Sounding:
        """A run that is done, decoded up to the vocoder, whose pieces can then be heard one after the other.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        vocoding = Vocoding(self.pipeline.vocoder, self.spectrogram(run.sampling.latents))
        analysis = analysis_of(self.pipeline.vocoder)
        return Sounding(vocoding, int(run.order.seconds * self.rate), self.rate, analysis, self._vocoded)


def _decoded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    return vae.decode(latents, return_dict=False)[0]


def finite(part: Any, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What `make` gives by way of this part of the model; once more in float32 if half precision overflows.

    Raises:
        ModelError: the result isn't finite, even in full precision.
    """
    result = make()
    if torch.isfinite(result).all():
        return result
    before = part.dtype
    if before != torch.float32:
        try:
            part.to(torch.float32)
            result = make()
        finally:
            part.to(before)
    if not torch.isfinite(result).all():
        raise ModelError("the model gave values that aren't numbers; try another seed, or less guidance")
    return result


@dataclass(eq=False)
class Run:
    """One order while it is denoised. `guidance` is None where the words aren't weighed against the negative ones;
    else the conditioning's batch axis holds first the negative ones for all takes, then the prompt for all."""

    order: RenderOrder
    sampling: sampling.Sampling
    conditioning: Tensors
    guidance: float | None

    def network_input(self) -> torch.Tensor:
        """The rows that this run puts into a batch."""
        latents = self.sampling.network_input()
        return latents if self.guidance is None else torch.cat([latents, latents])

    def guided(self, prediction: torch.Tensor) -> torch.Tensor:
        """Classifier-free guidance (arXiv 2207.12598), as diffusers applies it."""
        if self.guidance is None:
            return prediction
        without, with_words = prediction.chunk(2)
        return without + self.guidance * (with_words - without)

    @property
    def shape(self) -> tuple[int, ...]:
        """What must be equal for runs to share a call: channels, time and bands of the latents."""
        return tuple(self.sampling.latents.shape[1:])

    @property
    def rows(self) -> int:
        """How much of a batch the run takes."""
        return len(self.sampling.latents) * (1 if self.guidance is None else 2)


def _repeated(conditioning: Tensors, takes: int, guided: bool) -> Tensors:
    """The conditioning of one take for several: negatives first, then prompts."""
    halves = 2 if guided else 1
    return {
        name: torch.cat([part.expand(takes, *part.shape[1:]) for part in tensor.chunk(halves)])
        for name, tensor in conditioning.items()
    }


def between(one: Tensors, other: Tensors, mix: float) -> Tensors:
    """Two conditionings interpolated. Where only one of two texts of unequal length has a word, that word's place in
    the attention fades with it: the mask becomes 1 + log(weight) / 10000, which the UNet turns into log(weight)."""
    pairs = {name: _filled([one[name], other[name]]) for name in one}
    mixed = {
        name: torch.lerp(first.float(), second.float(), mix).to(first.dtype) for name, (first, second) in pairs.items()
    }
    if "mask" in pairs:
        weight = torch.lerp(pairs["mask"][0].float(), pairs["mask"][1].float(), mix)
        mixed["mask"] = torch.where(weight > 0, 1 + weight.clamp(min=1e-30).log() / 10_000, weight)
    return mixed


def together(conditionings: Sequence[Tensors]) -> Tensors:
    """Conditionings of several runs as one batch. Shorter texts are filled up with zeros, which their masks hide."""
    if len(conditionings) == 1:
        return conditionings[0]
    return {name: torch.cat(_filled([one[name] for one in conditionings])) for name in conditionings[0]}


def _filled(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    if tensors[0].dim() == 1:
        return tensors
    longest = max(tensor.shape[1] for tensor in tensors)
    return [filled_to(tensor, longest) for tensor in tensors]


def filled_to(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """Zeros behind the second axis, until it is so long."""
    missing = length - tensor.shape[1]
    if missing == 0:
        return tensor
    return torch.cat([tensor, tensor.new_zeros((tensor.shape[0], missing, *tensor.shape[2:]))], dim=1)
