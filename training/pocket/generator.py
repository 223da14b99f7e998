"""Sampling of the generator, by a loop without the engine."""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from timbred.engine.families.pocket_networks import Generator, flow_times
from training.pocket.vocabulary import SIZES


def new_generator() -> Generator:
    """Return an untrained generator of the usual sizes."""
    return Generator(SIZES)


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
    for index, (now, then) in enumerate(itertools.pairwise(flow_times(steps))):
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
