"""Faults of torch and of models, told apart."""

import torch

from timbred import errors


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device, or the computer, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)


def translate(error: Exception) -> errors.TimbredError:
    """A fault of torch or a model as an error with a wire code."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if is_out_of_memory(error):
        return errors.OutOfMemory(f"the device's memory is full ({text})")
    if isinstance(error, errors.TimbredError | OSError):
        return errors.from_foreign(error)
    return errors.ModelError(f"the model failed: {type(error).__name__}: {text[:300]}")


def is_fatal(error: Exception) -> bool:
    """Whether the device is beyond use for this process (a CUDA context never recovers from such a fault)."""
    return not isinstance(error, torch.OutOfMemoryError) and "CUDA error" in str(error)
