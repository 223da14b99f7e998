"""`python -m training.pocket.generator_training`: train the generator, from its checkpoint if there is one."""

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

from timbred.engine.families.pocket_networks import BandDecoder, Generator, TextSide, tensors
from timbred.models.pocket_words import EncodedWords, encode_words
from training.pocket.codec import LOSS_WEIGHTS, load_codec, reconstruction_losses
from training.pocket.generator import new_generator
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
from training.pocket.text import new_text_side
from training.pocket.text_training import held_out_prompts
from training.pocket.words import caption

STAGE = "generator"
SEED = 31
TOKENS_A_BATCH = 1536
LENGTHS = (16, 24, 32, 48, 64, 96, 144, 220)
"""Upper limits of the numbers of vectors by which sounds are grouped into batches."""
LEARNING_RATE = 1e-3
WARMUP_STEPS = 300
HALVING_STEPS = 12_000
PROMPT_DROPOUT = 0.1
"""Share of sounds that are trained without a prompt, for guidance."""
HEARD_TOKENS, HEARD_SOUNDS = 12, 24
"""Vectors of a section that is decoded, and sections of a batch, for the loss of what is heard."""
EVALUATION_TIMES = (0.5, 0.8, 0.95, 1.0)


def learning_rate(step: int) -> float:
    """Return the learning rate of a step: warm-up, then inverse square root of the step."""
    return LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) / math.sqrt(1 + step / HALVING_STEPS)


def load_text_side(device: torch.device) -> TextSide:
    """Load the text encoder with averaged weights.

    Raises:
        FileNotFoundError: It hasn't been trained.
    """
    state = load_checkpoint("text")
    if state is None:
        raise FileNotFoundError("the text encoder isn't trained yet: run python -m training.pocket.text_training first")
    side = new_text_side()
    side.load_state_dict(state["average"])
    return side.to(device).eval().requires_grad_(False)


def origin_of(latents: Latents, side: TextSide) -> list[int]:
    """Return the fingerprints of the codec's encoder and the text encoder that a generator is trained with."""
    return [latents.encoder, fingerprint(side.state_dict())]


def check_origin(stage: str, state: dict[str, Any], origin: list[int]) -> None:
    """Check that a checkpoint was trained with the current latents and text encoder.

    Raises:
        ValueError: It was trained with others.
    """
    if state["origin"] != origin:
        other = "latents" if state["origin"][0] != origin[0] else "a text encoder"
        raise ValueError(f"{checkpoint_path(stage)} was trained with {other} of another run: move it to start again")


@dataclass
class Batch:
    """Sounds of similar length.

    Attributes:
        sound, sketch: (batch, longest, latent), zero beyond the end of each sound.
        vector: (batch, vector), with rows of NaN for no prompt.
        tokens: (batch,), number of latent vectors of each sound.
    """

    sound: Tensor
    vector: Tensor
    tokens: Tensor
    sketch: Tensor

    def mask(self) -> Tensor:
        """Return (batch, longest, 1), 1 within each sound."""
        indices = torch.arange(self.sound.shape[1], device=self.sound.device)
        return (indices < self.tokens[:, None]).unsqueeze(-1).float()


def encoded_captions(sounds: Sequence[Sound], each: int, seed: int) -> EncodedWords:
    """Return `each` captions of every sound, encoded."""
    random = np.random.default_rng((SEED, seed))
    return encode_words([caption(sound, random) for sound in sounds for _ in range(each)])


