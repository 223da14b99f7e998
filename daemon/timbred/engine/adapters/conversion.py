"""Weights from `.bin` files to safetensors, once: `python -m timbred.engine.adapters.conversion NAME FOLDER`.

They are read with `weights_only`, so that nothing but tensors is opened.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from timbred.engine import installed
from timbred.engine.adapters.loading import more_than_tensors
from timbred.engine.checkpoint import Checkpoint, inspect, weight_files
from timbred.errors import TimbredError
from timbred.processes.scratch import make_file
from timbred.renaming import rename_to_free_name

NAMES = {"diffusion_pytorch_model": "diffusion_pytorch_model", "pytorch_model": "model"}


def convert_component(checkpoint: Checkpoint, part: str, name: str) -> Path:
    """Write a component's tensors as one safetensors file beside its `.bin` files; returns its path.

    Raises:
        ModelError: the file holds more than tensors.
        OSError: it can't be written.
    """
    folder = checkpoint.folder / part
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(folder, name, ""):
        try:
            tensors |= torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler raises what it likes at what it refuses
            raise more_than_tensors(name, folder, error) from error
    stem = next((new for old, new in NAMES.items() if any(folder.glob(f"{old}*.bin"))), "model")
    written = _written(tensors, folder / f"{stem}.safetensors")
    installed.add(checkpoint.folder, written)
    return written


def _written(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    """The file appears whole or not at all, and never over another."""
    own = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}  # shared storage can't be saved
    with make_file(path.parent, prefix=".converting-") as hidden:
        save_file(own, hidden, metadata={"format": "pt"})
        rename_to_free_name(hidden, path)
    return path


def main() -> int:
    """Convert every component that needs it, and print the files written. Exit status 1 when one can't be."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    try:
        checkpoint = inspect(folder, name, "get the model anew")
        for part in checkpoint.pickled:
            print(convert_component(checkpoint, part, name), flush=True)
    except (TimbredError, OSError) as error:
        print(f"timbred: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
