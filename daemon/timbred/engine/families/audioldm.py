"""AudioLDM, AudioLDM 2 and MusicLDM: UNets over mel spectrograms with CLAP's vector of the prompt.

AudioLDM (arXiv 2301.12503) has CLAP's text side; MusicLDM (arXiv 2308.01546) has AudioLDM's network with the vector of
a CLAP that also hears. Both add the vector to the UNet's time embedding. AudioLDM 2 (arXiv 2308.05734) has CLAP and T5
states through GPT-2 into a UNet with two kinds of cross attention.
"""

from dataclasses import replace
from functools import cached_property
from typing import Any

import diffusers
import torch
from diffusers import AudioLDMPipeline, MusicLDMPipeline
from diffusers.pipelines.audioldm2.modeling_audioldm2 import (
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
)
from transformers import GPT2LMHeadModel, VitsTokenizer

from timbred.engine.codecs.mel_vae import MelVaeCodec
from timbred.engine.compile.compiled_calls import Inputs
from timbred.engine.device import precision_of
from timbred.engine.diffusion.conditioner import Conditioner
from timbred.engine.diffusion.conditioning import Tensors, average_parts, pad_to, token_factors
from timbred.engine.diffusion.denoiser import DenoiserSignature
from timbred.engine.diffusion.rendering import MelRendering
from timbred.engine.diffusion.sampler import DISCRETE
from timbred.engine.families.base import FamilySpec
from timbred.engine.families.clap import ClapConditioner
from timbred.ipc.engine_messages import PromptInputs
from timbred.models import families
from timbred.models.long_texts import Part, Windows, windows_of


