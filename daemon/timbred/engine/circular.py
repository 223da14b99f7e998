"""Time as a circle: convolutions that see the beginning after the end, for sounds that go round.

The networks' attention knows no places, and neither does their normalisation. So with time wrapped around in every
convolution, a network treats all moments of a loop alike: turned by some rows, its result is the same, turned.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager

import torch

TIME = 2
"""The axis of time in latents and spectrograms, (batch, channels, time, bands)."""


class _CircularState(threading.local):
    """Which rows of this thread's calls go around; calls are traced and made in different threads."""

    around: torch.Tensor | None = None


_way = _CircularState()


@contextmanager
def circular_time(rows: torch.Tensor) -> Generator[None]:
    """Calls in here meet loops: `rows` is 1 for each row of the batch that goes around, 0 for others; or of one for
    all."""
    before, _way.around = _way.around, rows
    try:
        yield
    finally:
        _way.around = before


def is_circular() -> bool:
    """Whether this thread's calls meet loops."""
    return _way.around is not None


class CircularConv2d(torch.nn.Conv2d):
    """A convolution whose first axis is time. As its base, unless rows go around."""

    def _conv_forward(
        self,
        input: torch.Tensor,  # noqa: A002  the base's name
        weight: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        padding, around = self.padding, _way.around
        if around is None or isinstance(padding, str) or padding[0] == 0:
            return super()._conv_forward(input, weight, bias)
        reach, rows = padding[0], around.to(input.dtype)[:, None, None, None]
        wrapped = torch.cat([input[:, :, -reach:] * rows, input, input[:, :, :reach] * rows], dim=TIME)
        return torch.nn.functional.conv2d(
            wrapped, weight, bias, self.stride, (0, padding[1]), self.dilation, self.groups
        )


def make_circular(module: torch.nn.Module) -> None:
    """Let a network's convolutions go around when asked to; nothing else about it changes."""
    for part in module.modules():
        if type(part) is torch.nn.Conv2d:
            part.__class__ = CircularConv2d
