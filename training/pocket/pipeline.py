"""The inference pipeline of the trained parts: text encoder, generator, codec, synthesis."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.pocket.bands import Frames, synthesise
from training.pocket.codec import Codec
from training.pocket.features import tokens_of
from training.pocket.generator import Generator, sample
from training.pocket.generator_training import check_origin, load_text_side, origin_of
from training.pocket.latents import Latents, load_codec
from training.pocket.running import fingerprint, load_checkpoint
from training.pocket.settings import SAMPLE_RATE
from training.pocket.text import TextSide

TEACHER_STEPS, TEACHER_GUIDANCE = 16, 3.0
STUDENT_STEPS = 4


@dataclass
class Pocket:
    """The whole model on one device.

    Attributes:
        scale, middle: (latent,), of the codec's latents, which are `values * scale + middle`.
        steps, guidance: parameters of the sampling; the guidance of a distilled generator is 1.
    """

    text: TextSide
    generator: Generator
    codec: Codec
    scale: Tensor
    middle: Tensor
    steps: int = TEACHER_STEPS
    guidance: float = TEACHER_GUIDANCE

    @torch.no_grad()
    def latents(self, prompts: Sequence[str], seconds: float, seed: int) -> Tensor:
        """Generate latents (prompts, tokens, latent) for the codec."""
        vectors = self.text.condition(self.text.read_prompts(prompts))
        tokens = tokens_of(round(seconds * SAMPLE_RATE))
        values = sample(self.generator, vectors, [tokens] * len(prompts), self.steps, self.guidance, seed)
        return values * self.scale + self.middle

    @torch.no_grad()
    def sounds(self, prompts: Sequence[str], seconds: float, seed: int = 0) -> list[Tensor]:
        """Generate the audio (2, samples) of each prompt."""
        samples = round(seconds * SAMPLE_RATE)
        channels = self.codec.decoder(self.latents(prompts, seconds, seed))
        return [
            synthesise(Frames.unstacked(rows), samples, seed + index)
            for index, rows in enumerate(channels.float().cpu())
        ]

    @torch.no_grad()
    def through_codec(self, channels: Tensor, samples: int) -> Tensor:
        """Encode and decode (frames, CHANNELS), and render them to (2, samples)."""
        decoded = self.codec.decoder(self.codec.encoder(channels[None])[0])[0]
        return synthesise(Frames.unstacked(decoded.float().cpu()), samples)


def load_pocket(student: bool) -> Pocket:
    """Load the trained model on the CPU; `student` selects the distilled generator.

    Raises:
        FileNotFoundError: A stage hasn't been trained.
        ValueError: A stage was trained with an older state of an earlier stage.
    """
    stage = "student" if student else "generator"
    state = load_checkpoint(stage)
    if state is None:
        raise FileNotFoundError(f"the {stage} isn't trained yet: run python -m training.pocket.train first")
    generator = Generator()
    generator.load_state_dict(state["average"])
    device = torch.device("cpu")
    latents = Latents("held-out")
    side, codec = load_text_side(device), load_codec(device)
    if latents.encoder != fingerprint(codec.encoder.state_dict()):
        raise ValueError("the latents are of another encoder: run python -m training.pocket.latents again")
    check_origin(stage, state, origin_of(latents, side))
    steps, guidance = (STUDENT_STEPS, 1.0) if student else (TEACHER_STEPS, TEACHER_GUIDANCE)
    return Pocket(
        side,
        generator.eval(),
        codec,
        latents.scale,
        latents.middle,
        steps,
        guidance,
    )
