"""The text side of a resident model: prompts to conditioning, cached, mixed, weighted, and completed for an order."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, ClassVar

import torch
from msgspec.structs import replace

from timbred.engine.device import precision_of
from timbred.engine.diffusion.conditioning import (
    Tensors,
    apply_word_weights,
    conditioning_cache,
    mix_conditioning,
    pad_to,
    prompt_tensors,
    stack_conditioning,
    token_factors,
)
from timbred.engine.diffusion.generation import Blend
from timbred.engine.diffusion.sampler import ClassifierFreeGuidance, InitLatents
from timbred.engine.memory.device_memory import ModelStages
from timbred.errors import ModelError
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models.long_texts import LongText, Part, Windows, divide, long_texts, windows_of


class Conditioner(ABC):
    """Text encoding of one model. Subclasses define `encode`, and what their family adds for an order.

    Args:
        pipeline: The diffusers pipeline with all components.
        device: Compute device.
        stages: The components by stage.
    """

    summary_tensors: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors that summarise the whole prompt, for word weights."""

    padded: ClassVar[frozenset[str]] = frozenset()
    """Names of the tensors that may be padded with masked zeros, so that texts of several lengths share a batch."""

    clap: Any = None
    """Compares takes with prompts; None where the text side can't."""

    def __init__(self, pipeline: Any, device: torch.device, stages: ModelStages) -> None:
        self.pipeline = pipeline
        self.device = device
        self.stages = stages
        self.cached_conditioning = conditioning_cache()

    @cached_property
    def windows(self) -> Windows:
        """Token windows of the text encoders."""
        return Windows(windows_of((self.pipeline.tokenizer,)))

    def split_text(self, text: str) -> list[Part]:
        """Divide a text into parts that fit into the window of every prompt encoder."""
        return divide(text, self.windows.prompt)

    def find_long_texts(self, inputs: PromptInputs) -> list[LongText]:
        """Return the texts of a request that are longer than the encoders' windows."""
        return long_texts(inputs.texts(), self.windows)

    @abstractmethod
    def encode(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Encode the conditioning for one take; with guidance, the negative row comes first."""

    def encode_weighted(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Encode a prompt with weighted words."""
        return apply_word_weights(inputs, guided, self.encode, self.summary_tensors)

    def conditioning(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Return the conditioning for one take from the cache, or encode it."""
        encode = self.encode_weighted if inputs.weights else self.encode

        def run_encoders() -> Tensors:
            return self.stages.run_stage("text", lambda: encode(inputs, guided))

        return self.cached_conditioning.get(
            (inputs, guided, torch.are_deterministic_algorithms_enabled()), run_encoders
        )

    def mixed_conditioning(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Return the conditioning for one take, mixed between two prompts if there are two."""
        return mix_conditioning(inputs, guided, self.conditioning)

    def conditioning_of(self, order: RenderOrder) -> Tensors:
        """Return the conditioning of an order for one take: of its texts, or of the tensors that it brings instead."""
        inputs, guided = self.inputs_of(order), self.guidance_of(order) is not None
        prompt, negative = (prompt_tensors(order, is_negative) for is_negative in (False, True))
        if not prompt and not (guided and negative):
            return self.mixed_conditioning(inputs, guided)
        row = self._given_row(prompt) if prompt else self.mixed_conditioning(inputs, False)
        if not guided:
            return row
        return stack_conditioning([self._given_row(negative) if negative else self.negative_row(inputs, row), row])

    def _given_row(self, tensors: Tensors) -> Tensors:
        return self.stages.run_stage("text", lambda: self.encode_given(tensors))

    def encode_given(self, tensors: Tensors) -> Tensors:
        """Return the conditioning of one prompt, one row, from tensors named as in the pipeline's `__call__`.

        Raises:
            ModelError: The model takes none.
        """
        raise ModelError(f"this model takes no encoded prompt, and {', '.join(sorted(tensors))} can't be used")

    def negative_row(self, inputs: PromptInputs, row: Tensors) -> Tensors:
        """Return the conditioning of the negative prompt's text, one row, beside that of the prompt, `row`."""
        del row
        return self.conditioning(replace(inputs, prompt=inputs.negative, prompt2="", mix=0.0, weights=()), False)

    def inputs_of(self, order: RenderOrder) -> PromptInputs:
        """Return the inputs of the text encoders for an order."""
        return order.inputs

    def guidance_of(self, order: RenderOrder) -> float | None:
        """Return the guidance scale of an order; None without guidance."""
        return order.guidance if order.guidance > 1.0 else None

    def make_guider(self, order: RenderOrder) -> ClassifierFreeGuidance:
        """Return a new guider for a generation."""
        del order
        return ClassifierFreeGuidance()

    def complete(
        self, text_conditioning: Tensors, order: RenderOrder, init_latents: InitLatents | None
    ) -> tuple[Tensors, InitLatents | None]:
        """Add to one take's conditioning what depends on the order: its length, or the audio that is kept.

        Also returns the init latents that the sampler starts from: None where the network is told all of them.
        """
        del order
        return text_conditioning, init_latents

    def blend_of(self, order: RenderOrder, conditioning: Tensors) -> Blend | None:
        """Return other conditioning of one take whose output is mixed into that of its own; None for none."""
        del order, conditioning
        return None


class TextStatesConditioner(Conditioner):
    """Conditioning by the states of all tokens of one encoder, (rows, tokens, dimensions), named `states`.

    Each part of a text has all tokens of the encoder's window. The network attends to all of them, so texts of
    different numbers of parts don't share a batch.
    """

    @abstractmethod
    def encode_states(self, text: str) -> torch.Tensor:
        """Encode a text that fits into the encoder's window: (1, tokens, dimensions)."""

    @abstractmethod
    def given_states(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the states that the network takes, (1, tokens, dimensions), from those of the text encoder.

        Args:
            states: States in the encoder's precision, on the model's device.
            mask: 1 for tokens, 0 for padding, (1, tokens); None for no padding.
        """

    @torch.inference_mode()
    def encode_given(self, tensors: Tensors) -> Tensors:
        """Return given states as `states`, with their mask applied."""
        states = tensors["prompt_embeds"].to(self.device, precision_of(self.pipeline.text_encoder))
        mask = next((value for name, value in tensors.items() if name.endswith("attention_mask")), None)
        return {"states": self.given_states(states, None if mask is None else mask.to(self.device, torch.long))}

    @torch.inference_mode()
    def encode(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Return `states`, with guidance those of the negative prompt first."""
        prompt = self._all_states(inputs.prompt)
        if not guided:
            return {"states": prompt}
        negative = self._all_states(inputs.negative)
        longest = max(prompt.shape[1], negative.shape[1])
        return {"states": torch.cat([pad_to(negative, longest), pad_to(prompt, longest)])}

    def _all_states(self, text: str) -> torch.Tensor:
        """Encode a text in parts, one after the other."""
        return torch.cat([self.encode_states(part.text) for part in self.split_text(text)], dim=1)

    @torch.inference_mode()
    def encode_weighted(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Encode a prompt with weighted words: the states of their tokens are scaled."""
        states = self.encode(inputs, guided)["states"].clone()
        first = 0
        for part in self.split_text(inputs.prompt):
            offsets = self.pipeline.tokenizer(part.text, return_offsets_mapping=True)["offset_mapping"]
            factors = token_factors(offsets, part.text, inputs.weights).to(states.device, states.dtype)
            states[-1:, first : first + len(offsets)] *= factors[None, :, None]
            first += self.part_tokens
        return {"states": states}

    @property
    def part_tokens(self) -> int:
        """Tokens of the encoder's window, which each part of a text has."""
        return self.windows.prompt[0].tokens
