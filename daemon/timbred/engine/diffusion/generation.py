"""Generations: the state of an order between its first noise and its last step, stepped in batches, and its sounds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.diffusion.conditioning import Tensors, given_noise, stack_conditioning
from timbred.engine.diffusion.denoiser import Denoiser, LoraSet
from timbred.engine.diffusion.init_audio import Outpainting, OutpaintWindow
from timbred.engine.diffusion.sampler import (
    ClassifierFreeGuidance,
    DiscreteSampling,
    InitLatents,
    SamplerState,
    draw_noise,
    make_generators,
    resize_noise,
)
from timbred.ipc.engine_messages import RenderOrder

GOLDEN_FRACTION = 0.6180339887
"""Part of a loop by which it is rotated further at each step: successive places lie far apart."""


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


@dataclass(frozen=True)
class Blend:
    """Conditioning of all takes whose output is mixed into the usual one, which keeps its `share`, 0 to 1."""

    conditioning: Tensors
    share: float


@dataclass
class WaveWindows:
    """A waveform that is continued in windows.

    Attributes:
        remaining_windows: Windows that aren't rendered yet.
        latents: Latents so far, (takes, channels, rows): the end of the init audio, and what was rendered.
        text_conditioning: Text conditioning of one take.
        first_frame: Frame of the whole at which the latents begin.
        rendered_windows: Number of rendered windows.
    """

    remaining_windows: list[OutpaintWindow]
    latents: torch.Tensor
    text_conditioning: Tensors
    first_frame: int
    rendered_windows: int = 0

    @property
    def window_count(self) -> int:
        """Total number of windows."""
        return self.rendered_windows + len(self.remaining_windows)

    def join(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents so far joined with those of the next window, without its surplus rows."""
        window = self.remaining_windows[0]
        new_rows = latents[:, :, window.known : window.known + window.new]
        return torch.cat([self.latents[: len(latents)], new_rows], dim=2)


