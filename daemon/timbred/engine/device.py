"""Which device the models run on, in which precision, and how full its memory is."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from timbred import errors
from timbred.errors import BadRequest, ModelError


@dataclass(frozen=True)
class ComputeDevice:
    """A device to run on. `name` is for people."""

    place: torch.device
    name: str
    precision: torch.dtype

    @property
    def precision_name(self) -> str:
        return str(self.precision).removeprefix("torch.")


def choose(wanted: str) -> ComputeDevice:
    """The device for the setting `device`: `auto`, `cpu`, `cuda:0`, `mps`.

    Half precision on a GPU (bfloat16 where it has it: float16 overflows in the VAE), float32 on a CPU.

    Raises:
        BadRequest: there is no such device here.
    """
    name = _best() if wanted == "auto" else wanted
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadRequest(f"setting device: {wanted!r} can't be used here ({reason}); set it to auto or cpu") from error
    return ComputeDevice(device, _name(device), _precision(device))


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"mps": "Apple GPU", "cpu": f"CPU, {torch.get_num_threads()} threads"}.get(device.type, device.type)


def _precision(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16 if device.type == "mps" else torch.float32


def finish(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def memory(device: torch.device) -> tuple[int, int]:
    """Bytes used and in all: the GPU's own, or for a CPU this process's and the machine's."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free, total
    if device.type == "mps":
        return torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
    return psutil.Process().memory_info().rss, psutil.virtual_memory().total


def probe(wanted: str) -> dict[str, object]:
    """The device's name, precision and memory in bytes; or `error`."""
    try:
        chosen = choose(wanted)
    except errors.BadRequest as error:
        return {"error": str(error)}
    used, total = memory(chosen.place)
    return {
        "device": str(chosen.place),
        "name": chosen.name,
        "precision": chosen.precision_name,
        "memory_used": used,
        "memory_total": total,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="timbred-probe")
    parser.add_argument("--device", default="auto")
    json.dump(probe(parser.parse_args().device), sys.stdout)


def precision_of(module: torch.nn.Module) -> torch.dtype:
    """The type of a component's first floating weight; all others have the same.

    Raises:
        StopIteration: it has no weights.
    """
    return next(weight.dtype for weight in module.parameters() if weight.is_floating_point())


def finite(part: Any, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What `make` gives by way of this part of the model; once more in float32 if half precision overflows.

    Raises:
        ModelError: the result isn't finite, even in full precision.
    """
    result = make()
    if torch.isfinite(result).all():
        return result
    before = precision_of(part)
    if before != torch.float32:
        try:
            part.to(torch.float32)
            result = make()
        finally:
            part.to(before)
    if not torch.isfinite(result).all():
        raise ModelError("the model gave values that aren't numbers; try another seed, or less guidance")
    return result
