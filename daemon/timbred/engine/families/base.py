"""A sound that nobody asked for: what takes its time only at its first use is then done for the first one they do."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from timbred.engine.batching import BatchSplitter
from timbred.engine.circular import make_circular
from timbred.engine.clap import ClapEmbedder
from timbred.engine.codecs.chunked import VocoderStream
from timbred.engine.codecs.mel_vae import LatentLayout, MelVaeCodec
from timbred.engine.codecs.note_synthesis import named_note
from timbred.engine.compile.compiled_calls import LATEST, CompileQueue
from timbred.engine.compile.tracing import Shapes
from timbred.engine.diffusion.conditioning import (
    Tensors,
    conditioning_cache,
    leaning,
    mix_conditioning,
    repeat_conditioning,
)
from timbred.engine.diffusion.denoiser import Denoiser, DenoiserCall
from timbred.engine.diffusion.generation import (
    RenderedSounds,
    expected,
    finished,
    next_steps,
    piece_by_piece,
    started,
    step_together,
)
from timbred.engine.diffusion.sampler import SamplingStopped
from timbred.engine.diffusion.state import Generation
from timbred.engine.memory.device_memory import DeviceMemory, ModelStages
from timbred.errors import ModelError
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models.long_texts import LongText, Part, Windows, divide, long_texts, windows_of

PATIENCE = 5.0
"""Seconds after which a rehearsal goes on without what isn't prepared yet."""

STEPS = 2
"""At the first one much is made that the second one uses."""


def rehearsal(shapes: Shapes, grid: LatentLayout) -> RenderOrder:
    """An order for which the network is called with inputs of these shapes."""
    rows, _, length, _ = shapes[0].size
    return RenderOrder(
        words=PromptInputs(prompt="rehearsal"),
        seconds=length * grid.row / grid.rate,
        steps=STEPS,
        guidance=1.0 if rows == 1 else 2.0,
        eta=0.0,
        scheduler="dpm++2m",
        seeds=(0,),
    )