@dataclass(eq=False)
class Generation:
    """One order during denoising.

    Attributes:
        order: The order, with its init audio at the model's level.
        kind: The kind of the model's schedulers.
        scheduler_config: The checkpoint's scheduler configuration.
        sampler: Sampler state of the current window.
        conditioning: Conditioning of all takes; with guidance, the negative rows come first.
        guidance: Guidance scale; None without guidance.
        generators: One random generator for each take.
        outpainting: Outpainting state; None unless audio is continued.
        circular: Takes that are rendered as a circle; known once `loop_kinds_known` is set.
        loop_kinds_known: Set when the loop kinds are determined.
        earlier_steps: Steps taken before the current sampler state.
        init_gain: Factor that the init audio was multiplied by; the output is divided by it.
        loras: LoRAs of all rows.
        padded: Names of conditioning tensors that may be padded to the length of others in a batch.
        guider: Joins the network's outputs with and without the prompt.
        wave_windows: Windows in which a waveform is continued beyond the longest sound; None without.
        rotated_rows: Rows of latents of a loop that is rendered by rotation; 0 for other sounds.
        blend: Other conditioning whose output is mixed into the guided one; None for none.
        knows: How much of the prompt the model knows, 0 to 1; None where it can't tell.
    """

    order: RenderOrder
    kind: DiscreteSampling
    scheduler_config: dict[str, Any]
    sampler: SamplerState
    conditioning: Tensors
    guidance: float | None
    generators: list[torch.Generator]
    outpainting: Outpainting | None = None
    circular: tuple[bool, ...] = ()
    loop_kinds_known: bool = False
    earlier_steps: int = 0
    init_gain: float = 1.0
    padded: frozenset[str] = frozenset()
    guider: ClassifierFreeGuidance = field(default_factory=ClassifierFreeGuidance)
    loras: LoraSet = ()
    wave_windows: WaveWindows | None = None
    rotated_rows: int = 0
    blend: Blend | None = None
    knows: float | None = None

    def __post_init__(self) -> None:
        self.circular = self.circular or (False,) * len(self.order.seeds)

    @property
    def steps(self) -> int:
        """Total number of steps, over all windows."""
        return self.earlier_steps + self.sampler.steps * (1 if self._windows is None else self._windows.window_count)

    @property
    def _windows(self) -> "Outpainting | WaveWindows | None":
        return self.outpainting or self.wave_windows

    @property
    def step(self) -> int:
        """Finished steps, 0 to `steps`."""
        windows = self._windows
        earlier_windows = 0 if windows is None else min(windows.rendered_windows, windows.window_count - 1)
        return self.earlier_steps + earlier_windows * self.sampler.steps + self.sampler.step

    @property
    def circular_mask(self) -> torch.Tensor | None:
        """For loops by circular convolution: a mask with 1 for each circular row of the batch, else None."""
        if not self.order.loop or self.rotated_rows:
            return None
        return torch.tensor(self.circular * (1 if self.guidance is None else 2), dtype=torch.float32)

    def restart_sampler(self, noise: torch.Tensor, init_latents: InitLatents | None = None) -> None:
        """Restart the sampler: for the same order, or for its next window."""
        self.sampler = make_sampler_state(
            self.order, self.kind, self.scheduler_config, noise, self.generators, init_latents
        )

    def network_input(self) -> torch.Tensor:
        """Return the rows that this generation adds to a batch."""
        latents = self._rotate(self.sampler.network_input(), self._rotation)
        return latents if self.guidance is None else torch.cat([latents, latents])

    def apply_guidance(self, prediction: torch.Tensor) -> torch.Tensor:
        """Return the guided prediction of each take."""
        prediction = self._rotate(prediction, -self._rotation)
        if self.guidance is None:
            return prediction
        negative, positive = prediction.chunk(2)
        if not self.guider.applies(float(self.sampler.timestep)):
            return positive
        return self.guider.join(negative, positive, self.guidance)

    @property
    def _rotation(self) -> int:
        """Rows by which the latents of a loop are rotated at the next step, so that its ends meet inside."""
        return round(self.sampler.step * GOLDEN_FRACTION * self.rotated_rows)

    def _rotate(self, latents: torch.Tensor, rows: int) -> torch.Tensor:
        """Return latents, (batch, channels, time, ...), with the rows of the loop rotated."""
        if not self.rotated_rows:
            return latents
        loop, rest = latents[:, :, : self.rotated_rows], latents[:, :, self.rotated_rows :]
        return torch.cat([loop.roll(rows, dims=2), rest], dim=2)

    @property
    def shape(self) -> tuple[object, ...]:
        """Key that generations of one batch share: shapes of latents and conditioning, loops, and use of LoRAs.

        So that requests without LoRAs are rendered as if there were none.
        """
        sizes = ((name, *tensor.shape[2 if name in self.padded else 1 :]) for name, tensor in self.conditioning.items())
        return *self.sampler.latents.shape[1:], int(self.order.loop), bool(self.loras), *sorted(sizes)

    @property
    def rows(self) -> int:
        """Number of batch rows of this generation."""
        return len(self.sampler.latents) * (1 if self.guidance is None else 2)


def make_sampler_state(
    order: RenderOrder,
    kind: DiscreteSampling,
    scheduler_config: dict[str, Any],
    noise: torch.Tensor,
    generators: list[torch.Generator],
    init_latents: InitLatents | None,
) -> SamplerState:
    """Create the sampler state of an order, before its first step."""
    scheduler = kind.make_scheduler(order.scheduler, scheduler_config)
    return SamplerState(scheduler, noise, order.steps, order.eta, generators, init_latents, kind.for_order(order))


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
    """

    waveforms: NDArray[np.float32]
    rate: int
    first_frame: int = 0
    looped: tuple[bool, ...] = ()

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
