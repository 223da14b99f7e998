"""Memory of three AudioLDM 2 models that are resident together, against the sum of the three loaded separately.

Goal: at most 0.71. Real sizes with random weights; in bfloat16, as a GPU has them, also where it is the CPU's memory.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks import full_size
from benchmarks.machine import machine
from timbred.engine.device import choose_device, read_memory
from timbred.engine.families.base import LatentDiffusion
from timbred.engine.families.component_loader import quiet_libraries
from timbred.engine.families.factory import make_resident
from timbred.engine.memory.component_cache import SharedComponents
from timbred.models import checkpoint


def load_together(folder: Path, scale: int) -> tuple[list[LatentDiffusion], float, int]:
    """Return the models, the sum of their sizes, and the growth of the device's memory in bytes."""
    device, shared = choose_device("auto").torch_device, SharedComponents()
    sibling: Path | None = None
    models: list[LatentDiffusion] = []
    folders: list[Path] = []
    for name in full_size.MODEL_NAMES:
        sibling = full_size.make(folder / name, name, torch.bfloat16, sibling, scale)
        folders.append(sibling)
    bytes_before = read_memory(device)[0]
    for path in folders:
        inspected = checkpoint.inspect(path, path.name, "")
        models.append(make_resident(inspected, path.name, device, torch.bfloat16, lambda _: None, shared))
    return models, float(sum(model.weight_bytes for model in models)), read_memory(device)[0] - bytes_before


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks three_models")
    parser.add_argument("--scale", type=int, default=1, help="divides widths and depths where memory is short")
    options, _ = parser.parse_known_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        models, separate_bytes, growth_bytes = load_together(Path(folder), options.scale)
        together_bytes = sum(
            {address: size for model in models for address, size in model.stages.tensors.items()}.values()
        )
    print(f"three AudioLDM 2 models resident together / apart, bfloat16, size / {options.scale}; {machine()}")
    weights = f"{together_bytes / 1e9:.2f} and {separate_bytes / 1e9:.2f} GB"
    print(f"  weights                 {together_bytes / separate_bytes:.3f}   ({weights})")
    print(f"  growth of the memory    {growth_bytes / separate_bytes:.3f}   ({growth_bytes / 1e9:.2f} GB; "
          "weights that are mapped from their file count once they are read)")  # fmt: skip


if __name__ == "__main__":
    main()
