"""From an order to a run: its noise, and what it begins from."""

from typing import Any

import torch

from timbred.engine.adapters.codec import Codec
from timbred.engine.adapters.conditioning import Tensors
from timbred.engine.adapters.extending import extension_of, next_window
from timbred.engine.adapters.given import beginning_of, lifted
from timbred.engine.adapters.grid import Grid
from timbred.engine.adapters.run import Run, steps_of
from timbred.engine.sampling import carried_over, generators, starting_noise
from timbred.engine.wire import RenderOrder


def started(order: RenderOrder, conditioning: Tensors, codec: Codec, scheduler_config: dict[str, Any]) -> Run:
    """A run of which no step is taken yet. `conditioning` is that of all its takes."""
    randomness = generators(order.seeds)
    order, lift = lifted(order, codec)
    extension = extension_of(order, codec)
    if extension is None:
        noise = _noise(order, randomness, codec.grid).to(codec.device)
        beginning = beginning_of(order, codec)
    else:
        noise, beginning = next_window(extension, randomness, codec.device)
    steps = steps_of(order, scheduler_config, noise, randomness, beginning)
    guidance = order.guidance if order.guidance > 1.0 else None
    return Run(order, scheduler_config, steps, conditioning, guidance, randomness, extension, lift=lift)


def _noise(order: RenderOrder, randomness: list[torch.Generator], grid: Grid) -> torch.Tensor:
    """Fresh noise for each take, or an earlier take's for all of them."""
    shape = grid.shape(order.seconds, order.loop)
    if order.noise is None:
        return starting_noise(shape, randomness)
    earlier = generators((order.noise.seed,))
    noise = starting_noise(grid.shape(order.noise.seconds, order.noise.loop), earlier)
    return carried_over(noise, shape[1], earlier[0]).expand(len(order.seeds), *shape)
