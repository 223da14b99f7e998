"""From a checkpoint folder to a resident model of its family."""

from collections.abc import Callable
from typing import Any

import diffusers
import torch

from timbred.engine.adapters.audioldm import AudioLdm
from timbred.engine.adapters.audioldm2 import AudioLdm2
from timbred.engine.adapters.latent_diffusion import LatentDiffusion
from timbred.engine.adapters.loading import load_components
from timbred.engine.adapters.sharing import SharedComponents
from timbred.engine.checkpoint import Checkpoint

ADAPTERS: dict[str, type[AudioLdm2] | type[AudioLdm]] = {"audioldm2": AudioLdm2, "audioldm": AudioLdm}


def make_resident(
    checkpoint: Checkpoint,
    name: str,
    device: torch.device,
    precision: torch.dtype,
    progress: Callable[[float], None],
    shared: SharedComponents | None = None,
) -> LatentDiffusion:
    """Load a model and keep it on the device. `shared` lends components that are in memory already.

    Raises:
        ModelError: a component can't be loaded.
    """
    lent = SharedComponents() if shared is None else shared
    components: dict[str, Any] = load_components(checkpoint, name, precision, progress, lent)
    config: dict[str, Any] = components["scheduler"]
    adapter = ADAPTERS[checkpoint.family]
    scheduler = diffusers.DDIMScheduler.from_config(config)
    build: Any = adapter.pipeline_class
    pipeline = build(**{**components, "scheduler": scheduler})
    pipeline.to(device)
    return adapter(pipeline, device, config)
