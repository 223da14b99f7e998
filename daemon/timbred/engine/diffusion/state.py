"""The state of one order between its first noise and its last step."""

from dataclasses import dataclass, field
from typing import Any

import torch

from timbred.engine.diffusion.conditioning import Tensors
from timbred.engine.diffusion.denoiser import LoraSet
from timbred.engine.diffusion.outpainting import Outpainting, OutpaintWindow
from timbred.engine.diffusion.sampler import InitLatents, SamplerState, make_scheduler
from timbred.engine.diffusion.sampler_kinds import ClassifierFreeGuidance, DiscreteSampling
from timbred.ipc.engine_messages import RenderOrder

GOLDEN_FRACTION = 0.6180339887
"""Part of a loop by which it is rotated further at each step: successive places lie far apart."""


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
        made = latents[:, :, window.known : window.known + window.new]
        return torch.cat([self.latents[: len(latents)], made], dim=2)


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
    scheduler = make_scheduler(order.scheduler, scheduler_config)
    return SamplerState(scheduler, noise, order.steps, order.eta, generators, init_latents, kind.for_order(order))
