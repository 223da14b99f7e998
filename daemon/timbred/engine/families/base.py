"""Base class of the model families: a resident latent diffusion model."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from timbred.engine.batching import BatchSplitter
from timbred.engine.circular import make_circular
from timbred.engine.codecs.chunked import VocoderStream
from timbred.engine.codecs.mel_vae import LatentLayout, MelVaeCodec
from timbred.engine.codecs.note_synthesis import named_note
from timbred.engine.compile.compiled_calls import LATEST_RANK, CompileQueue
from timbred.engine.compile.tracing import Shapes
from timbred.engine.diffusion.conditioning import (
    Tensors,
    apply_word_weights,
    conditioning_cache,
    mix_conditioning,
    repeat_conditioning,
)
from timbred.engine.diffusion.denoiser import Denoiser, DenoiserCall
from timbred.engine.diffusion.generation import (
    Embeddings,
    RenderedSounds,
    begin_generation,
    continue_windows,
    decode_generation,
    decode_preview,
    step_batch,
    stream_generation,
)
from timbred.engine.diffusion.sampler import SamplingStopped
from timbred.engine.diffusion.state import Generation
from timbred.engine.memory.device_memory import DeviceMemory, ModelStages
from timbred.errors import ModelError
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models.long_texts import LongText, Part, Windows, divide, long_texts, windows_of

PATIENCE = 5.0
"""Seconds after which a warm-up continues without compiled calls."""

STEPS = 2
"""Steps of a warm-up: the first one allocates what the second one uses."""


def warm_up_order(shapes: Shapes, grid: LatentLayout) -> RenderOrder:
    """Return a warm-up order for which the network is called with inputs of these shapes."""
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
    """A resident model. Subclasses define the text encoding and the network call.

    Args:
        pipeline: The diffusers pipeline with all components.
        device: Compute device.
        scheduler_config: The checkpoint's scheduler configuration.
        places: Memory of the device.

    Attributes:
        memory: Bytes of all weights.
    """

    calling: ClassVar[DenoiserCall]
    """Signature of the network."""

    summaries: ClassVar[tuple[str, ...]] = ()
    """Names of the conditioning tensors that summarise the whole prompt, for word weights."""

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
        """Use a compile queue for the network and the VAE."""
        self.stages.workshop = workshop
        self.network.prepare(workshop)
        self.codec.prepare(workshop)

    def warm_up(self) -> None:
        """Render with the shapes of earlier runs in a few steps, to pay one-time costs before the first request.

        For CPUs; other models may use shared components at the same time.
        """
        shapes = self.network.fast.latest
        if shapes is None:
            return
        self.stages.workshop.wait(LATEST_RANK, PATIENCE)
        self.render(warm_up_order(shapes, self.grid), lambda _: None, lambda: False)
        self.conditionings.clear()

    def settle(self) -> None:
        """Move the components to the device, as far as there is room."""
        self.stages.places.add(self.modules)
        for module, calls in ((self.pipeline.unet, self.network.fast), (self.pipeline.vae, self.codec.fast)):
            self.stages.places.on_move(module, calls.forget)

    @property
    def modules(self) -> list[torch.nn.Module]:
        """All components with weights."""
        return self.stages.modules

    @property
    def copies(self) -> int:
        """Bytes of additional copies of weights; shared components count for each model."""
        return self.network.fast.copies + self.codec.fast.copies

    @cached_property
    def windows(self) -> Windows:
        """Token windows of the text encoders."""
        return Windows(windows_of((self.pipeline.tokenizer,)))

    def parts(self, text: str) -> list[Part]:
        """Divide a text into parts that fit into the window of every prompt encoder."""
        return divide(text, self.windows.prompt)

    def find_long_texts(self, words: PromptInputs) -> list[LongText]:
        """Return the texts of a request that are longer than the encoders' windows."""
        return long_texts(words.texts(), self.windows)

    def encode(self, words: PromptInputs, guided: bool) -> Tensors:
        """Encode the conditioning for one take; with guidance, the negative row comes first."""
        raise NotImplementedError

    def weighted(self, words: PromptInputs, guided: bool) -> Tensors:
        """Encode a prompt with weighted words."""
        return apply_word_weights(words, guided, self.encode, self.summaries)

    def conditioning(self, words: PromptInputs, guided: bool) -> Tensors:
        """Return the conditioning for one take from the cache, or encode it."""
        encode = self.weighted if words.weights else self.encode

        def made() -> Tensors:
            return self.stages.run_stage("words", lambda: encode(words, guided))

        return self.conditionings.get((words, guided, torch.are_deterministic_algorithms_enabled()), made)

    def mixed(self, words: PromptInputs, guided: bool) -> Tensors:
        """Return the conditioning for one take, mixed between two prompts if there are two."""
        return mix_conditioning(words, guided, self.conditioning)

    def hear(self, sounds: RenderedSounds) -> Embeddings:
        """Return the embeddings of takes, by models with an audio encoder.

        Raises:
            ModelError: The model has none.
        """
        raise ModelError(f"this model has no audio encoder, so {len(sounds.waveforms)} takes have no embedding")

    def scores(self, prompt: str, heard: Embeddings) -> list[float]:
        """Return the similarity of each take and the prompt, -1 to 1.

        Raises:
            ModelError: The model has no audio encoder.
        """
        raise ModelError(
            f"this model has no audio encoder, so {len(heard.vectors)} takes can't be ranked by {prompt!r}"
        )

    def render(self, order: RenderOrder, on_step: Callable[[int], None], stopped: Callable[[], bool]) -> RenderedSounds:
        """Render all takes of an order alone, without a batch.

        Raises:
            SamplingStopped: `stopped` returned True between two steps.
            ModelError: The result is not finite, even in float32.
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
        """Encode the prompt and draw the noise."""
        guided = order.guidance > 1.0
        conditioning = repeat_conditioning(self.mixed(order.words, guided), len(order.seeds), guided)
        return begin_generation(order, conditioning, self.codec, self.scheduler_config)

    @torch.inference_mode()
    def advance(self, runs: Sequence[Generation]) -> None:
        """Advance several generations of this model by one evaluation, in one network call.

        Their latents have the same shape except for the number of takes; each has its own noise level.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        step_batch(runs, self.network, self.codec)

    @torch.inference_mode()
    def go_on(self, run: Generation) -> None:
        """For outpainting: join the finished window, and begin the next one if there is one.

        Afterwards `run.sampling.done` is False if a window was begun.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        continue_windows(run, self.codec)

    @torch.inference_mode()
    def preview(self, run: Generation) -> RenderedSounds:
        """Decode the predicted result of the first take; for outpainting, all windows so far.

        Raises:
            RuntimeError: No step was taken.
            ModelError: The result is not finite, even in float32.
        """
        return decode_preview(run, self._playing(run))

    @torch.inference_mode()
    def finish(self, run: Generation) -> RenderedSounds:
        """Decode a finished generation.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        return decode_generation(run, self._playing(run))

    @torch.inference_mode()
    def sounding(self, run: Generation) -> VocoderStream:
        """Decode a finished generation up to the vocoder, whose output is then available in pieces.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        return stream_generation(run, self._playing(run))

    def _playing(self, run: Generation) -> MelVaeCodec:
        """Return the codec at the pitch that the prompt names; init audio keeps its own pitch."""
        return self.codec.playing(None if run.order.given is not None else named_note(run.order.words))
