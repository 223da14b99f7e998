"""Models for figures about sound: the embedded one, and tiny checkpoints of the waveform families with random weights.

The random weights produce noise, so their figures show what the method of loops and joins itself does to a sound.
"""

import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from msgspec.structs import replace

from benchmarks import pocket
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.component_loader import quiet_libraries
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models import registry

POCKET = "pocket"
TINY_MODELS = ("stable-audio-tiny", "stable-audio-3-tiny", "ace-step-tiny")
MODEL_NAMES = (POCKET, *TINY_MODELS)


@dataclass(frozen=True)
class LoadedModel:
    """A model in this process, an order with the settings of its card (`defaults`), and its longest sound."""

    name: str
    model: LatentDiffusion
    defaults: RenderOrder
    max_seconds: float

    def order(self, prompt: str, seconds: float, seed: int, loop: bool = False) -> RenderOrder:
        """Return an order of one take with the model's default settings."""
        inputs = replace(self.defaults.inputs, prompt=prompt)
        return replace(self.defaults, inputs=inputs, seconds=seconds, seeds=(seed,), loop=loop)


@contextmanager
def loaded_model(name: str) -> Generator[LoadedModel]:
    """Load a model; tiny checkpoints are written for it and removed at the end of the block.

    Raises:
        KeyError: `name` isn't one of `MODEL_NAMES`.
    """
    if name == POCKET:
        yield LoadedModel(name, pocket.resident(), pocket.order("", 1.0, 0), pocket.POCKET_CARD.max_seconds)
        return
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        _makers()[name](Path(folder))
        entry = registry.build(Path(folder), {name: folder})[name]
        model = make_resident(entry.checkpoint(), name, torch.device("cpu"), torch.float32, lambda _: None)
        card = entry.card
        defaults = RenderOrder(
            inputs=PromptInputs(prompt=""),
            seconds=1.0,
            steps=card.steps,
            guidance=card.guidance,
            eta=0.0,
            scheduler=card.scheduler,
            seeds=(0,),
        )
        yield LoadedModel(name, model, defaults, card.max_seconds)


def _makers() -> dict[str, Callable[[Path], Path]]:
    from tests import checkpoints  # only there are tiny ones

    makers = (checkpoints.stable_audio, checkpoints.stable_audio_3, checkpoints.ace_step)
    return dict(zip(TINY_MODELS, makers, strict=True))
