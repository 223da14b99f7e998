"""Results that are numbers: what overflows in half precision is made once more in full precision."""

from collections.abc import Callable
from typing import Any

import torch

from timbred.engine.adapters.precision import precision_of
from timbred.errors import ModelError


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
