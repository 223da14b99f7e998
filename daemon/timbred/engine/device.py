"""Compute device, precision and memory."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from timbred import errors
from timbred.errors import BadRequest, ModelError


@dataclass(frozen=True)
class ComputeDevice:
    """A compute device; `name` is for display."""

    torch_device: torch.device
    name: str
    precision: torch.dtype

    @property
    def precision_name(self) -> str:
        """Name of the precision, such as `bfloat16`."""
        return str(self.precision).removeprefix("torch.")


def choose_device(setting: str) -> ComputeDevice:
    """Return the device for the setting `device`: `auto`, `cpu`, `cuda:0`, `mps`.

    GPUs use half precision (bfloat16 where supported, because float16 overflows in the VAE), CPUs float32.

    Raises:
        BadRequest: The device does not exist or can't be used.
    """
    name = _best_device_name() if setting == "auto" else setting
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadRequest(
            f"the device {setting!r} can't be used here ({reason}); set engines, or device, to auto or cpu"
        ) from error
    return ComputeDevice(device, _display_name(device), _choose_precision(device))


def _best_device_name() -> str:
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _display_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"mps": "Apple GPU", "cpu": f"CPU, {torch.get_num_threads()} threads"}.get(device.type, device.type)


def _choose_precision(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16 if device.type == "mps" else torch.float32


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has executed all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def read_memory(device: torch.device) -> tuple[int, int]:
    """Return used and total bytes: the GPU's, or for a CPU this process's and the machine's."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free, total
    if device.type == "mps":
        return torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
    return psutil.Process().memory_info().rss, psutil.virtual_memory().total


def probe(setting: str) -> dict[str, object]:
    """Return the device's name, precision and memory in bytes, or `error`."""
    try:
        chosen = choose_device(setting)
    except errors.BadRequest as error:
        return {"error": str(error)}
    used, total = read_memory(chosen.torch_device)
    return {
        "device": str(chosen.torch_device),
        "name": chosen.name,
        "precision": chosen.precision_name,
        "memory_used": used,
        "memory_total": total,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="timbred-probe")
    parser.add_argument("--device", nargs="+", default=["auto"])
    json.dump([probe(device) for device in parser.parse_args().device], sys.stdout)


def has_weights(module: torch.nn.Module) -> bool:
    """Tell if a module has any parameters."""
    return next(module.parameters(), None) is not None


def precision_of(module: torch.nn.Module) -> torch.dtype:
    """Return the dtype of a module's first floating-point parameter; all others have the same.

    It is float32 for a module without any.
    """
    return next((weight.dtype for weight in module.parameters() if weight.is_floating_point()), torch.float32)


def ensure_finite(module: Any, call: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Return the result of `call`, which uses this module; repeated in float32 if half precision overflows.

    Raises:
        ModelError: The result is not finite, even in float32.
    """
    result = call()
    if torch.isfinite(result).all():
        return result
    precision = precision_of(module)
    if precision != torch.float32:
        try:
            module.to(torch.float32)
            result = call()
        finally:
            module.to(precision)
    if not torch.isfinite(result).all():
        raise ModelError("the model returned NaN or infinity; try another seed, or less guidance")
    return result


def count_tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes that the elements of these tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def count_module_bytes(module: torch.nn.Module) -> int:
    """Return the bytes of a module's parameters and buffers; storage that several of them share counts once."""
    tensors = {tensor.data_ptr(): tensor for tensor in (*module.parameters(), *module.buffers())}
    return count_tensor_bytes(tensors.values())
