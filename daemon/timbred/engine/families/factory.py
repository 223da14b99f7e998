"""Construction of a resident model from a checkpoint folder."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch

from timbred.engine.families.audioldm import AudioLdm
from timbred.engine.families.audioldm2 import AudioLdm2
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.component_loader import component_class_name, load_components
from timbred.engine.memory.component_cache import SharedComponents
from timbred.engine.memory.device_memory import STAGES, DeviceMemory
from timbred.models.checkpoint import (
    COMPONENTS_BY_FAMILY,
    COMPONENTS_WITH_WEIGHTS,
    Checkpoint,
    count_values,
    weight_files,
)

FAMILY_CLASSES: dict[str, type[AudioLdm2] | type[AudioLdm]] = {"audioldm2": AudioLdm2, "audioldm": AudioLdm}


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
    for part in (
        name_of_part
        for name_of_part in COMPONENTS_BY_FAMILY[checkpoint.family]
        if name_of_part in COMPONENTS_WITH_WEIGHTS
    ):
        folder = checkpoint.folder / part
        files = weight_files(folder, name, "")
        sizes[part] = count_values(files) * precision.itemsize
        if shared.find(component_class_name(checkpoint, part), (folder / "config.json", *files)) is None:
            added_bytes += sizes[part]
    return MemoryNeeds(added_bytes, max(sum(sizes.get(part, 0) for part in stage) for stage in STAGES.values()))


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
    components_in_memory = SharedComponents() if shared is None else shared
    components: dict[str, Any] = load_components(
        checkpoint, name, precision, progress, components_in_memory, on_host=device.type == "cpu"
    )
    config: dict[str, Any] = components["scheduler"]
    family_class = FAMILY_CLASSES[checkpoint.family]
    scheduler = diffusers.DDIMScheduler.from_config(config)
    build: Any = family_class.pipeline_class
    pipeline = build(**{**components, "scheduler": scheduler})
    model = family_class(pipeline, device, config, device_memory or DeviceMemory(device, sys.maxsize))
    model.move_to_device()
    return model
