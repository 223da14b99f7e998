"""A model's components, stage by stage: it works in one stage at a time, and only that one must be on the device."""

import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch

from timbred.engine.adapters.places import Places
from timbred.engine.adapters.prepared import Workshop
from timbred.engine.faults import is_out_of_memory

log = logging.getLogger("timbred.engine")

Result = TypeVar("Result")

STAGES = {
    "network": ("unet",),
    "sound": ("vae", "vocoder"),
    "words": ("text_encoder", "text_encoder_2", "projection_model", "language_model"),
}
"""What a model works in, one at a time: only this much of it must be on the device at once. Those needed most first."""


class Stages:
    """The components that have weights, by stage. `workshop` makes them faster, with copies of their weights."""

    workshop: Workshop

    def __init__(self, components: dict[str, Any], places: Places) -> None:
        self.places = places
        self.parts: dict[str, list[torch.nn.Module]] = {
            stage: [components[name] for name in names if isinstance(components.get(name), torch.nn.Module)]
            for stage, names in STAGES.items()
        }

    @property
    def modules(self) -> list[torch.nn.Module]:
        """All of them."""
        return [module for stage in STAGES for module in self.parts[stage]]

    @property
    def tensors(self) -> dict[int, int]:
        """Bytes of every weight by its place in memory, so that what models share is counted once."""
        return {
            tensor.data_ptr(): tensor.numel() * tensor.element_size()
            for module in self.modules
            for tensor in (*module.parameters(), *module.buffers())
        }

    def at_work(self, stage: str, work: Callable[[], Result]) -> Result:
        """Do something with the components of a stage on the device. When its memory runs out, copies of weights go,
        then all other components leave it; after each it is tried once more."""
        self.places.need(self.parts[stage])
        ways_out = iter((self._lighten, partial(self.places.clear, self.parts[stage])))
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error) or not any(way_out() for way_out in ways_out):
                    raise
                log.warning("memory ran out (%s); only what the %s needs stays on the device", error, stage)

    def _lighten(self) -> bool:
        """Let go of all copies of weights; False when there were none."""
        return self.workshop.give_up(sys.maxsize)