class LatentDiffusion:
    """A resident model. Subclasses say how words become conditioning and how the network is called."""

    calling: ClassVar[DenoiserCall]
    """How the network is called."""

    summaries: ClassVar[tuple[str, ...]] = ()
    """Names of the conditioning that are one summary of the whole prompt, and lean towards or away from a word."""

    def __init__(
        self, pipeline: Any, device: torch.device, scheduler_config: dict[str, Any], places: DeviceMemory
    ) -> None:
        for part in (pipeline.unet, pipeline.vae):
            make_circular(part)
        batches = BatchSplitter()
        self.pipeline = pipeline
        self.device = device
        self.scheduler_config = scheduler_config
        self.stages = ModelStages(pipeline.components, places)
        self.network = Denoiser(pipeline.unet, self.calling, device, self.stages, batches)
        self.codec = MelVaeCodec(pipeline, device, self.stages, batches)
        self.grid = self.codec.grid
        self.conditionings = conditioning_cache()
        self.memory = sum(self.stages.tensors.values())
        """Bytes of all weights."""
        self.prepare(CompileQueue("off", device, Path()))

    def prepare(self, workshop: CompileQueue) -> None:
        """Have the network and the VAE made fast for the shapes that come often."""
        self.stages.workshop = workshop
        self.network.prepare(workshop)
        self.codec.prepare(workshop)

    def rehearse(self) -> None:
        """Make a sound like those of earlier runs, if there were any, in a few steps, once all is prepared for it:
        what takes its time only at its first use is then done for the first sound that is asked for. For CPUs; others
        may be using components that this model shares with theirs."""
        shapes = self.network.fast.latest
        if shapes is None:
            return
        self.stages.workshop.wait(LATEST, PATIENCE)
        self.render(rehearsal(shapes, self.grid), lambda _: None, lambda: False)
        self.conditionings.clear()

    def settle(self) -> None:
        """Have the components on the device, as far as there is room."""
        self.stages.places.add(self.modules)
        for module, calls in ((self.pipeline.unet, self.network.fast), (self.pipeline.vae, self.codec.fast)):
            self.stages.places.on_move(module, calls.forget)

    @property
    def modules(self) -> list[torch.nn.Module]:
        """Every component with weights."""
        return self.stages.modules

    @property
    def copies(self) -> int:
        """Bytes that weights take once more to be faster; what models share is counted for each of them."""
        return self.network.fast.copies + self.codec.fast.copies

    @cached_property
    def windows(self) -> Windows:
        """The windows of the text encoders."""
        return Windows(windows_of((self.pipeline.tokenizer,)))

    def parts(self, text: str) -> list[Part]:
        """A text in parts that every encoder of prompts takes whole."""
        return divide(text, self.windows.prompt)

    def read_in_parts(self, words: PromptInputs) -> list[LongText]:
        """The texts of a request that are longer than the encoders' windows."""
        return long_texts(words.texts(), self.windows)

    def encode(self, words: PromptInputs, guided: bool) -> Tensors:
        """The conditioning for one take; with guidance, the batch axis holds first the negative, then the prompt."""
        raise NotImplementedError

    def weighted(self, words: PromptInputs, guided: bool) -> Tensors:
        """The conditioning with some words counting more or less."""
        return leaning(words, guided, self.encode, self.summaries)

    def conditioning(self, words: PromptInputs, guided: bool) -> Tensors:
        """`encode`, kept for the prompts used last."""
        encode = self.weighted if words.weights else self.encode

        def made() -> Tensors:
            return self.stages.at_work("words", lambda: encode(words, guided))

        return self.conditionings.get((words, guided, torch.are_deterministic_algorithms_enabled()), made)

    def mixed(self, words: PromptInputs, guided: bool) -> Tensors:
        """The conditioning, between two prompts if there are two."""
        return mix_conditioning(words, guided, self.conditioning)

    def hear(self, sounds: RenderedSounds) -> ClapEmbedder:
        """What each take sounds like. Only models that hear as well as read can say.

        Raises:
            ModelError: this one can't.
        """
        raise ModelError(f"this model can't hear ({len(sounds.waveforms)} takes)")

    def scores(self, prompt: str, heard: ClapEmbedder) -> list[float]:
        """How like the prompt each take is, -1 to 1.

        Raises:
            ModelError: this model can't hear.
        """
        raise ModelError(f"this model can't compare sounds with words ({len(heard.vectors)} takes, {prompt!r})")

    def render(self, order: RenderOrder, on_step: Callable[[int], None], stopped: Callable[[], bool]) -> RenderedSounds:
        """Make one sound for each seed of the order, alone.

        Raises:
            StoppedByRequest: `stopped` said so between two steps.
            ModelError: the result isn't finite, even in full precision.
        """
        run = self.begin(order)
        while not run.sampling.done:
            if stopped():
                raise SamplingStopped
            self.advance([run])
            on_step(run.step)
            if run.sampling.done:
                self.go_on(run)
        return self.finish(run)

    @torch.inference_mode()
    def begin(self, order: RenderOrder) -> Generation:
        """Encode the words and draw the noise."""
        guided = order.guidance > 1.0
        conditioning = repeat_conditioning(self.mixed(order.words, guided), len(order.seeds), guided)
        return started(order, conditioning, self.codec, self.scheduler_config)

    @torch.inference_mode()
    def advance(self, runs: Sequence[Generation]) -> None:
        """Take several runs of this model one evaluation further, in one call of the network.

        Their latents must have the same shape but for the number of takes; each has its own noise level.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        step_together(runs, self.network, self.codec)

    @torch.inference_mode()
    def go_on(self, run: Generation) -> None:
        """A run's steps are done: if it continues a sound, join what it made, and begin the next window if there is
        one. Then `run.sampling` isn't done any more.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        next_steps(run, self.codec)

    @torch.inference_mode()
    def preview(self, run: Generation) -> RenderedSounds:
        """The run's first take as it will be, roughly: decoded from the latents that the network now expects. Of a
        sound that is continued, as far as it has come.

        Raises:
            RuntimeError: no step was taken yet.
            ModelError: the result isn't finite, even in full precision.
        """
        return expected(run, self._playing(run))

    @torch.inference_mode()
    def finish(self, run: Generation) -> RenderedSounds:
        """Decode a run that is done.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        return finished(run, self._playing(run))

    @torch.inference_mode()
    def sounding(self, run: Generation) -> VocoderStream:
        """A run that is done, decoded up to the vocoder, whose pieces can then be heard one after the other.

        Raises:
            ModelError: the result isn't finite, even in full precision.
        """
        return piece_by_piece(run, self._playing(run))

    def _playing(self, run: Generation) -> MelVaeCodec:
        """The codec, at the pitch that the words name; what is made of a given sound keeps that sound's own."""
        return self.codec.playing(None if run.order.given is not None else named_note(run.order.words))
