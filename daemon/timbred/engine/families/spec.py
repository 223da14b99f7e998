"""The engine's half of a family's declaration: the classes that run what `timbred.models.families` describes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from timbred.engine.batching import BatchSplitter
from timbred.engine.diffusion.conditioner import Conditioner
from timbred.engine.diffusion.denoiser import DenoiserSignature
from timbred.engine.diffusion.rendering import Rendering
from timbred.engine.diffusion.sampler_kinds import DiscreteSampling
from timbred.engine.memory.device_memory import ModelStages
from timbred.models.families import Family


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
