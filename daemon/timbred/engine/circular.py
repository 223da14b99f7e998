"""Circular convolution over time, for loops.

The networks' attention has no positions, and neither has their normalisation. With time wrapped around in every
convolution a network treats all moments of a loop alike: a rotated input gives the rotated output.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager

import torch

TIME_AXIS = 2
"""Time axis of latents and spectrograms, (batch, channels, time, bands)."""


class _CircularState(threading.local):
    """Mask of circular rows of the current thread; calls are traced and run in different threads."""

    circular_mask: torch.Tensor | None = None


_state = _CircularState()


@contextmanager
def circular_time(mask: torch.Tensor) -> Generator[None]:
    """Make convolutions circular for some rows.

    `mask` is 1 for each circular row of the batch and 0 for the others, or has one value for all.
    """
    previous, _state.circular_mask = _state.circular_mask, mask
    try:
        yield
    finally:
        _state.circular_mask = previous


def is_circular() -> bool:
    """Tell if the current thread is inside `circular_time`."""
    return _state.circular_mask is not None


class CircularConv2d(torch.nn.Conv2d):
    """A convolution whose first axis is time; plain unless `circular_time` is active."""

    def _conv_forward(
        self,
        input: torch.Tensor,  # noqa: A002  the base's name
        weight: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        padding, mask = self.padding, _state.circular_mask
        if mask is None or isinstance(padding, str) or padding[0] == 0:
            return super()._conv_forward(input, weight, bias)
        reach, row_mask = padding[0], mask.to(input.dtype)[:, None, None, None]
        wrapped = torch.cat([input[:, :, -reach:] * row_mask, input, input[:, :, :reach] * row_mask], dim=TIME_AXIS)
        return torch.nn.functional.conv2d(
            wrapped, weight, bias, self.stride, (0, padding[1]), self.dilation, self.groups
        )


def make_circular(module: torch.nn.Module) -> None:
    """Replace a network's convolutions by `CircularConv2d`, which changes nothing until `circular_time` is used."""
    for part in module.modules():
        if type(part) is torch.nn.Conv2d:
            part.__class__ = CircularConv2d
