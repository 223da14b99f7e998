"""The measured models: AudioLDM 2 base and large on a GPU, the embedded model on a CPU."""

import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import full_size, pocket
from benchmarks.daemon import Client, daemon
from timbred.engine.device import ComputeDevice, choose_device, synchronize
from timbred.engine.diffusion.sampler import make_scheduler
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.component_loader import quiet_libraries
from timbred.engine.model_manager import make_resident
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models import checkpoint, registry
from timbred.models.families import STABLE_AUDIO_3


@dataclass(frozen=True)
class Subject:
    """A model to measure, with the settings of its requests; `folder` is None for the embedded one."""

    name: str
    seconds: float
    steps: int
    guidance: float
    folder: Path | None = None
    scheduler: str = "dpm++2m"

    @contextmanager
    def daemon(self, *settings: str) -> Generator[Client]:
        """Run a daemon with the model resident."""
        named = () if self.folder is None else (f"models.{self.name}.source={self.folder}",)
        with daemon(*named, *settings, model=self.name) as client:
            yield client

    def keys(self, seed: int, prompt: str = "a deep punchy kick drum") -> dict[str, Any]:
        """Return the keys of a request."""
        return {
            "model": self.name, "prompt": prompt, "seconds": self.seconds, "steps": self.steps,
            "guidance": self.guidance, "seed": seed,
        }  # fmt: skip

    def order(self, seed: int, prompt: str = "a deep punchy kick drum") -> RenderOrder:
        """Return the order that the engine receives for it."""
        return RenderOrder(
            inputs=PromptInputs(prompt=prompt), seconds=self.seconds, steps=self.steps, guidance=self.guidance, eta=0.0,
            scheduler=self.scheduler, seeds=(seed,),
        )  # fmt: skip

    def time_engine_call(self, model: LatentDiffusion, seed: int) -> float:
        """Return the seconds of the engine's call, without a daemon, as for a job that is alone."""
        started_at = time.perf_counter()
        model.render(self.order(seed), lambda _: None, lambda: False, at_once=True)
        return time.perf_counter() - started_at

    def time_stock_pipeline(self, model: LatentDiffusion, seed: int) -> float:
        """Return the seconds of the stock pipeline with the same components, steps, guidance and scheduler."""
        order, pipeline = self.order(seed), model.pipeline
        pipeline.set_progress_bar_config(disable=True)
        pipeline.scheduler = make_scheduler(self.scheduler, model.scheduler_config)
        length_key = "duration" if model.spec.facts is STABLE_AUDIO_3 else "audio_length_in_s"
        started_at = time.perf_counter()
        pipeline(
            order.inputs.prompt,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=torch.Generator().manual_seed(seed),
            **{length_key: self.seconds},
        )
        synchronize(model.device)
        return time.perf_counter() - started_at

    def resident(self, device: ComputeDevice | None = None) -> LatentDiffusion:
        """Load the model in this process, on a device; None for the one that an engine would choose."""
        quiet_libraries()
        if self.folder is None:
            return pocket.resident()
        device = device or choose_device("auto")
        inspected = checkpoint.inspect(self.folder, self.name, "")
        return make_resident(inspected, self.name, device.torch_device, device.precision, lambda _: None)


@contextmanager
def subjects() -> Generator[list[Subject]]:
    """Return the models to measure on this machine."""
    if not torch.cuda.is_available():
        card = registry.pocket_card()
        yield [Subject("pocket", 2.0, card.steps, card.guidance, scheduler=card.scheduler)]
        return
    with tempfile.TemporaryDirectory() as temporary_folder:
        base = full_size.make(Path(temporary_folder) / "base", "audioldm2", torch.float16)
        large = full_size.make(Path(temporary_folder) / "large", "audioldm2-large", torch.float16, base)
        yield [Subject("base", 10.24, 20, 3.5, base), Subject("large", 10.24, 20, 3.5, large)]


def served(*settings: str) -> Generator[tuple[Subject, Client]]:
    """Yield each model with a client of a daemon that has it resident."""
    with subjects() as measured:
        for subject in measured:
            with subject.daemon(*settings) as client:
                yield subject, client
