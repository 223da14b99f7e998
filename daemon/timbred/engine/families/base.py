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
from timbred.engine.diffusion.denoiser import Denoiser, DenoiserSignature
from timbred.engine.diffusion.generation import (
    Embeddings,
    RenderedSounds,
    begin_generation,
    begin_next_window,
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

COMPILED_CALLS_TIMEOUT_S = 5.0
"""Seconds after which a warm-up continues without compiled calls."""

WARM_UP_STEPS = 2
"""Steps of a warm-up: the first one allocates what the second one uses."""


def warm_up_order(shapes: Shapes, latent_layout: LatentLayout) -> RenderOrder:
    """Return a warm-up order for which the network is called with inputs of these shapes."""
    rows, _, length, _ = shapes[0].size
    return RenderOrder(
        words=PromptInputs(prompt="rehearsal"),
        seconds=length * latent_layout.samples_per_row / latent_layout.rate,
        steps=WARM_UP_STEPS,
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
        device_memory: Memory of the device.

    Attributes:
        weight_bytes: Bytes of all weights.
    """

    signature: ClassVar[DenoiserSignature]
    """Signature of the network."""

    summary_tensors: ClassVar[tuple[str, ...]] = ()
    """Names of the conditioning tensors that summarise the whole prompt, for word weights."""

    def __init__(
        self, pipeline: Any, device: torch.device, scheduler_config: dict[str, Any], device_memory: DeviceMemory
    ) -> None:
        for part in (pipeline.unet, pipeline.vae):
            make_circular(part)
        batch_splitter = BatchSplitter()
        self.pipeline = pipeline
        self.device = device
        self.scheduler_config = scheduler_config
        self.stages = ModelStages(pipeline.components, device_memory)
        self.denoiser = Denoiser(pipeline.unet, self.signature, device, self.stages, batch_splitter)
        self.codec = MelVaeCodec(pipeline, device, self.stages, batch_splitter)
        self.latent_layout = self.codec.latent_layout
        self.cached_conditioning = conditioning_cache()
        self.weight_bytes = sum(self.stages.tensors.values())
        """Bytes of all weights."""
        self.use_compile_queue(CompileQueue("off", device, Path()))

    def use_compile_queue(self, compile_queue: CompileQueue) -> None:
        """Use a compile queue for the network and the VAE."""
        self.stages.compile_queue = compile_queue
        self.denoiser.use_compile_queue(compile_queue)
        self.codec.use_compile_queue(compile_queue)

    def warm_up(self) -> None:
        """Render with the shapes of earlier runs in a few steps, to pay one-time costs before the first request.

        For CPUs; other models may use shared components at the same time.
        """
        shapes = self.denoiser.compiled_calls.latest_shapes
        if shapes is None:
            return
        self.stages.compile_queue.wait(LATEST_RANK, COMPILED_CALLS_TIMEOUT_S)
        self.render(warm_up_order(shapes, self.latent_layout), lambda _: None, lambda: False)
        self.cached_conditioning.clear()

    def move_to_device(self) -> None:
        """Move the components to the device, as far as there is room."""
        self.stages.device_memory.add(self.modules)
        for module, calls in (
            (self.pipeline.unet, self.denoiser.compiled_calls),
            (self.pipeline.vae, self.codec.compiled_calls),
        ):
            self.stages.device_memory.on_move(module, calls.drop_all)

    @property
    def modules(self) -> list[torch.nn.Module]:
        """All components with weights."""
        return self.stages.modules

    @property
    def copied_bytes(self) -> int:
        """Bytes of additional copies of weights; shared components count for each model."""
        return self.denoiser.compiled_calls.copied_bytes + self.codec.compiled_calls.copied_bytes

    @cached_property
    def windows(self) -> Windows:
        """Token windows of the text encoders."""
        return Windows(windows_of((self.pipeline.tokenizer,)))

    def split_text(self, text: str) -> list[Part]:
        """Divide a text into parts that fit into the window of every prompt encoder."""
        return divide(text, self.windows.prompt)

    def find_long_texts(self, words: PromptInputs) -> list[LongText]:
        """Return the texts of a request that are longer than the encoders' windows."""
        return long_texts(words.texts(), self.windows)

    def encode(self, words: PromptInputs, guided: bool) -> Tensors:
        """Encode the conditioning for one take; with guidance, the negative row comes first."""
        raise NotImplementedError

    def encode_weighted(self, words: PromptInputs, guided: bool) -> Tensors:
        """Encode a prompt with weighted words."""
        return apply_word_weights(words, guided, self.encode, self.summary_tensors)

    def conditioning(self, words: PromptInputs, guided: bool) -> Tensors:
        """Return the conditioning for one take from the cache, or encode it."""
        encode = self.encode_weighted if words.weights else self.encode

        def run_encoders() -> Tensors:
            return self.stages.run_stage("text", lambda: encode(words, guided))

        return self.cached_conditioning.get((words, guided, torch.are_deterministic_algorithms_enabled()), run_encoders)

    def mixed_conditioning(self, words: PromptInputs, guided: bool) -> Tensors:
        """Return the conditioning for one take, mixed between two prompts if there are two."""
        return mix_conditioning(words, guided, self.conditioning)

    def embed_takes(self, sounds: RenderedSounds) -> Embeddings:
        """Return the embeddings of takes, by models with an audio encoder.

        Raises:
            ModelError: The model has none.
        """
        raise ModelError(f"this model has no audio encoder, so {len(sounds.waveforms)} takes have no embedding")

    def score_takes(self, prompt: str, embeddings: Embeddings) -> list[float]:
        """Return the similarity of each take and the prompt, -1 to 1.

        Raises:
            ModelError: The model has no audio encoder.
        """
        raise ModelError(
            f"this model has no audio encoder, so {len(embeddings.vectors)} takes can't be ranked by {prompt!r}"
        )

    def render(self, order: RenderOrder, on_step: Callable[[int], None], stopped: Callable[[], bool]) -> RenderedSounds:
        """Render all takes of an order alone, without a batch.

        Raises:
            SamplingStopped: `stopped` returned True between two steps.
            ModelError: The result is not finite, even in float32.
        """
        generation = self.begin(order)
        while not generation.sampler.done:
            if stopped():
                raise SamplingStopped
            self.advance([generation])
            on_step(generation.step)
            if generation.sampler.done:
                self.begin_next_window(generation)
        return self.decode(generation)

    @torch.inference_mode()
    def begin(self, order: RenderOrder) -> Generation:
        """Encode the prompt and draw the noise."""
        guided = order.guidance > 1.0
        conditioning = repeat_conditioning(self.mixed_conditioning(order.words, guided), len(order.seeds), guided)
        return begin_generation(order, conditioning, self.codec, self.scheduler_config)

    @torch.inference_mode()
    def advance(self, generations: Sequence[Generation]) -> None:
        """Advance several generations of this model by one evaluation, in one network call.

        Their latents have the same shape except for the number of takes; each has its own noise level.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        step_batch(generations, self.denoiser, self.codec)

    @torch.inference_mode()
    def begin_next_window(self, generation: Generation) -> None:
        """For outpainting: join the finished window, and begin the next one if there is one.

        Afterwards `generation.sampler.done` is False if a window was begun.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        begin_next_window(generation, self.codec)

    @torch.inference_mode()
    def preview(self, generation: Generation) -> RenderedSounds:
        """Decode the predicted result of the first take; for outpainting, all windows so far.

        Raises:
            RuntimeError: No step was taken.
            ModelError: The result is not finite, even in float32.
        """
        return decode_preview(generation, self._codec_for(generation))

    @torch.inference_mode()
    def decode(self, generation: Generation) -> RenderedSounds:
        """Decode a finished generation.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        return decode_generation(generation, self._codec_for(generation))

    @torch.inference_mode()
    def begin_stream(self, generation: Generation) -> VocoderStream:
        """Decode a finished generation up to the vocoder, whose output is then available in pieces.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        return stream_generation(generation, self._codec_for(generation))

    def _codec_for(self, generation: Generation) -> MelVaeCodec:
        """Return the codec at the pitch that the prompt names; init audio keeps its own pitch."""
        return self.codec.with_note(None if generation.order.given is not None else named_note(generation.order.words))
