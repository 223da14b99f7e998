"""Memory of three AudioLDM 2 models that are resident together, against the sum of the three loaded separately.

Goal: at most 0.71. Real sizes with random weights; in bfloat16, as a GPU has them, also where it is the CPU's memory.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import full_size
from benchmarks.machine import machine
from benchmarks.measurement import Measurement
from timbred.engine.device import choose_device, read_memory
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.component_loader import SharedComponents, quiet_libraries
from timbred.engine.model_manager import make_resident
from timbred.models import checkpoint


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of three models' weights, together and separately, and the growth of the device's memory."""

    together_bytes: int
    separate_bytes: int
    growth_bytes: int

    @property
    def weights(self) -> Measurement:
        """The ratio of the weights."""
        detail = f"{self.together_bytes / 1e9:.2f} and {self.separate_bytes / 1e9:.2f} GB"
        return Measurement(self.together_bytes / self.separate_bytes, detail)


def write_checkpoints(folder: Path, scale: int) -> list[Path]:
    """Write the models' checkpoints that aren't there yet; the components that they share are linked."""
    sibling: Path | None = None
    folders: list[Path] = []
    for name in full_size.MODEL_NAMES:
        if not (folder / name).exists():
            full_size.make(folder / name, name, torch.bfloat16, sibling, scale)
        sibling = folder / name
        folders.append(sibling)
    return folders


def measure(folders: Sequence[Path]) -> MemoryUse:
    """Load models that share components, and measure their memory."""
    device, shared = choose_device("auto").torch_device, SharedComponents()
    models: list[LatentDiffusion] = []
    bytes_before = read_memory(device)[0]
    for path in folders:
        inspected = checkpoint.inspect(path, path.name, "")
        models.append(make_resident(inspected, path.name, device, torch.bfloat16, lambda _: None, shared))
    tensors = {address: size for model in models for address, size in model.stages.tensors.items()}
    separate_bytes = sum(model.weight_bytes for model in models)
    return MemoryUse(sum(tensors.values()), separate_bytes, read_memory(device)[0] - bytes_before)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks three_models")
    parser.add_argument("--scale", type=int, default=1, help="divides widths and depths where memory is short")
    options, _ = parser.parse_known_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        used = measure(write_checkpoints(Path(folder), options.scale))
    print(f"three AudioLDM 2 models resident together / apart, bfloat16, size / {options.scale}; {machine()}")
    print(f"  weights                 {used.weights.value:.3f}   ({used.weights.detail})")
    growth = used.growth_bytes / used.separate_bytes
    print(f"  growth of the memory    {growth:.3f}   ({used.growth_bytes / 1e9:.2f} GB; "
          "weights that are mapped from their file count once they are read)")  # fmt: skip


if __name__ == "__main__":
    main()
