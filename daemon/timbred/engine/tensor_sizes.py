"""Memory that tensors and modules take."""

from collections.abc import Iterable

import torch


def count_tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes that the elements of these tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def count_module_bytes(module: torch.nn.Module) -> int:
    """Return the bytes of a module's parameters and buffers; storage that several of them share counts once."""
    tensors = {tensor.data_ptr(): tensor for tensor in (*module.parameters(), *module.buffers())}
    return count_tensor_bytes(tensors.values())
