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
from timbred.engine.families.component_loader import load_components, loaded_as
from timbred.engine.memory.component_cache import SharedComponents
from timbred.engine.memory.device_memory import STAGES, DeviceMemory
from timbred.models.checkpoint import NEEDED, WEIGHTED, Checkpoint, count_values, weight_files

ADAPTERS: dict[str, type[AudioLdm2] | type[AudioLdm]] = {"audioldm2": AudioLdm2, "audioldm": AudioLdm}


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes that a model adds to the device, and those of its largest stage."""

    added: int
    largest: int


def needs_of(checkpoint: Checkpoint, name: str, precision: torch.dtype, shared: SharedComponents) -> MemoryNeeds:
    """Return the memory a model needs, from its files.

    Raises:
        ModelError: The files are damaged.
    """
    sizes: dict[str, int] = {}
    added = 0
    for part in (one for one in NEEDED[checkpoint.family] if one in WEIGHTED):
        folder = checkpoint.folder / part
        files = weight_files(folder, name, "")
        sizes[part] = count_values(files) * precision.itemsize
        if shared.find(loaded_as(checkpoint, part), (folder / "config.json", *files)) is None:
            added += sizes[part]
    return MemoryNeeds(added, max(sum(sizes.get(part, 0) for part in stage) for stage in STAGES.values()))


def make_resident(
    checkpoint: Checkpoint,
    name: str,
    device: torch.device,
    precision: torch.dtype,
    progress: Callable[[float], None],
    shared: SharedComponents | None = None,
    places: DeviceMemory | None = None,
) -> LatentDiffusion:
    """Load a model, and move as much of it to the device as `places` has room for; None moves all.

    `shared` provides components that are already in memory.

    Raises:
        ModelError: A component can't be loaded.
    """
    lent = SharedComponents() if shared is None else shared
    components: dict[str, Any] = load_components(
        checkpoint, name, precision, progress, lent, stays=device.type == "cpu"
    )
    config: dict[str, Any] = components["scheduler"]
    adapter = ADAPTERS[checkpoint.family]
    scheduler = diffusers.DDIMScheduler.from_config(config)
    build: Any = adapter.pipeline_class
    pipeline = build(**{**components, "scheduler": scheduler})
    model = adapter(pipeline, device, config, places or DeviceMemory(device, sys.maxsize))
    model.settle()
    return model