class Batches:
    """Random batches: a length by its number of sounds, sounds of this length, and new captions."""

    def __init__(
        self,
        latents: Latents,
        side: TextSide,
        device: torch.device,
        tokens: int = TOKENS_A_BATCH,
        prompt_dropout: float = PROMPT_DROPOUT,
    ) -> None:
        self.latents, self.side, self.device, self.size = latents, side, device, tokens
        self.prompt_dropout = prompt_dropout
        limits = np.searchsorted(LENGTHS, latents.tokens)
        self.groups = [np.flatnonzero(limits == index) for index in range(len(LENGTHS))]
        # a batch of long sounds has fewer sounds, so it is drawn more often: all sounds have the same probability
        shares = np.array([len(group) / self._count(index) for index, group in enumerate(self.groups)])
        self.shares = shares / shares.sum()
        self.prepared: Tensor | None = None

    @torch.no_grad()
    def prepare(self, each: int) -> None:
        """Encode `each` captions of every sound on all cores; batches then use these instead of new captions."""
        with multiprocessing.get_context("spawn").Pool() as pool:
            jobs = [
                (self.latents.sounds[first : first + 256], each, first) for first in range(0, len(self.latents), 256)
            ]
            parts = pool.starmap(encoded_captions, jobs, chunksize=1)
        rows = [self.side.condition(self.side(*tensors(part, self.device))).half().cpu() for part in parts]
        self.prepared = torch.cat(rows).unflatten(0, (-1, each))

    def _vectors(self, indices: NDArray[np.int64], random: np.random.Generator) -> Tensor:
        if self.prepared is not None:
            captions = torch.from_numpy(random.integers(self.prepared.shape[1], size=len(indices)))
            return self.prepared[torch.from_numpy(indices), captions].float().to(self.device)
        prompts = [caption(self.latents.sounds[int(index)], random) for index in indices]
        return self.side.condition(self.side.read_prompts(prompts))

    def _count(self, group: int) -> int:
        return max(2, self.size // LENGTHS[group])

    @torch.no_grad()
    def draw(self, random: np.random.Generator) -> Batch:
        """Draw a batch."""
        group = int(random.choice(len(LENGTHS), p=self.shares))
        indices = random.choice(self.groups[group], self._count(group))
        batch = self.of(indices.tolist(), self._vectors(indices, random))
        dropped = torch.from_numpy(random.uniform(size=len(indices)) < self.prompt_dropout).to(self.device)
        batch.vector[dropped] = torch.nan
        return batch

    def of(self, indices: list[int], vectors: Tensor) -> Batch:
        """Return a batch of given sounds and prompts' vectors."""
        rows = [self.latents.vectors(index) for index in indices]
        sound = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
        sketches = [self.latents.sketch(index) for index in indices]
        sketch = torch.nn.utils.rnn.pad_sequence(sketches, batch_first=True).to(self.device)
        tokens = torch.tensor([len(row) for row in rows], device=self.device)
        return Batch(sound, vectors, tokens, sketch)


def flow_prediction(generator: Callable[..., Tensor], batch: Batch, time: Tensor, noise: Tensor) -> Tensor:
    """Return the expected sounds at some times of the flow."""
    mix = time[:, None, None]
    noisy = (1 - mix) * batch.sound + mix * noise
    return generator(noisy, time, batch.vector, batch.tokens, batch.sketch)


def flow_loss(generator: Callable[..., Tensor], batch: Batch, time: Tensor, noise: Tensor) -> Tensor:
    """Return the mean squared errors of the expected sound, (batch,)."""
    return mean_error(flow_prediction(generator, batch, time, noise), batch)


class HeardLoss:
    """The codec's losses between decoded sections of predicted and of true sounds.

    Squared errors of latents count every band alike; these losses count what is heard.
    """

    def __init__(self, decoder: BandDecoder, latents: Latents, device: torch.device) -> None:
        self.decoder = decoder.to(device).eval().requires_grad_(False)
        self.scale, self.middle = latents.scale.to(device), latents.middle.to(device)

    def __call__(self, predicted: Tensor, batch: Batch, random: np.random.Generator) -> Tensor:
        """Return the loss of random sections of some sounds of a batch."""
        mask = batch.mask()
        sections: list[tuple[Tensor, Tensor]] = []
        for index in random.permutation(len(predicted))[:HEARD_SOUNDS].tolist():
            last = max(0, int(batch.tokens[index]) - HEARD_TOKENS)
            span = slice(first := int(random.integers(last + 1)), first + HEARD_TOKENS)
            sections.append((predicted[index, span] * mask[index, span], batch.sound[index, span]))
        made, true = (torch.stack(list(part)) * self.scale + self.middle for part in zip(*sections, strict=True))
        with torch.no_grad():
            wanted = self.decoder(true)
        parts = reconstruction_losses(self.decoder(made), wanted)
        return torch.stack([LOSS_WEIGHTS[name] * part for name, part in parts.items()]).sum()


def mean_error(predicted: Tensor, batch: Batch) -> Tensor:
    """Return the mean squared errors of predicted sounds, (batch,)."""
    mask = batch.mask()
    error = (predicted - batch.sound).square() * mask
    return error.sum((1, 2)) / (mask.sum((1, 2)) * batch.sound.shape[2])


def draw_times(count: int, device: torch.device) -> Tensor:
    """Draw times, logit-normal around 0.9: nearer to 0 the noisy sound itself tells which one it is."""
    return torch.sigmoid(1.4 * torch.randn(count, device=device) + 2.2)


@torch.no_grad()
def held_out_figures(generator: Generator, latents: Latents, side: TextSide, device: torch.device) -> dict[str, float]:
    """Return the errors of sketches and of the generator, at fixed times, for held-out sounds and wordings."""
    batches = Batches(latents, side, device)
    prompts = held_out_prompts(latents.sounds, 2)
    indices = [index for index in range(len(latents)) if 24 < latents.tokens[index] <= 64][:96]
    source = torch.Generator().manual_seed(0)
    errors: dict[str, list[Tensor]] = {}
    for first in range(0, len(indices), 24):
        chosen = indices[first : first + 24]
        batch = batches.of(chosen, side.condition(side.read_prompts([prompts[index] for index in chosen])))
        no_prompt = Batch(batch.sound, batch.vector * torch.nan, batch.tokens, batch.sketch)
        errors.setdefault("sketch", []).append(mean_error(batch.sketch, batch))
        for moment in EVALUATION_TIMES:
            noise = torch.randn(batch.sound.shape, generator=source).to(device)
            time = torch.full((len(chosen),), moment, device=device)
            errors.setdefault(f"{moment}", []).append(flow_loss(generator, batch, time, noise))
            if moment == EVALUATION_TIMES[-1]:
                errors.setdefault("no prompt", []).append(flow_loss(generator, no_prompt, time, noise))
    means = {name: float(torch.cat(parts).mean()) for name, parts in errors.items()}
    figures = {f"error at {moment}": means[f"{moment}"] for moment in EVALUATION_TIMES}
    figures["error of sketch"] = means["sketch"]
    figures["error reduction by prompt"] = 1 - means[f"{EVALUATION_TIMES[-1]}"] / means["no prompt"]
    return figures


def train(minutes: float, device: torch.device, tokens: int, compiled: bool = False, prepared: int = 0) -> None:
    """Train for some minutes; `prepared` is the number of captions of each sound that are encoded in advance."""
    generator = new_generator().to(device)
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
        if "optimiser" in state:  # missing after a training on another machine
            optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    batches = Batches(latents, side, device, tokens)
    if prepared:
        batches.prepare(prepared)
    heard_loss = HeardLoss(load_codec(device).decoder, latents, device)
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
        averaged = new_generator().to(device).eval()
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
            predicted = flow_prediction(network, batch, time, torch.randn_like(batch.sound))
            error, heard = mean_error(predicted, batch).mean(), heard_loss(predicted, batch, random)
            loss = error + heard
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
        optimiser.step()
        step += 1
        average.update(generator, step)
        going = clock.tick(step, error=float(error.detach()), heard=float(heard.detach()))


def main() -> None:
    """Train the generator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tokens", type=int, default=TOKENS_A_BATCH, help="latent vectors in a batch")
    parser.add_argument("--compile", action="store_true", help="compile the network; faster on a GPU")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.minutes, choose_device(arguments.device), arguments.tokens, arguments.compile)


if __name__ == "__main__":
    main()
