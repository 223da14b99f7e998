"""From a checkpoint folder to a resident model of its family."""

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
from timbred.models.checkpoint import NEEDED, WEIGHTED, Checkpoint, numbers_in, weight_files

ADAPTERS: dict[str, type[AudioLdm2] | type[AudioLdm]] = {"audioldm2": AudioLdm2, "audioldm": AudioLdm}


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes that a model will take on the device: all of what isn't there yet, and its largest stage."""

    added: int
    largest: int


def needs_of(checkpoint: Checkpoint, name: str, precision: torch.dtype, shared: SharedComponents) -> MemoryNeeds:
    """What a model needs, known before it is loaded.

    Raises:
        ModelError: its files are damaged.
    """
    sizes: dict[str, int] = {}
    added = 0
    for part in (one for one in NEEDED[checkpoint.family] if one in WEIGHTED):
        folder = checkpoint.folder / part
        files = weight_files(folder, name, "")
        sizes[part] = numbers_in(files) * precision.itemsize
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
    """Load a model, and put as much of it on the device as `places` has room for; without, all of it. `shared` lends
    components that are in memory already.

    Raises:
        ModelError: a component can't be loaded.
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
