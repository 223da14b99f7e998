"""Random LoRA files for tests, written without torch."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from timbred.models.checkpoint import read_tensor_header

Shape = tuple[int, ...]


def denoiser_layers(folder: Path, part: str = "unet", ending: str = "to_q") -> dict[str, Shape]:
    """Return the shapes of the layers of a checkpoint's denoiser whose names have an ending."""
    header, _ = read_tensor_header(next((folder / part).glob("*.safetensors")))
    return {
        name.removesuffix(".weight"): tuple(entry["shape"])
        for name, entry in header.items()
        if name.endswith(f"{ending}.weight")
    }


def random_lora(folder: Path, target: Path, part: str = "unet", seed: int = 1, rank: int = 2) -> Path:
    """Write a random LoRA over the query layers of a checkpoint's denoiser."""
    random = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for layer, (outputs, inputs) in denoiser_layers(folder, part).items():
        tensors[f"{layer}.lora_A.weight"] = random.normal(size=(rank, inputs)).astype(np.float32)
        tensors[f"{layer}.lora_B.weight"] = random.normal(size=(outputs, rank)).astype(np.float32)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target)
    return target
