"""`python -m training.pocket.generator_training`: train the generator, from its last checkpoint on."""

import argparse
import math
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.pocket.generator import Generator
from training.pocket.latents import Latents
from training.pocket.running import (
    Average,
    Clock,
    checkpoint_path,
    choose_device,
    fingerprint,
    load_checkpoint,
    log_figures,
    save_checkpoint,
)
from training.pocket.sounds import Sound
from training.pocket.text import TextSide, tensors
from training.pocket.text_training import held_out_prompts
from training.pocket.tokens import Encoded, encode
from training.pocket.words import caption

STAGE = "generator"
SEED = 31
TOKENS_A_BATCH = 1536
LENGTHS = (16, 24, 32, 48, 64, 96, 144, 220)
"""Sounds up to one of these many vectors are trained together."""
LEARNING_RATE = 8e-4
WARMUP_STEPS = 300
HALVING_STEPS = 12_000
UNTOLD = 0.1
"""Share of sounds without a prompt, for guidance."""
MEASURED_TIMES = (0.2, 0.5, 0.8, 0.95)


def learning_rate(step: int) -> float:
    """Warm-up, then the inverse square root of time."""
    return LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) / math.sqrt(1 + step / HALVING_STEPS)


def load_text_side(device: torch.device) -> TextSide:
    """The text side with averaged weights.

    Raises:
        FileNotFoundError: it hasn't been trained.
    """
    state = load_checkpoint("text")
    if state is None:
        raise FileNotFoundError("no text side yet: run python -m training.pocket.text_training first")
    side = TextSide()
    side.load_state_dict(state["average"])
    return side.to(device).eval().requires_grad_(False)


def origin_of(latents: Latents, side: TextSide) -> list[int]:
    """Fingerprints of the encoder and the text side that a generator is trained with."""
    return [latents.encoder, fingerprint(side.state_dict())]


def check_origin(stage: str, state: dict[str, Any], origin: list[int]) -> None:
    """Refuse a checkpoint that belongs to other latents or another text side.

    Raises:
        ValueError: it does.
    """
    if state["origin"] != origin:
        other = "latents" if state["origin"][0] != origin[0] else "text side"
        raise ValueError(f"{checkpoint_path(stage)} was trained with another {other}: move it away to train anew")


@dataclass
class Batch:
    """Sounds of similar length.

    Attributes:
        sound: (batch, longest, latent), zero beyond each length.
        vector: (batch, vector), rows of NaN for no prompt.
        tokens: (batch,).
    """

    sound: Tensor
    vector: Tensor
    tokens: Tensor

    def mask(self) -> Tensor:
        """(batch, longest, 1), 1 within each sound."""
        places = torch.arange(self.sound.shape[1], device=self.sound.device)
        return (places < self.tokens[:, None]).unsqueeze(-1).float()


def encoded_captions(sounds: Sequence[Sound], each: int, seed: int) -> Encoded:
    """`each` captions of each sound."""
    random = np.random.default_rng((SEED, seed))
    return encode([caption(sound, random) for sound in sounds for _ in range(each)])


