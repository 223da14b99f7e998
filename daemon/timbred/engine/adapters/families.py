"""From a checkpoint folder to a resident model of its family."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch

from timbred.engine.adapters.audioldm import AudioLdm
from timbred.engine.adapters.audioldm2 import AudioLdm2
from timbred.engine.adapters.latent_diffusion import LatentDiffusion
from timbred.engine.adapters.loading import load_components, loaded_as
from timbred.engine.adapters.places import Places
from timbred.engine.adapters.sharing import SharedComponents
from timbred.engine.adapters.stages import STAGES
from timbred.engine.checkpoint import NEEDED, WEIGHTED, Checkpoint, numbers_in, weight_files

ADAPTERS: dict[str, type[AudioLdm2] | type[AudioLdm]] = {"audioldm2": AudioLdm2, "audioldm": AudioLdm}


@dataclass(frozen=True)
class Needs:
    """Bytes that a model will take on the device: all of what isn't there yet, and its largest stage."""

    added: int
    largest: int


def needs_of(checkpoint: Checkpoint, name: str, precision: torch.dtype, shared: SharedComponents) -> Needs:
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
    return Needs(added, max(sum(sizes.get(part, 0) for part in stage) for stage in STAGES.values()))


def make_resident(
    checkpoint: Checkpoint,
    name: str,
    device: torch.device,
    precision: torch.dtype,
    progress: Callable[[float], None],
    shared: SharedComponents | None = None,
    places: Places | None = None,
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
    model = adapter(pipeline, device, config, places or Places(device, sys.maxsize))
    model.settle()
    return model
