"""The inference pipeline of the trained parts: text encoder, plan, sketch, generator, codec, synthesis."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.pocket.bands import Frames, synthesise, synthesise_loop
from training.pocket.bank import Bank, StoredBank, load_bank
from training.pocket.codec import Codec, load_codec
from training.pocket.features import TOKEN_FRAMES, tokens_of
from training.pocket.generator import Generator, sample
from training.pocket.generator_training import check_origin, load_text_side, origin_of
from training.pocket.latents import Latents
from training.pocket.plan import Planner
from training.pocket.running import fingerprint, load_checkpoint
from training.pocket.settings import SAMPLE_RATE
from training.pocket.sketch import Sketcher
from training.pocket.sounds import Sound
from training.pocket.text import TextSide

STEPS, GUIDANCE = 4, 1.0


@dataclass
class Pocket:
    """The whole model on one device.

    Attributes:
        generator: None for a model that renders its sketches.
        scale, middle: (latent,), of the codec's latents, which are `values * scale + middle`.
        steps, guidance: parameters of the sampling.
    """

    text: TextSide
    planner: Planner
    sketcher: Sketcher
    generator: Generator | None
    codec: Codec
    scale: Tensor
    middle: Tensor
    steps: int = STEPS
    guidance: float = GUIDANCE

    @torch.no_grad()
    def plans(self, prompts: Sequence[str], seconds: float, seed: int) -> list[Sound]:
        """Return the description of each prompt's sound."""
        return [self.planner.plan(prompt, seconds, seed + index) for index, prompt in enumerate(prompts)]

    @torch.no_grad()
    def sounds(self, prompts: Sequence[str], seconds: float, seed: int = 0) -> list[Tensor]:
        """Generate the audio (2, samples) of each prompt."""
        samples = round(seconds * SAMPLE_RATE)
        plans = self.plans(prompts, seconds, seed)
        sketches = [self.sketcher.sketch(plan, tokens_of(samples) * TOKEN_FRAMES) for plan in plans]
        if self.generator is not None:
            channels = torch.stack([sketch.stacked() for sketch in sketches])
            drawn = (self.codec.encoder(channels)[0] - self.middle) / self.scale
            vectors = self.text.condition(self.text.read_prompts(prompts))
            tokens = [drawn.shape[1]] * len(prompts)
            values = sample(self.generator, vectors, tokens, drawn, self.steps, self.guidance, seed)
            decoded = self.codec.decoder(values * self.scale + self.middle)
            sketches = [Frames.unstacked(rows) for rows in decoded.float().cpu()]
        return [
            (synthesise_loop if plan.form == "loop" else synthesise)(frames, samples, seed + index)
            for index, (plan, frames) in enumerate(zip(plans, sketches, strict=True))
        ]

    @torch.no_grad()
    def through_codec(self, channels: Tensor, samples: int) -> Tensor:
        """Encode and decode (frames, CHANNELS), and render them to (2, samples)."""
        decoded = self.codec.decoder(self.codec.encoder(channels[None])[0])[0]
        return synthesise(Frames.unstacked(decoded.float().cpu()), samples)


def load_pocket(sketches_only: bool = False) -> Pocket:
    """Load the trained model on the CPU; with `sketches_only`, without the generator.

    Raises:
        FileNotFoundError: A stage hasn't been trained.
        ValueError: A stage was trained with an older state of an earlier stage.
    """
    device = torch.device("cpu")
    side, codec = load_text_side(device), load_codec(device)
    stored = load_bank()
    if stored.encoder != fingerprint(codec.encoder.state_dict()):
        raise ValueError("the bank is of another encoder: run python -m training.pocket.bank again")
    if sketches_only:
        return assemble(side, None, codec, stored, torch.ones(1), torch.zeros(1))
    state = load_checkpoint("generator")
    if state is None:
        raise FileNotFoundError("the generator isn't trained yet: run python -m training.pocket.train first")
    generator = Generator()
    generator.load_state_dict(state["average"])
    latents = Latents("held-out")
    if latents.encoder != fingerprint(codec.encoder.state_dict()):
        raise ValueError("the latents are of another encoder: run python -m training.pocket.latents again")
    check_origin("generator", state, origin_of(latents, side))
    return assemble(side, generator.eval(), codec, stored, latents.scale, latents.middle)


def assemble(
    side: TextSide, generator: Generator | None, codec: Codec, stored: StoredBank, scale: Tensor, middle: Tensor
) -> Pocket:
    """Return the model of its parts."""
    bank = Bank(codec, stored)
    return Pocket(side, Planner(side, bank), Sketcher(bank), generator, codec, scale, middle)
