"""The inference pipeline of the trained parts: text encoder, plan, sketch, generator, codec, synthesis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timbred.engine.codecs.bands import Frames, analyse, synthesise
from timbred.engine.families.pocket_networks import BandCodec, Ear, Generator, TextSide, class_vector, summarise_latents
from timbred.engine.families.pocket_plans import Planner, PlanRequest, PromptReading
from timbred.engine.families.pocket_sketch import Bank, Sketcher, StoredBank
from timbred.models.pocket import SAMPLE_RATE, TOKEN_FRAMES, PocketSound
from timbred.models.pocket_words import read_words
from training.pocket.bank import entry_vectors, load_bank
from training.pocket.codec import load_codec
from training.pocket.ear_training import load_ear
from training.pocket.features import tokens_of
from training.pocket.generator import new_generator, sample
from training.pocket.generator_training import check_origin, load_text_side, origin_of
from training.pocket.latents import Latents
from training.pocket.running import fingerprint, load_checkpoint
from training.pocket.vocabulary import VOCABULARY

STEPS, GUIDANCE, REFINEMENT = 4, 1.0, 1.0


@dataclass
class Pocket:
    """The whole model on one device.

    Attributes:
        generator: None for a model that renders its sketches.
        scale, middle: (latent,), of the codec's latents, which are `values * scale + middle`.
        steps, guidance: parameters of the sampling.
        refinement: share of the generator's changes that is heard.
        ear: None for a model whose sounds can't be compared.
    """

    text: TextSide
    planner: Planner
    sketcher: Sketcher
    generator: Generator | None
    codec: BandCodec
    scale: Tensor
    middle: Tensor
    steps: int = STEPS
    guidance: float = GUIDANCE
    refinement: float = REFINEMENT
    ear: Ear | None = None

    @torch.no_grad()
    def plans(self, prompts: Sequence[str], seconds: float, seed: int) -> list[list[PocketSound]]:
        """Return the descriptions of each prompt's sounds, which are heard at once."""
        readings = [[self.read(part) for part in self.planner.split_layers(prompt)] for prompt in prompts]
        return [
            self.planner.plan_layers(parts, PlanRequest(seconds, seed + index)) for index, parts in enumerate(readings)
        ]

    @torch.no_grad()
    def read(self, prompt: str) -> PromptReading:
        """Return how the text encoder understands a prompt."""
        vector = self.text.read_prompts([prompt])
        chances = {name: head(vector).softmax(-1)[0].numpy() for name, head in self.text.heads.items()}
        return PromptReading(tuple(read_words(prompt)), chances, vector[0].numpy())

    @torch.no_grad()
    def sounds(self, prompts: Sequence[str], seconds: float, seed: int = 0) -> list[Tensor]:
        """Generate the audio (2, samples) of each prompt."""
        samples = round(seconds * SAMPLE_RATE)
        plans, frames = self.plans(prompts, seconds, seed), tokens_of(samples) * TOKEN_FRAMES
        loops = [any(sound.form == "loop" for sound in plan) for plan in plans]
        sketches = [self.sketcher.sketch(plan, frames, loop) for plan, loop in zip(plans, loops, strict=True)]
        if self.generator is not None:
            sketches = self._refined(self.generator, prompts, sketches, seed)
        return [
            synthesise(sketch, samples, seed + index, circle=loop)
            for index, (sketch, loop) in enumerate(zip(sketches, loops, strict=True))
        ]

    def _refined(
        self, generator: Generator, prompts: Sequence[str], sketches: Sequence[Frames], seed: int
    ) -> list[Frames]:
        """Return sketches with what the generator changes."""
        coded = self.codec.encoder(torch.stack([sketch.stacked() for sketch in sketches]))[0]
        drawn = (coded - self.middle) / self.scale
        vectors = self.text.condition(self.text.read_prompts(prompts))
        tokens = [drawn.shape[1]] * len(prompts)
        values = sample(generator, vectors, tokens, drawn, self.steps, self.guidance, seed)
        after, before = (self.codec.decoder(part).float() for part in (values * self.scale + self.middle, coded))
        return [
            sketch.changed(Frames.unstacked(new), Frames.unstacked(old), self.refinement)
            for sketch, new, old in zip(sketches, after, before, strict=True)
        ]

    @torch.no_grad()
    def similarity(self, sounds: Sequence[Tensor], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Return the ear's similarity of each sound, (2, samples), and each prompt, 0 to 1: (sounds, prompts).

        Raises:
            FileNotFoundError: The ear hasn't been trained.
        """
        if self.ear is None:
            raise FileNotFoundError("the ear isn't trained yet: run python -m training.pocket.ear_training first")
        rows: list[NDArray[np.float32]] = []
        for sound in sounds:
            channels = analyse(sound, tokens_of(sound.shape[1]) * TOKEN_FRAMES).stacked()[None]
            latents = (self.codec.encoder(channels)[0] - self.middle) / self.scale
            logits = self.ear(summarise_latents(latents.transpose(1, 2)))
            rows.append(class_vector({name: values[0].softmax(-1).numpy() for name, values in logits.items()}))
        readings = [self.read(prompt) for prompt in prompts]
        asked = [class_vector({**each.chances, "kind": self.planner.kind_chances(each)}) for each in readings]
        return np.stack(rows) @ np.stack(asked).T

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
    latents = Latents("held-out")
    if latents.encoder != fingerprint(codec.encoder.state_dict()):
        raise ValueError("the latents are of another encoder: run python -m training.pocket.latents again")
    if sketches_only:
        pocket = assemble(side, None, codec, stored, latents.scale, latents.middle)
        pocket.ear = load_ear(codec.sizes.latent)
        return pocket
    state = load_checkpoint("generator")
    if state is None:
        raise FileNotFoundError("the generator isn't trained yet: run python -m training.pocket.train first")
    generator = new_generator()
    generator.load_state_dict(state["average"])
    check_origin("generator", state, origin_of(latents, side))
    pocket = assemble(side, generator.eval(), codec, stored, latents.scale, latents.middle)
    pocket.ear = load_ear(codec.sizes.latent)
    return pocket


def assemble(
    side: TextSide, generator: Generator | None, codec: BandCodec, stored: StoredBank, scale: Tensor, middle: Tensor
) -> Pocket:
    """Return the model of its parts."""
    bank = Bank(codec.decoder, stored)
    planner = Planner(VOCABULARY, stored.entries, entry_vectors(side, stored.entries).numpy())
    return Pocket(side, planner, Sketcher(bank, VOCABULARY), generator, codec, scale, middle)
