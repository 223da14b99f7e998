"""The life of a generation, as families with different codecs define it."""

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar

import torch

from timbred.engine.codecs.chunked import PieceStream
from timbred.engine.compile.compiled_calls import CompiledCalls, CompileQueue
from timbred.engine.diffusion.conditioner import Conditioner
from timbred.engine.diffusion.conditioning import Tensors
from timbred.engine.diffusion.generation import Generation, Layout, RenderedSounds
from timbred.engine.diffusion.sampler import DiscreteSampling
from timbred.ipc.engine_messages import RenderOrder


class Codec(Protocol):
    """A model's codec between audio and latents."""

    compiled_calls: CompiledCalls
    vae: Any

    @property
    def latent_layout(self) -> Layout:
        """Geometry of the latents."""
        ...

    def use_compile_queue(self, compile_queue: CompileQueue) -> None:
        """Use a compile queue for the shapes that are decoded often."""
        ...


CodecKind = TypeVar("CodecKind", bound=Codec)


class Rendering(ABC, Generic[CodecKind]):
    """Begins, continues and decodes the generations of one model.

    Args:
        codec: The model's codec.
        conditioner: The model's text side.
        sampling: The kind of its noise schedulers.
        scheduler_config: The checkpoint's scheduler configuration.
    """

    def __init__(
        self,
        codec: CodecKind,
        conditioner: Conditioner,
        sampling: DiscreteSampling,
        scheduler_config: dict[str, Any],
    ) -> None:
        self.codec = codec
        self.conditioner = conditioner
        self.sampling = sampling
        self.scheduler_config = scheduler_config

    @abstractmethod
    def begin(self, order: RenderOrder, text_conditioning: Tensors) -> Generation:
        """Begin a generation, before its first step; `text_conditioning` is the text conditioning of one take."""

    @abstractmethod
    def encode_sound(self, samples: torch.Tensor, seconds: float) -> torch.Tensor:
        """Return the latents of a sound, (channels, frames) at the native rate, fitted to a length: one take."""

    def after_step(self, generation: Generation) -> None:
        """Do what is due after a step."""

    def begin_next_window(self, generation: Generation) -> None:
        """Begin the next window of a generation whose steps are done, if there is one."""

    @abstractmethod
    def preview(self, generation: Generation) -> RenderedSounds:
        """Decode the predicted result of the first take.

        Raises:
            RuntimeError: No step was taken.
        """

    @abstractmethod
    def decode(self, generation: Generation) -> RenderedSounds:
        """Decode the takes of a finished generation."""

    @abstractmethod
    def begin_stream(self, generation: Generation) -> PieceStream:
        """Return a stream of the sound of a finished generation, decoded in pieces."""