class Batches:
    """Draws batches: a length with as many chances as sounds have it, sounds of that length, new captions."""

    def __init__(
        self,
        latents: Latents,
        side: TextSide,
        device: torch.device,
        tokens: int = TOKENS_A_BATCH,
        untold: float = UNTOLD,
    ) -> None:
        self.latents, self.side, self.device, self.size, self.share = latents, side, device, tokens, untold
        limits = np.searchsorted(LENGTHS, latents.tokens)
        self.groups = [np.flatnonzero(limits == place) for place in range(len(LENGTHS))]
        # A batch of long sounds has fewer of them, so it is drawn more often: each sound has equal chances.
        shares = np.array([len(group) / self._count(place) for place, group in enumerate(self.groups)])
        self.shares = shares / shares.sum()
        self.prepared: Tensor | None = None

    @torch.no_grad()
    def prepare(self, each: int) -> None:
        """Read `each` captions of every sound now, on all cores, and choose among them from then on."""
        with multiprocessing.get_context("spawn").Pool() as pool:
            jobs = [
                (self.latents.sounds[first : first + 256], each, first) for first in range(0, len(self.latents), 256)
            ]
            parts = pool.starmap(encoded_captions, jobs, chunksize=1)
        rows = [self.side.told(self.side(*tensors(part, self.device))).half().cpu() for part in parts]
        self.prepared = torch.cat(rows).unflatten(0, (-1, each))

    def _vectors(self, indices: NDArray[np.int64], random: np.random.Generator) -> Tensor:
        if self.prepared is not None:
            turns = torch.from_numpy(random.integers(self.prepared.shape[1], size=len(indices)))
            return self.prepared[torch.from_numpy(indices), turns].float().to(self.device)
        prompts = [caption(self.latents.sounds[int(index)], random) for index in indices]
        return self.side.told(self.side.read_prompts(prompts))

    def _count(self, place: int) -> int:
        return max(2, self.size // LENGTHS[place])

    @torch.no_grad()
    def draw(self, random: np.random.Generator) -> Batch:
        """One batch."""
        place = int(random.choice(len(LENGTHS), p=self.shares))
        indices = random.choice(self.groups[place], self._count(place))
        batch = self.of(indices.tolist(), self._vectors(indices, random))
        untold = torch.from_numpy(random.uniform(size=len(indices)) < self.share).to(self.device)
        batch.vector[untold] = torch.nan
        return batch

    def of(self, indices: list[int], vectors: Tensor) -> Batch:
        """A batch of chosen sounds and prompts' vectors."""
        rows = [self.latents.vectors(index) for index in indices]
        sound = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
        tokens = torch.tensor([len(row) for row in rows], device=self.device)
        return Batch(sound, vectors, tokens)


def flow_loss(generator: Callable[..., Tensor], batch: Batch, time: Tensor, noise: Tensor) -> Tensor:
    """(batch,) mean squared errors of the velocity."""
    moment = time[:, None, None]
    noisy = (1 - moment) * batch.sound + moment * noise
    made = generator(noisy, time, batch.vector, batch.tokens)
    mask = batch.mask()
    error = (made - (noise - batch.sound)).square() * mask
    return error.sum((1, 2)) / (mask.sum((1, 2)) * batch.sound.shape[2])


def draw_times(count: int, device: torch.device) -> Tensor:
    """Logit-normal times, a little towards noise."""
    return torch.sigmoid(torch.randn(count, device=device) + 0.3)


@torch.no_grad()
def held_out_figures(generator: Generator, latents: Latents, side: TextSide, device: torch.device) -> dict[str, float]:
    """Errors at fixed times with held-out sounds and wordings, and the share of error that the prompt takes away."""
    batches = Batches(latents, side, device)
    prompts = held_out_prompts(latents.sounds, 2)
    indices = [index for index in range(len(latents)) if 24 < latents.tokens[index] <= 64][:96]
    found: dict[str, float] = {}
    source = torch.Generator().manual_seed(0)
    told, untold = list[float](), list[float]()
    for moment in MEASURED_TIMES:
        errors: list[Tensor] = []
        blind: list[Tensor] = []
        for first in range(0, len(indices), 24):
            chosen = indices[first : first + 24]
            batch = batches.of(chosen, side.told(side.read_prompts([prompts[index] for index in chosen])))
            noise = torch.randn(batch.sound.shape, generator=source).to(device)
            time = torch.full((len(chosen),), moment, device=device)
            errors.append(flow_loss(generator, batch, time, noise))
            blind.append(flow_loss(generator, Batch(batch.sound, batch.vector * torch.nan, batch.tokens), time, noise))
        told.append(float(torch.cat(errors).mean()))
        untold.append(float(torch.cat(blind).mean()))
        found[f"error at {moment}"] = told[-1]
    found["error"] = float(np.mean(told))
    found["what words take away"] = 1 - float(np.sum(told) / np.sum(untold))
    return found


def train(minutes: float, device: torch.device, tokens: int, compiled: bool = False, prepared: int = 0) -> None:
    """Train for some minutes; with `prepared`, so many captions of each sound are made beforehand."""
    generator = Generator().to(device)
    average = Average(generator, 0.999)
    optimiser = torch.optim.AdamW(generator.parameters(), LEARNING_RATE, (0.9, 0.98), weight_decay=0.01)
    step = 0
    side = load_text_side(device)
    latents, held_out = Latents("training"), Latents("held-out")
    origin = origin_of(latents, side)
    if state := load_checkpoint(STAGE):
        check_origin(STAGE, state, origin)
        generator.load_state_dict(state["generator"])
        average.weights = {name: value.to(device) for name, value in state["average"].items()}
        if "optimiser" in state:  # not carried back from another machine
            optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    batches = Batches(latents, side, device, tokens)
    if prepared:
        batches.prepare(prepared)
    count = sum(p.numel() for p in generator.parameters())
    print(f"generator from step {step}: {len(latents)} sounds, {count:,} parameters", flush=True)
    torch.manual_seed(SEED + step)
    random = np.random.default_rng((SEED, step))
    network: Callable[..., Tensor] = torch.compile(generator, dynamic=True) if compiled else generator

    def save() -> None:
        save_checkpoint(
            STAGE,
            generator=generator.state_dict(),
            average=average.weights,
            optimiser=optimiser.state_dict(),
            step=step,
            origin=origin,
        )

    def measure() -> None:
        averaged = Generator().to(device).eval()
        averaged.load_state_dict(average.weights)
        figures = held_out_figures(averaged, held_out, side, device)
        log_figures("generator held-out", step, figures)
        line = "  ".join(f"{key} {value:.4f}" for key, value in figures.items())
        print(f"generator held-out  step {step}  {line}", flush=True)

    clock = Clock(STAGE, minutes, save, measure)
    going = True
    while going:
        batch = batches.draw(random)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step)
        time = draw_times(len(batch.sound), device)
        with torch.autocast(device.type, torch.bfloat16):
            loss = flow_loss(network, batch, time, torch.randn_like(batch.sound)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
        optimiser.step()
        step += 1
        average.update(generator, step)
        going = clock.tick(step, loss=float(loss.detach()))


def main() -> None:
    """Train the generator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tokens", type=int, default=TOKENS_A_BATCH, help="latent vectors in a batch")
    parser.add_argument("--compile", action="store_true", help="compile the network: worth it on a GPU")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.minutes, choose_device(arguments.device), arguments.tokens, arguments.compile)


if __name__ == "__main__":
    main()
