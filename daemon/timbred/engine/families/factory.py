"""Construction of a resident model from a checkpoint folder."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from timbred.engine.diffusion.sampler import make_scheduler
from timbred.engine.families import ace_step, audioldm, audioldm2, musicldm, stable_audio, stable_audio_3
from timbred.engine.families.base import FamilySpec, LatentDiffusion
from timbred.engine.families.component_loader import SharedComponents, component_class, load_components
from timbred.engine.memory.device_memory import DeviceMemory
from timbred.models.checkpoint import Checkpoint, count_values, weight_files
from timbred.models.families import STAGES, Family

SPECS: tuple[FamilySpec, ...] = tuple(
    module.SPEC for module in (audioldm2, audioldm, musicldm, stable_audio, stable_audio_3, ace_step)
)
"""The engine's declarations of all families."""


def spec_of(family: Family) -> FamilySpec:
    """Return the engine's declaration of a family."""
    return next(spec for spec in SPECS if spec.facts is family)


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes that a model adds to the device, and those of its largest stage."""

    added_bytes: int
    largest_stage_bytes: int


def estimate_memory_needs(
    checkpoint: Checkpoint, name: str, precision: torch.dtype, shared: SharedComponents
) -> MemoryNeeds:
    """Return the memory a model needs, from its files.

    Raises:
        ModelError: The files are damaged.
    """
    sizes: dict[str, int] = {}
    added_bytes = 0
    spec = spec_of(checkpoint.family)
    for part in (part for part in checkpoint.family.weighted if part in checkpoint.classes):
        folder = checkpoint.folder / part
        files = weight_files(folder, name, "")
        sizes[part] = count_values(files) * precision.itemsize
        if (
            shared.find(component_class(checkpoint, part, spec.own_classes).__name__, (folder / "config.json", *files))
            is None
        ):
            added_bytes += sizes[part]
    return MemoryNeeds(
        added_bytes, max(sum(sizes.get(part, 0) for part in checkpoint.family.stage_parts(stage)) for stage in STAGES)
    )


def make_resident(
    checkpoint: Checkpoint,
    name: str,
    device: torch.device,
    precision: torch.dtype,
    progress: Callable[[float], None],
    shared: SharedComponents | None = None,
    device_memory: DeviceMemory | None = None,
) -> LatentDiffusion:
    """Load a model, and move as much of it to the device as `device_memory` has room for; None moves all.

    `shared` provides components that are already in memory.

    Raises:
        ModelError: A component can't be loaded.
    """
    spec = spec_of(checkpoint.family)
    components: dict[str, Any] = load_components(
        checkpoint,
        name,
        precision,
        progress,
        SharedComponents() if shared is None else shared,
        spec.own_classes,
        on_host=device.type == "cpu",
    )
    config: dict[str, Any] = components["scheduler"]
    scheduler = make_scheduler(spec.facts.schedulers[0], config)
    pipeline = spec.pipeline_class(**{**components, "scheduler": scheduler})
    model = LatentDiffusion(spec, pipeline, device, config, device_memory or DeviceMemory(device, sys.maxsize))
    model.move_to_device()
    return model