def _inputs(latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> Inputs:
    return latents, timestep, conditioning["text"]


def _evaluate(unet: Any, *inputs: torch.Tensor) -> torch.Tensor:
    latents, timestep, text = inputs
    return unet(latents, timestep, encoder_hidden_states=None, class_labels=text, return_dict=False)[0]


class ClapVectorConditioner(Conditioner):
    """Conditioning by one vector of CLAP, named `text`."""

    summary_tensors = ("text",)

    @torch.inference_mode()
    def encode_given(self, tensors: Tensors) -> Tensors:
        """Return a given vector as `text`, (1, dimensions)."""
        return {"text": tensors["prompt_embeds"].to(self.device, precision_of(self.pipeline.text_encoder))}


class AudioLdmConditioner(ClapVectorConditioner):
    """CLAP's vector of the prompt, as the stock pipeline encodes it."""

    @torch.inference_mode()
    def encode(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Return the CLAP vector of the prompt as `text`, (rows, dimensions)."""
        parts, negative = self.split_text(inputs.prompt), self.split_text(inputs.negative)
        if len(parts) == 1 and (not guided or self._pipeline_fits_negative(negative)):
            return {"text": self.pipeline._encode_prompt(inputs.prompt, self.device, 1, guided, inputs.negative)}
        vectors = [self._encode_text(negative)] * guided + [self._encode_text(parts)]
        return {"text": torch.cat(vectors)}

    def _pipeline_fits_negative(self, parts: list[Part]) -> bool:
        """Tell if the pipeline reads the whole negative prompt: it truncates it to the length of its vectors."""
        length = int(self.pipeline.text_encoder.config.projection_dim)
        return len(parts) == 1 and len(self.pipeline.tokenizer(parts[0].text).input_ids) <= length

    def _encode_text(self, parts: list[Part]) -> torch.Tensor:
        """Return the unit vector of a text."""
        vectors = [self.pipeline._encode_prompt(part.text, self.device, 1, False) for part in parts]
        return torch.nn.functional.normalize(average_parts(vectors, parts), dim=-1)


class MusicLdmConditioner(ClapVectorConditioner, ClapConditioner):
    """CLAP's vector of the prompt, from the text side of a whole CLAP.

    The stock pipeline's own encoding fails with transformers 5, whose CLAP returns an object instead of the vector.
    """

    @torch.inference_mode()
    def encode(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Return the CLAP vector of the prompt as `text`, (rows, dimensions)."""
        texts = [inputs.negative] * guided + [inputs.prompt]
        return {"text": torch.cat([self._encode_text(text) for text in texts])}

    def _encode_text(self, text: str) -> torch.Tensor:
        """Return the unit vector of a text."""
        parts = self.split_text(text)
        vectors = [self._encode_part(part.text) for part in parts]
        vector = average_parts(vectors, parts)
        return vector if len(parts) == 1 else torch.nn.functional.normalize(vector, dim=-1)

    def _encode_part(self, text: str) -> torch.Tensor:
        """Return the unit vector of a text that fits into CLAP's window."""
        pipeline = self.pipeline
        inputs: Any = pipeline.tokenizer(
            text, padding="max_length", max_length=pipeline.tokenizer.model_max_length, return_tensors="pt"
        ).to(self.device)
        features = pipeline.text_encoder.get_text_features(inputs.input_ids, attention_mask=inputs.attention_mask)
        return features.pooler_output.to(precision_of(pipeline.text_encoder))


SIGNATURE = DenoiserSignature(3, _inputs, _evaluate)
"""Signature of both families' UNet."""

AUDIOLDM = FamilySpec(
    facts=families.AUDIOLDM,
    pipeline_class=AudioLDMPipeline,
    conditioner=AudioLdmConditioner,
    denoiser="unet",
    signature=SIGNATURE,
    codec=MelVaeCodec,
    rendering=MelRendering,
    sampling=DISCRETE,
    circular=True,
)

MUSICLDM = replace(AUDIOLDM, facts=families.MUSICLDM, pipeline_class=MusicLDMPipeline, conditioner=MusicLdmConditioner)


COMPILED_TOKEN_COUNTS = (8, 16, 32, 64, 128, 256, 512, 1024)
"""Numbers of tokens that network calls are compiled for."""


def _inputs_2(latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> Inputs:
    return latents, timestep, conditioning["generated"], conditioning["states"], conditioning["mask"]


def _evaluate_2(unet: Any, *inputs: torch.Tensor) -> torch.Tensor:
    latents, timestep, generated, states, mask = inputs
    return unet(
        latents,
        timestep,
        encoder_hidden_states=generated,
        encoder_hidden_states_1=states,
        encoder_attention_mask_1=mask,
        return_dict=False,
    )[0]


def _pad_texts(inputs: Inputs) -> Inputs:
    """Pad texts to one of a few lengths with masked tokens."""
    latents, timestep, generated, states, mask = inputs
    length = next((size for size in COMPILED_TOKEN_COUNTS if size >= states.shape[1]), states.shape[1])
    return latents, timestep, generated, pad_to(states, length), pad_to(mask, length)


class AudioLdm2Conditioner(ClapConditioner):
    """States of T5 (or VITS), and the vectors that GPT-2 generates from them and from CLAP's; also CLAP's hearing."""

    summary_tensors = ("generated",)
    padded = frozenset({"states", "mask"})

    @cached_property
    def windows(self) -> Windows:
        """Windows of CLAP and T5; in speech models the second encoder reads the transcription."""
        first, second = self.pipeline.tokenizer, self.pipeline.tokenizer_2
        if isinstance(second, VitsTokenizer):
            return Windows(windows_of((first,)), windows_of((second,)))
        return Windows(windows_of((first, second)))

    @torch.inference_mode()
    def encode(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Return `generated`, `states` and `mask`, each with the rows as its first axis."""
        parts = self.split_text(inputs.prompt)
        encoded = self._encode_parts(parts, inputs) if len(parts) > 1 else None
        if not guided:
            return encoded or self._encode_by_pipeline(inputs.prompt, False, inputs)
        if encoded is None and self._pipeline_fits_negative(inputs):
            return self._encode_by_pipeline(inputs.prompt, True, inputs)
        encoded = encoded or self._encode_by_pipeline(inputs.prompt, False, inputs)
        return join_batch(self._encode_parts(self.split_text(inputs.negative), inputs), encoded)

    def _pipeline_fits_negative(self, inputs: PromptInputs) -> bool:
        """Tell if the pipeline reads the whole negative prompt: it truncates it to the prompt's tokens."""
        second = self.pipeline.tokenizer_2
        if not inputs.negative or isinstance(second, VitsTokenizer):
            return len(self.split_text(inputs.negative)) == 1
        return all(window.fits(inputs.negative) for window in self.windows.prompt) and (
            len(second(inputs.negative).input_ids) <= len(second(inputs.prompt).input_ids)
        )

    def _encode_by_pipeline(self, prompt: str, guided: bool, inputs: PromptInputs) -> Tensors:
        """Return the pipeline's encoding of a text that fits into the encoders' windows."""
        states, mask, generated = self.pipeline.encode_prompt(
            prompt, self.device, 1, guided, inputs.transcription or None, inputs.negative
        )
        return {"states": states, "mask": mask, "generated": generated}

    @torch.inference_mode()
    def encode_given(self, tensors: Tensors) -> Tensors:
        """Return given states with their mask, and given vectors."""
        mask = tensors.get("attention_mask")
        states, mask, generated = self.pipeline.encode_prompt(
            None,
            self.device,
            1,
            False,
            prompt_embeds=tensors["prompt_embeds"],
            generated_prompt_embeds=tensors["generated_prompt_embeds"],
            attention_mask=None if mask is None else mask.long(),
        )
        return {"states": states, "mask": mask, "generated": generated}

    @torch.inference_mode()
    def negative_row(self, inputs: PromptInputs, row: Tensors) -> Tensors:
        """Return the encoding of the negative prompt.

        An empty one is padded to the prompt's tokens, as in the pipeline: the generated vectors depend on the padding.
        """
        if inputs.negative or isinstance(self.pipeline.tokenizer_2, VitsTokenizer):
            return super().negative_row(inputs, row)
        states, mask, generated = self.stages.run_stage(
            "text",
            lambda: self.pipeline.encode_prompt(
                None,
                self.device,
                1,
                True,
                prompt_embeds=row["states"],
                attention_mask=row["mask"],
                generated_prompt_embeds=row["generated"],
            ),
        )
        return {"states": states[:1], "mask": mask[:1], "generated": generated[:1]}

    def _encode_parts(self, parts: list[Part], inputs: PromptInputs) -> Tensors:
        """Encode a text in parts: the states of all tokens, and the mean of the vectors generated from each part."""
        encoded = [self._encode_by_pipeline(part.text, False, inputs) for part in parts]
        generated = average_parts([part_encoding["generated"] for part_encoding in encoded], parts)
        if isinstance(
            self.pipeline.tokenizer_2, VitsTokenizer
        ):  # the second encoder's states belong to the transcription
            return {**encoded[0], "generated": generated}
        return {
            "states": torch.cat([part_encoding["states"] for part_encoding in encoded], dim=1),
            "mask": torch.cat([part_encoding["mask"] for part_encoding in encoded], dim=1),
            "generated": generated,
        }

    @torch.inference_mode()
    def encode_weighted(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Encode a prompt with weighted words: the generated vectors shift, and the T5 states of each word are scaled.

        The states of a transcription are unchanged, because the weights refer to the prompt.
        """
        encoded = super().encode_weighted(inputs, guided)
        if isinstance(self.pipeline.tokenizer_2, VitsTokenizer):
            return encoded
        factors = torch.ones(encoded["states"].shape[1])
        position = 0
        for part in self.split_text(inputs.prompt):
            offsets = self.pipeline.tokenizer_2(part.text, return_offsets_mapping=True)["offset_mapping"]
            factors[position : position + len(offsets)] = token_factors(offsets, part.text, inputs.weights)
            position += len(offsets)
        states = encoded["states"].clone()
        states[-1:] *= factors.to(states.device, states.dtype)[None, :, None]  # the prompt's, after the negative ones
        return {**encoded, "states": states}


def join_batch(negative: Tensors, prompt: Tensors) -> Tensors:
    """One batch: the negative prompt's row, then the prompt's, filled up to the same number of tokens."""
    longest = max(negative["states"].shape[1], prompt["states"].shape[1])
    batch = {"generated": torch.cat([negative["generated"], prompt["generated"]])}
    for name in ("states", "mask"):
        batch[name] = torch.cat([pad_to(encoded[name], longest) for encoded in (negative, prompt)])
    return batch


AUDIOLDM2 = FamilySpec(
    facts=families.AUDIOLDM2,
    pipeline_class=diffusers.AudioLDM2Pipeline,
    conditioner=AudioLdm2Conditioner,
    denoiser="unet",
    signature=DenoiserSignature(5, _inputs_2, _evaluate_2, _pad_texts),
    codec=MelVaeCodec,
    rendering=MelRendering,
    sampling=DISCRETE,
    circular=True,
    own_classes={
        "AudioLDM2ProjectionModel": AudioLDM2ProjectionModel,
        "AudioLDM2UNet2DConditionModel": AudioLDM2UNet2DConditionModel,
        "GPT2Model": GPT2LMHeadModel,
    },
)
"""Published checkpoints name GPT2Model, which can't generate (diffusers issue 12630)."""
