"""The engine's half of a family's declaration, and a resident model of any family.

A declaration names the classes that run what `timbred.models.families` describes. The model makes its parts by it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from timbred.engine.batching import BatchSplitter, make_circular
from timbred.engine.codecs.chunked import PieceStream
from timbred.engine.compile.compiled_calls import LATEST_RANK, CompileQueue
from timbred.engine.device import has_weights, precision_of
from timbred.engine.diffusion.conditioner import Conditioner
from timbred.engine.diffusion.denoiser import Denoiser, DenoiserSignature
from timbred.engine.diffusion.generation import Generation, RenderedSounds, step_batch
from timbred.engine.diffusion.rendering import Rendering
from timbred.engine.diffusion.sampler import DiscreteSampling, SamplingStopped
from timbred.engine.diffusion.whole_render import WholeRenders
from timbred.engine.memory.device_memory import DeviceMemory, ModelStages
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models.families import Family
from timbred.models.long_texts import LongText

COMPILED_CALLS_TIMEOUT_S = 5.0
"""Seconds after which a warm-up continues without compiled calls."""

WARM_UP_STEPS = 2
"""Steps of a warm-up: the first one allocates what the second one uses."""


@dataclass(frozen=True)
class FamilySpec:
    """A family as the engine runs it.

    Attributes:
        facts: Its components, layout, defaults and capabilities.
        pipeline_class: The diffusers pipeline, whose text encoding is used.
        conditioner: Class of its text side.
        denoiser: Name of the component that denoises.
        signature: Signature of that component.
        codec: Makes the codec of a pipeline, of the class that `rendering` takes.
        rendering: Class that begins, decodes and continues generations.
        sampling: The kind of its noise schedulers.
        circular: True if loops are rendered by circular convolution in its denoiser and autoencoder.
        own_classes: Component classes that are neither in transformers nor in diffusers by their names.
        load: Loads the pipeline of a folder that isn't in diffusers' format; takes the folder, the model's name, and a
            function that is called with the progress, 0 to 1.
    """

    facts: Family
    pipeline_class: Any
    conditioner: type[Conditioner]
    denoiser: str
    signature: DenoiserSignature
    codec: Callable[[Any, torch.device, ModelStages, BatchSplitter], Any]
    rendering: type[Rendering[Any]]
    sampling: DiscreteSampling
    circular: bool = False
    own_classes: Mapping[str, type[Any]] = field(default_factory=dict[str, type[Any]])
    load: Callable[[Path, str, Callable[[float], None]], Any] | None = None


WARM_UP_SECONDS = 0.1
"""Length of the warm-up render of a model whose network has no shapes to be compiled for."""


def warm_up_order(rows: int, seconds: float, scheduler: str) -> RenderOrder:
    """Return a warm-up order for which the network is called with so many rows."""
    return RenderOrder(
        inputs=PromptInputs(prompt="rehearsal"),
        seconds=seconds,
        steps=WARM_UP_STEPS,
        guidance=1.0 if rows == 1 else 2.0,
        eta=0.0,
        scheduler=scheduler,
        seeds=(0,),
    )


class LatentDiffusion:
    """A resident model: its components, and the parts that its family declares.

    Args:
        spec: The declaration of its family.
        pipeline: The diffusers pipeline with all components.
        device: Compute device.
        scheduler_config: The checkpoint's scheduler configuration.
        device_memory: Memory of the device.

    Attributes:
        conditioner: Text side: prompts to conditioning.
        denoiser: The network that removes noise.
        codec: Audio to latents, and back.
        rendering: Begins, continues and decodes generations.
        weight_bytes: Bytes of all weights.
    """

    def __init__(
        self,
        spec: FamilySpec,
        pipeline: Any,
        device: torch.device,
        scheduler_config: dict[str, Any],
        device_memory: DeviceMemory,
    ) -> None:
        network = getattr(pipeline, spec.denoiser)
        if spec.circular:
            for part in (network, pipeline.vae):
                make_circular(part)
        batch_splitter = BatchSplitter()
        self.spec = spec
        self.pipeline = pipeline
        self.device = device
        self.scheduler_config = scheduler_config
        self.stages = ModelStages(pipeline.components, spec.facts, device_memory)
        self.conditioner = spec.conditioner(pipeline, device, self.stages)
        self.denoiser = Denoiser(network, spec.signature, device, self.stages, batch_splitter)
        self.codec: Any = spec.codec(pipeline, device, self.stages, batch_splitter)
        self.rendering = spec.rendering(self.codec, self.conditioner, spec.sampling, scheduler_config)
        self.latent_layout: Any = self.codec.latent_layout
        self.weight_bytes = sum(self.stages.tensors.values())
        self.use_compile_queue(CompileQueue("off", device, Path()))

    def use_compile_queue(self, compile_queue: CompileQueue) -> None:
        """Use a compile queue for the network and the VAE."""
        self.stages.compile_queue = compile_queue
        self.denoiser.use_compile_queue(compile_queue)
        self.whole_renders = WholeRenders(self.denoiser, compile_queue)
        self.codec.use_compile_queue(compile_queue)

    def warm_up(self) -> None:
        """Render with the shapes of earlier runs in a few steps, to pay one-time costs before the first request.

        A network that has no weights renders a short sound; one that has is not run without shapes, which takes long.
        For CPUs; other models may use shared components at the same time.
        """
        shapes = self.denoiser.compiled_calls.latest_shapes
        if shapes is not None:
            rows, _, length, *_ = shapes[0].size
            seconds = length * self.latent_layout.samples_per_row / self.latent_layout.rate
            self.stages.compile_queue.wait(LATEST_RANK, COMPILED_CALLS_TIMEOUT_S)
        elif has_weights(self.denoiser.network):
            return
        else:
            rows, seconds = 1, WARM_UP_SECONDS
        self.render(warm_up_order(rows, seconds, self.spec.facts.schedulers[0]), lambda _: None, lambda: False)
        self.conditioner.cached_conditioning.clear()

    def move_to_device(self) -> None:
        """Move the components to the device, as far as there is room."""
        self.stages.device_memory.add(self.modules)
        compiled = (
            (self.denoiser.network, self.denoiser.compiled_calls),
            (self.codec.vae, self.codec.compiled_calls),
            (self.denoiser.network, self.whole_renders),
        )
        for module, calls in compiled:
            self.stages.device_memory.on_move(module, calls.drop_all)

    @property
    def modules(self) -> list[torch.nn.Module]:
        """All components with weights."""
        return self.stages.modules

    @property
    def copied_bytes(self) -> int:
        """Bytes of copies of weights, recorded renders and LoRAs; shared components count for each model."""
        calls = (self.denoiser.compiled_calls, self.codec.compiled_calls, self.whole_renders)
        return sum(held.copied_bytes for held in calls) + self.denoiser.loras.size_bytes

    def find_long_texts(self, inputs: PromptInputs) -> list[LongText]:
        """Return the texts of a request that are longer than the encoders' windows."""
        return self.conditioner.find_long_texts(inputs)

    @property
    def clap(self) -> Any:
        """The model's own CLAP; None if it has none."""
        return self.conditioner.clap

    @property
    def lends_clap(self) -> bool:
        """True if its own CLAP can embed the takes of other models."""
        return self.clap is not None and self.clap.is_general

    def render(
        self, order: RenderOrder, on_step: Callable[[int], None], stopped: Callable[[], bool], at_once: bool = False
    ) -> RenderedSounds:
        """Render all takes of an order alone, without a batch; `at_once` as for `advance`.

        Raises:
            SamplingStopped: `stopped` returned True between two steps.
            ModelError: The result is not finite, even in float32.
        """
        generation = self.begin(order)
        while not generation.sampler.done:
            if stopped():
                raise SamplingStopped
            self.advance([generation], at_once)
            on_step(generation.step)
            if generation.sampler.done:
                self.begin_next_window(generation)
        return self.decode(generation)

    @torch.inference_mode()
    def begin(self, order: RenderOrder) -> Generation:
        """Encode the prompt and draw the noise."""
        loras = self.denoiser.loras.get(order.loras, precision_of(self.denoiser.network))
        generation = self.rendering.begin(order, self.conditioner.conditioning_of(order))
        generation.loras = loras
        return generation

    @torch.inference_mode()
    def advance(self, generations: Sequence[Generation], at_once: bool = False) -> None:
        """Advance several generations of this model by one evaluation, in one network call.

        Their latents and conditioning have the same shape except for the number of takes; each has its own noise level.
        With `at_once`, all steps of a single generation are run in one recorded call, where it can be recorded.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        if not (at_once and len(generations) == 1 and self.whole_renders.run(generations[0])):
            step_batch(generations, self.denoiser)
        for generation in generations:
            self.rendering.after_step(generation)

    @torch.inference_mode()
    def begin_next_window(self, generation: Generation) -> None:
        """For outpainting in windows: join the finished window, and begin the next one if there is one.

        Afterwards `generation.sampler.done` is False if a window was begun.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        self.rendering.begin_next_window(generation)

    @torch.inference_mode()
    def preview(self, generation: Generation) -> RenderedSounds:
        """Decode the predicted result of the first take; for outpainting, all windows so far.

        Raises:
            RuntimeError: No step was taken.
            ModelError: The result is not finite, even in float32.
        """
        return self.rendering.preview(generation)

    @torch.inference_mode()
    def decode(self, generation: Generation) -> RenderedSounds:
        """Decode a finished generation.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        return self.rendering.decode(generation)

    @torch.inference_mode()
    def begin_stream(self, generation: Generation) -> PieceStream:
        """Return the sound of a finished generation as a stream of pieces.

        Raises:
            ModelError: The result is not finite, even in float32.
        """
        return self.rendering.begin_stream(generation)
