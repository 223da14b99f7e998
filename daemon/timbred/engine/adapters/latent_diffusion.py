"""What AudioLDM and AudioLDM 2 have in common: latents of a mel spectrogram, a VAE, a vocoder.

Papers: AudioLDM, arXiv 2301.12503; AudioLDM 2, arXiv 2308.05734.
"""

import logging
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray

from timbred.engine import sampling
from timbred.engine.adapters.batches import Batches
from timbred.engine.adapters.emphasis import lean, without
from timbred.engine.adapters.extending import Extension, windows
from timbred.engine.adapters.hearing import Hearing
from timbred.engine.adapters.looping import (
    LAID_OUT,
    begins,
    calm,
    fitted,
    frames_of_circle,
    rows_of_loop,
    shortened,
    stretched,
)
from timbred.engine.adapters.places import Places
from timbred.engine.adapters.precision import precision_of
from timbred.engine.adapters.prepared import LATEST, Inputs, Workshop
from timbred.engine.adapters.sounding import LONGEST_PIECE, Sounding
from timbred.engine.adapters.spectrogram import analysis_of, as_loud_as, bands_between, inside, log_mel
from timbred.engine.adapters.vocoding import Vocoding
from timbred.engine.adapters.wrapping import going_around, make_wrapping
from timbred.engine.faults import is_out_of_memory
from timbred.engine.wire import RenderOrder, Repaint, Words
from timbred.errors import ModelError

log = logging.getLogger("timbred.engine")

Result = TypeVar("Result")

STAGES = {
    "network": ("unet",),
    "sound": ("vae", "vocoder"),
    "words": ("text_encoder", "text_encoder_2", "projection_model", "language_model"),
}
"""What a model works in, one at a time: only this much of it must be on the device at once. Those needed most first."""

Tensors = dict[str, torch.Tensor]
"""What the network is conditioned on: named tensors whose first axis is the batch."""

SILENT = 1e-5
"""The peak of a given sound below which it isn't lifted: its noise would be what is heard."""

REHEARSED_WITHIN = 5.0
"""Seconds after which a rehearsal goes on without what isn't prepared yet."""

REHEARSED_STEPS = 2
"""Steps of a rehearsal: at the first one much is made that the second one uses."""

REMEMBERED_WORDS = 64
"""Conditionings kept, so that a prompt heard before costs no text encoding."""


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


