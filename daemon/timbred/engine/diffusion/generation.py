"""Generations stepped in batches, and the sounds that they become."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.diffusion.conditioning import stack_conditioning
from timbred.engine.diffusion.denoiser import Denoiser
from timbred.engine.diffusion.given_tensors import given_noise
from timbred.engine.diffusion.sampler import draw_noise, make_generators, resize_noise
from timbred.engine.diffusion.state import Generation
from timbred.ipc.engine_messages import RenderOrder


class Layout(Protocol):
    """Geometry of samples and latents."""

    @property
    def rate(self) -> int:
        """Sample rate in Hz."""
        ...

    @property
    def samples_per_row(self) -> int:
        """Samples of a row of latents."""
        ...

    @property
    def is_noise_rows_first(self) -> bool:
        """True if the stock pipeline draws noise with the rows before the channels."""
        ...

    def shape(self, seconds: float, loop: bool = False) -> tuple[int, ...]:
        """Return the shape of the latents for a length in seconds: channels, rows in time, and other axes."""
        ...


def draw_order_noise(order: RenderOrder, generators: list[torch.Generator], layout: Layout) -> torch.Tensor:
    """Return new noise for each take, or an earlier take's or the order's own noise for all of them."""
    shape = layout.shape(order.seconds, order.loop)
    noise = given_noise(order, layout.is_noise_rows_first)
    if noise is not None:
        return noise.expand(len(order.seeds), *shape)
    if order.noise is None:
        return _draw(shape, generators, layout)
    earlier_generators = make_generators((order.noise.seed,))
    noise = _draw(layout.shape(order.noise.seconds, order.noise.loop), earlier_generators, layout)
    return resize_noise(noise, shape[1], earlier_generators[0]).expand(len(order.seeds), *shape)


def _draw(shape: tuple[int, ...], generators: list[torch.Generator], layout: Layout) -> torch.Tensor:
    if not layout.is_noise_rows_first:
        return draw_noise(shape, generators)
    channels, rows, *others = shape
    return draw_noise((rows, channels, *others), generators).transpose(1, 2).contiguous()


def step_batch(generations: Sequence[Generation], denoiser: Denoiser) -> None:
    """Advance several generations by one evaluation in one network call."""
    inputs = [generation.network_input() for generation in generations]
    prediction = _predict(generations, inputs, denoiser)
    for generation, part in zip(generations, prediction.split([len(rows) for rows in inputs]), strict=True):
        generation.sampler.advance(_blend(generation, generation.apply_guidance(part), denoiser))


def _blend(generation: Generation, output: torch.Tensor, denoiser: Denoiser) -> torch.Tensor:
    """Return a guided output mixed with that of a generation's other conditioning, if it has one."""
    blend = generation.blend
    if blend is None:
        return output
    latents = generation.sampler.network_input()
    levels = generation.sampler.timestep.expand(len(latents)).to(denoiser.device)
    loras = [generation.loras] * len(latents) if generation.loras else []
    other = denoiser(latents, levels, blend.conditioning, None, loras).float()
    return blend.share * output + (1.0 - blend.share) * other


def _predict(generations: Sequence[Generation], inputs: list[torch.Tensor], denoiser: Denoiser) -> torch.Tensor:
    """Evaluate the network on all rows of several generations in one call."""
    levels = torch.cat(
        [generation.sampler.timestep.expand(len(rows)) for generation, rows in zip(generations, inputs, strict=True)]
    ).to(denoiser.device)
    conditioning = stack_conditioning([generation.conditioning for generation in generations])
    circular_masks = [generation.circular_mask for generation in generations if generation.circular_mask is not None]
    circular_mask = torch.cat(circular_masks).to(denoiser.device) if circular_masks else None
    loras = [generation.loras for generation in generations for _ in range(generation.rows)]
    used = loras if any(loras) else []
    return denoiser(torch.cat(inputs), levels, conditioning, circular_mask, used).float()


@dataclass(frozen=True)
class Embeddings:
    """CLAP embeddings of takes.

    Attributes:
        vectors: Unit vectors, (takes, dimensions), float32.
        encoder_id: Name of the encoder's weights; only embeddings of the same encoder are comparable.
    """

    vectors: NDArray[np.float32]
    encoder_id: str


@dataclass(frozen=True)
class RenderedSounds:
    """Rendered takes.

    Attributes:
        waveforms: Samples, (takes, frames, channels), float32, at the model's native rate.
        rate: Sample rate in Hz.
        first_frame: For outpainting: frame of the whole at which the waveforms begin.
        looped: For loops: True for each take whose end meets its start; the others are longer and have an end of
            their own.
        embeddings: Embeddings of the takes, once computed.
    """

    waveforms: NDArray[np.float32]
    rate: int
    first_frame: int = 0
    looped: tuple[bool, ...] = ()
    embeddings: Embeddings | None = None

    @property
    def channels(self) -> int:
        """Channels of the sound."""
        return self.waveforms.shape[2]

    @property
    def mono(self) -> NDArray[np.float32]:
        """Mean of the channels, (takes, frames)."""
        return self.waveforms[..., 0] if self.channels == 1 else self.waveforms.mean(axis=2)


def join_takes(parts: Sequence[RenderedSounds]) -> RenderedSounds:
    """Join the takes of several generations of one job, which differ in their seeds only."""
    if len(parts) == 1:
        return parts[0]
    looped = tuple(is_loop for part in parts for is_loop in part.looped)
    waveforms = np.concatenate([part.waveforms for part in parts])
    return RenderedSounds(waveforms, parts[0].rate, parts[0].first_frame, looped)
