"""The generator: a transformer over a sequence of latent vectors that turns a sketch and noise into a sound.

Time runs from 1, noise, to 0, sound: x = (1 - time) * sound + time * noise (rectified flow, arXiv 2209.03003). The
network predicts the sound, as a difference from the sketch, so that an untrained network returns the sketch.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.pocket.text import CONDITION_SIZE


@dataclass(frozen=True)
class GeneratorSizes:
    """Widths and depth: 10 million parameters. `vector` is the size of the vectors of `TextSide.condition`."""

    latent: int = 240
    vector: int = CONDITION_SIZE
    width: int = 288
    blocks: int = 7
    heads: int = 4
    expansion: int = 3


def angles(values: Tensor, count: int, lowest: float, highest: float) -> Tensor:
    """Return sines and cosines (..., 2 * count) at frequencies from `lowest` to `highest` in radians."""
    frequencies = torch.exp(torch.linspace(math.log(lowest), math.log(highest), count, device=values.device))
    phases = values[..., None] * frequencies
    return torch.cat((phases.sin(), phases.cos()), -1)


def rotations(length: int, width: int, device: torch.device) -> Tensor:
    """Return the complex rotations of rotary position embeddings, (length, width / 2)."""
    rates = 1.0 / (500.0 ** (torch.arange(width // 2, device=device) / (width // 2)))
    phases = torch.arange(length, device=device)[:, None] * rates
    return torch.polar(torch.ones_like(phases), phases)


def _rotate(values: Tensor, rotation: Tensor) -> Tensor:
    """Rotate pairs of (batch, heads, length, width) by each position's rotations."""
    first, second = values.float().chunk(2, -1)
    real, imaginary = rotation.real, rotation.imag
    return torch.cat((first * real - second * imaginary, first * imaginary + second * real), -1).to(values.dtype)


class Block(nn.Module):
    """Self-attention and a gated feed-forward layer, modulated by the condition."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.queries = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.widen = nn.Linear(width, 2 * expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.offset = nn.Parameter(torch.zeros(6, width))

    def forward(self, inputs: Tensor, condition: Tensor, rotation: Tensor, mask: Tensor | None) -> Tensor:
        """Return the output for (batch, length, width), of the same shape.

        `condition` is (batch, 6, width), `mask` (batch, 1, 1, length).
        """
        shift, scale, gate, shift_two, scale_two, gate_two = (condition + self.offset).unsqueeze(2).unbind(1)
        normal = self.norms[0](inputs) * (1 + scale) + shift
        parts = self.queries(normal).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        query, key = (_rotate(nn.functional.rms_norm(part, part.shape[-1:]), rotation) for part in (query, key))
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        inputs = inputs + gate * self.out(attended.transpose(1, 2).flatten(2))
        normal = self.norms[1](inputs) * (1 + scale_two) + shift_two
        gated, plain = self.widen(normal).chunk(2, -1)
        return inputs + gate_two * self.narrow(nn.functional.silu(gated) * plain)


class Generator(nn.Module):
    """The network of the sound, for noisy latents, a prompt's vector or none, a length, and a sketch."""

    def __init__(self, sizes: GeneratorSizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes = sizes or GeneratorSizes()
        self.read = nn.Linear(2 * sizes.latent + 64, sizes.width)
        self.condition = nn.Sequential(
            nn.Linear(sizes.vector + 64 + 32, 2 * sizes.width), nn.SiLU(), nn.Linear(2 * sizes.width, 2 * sizes.width)
        )
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(2 * sizes.width, 6 * sizes.width))
        self.nothing = nn.Parameter(torch.zeros(sizes.vector))
        self.blocks = nn.ModuleList(Block(sizes.width, sizes.heads, sizes.expansion) for _ in range(sizes.blocks))
        self.finish = nn.Linear(2 * sizes.width, 2 * sizes.width)
        self.norm = nn.LayerNorm(sizes.width, elementwise_affine=False)
        self.write = nn.Linear(sizes.width, sizes.latent)
        for layer in (self.modulate[1], self.finish, self.write):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, noisy: Tensor, time: Tensor, vector: Tensor, tokens: Tensor, sketch: Tensor) -> Tensor:
        """Return the expected sounds (batch, length, latent).

        `time` is (batch,), 0..1; `vector` (batch, vector), with rows of NaN for no prompt; `tokens` (batch,), the
        sounds' lengths, beyond which the attention is masked; `sketch` has the shape of `noisy`.
        """
        length = noisy.shape[1]
        vector = torch.where(vector.isnan(), self.nothing, vector)
        counts = torch.log2(tokens.float() / 40)
        condition = self.condition(
            torch.cat((vector, angles(time, 32, 1.0, 200.0), angles(counts, 16, 0.5, 16.0)), -1)
        ).float()
        indices = torch.arange(length, device=noisy.device).expand(len(noisy), -1)
        left = tokens[:, None] - indices
        positions = torch.cat((angles(indices.float(), 16, 0.02, 3.0), angles(left.float(), 16, 0.02, 3.0)), -1)
        states = self.read(torch.cat((noisy, sketch, positions), -1))
        mask = None if int(tokens.min()) == length else (left > 0)[:, None, None]
        rotation = rotations(length, self.sizes.width // self.sizes.heads, noisy.device)
        modulation = self.modulate(condition).unflatten(1, (6, -1))
        for block in self.blocks:
            states = block(states, modulation, rotation, mask)
        shift, scale = self.finish(condition)[:, None].chunk(2, -1)
        return sketch + self.write(self.norm(states) * (1 + scale) + shift).float()


NEAR_NOISE = 4.0
"""Density of the times of sampling near 1, relative to that near 0, is the square of this."""


def times(steps: int) -> list[float]:
    """Return times from 1 to 0, denser near 1, where the kind of sound is determined."""
    even = [1 - index / steps for index in range(steps + 1)]
    return [NEAR_NOISE * time / (1 + (NEAR_NOISE - 1) * time) for time in even]


@torch.no_grad()
def sample(
    generator: Generator,
    vector: Tensor,
    tokens: Sequence[int],
    sketch: Tensor,
    steps: int,
    guidance: float,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Sample latents (batch, longest, latent) by Euler steps, with two evaluations per step unless guidance is 1."""
    device = vector.device
    counts = torch.tensor(list(tokens), device=device)
    source = torch.Generator().manual_seed(seed)
    state = torch.randn(len(vector), int(counts.max()), generator.sizes.latent, generator=source).to(device)
    for index, (now, then) in enumerate(itertools.pairwise(times(steps))):
        sound = expected_sound(generator, state, now, vector, counts, sketch, guidance)
        state = sound + (then / now) * (state - sound)
        if progress is not None:
            progress(index + 1)
    return state


def expected_sound(
    generator: Generator, state: Tensor, time: float, vector: Tensor, counts: Tensor, sketch: Tensor, guidance: float
) -> Tensor:
    """Return the expected sound with classifier-free guidance (arXiv 2207.12598)."""
    times_of_batch = torch.full((len(state),), time, device=state.device)
    if guidance == 1.0:
        return generator(state, times_of_batch, vector, counts, sketch)
    vectors = torch.cat((vector, torch.full_like(vector, torch.nan)))
    twice = [torch.cat((part, part)) for part in (state, times_of_batch, counts, sketch)]
    with_prompt, without_prompt = generator(twice[0], twice[1], vectors, twice[2], twice[3]).chunk(2)
    return without_prompt + guidance * (with_prompt - without_prompt)