class LatentDiffusion:
    """A resident model. Subclasses say how words become conditioning and how the network is called."""

    def __init__(self, pipeline: Any, device: torch.device, scheduler_config: dict[str, Any], places: Places) -> None:
        self.pipeline = pipeline
        self.places = places
        self.batches = Batches()
        parts = pipeline.components
        self.stages: dict[str, list[torch.nn.Module]] = {
            stage: [parts[name] for name in names if isinstance(parts.get(name), torch.nn.Module)]
            for stage, names in STAGES.items()
        }
        self.device = device
        self.scheduler_config = scheduler_config
        vocoder = pipeline.vocoder.config
        self.rate = int(vocoder.sampling_rate)
        self.hop = int(math.prod(vocoder.upsample_rates))
        self.bands = int(vocoder.model_in_dim)
        self.factor = int(pipeline.vae_scale_factor)
        for part in (pipeline.unet, pipeline.vae):
            make_wrapping(part)
        self._heard: OrderedDict[tuple[Words, bool], Tensors] = OrderedDict()
        self.memory = sum(self.tensors.values())
        """Bytes of all weights."""
        self.prepare(Workshop("off", device, Path()))

    def prepare(self, workshop: Workshop) -> None:
        """Have the network and the VAE made fast for the shapes that come often."""
        self.workshop = workshop
        self.fast_unet = workshop.calls(self._evaluated, self.pipeline.unet, self._fitted)
        self.fast_vae = workshop.calls(_decoded, self.pipeline.vae)

    def rehearse(self) -> None:
        """Make a sound like those of earlier runs, if there were any, in a few steps, once all is prepared for it:
        what takes its time only at its first use is then done for the first sound that is asked for. For CPUs; others
        may be using components that this model shares with theirs."""
        shapes = self.fast_unet.latest
        if shapes is None:
            return
        self.workshop.wait(LATEST, REHEARSED_WITHIN)
        rows, _, length, _ = shapes[0].size
        order = RenderOrder(
            words=Words(prompt="rehearsal"),
            seconds=length * self.factor * self.hop / self.rate,
            steps=REHEARSED_STEPS,
            guidance=1.0 if rows == 1 else 2.0,
            eta=0.0,
            scheduler="dpm++2m",
            seeds=(0,),
        )
        self.render(order, lambda _: None, lambda: False)
        self._heard.clear()

    def settle(self) -> None:
        """Have the components on the device, as far as there is room."""
        self.places.add(self.modules)
        for module, calls in ((self.pipeline.unet, self.fast_unet), (self.pipeline.vae, self.fast_vae)):
            self.places.on_move(module, calls.forget)

    @property
    def copies(self) -> int:
        """Bytes that weights take once more to be faster; what models share is counted for each of them."""
        return self.fast_unet.copies + self.fast_vae.copies

    def at_work(self, stage: str, work: Callable[[], Result]) -> Result:
        """Do something with the components of a stage on the device. When its memory runs out, copies of weights go,
        then all other components leave it; after each it is tried once more."""
        self.places.need(self.stages[stage])
        ways_out = iter((self._lighten, partial(self.places.clear, self.stages[stage])))
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error) or not any(way_out() for way_out in ways_out):
                    raise
                log.warning("memory ran out (%s); only what the %s needs stays on the device", error, stage)

    def _lighten(self) -> bool:
        """Let go of all copies of weights; False when there were none."""
        return self.workshop.give_up(sys.maxsize)

    @property
    def modules(self) -> list[torch.nn.Module]:
        """Every component with weights."""
        return [module for stage in STAGES for module in self.stages[stage]]

    @property
    def tensors(self) -> dict[int, int]:
        """Bytes of every weight by its place in memory, so that what models share is counted once."""
        modules = [part for part in self.pipeline.components.values() if isinstance(part, torch.nn.Module)]
        return {
            tensor.data_ptr(): tensor.numel() * tensor.element_size()
            for module in modules
            for tensor in (*module.parameters(), *module.buffers())
        }

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

    arguments: ClassVar[int]
    """How many tensors `evaluate` takes."""

    def inputs(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> Inputs:
        """What `evaluate` takes, each with the batch as its first axis."""
        raise NotImplementedError

    @staticmethod
    def evaluate(unet: Any, *inputs: torch.Tensor) -> torch.Tensor:
        """One evaluation of the UNet on a batch."""
        raise NotImplementedError

    @staticmethod
    def fitted(inputs: Inputs) -> Inputs:
        """Inputs that give the same, of fewer kinds of shapes."""
        return inputs

    @classmethod
    def _evaluated(cls, unet: Any, *inputs: torch.Tensor) -> torch.Tensor:
        """`evaluate`; for loops the last of the inputs says which rows go around."""
        *plain, last = inputs
        if len(inputs) == cls.arguments:
            return cls.evaluate(unet, *inputs)
        with going_around(last):
            return cls.evaluate(unet, *plain)

    @classmethod
    def _fitted(cls, inputs: Inputs) -> Inputs:
        return (*cls.fitted(inputs[: cls.arguments]), *inputs[cls.arguments :])

    def network(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditioning: Tensors,
        around: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One evaluation on a batch, the fast way if that is ready; once more in float32 if half precision overflows.

        `around` is given for loops: 1 for each row that goes around, 0 for others.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        unet = self.pipeline.unet
        precision = precision_of(unet)
        plain = self.inputs(latents.to(precision), timestep, conditioning)
        inputs = plain if around is None else (*plain, around.to(precision))

        def predicted() -> torch.Tensor:
            now = precision_of(unet)
            if now == precision:
                return self.batches.call(self.fast_unet, inputs)
            given = (one.to(now) if one.is_floating_point() else one for one in inputs)
            return self._evaluated(unet, *given)

        return self.at_work("network", lambda: finite(unet, predicted))

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
            on_step(run.step)
            if run.sampling.done:
                self.go_on(run)
        return self.finish(run)

    def hear(self, sounds: Sounds) -> Hearing:
        """What each take sounds like. Only models that hear as well as read can say.

        Raises:
            ModelError: this one can't.
        """
        raise ModelError(f"this model can't hear ({len(sounds.waveforms)} takes)")

    def scores(self, prompt: str, heard: Hearing) -> list[float]:
        """How like the prompt each take is, -1 to 1.

        Raises:
            ModelError: this model can't hear.
        """
        raise ModelError(f"this model can't compare sounds with words ({len(heard.vectors)} takes, {prompt!r})")

    @torch.inference_mode()
    def begin(self, order: RenderOrder) -> "Run":
        """Encode the words and draw the noise."""
        guided = order.guidance > 1.0
        conditioning = _repeated(self.mixed(order.words, guided), len(order.seeds), guided)
        randomness = sampling.generators(order.seeds)
        order, lift = self._lifted(order)
        extension = self._extension(order)
        if extension is None:
            noise = self._noise(order, randomness).to(self.device)
            under_way = self._sampling(order, noise, randomness, self._beginning(order))
        else:
            under_way = self._window(order, extension, randomness)
        guidance = order.guidance if guided else None
        return Run(order, under_way, conditioning, guidance, randomness, extension, lift=lift)

    def _lifted(self, order: RenderOrder) -> tuple[RenderOrder, float]:
        """An order whose given sound has the level that the model learnt sounds at, and by what it was multiplied. Of
        a sound that is continued, only the end is given: as much as a window has room for."""
        if order.given is None:
            return order, 1.0
        samples = np.frombuffer(order.given.samples, dtype="<f4")
        heard = samples[-int(order.window * self.rate) :] if order.window else samples
        peak = float(np.abs(heard).max(initial=0.0))
        lift = analysis_of(self.pipeline.vocoder).peak / peak if peak > SILENT else 1.0
        lifted = (samples * np.float32(lift)).astype("<f4").tobytes()
        return replace(order, given=replace(order.given, samples=lifted)), lift

    def _sampling(
        self,
        order: RenderOrder,
        noise: torch.Tensor,
        randomness: list[torch.Generator],
        beginning: sampling.Beginning | None,
    ) -> sampling.Sampling:
        scheduler = sampling.make_scheduler(order.scheduler, self.scheduler_config)
        return sampling.Sampling(scheduler, noise, order.steps, order.eta, randomness, beginning)

    def _extension(self, order: RenderOrder) -> Extension | None:
        if not order.window or order.given is None:
            return None
        row = self.factor * self.hop
        samples = torch.frombuffer(bytearray(order.given.samples), dtype=torch.float32)
        there, wanted = len(samples), round(order.seconds * self.rate)
        rows = math.ceil((wanted - there) / row)
        plan = windows(max(1, there // row), rows, int(order.window * self.rate) // row)
        known = self._encoded(_with_mirror(samples, plan[0].known * row, plan[0].rows * row))[:, :, : plan[0].known]
        latents = known.float().expand(len(order.seeds), *known.shape[1:])
        return Extension(latents, plan, there, wanted, self.factor, self.hop, self.rate)

    def _window(self, order: RenderOrder, extension: Extension, randomness: list[torch.Generator]) -> sampling.Sampling:
        """The next window of a sound that is continued: its beginning is kept, each take's own."""
        latents = extension.beginning
        _, channels, rows, bands = latents.shape
        noise = sampling.starting_noise((channels, rows, bands), randomness).to(self.device)
        kept = extension.kept.expand(1, 1, *latents.shape[2:]).to(self.device)
        return self._sampling(order, noise, randomness, sampling.Beginning(latents, 1.0, kept))

    @torch.inference_mode()
    def go_on(self, run: "Run") -> None:
        """A run's steps are done: if it continues a sound, join what it made, and begin the next window if there is
        one. Then `run.sampling` isn't done any more.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        if run.extension is None:
            return
        run.extension.take(run.sampling.latents, self.spectrogram(run.sampling.latents))
        if run.extension.left:
            run.sampling = self._window(run.order, run.extension, run.randomness)

    @torch.inference_mode()
    def advance(self, runs: Sequence["Run"]) -> None:
        """Take several runs of this model one evaluation further, in one call of the network.

        Their latents must have the same shape but for the number of takes; each has its own noise level.
        """
        inputs = [run.network_input() for run in runs]
        timesteps = [run.sampling.timestep.expand(len(rows)) for run, rows in zip(runs, inputs, strict=True)]
        levels = torch.cat(timesteps).to(self.device)
        conditioning = together([run.conditioning for run in runs])
        around = [run.around for run in runs if run.around is not None]
        circles = torch.cat(around).to(self.device) if around else None
        prediction = self.network(torch.cat(inputs), levels, conditioning, circles).float()
        for run, part in zip(runs, prediction.split([len(rows) for rows in inputs]), strict=True):
            run.sampling.advance(run.guided(part))
            if run.order.loop and not run.laid_out and run.sampling.step >= LAID_OUT * run.order.steps:
                self._lay_out(run)

    @torch.inference_mode()
    def finish(self, run: "Run") -> Sounds:
        """Decode a run that is done.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        if run.extension is not None and run.extension.mel is not None:
            return self._continued(run, run.extension, run.extension.mel)
        return self._sounds(run, run.sampling.latents)

    def _sounds(self, run: "Run", latents: torch.Tensor) -> Sounds:
        """The sound of latents of this run, at the length that was asked for."""
        if run.order.loop:
            return self._loops(latents, run.circular[: len(latents)], run.order.seconds)
        mel = self._around_the_part(run.order, self.spectrogram(latents))
        made = self._waveforms(mel)
        if run.order.given is not None and run.order.given.repaint is not None:
            made = as_loud_as(mel, torch.from_numpy(made), analysis_of(self.pipeline.vocoder)).numpy()
        wanted = made[:, : int(run.order.seconds * self.rate)]
        return Sounds((wanted / run.lift).astype(np.float32), self.rate)

    def _continued(self, run: "Run", extension: Extension, mel: torch.Tensor) -> Sounds:
        """The sound of what was made so far after a given one, from shortly before that one's end on."""
        vocoding = Vocoding(self.pipeline.vocoder, mel)
        skipped, last = extension.begins // self.hop, mel.shape[1]
        edges = [*range(skipped, last, LONGEST_PIECE), last]
        pieces = [self._vocoded(partial(vocoding.piece, start, end)) for start, end in pairwise(edges)]
        level = as_loud_as(mel[:, skipped:], torch.cat(pieces, dim=1), analysis_of(self.pipeline.vocoder))
        made = level.numpy()[:, extension.begins - skipped * self.hop :]
        wanted = made[:, : extension.wanted - extension.first]
        return Sounds((wanted / run.lift).astype(np.float32), self.rate, extension.first)

    def _around_the_part(self, order: RenderOrder, mel: torch.Tensor) -> torch.Tensor:
        """The spectrogram of a sound of which a part was made anew, with what is given outside of that part: the
        decoder hears all of the sound at once, and would change that too."""
        if order.given is None or order.given.repaint is None:
            return mel
        part, analysis = order.given.repaint, analysis_of(self.pipeline.vocoder)
        given = log_mel(self._given_samples(order.given.samples, mel.shape[1]), analysis).to(mel.device, mel.dtype)
        frames = self.rate / self.hop
        times = inside(mel.shape[1], math.floor(part.start * frames), math.ceil(part.end * frames))
        bands = inside(mel.shape[2], *bands_between(analysis, part.low, part.high))
        weight = (times[:, None] * bands).to(mel.device, mel.dtype)
        return given + (mel - given) * weight

    def _given_samples(self, samples: bytes, frames: int) -> torch.Tensor:
        """A given sound, followed by silence or cut, as long as so many mel frames."""
        found = torch.frombuffer(bytearray(samples), dtype=torch.float32)
        length = frames * self.hop
        return torch.nn.functional.pad(found, (0, max(0, length - len(found))))[:length]

    def _lay_out(self, run: "Run") -> None:
        """See which takes of a loop have a beginning of their own. If others haven't, the steps begin anew, for those
        to go around from the first one on."""
        frames = round(run.order.seconds * self.rate / self.hop)
        expected = self.spectrogram(run.sampling.clean())[:, :frames]
        run.circular = tuple(not begins(mel, analysis_of(self.pipeline.vocoder)) for mel in expected)
        run.laid_out = True
        if any(run.circular):
            run.before = run.sampling.step
            run.sampling = self._sampling(run.order, run.sampling.noise, run.randomness, None)

    def _loops(self, latents: torch.Tensor, circular: tuple[bool, ...], seconds: float) -> Sounds:
        """Loops: those that go around at their exact length, and on from their start; others with what follows."""
        frames = max(1, round(seconds * self.rate))
        going = [index for index, goes in enumerate(circular) if goes]
        staying = [index for index, goes in enumerate(circular) if not goes]
        waveforms = np.zeros((len(latents), latents.shape[2] * self.factor * self.hop), dtype=np.float32)
        if staying:
            made = self.decode(latents[staying])[:, : waveforms.shape[1]]
            waveforms[staying, : made.shape[1]] = made
        if going:
            made = self._circles(latents[going], frames)
            waveforms[going] = made[:, np.arange(waveforms.shape[1]) % frames]
        return Sounds(waveforms, self.rate, looped=circular)

    def _circles(self, latents: torch.Tensor, frames: int) -> NDArray[np.float32]:
        """Latents that go around, decoded and vocoded so: (takes, frames)."""
        mel = self.spectrogram(latents, torch.ones(len(latents), device=self.device))
        counts = frames_of_circle(frames, self.hop)
        made = [self._vocoded(self._around(stretched(mel, count)).whole).numpy() for count in counts]
        if len(made) == 1:
            loops = fitted(made[0], frames)
        else:
            loops = np.concatenate([self._likest([one[take] for one in made], frames) for take in range(len(latents))])
        return np.stack([calm(loop, self.rate) for loop in loops])

    def _around(self, mel: torch.Tensor) -> Vocoding:
        return Vocoding(self.pipeline.vocoder, mel, circular=True)

    def _likest(self, circles: list[NDArray[np.float32]], frames: int) -> NDArray[np.float32]:
        """Of circles of several lengths the one that can be shortened with the least to hear of it: (1, frames)."""
        made, _ = max((shortened(circle, frames, self.rate) for circle in circles), key=lambda found: found[1])
        return fitted(made[None], frames)

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
        frames = self.latent_shape(seconds)[1] * self.factor * self.hop
        missing = frames - len(samples)
        return self._encoded(torch.nn.functional.pad(samples, (0, max(0, missing)))[:frames])

    def _encoded(self, samples: torch.Tensor) -> torch.Tensor:
        """A sound of whole rows of latents."""
        vae = self.pipeline.vae
        spectrogram = log_mel(samples, analysis_of(self.pipeline.vocoder))[None, None]
        given = spectrogram.to(self.device, precision_of(vae))
        found = self.at_work("sound", lambda: vae.encode(given)).latent_dist.mode()
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
        shape = self.latent_shape(order.seconds, order.loop)
        if order.noise is None:
            return sampling.starting_noise(shape, randomness)
        earlier = sampling.generators((order.noise.seed,))
        noise = sampling.starting_noise(self.latent_shape(order.noise.seconds, order.noise.loop), earlier)
        return sampling.carried_over(noise, shape[1], earlier[0]).expand(len(order.seeds), *shape)

    @torch.inference_mode()
    def preview(self, run: "Run") -> Sounds:
        """The run's first take as it will be, roughly: decoded from the latents that the network now expects. Of a
        sound that is continued, as far as it has come."""
        expected = run.sampling.clean()[:1]
        if run.extension is not None:
            return self._continued(run, run.extension, run.extension.with_window(self.spectrogram(expected)))
        return self._sounds(run, expected)

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
            encode = self.weighted if words.weights else self.encode
            self._heard[key] = self.at_work("words", lambda: encode(words, guided))
            if len(self._heard) > REMEMBERED_WORDS:
                self._heard.popitem(last=False)
        self._heard.move_to_end(key)
        return self._heard[key]

    def latent_shape(self, seconds: float, loop: bool = False) -> tuple[int, int, int]:
        """Channels, time and bands of the latents for a length, rounded up to what the VAE can decode, and for a loop
        to what the network can halve on all its levels."""
        unet = self.pipeline.unet.config
        if loop:
            halvings = 2 ** (len(unet.block_out_channels) - 1)
            rows = rows_of_loop(seconds, self.rate, self.factor, self.hop, halvings)
        else:
            rows = math.ceil(max(self.factor, int(seconds * self.rate / self.hop)) / self.factor)
        return int(unet.in_channels), rows, self.bands // self.factor

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> NDArray[np.float32]:
        """From latents to waveforms of shape (takes, frames); once more in float32 if half precision overflows.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        return self._waveforms(self.spectrogram(latents))

    def _waveforms(self, mel: torch.Tensor) -> NDArray[np.float32]:
        """From mel spectrograms to waveforms of shape (takes, frames)."""
        vocoding = Vocoding(self.pipeline.vocoder, mel)
        return np.ascontiguousarray(self._vocoded(vocoding.whole).numpy(), dtype=np.float32)

    def spectrogram(self, latents: torch.Tensor, around: torch.Tensor | None = None) -> torch.Tensor:
        """From latents to the log-mel spectrogram that the vocoder takes, (takes, frames, bands). `around` is as in
        `network`.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        vae = self.pipeline.vae
        precision = precision_of(vae)

        def decoded() -> torch.Tensor:
            now = precision_of(vae)
            scaled = (latents / vae.config.scaling_factor).to(now)
            fast = self.fast_vae if now == precision else partial(_decoded, vae)
            inputs = (scaled,) if around is None else (scaled, around.to(now))
            return self.batches.call(fast, inputs).squeeze(1)

        return self.at_work("sound", lambda: finite(vae, decoded))

    def _vocoded(self, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        return self.at_work("sound", lambda: finite(self.pipeline.vocoder, make))

    @torch.inference_mode()
    def sounding(self, run: "Run") -> Sounding:
        """A run that is done, decoded up to the vocoder, whose pieces can then be heard one after the other.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        mel = self._around_the_part(run.order, self.spectrogram(run.sampling.latents))
        vocoding = Vocoding(self.pipeline.vocoder, mel)
        analysis = analysis_of(self.pipeline.vocoder)

        def vocoded(make: Callable[[], torch.Tensor]) -> torch.Tensor:
            return self._vocoded(make) / run.lift

        return Sounding(vocoding, int(run.order.seconds * self.rate), self.rate, analysis, vocoded)


def _with_mirror(samples: torch.Tensor, known: int, frames: int) -> torch.Tensor:
    """The last `known` of some samples and their mirror image, in turns, up to so many frames. Of a sound with fewer,
    the mirror image stands before it."""
    end = samples[-known:]
    circle = torch.cat([end, end.flip(0)])
    return circle[torch.arange(len(end) - known, frames - known + len(end)) % len(circle)]


def _decoded(vae: Any, latents: torch.Tensor, around: torch.Tensor | None = None) -> torch.Tensor:
    with nullcontext() if around is None else going_around(around):
        return vae.decode(latents, return_dict=False)[0]


def finite(part: Any, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What `make` gives by way of this part of the model; once more in float32 if half precision overflows.

    Raises:
        ModelError: the result isn't finite, even in full precision.
    """
    result = make()
    if torch.isfinite(result).all():
        return result
    before = precision_of(part)
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
    else the conditioning's batch axis holds first the negative ones for all takes, then the prompt for all.

    Of a loop, `circular` says which takes go around, once that has shown (`laid_out`), after `before` steps. A given
    sound was multiplied by `lift`, and what is made is divided by it."""

    order: RenderOrder
    sampling: sampling.Sampling
    conditioning: Tensors
    guidance: float | None
    randomness: list[torch.Generator]
    extension: Extension | None = None
    circular: tuple[bool, ...] = ()
    laid_out: bool = False
    before: int = 0
    lift: float = 1.0

    def __post_init__(self) -> None:
        self.circular = self.circular or (False,) * len(self.order.seeds)

    @property
    def steps(self) -> int:
        """Steps in all, of all windows of a sound that is continued."""
        return self.before + self.sampling.steps * (1 if self.extension is None else self.extension.count)

    @property
    def step(self) -> int:
        """Steps that are done, 0 to `steps`."""
        before = 0 if self.extension is None else min(self.extension.done, self.extension.count - 1)
        return self.before + before * self.sampling.steps + self.sampling.step

    @property
    def around(self) -> torch.Tensor | None:
        """Of a loop: 1 for each row that goes around, 0 for the others."""
        if not self.order.loop:
            return None
        return torch.tensor(self.circular * (1 if self.guidance is None else 2), dtype=torch.float32)

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
        """What must be equal for runs to share a call: channels, time and bands of the latents, and whether they are
        loops."""
        return *self.sampling.latents.shape[1:], int(self.order.loop)

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
