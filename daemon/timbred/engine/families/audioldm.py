"""AudioLDM and MusicLDM: one CLAP vector of the prompt, added to the UNet's time embedding.

AudioLDM (arXiv 2301.12503) has CLAP's text side; MusicLDM (arXiv 2308.01546) has AudioLDM's network with the vector of
a CLAP that also hears.
"""

from typing import Any

import torch
from diffusers import AudioLDMPipeline, MusicLDMPipeline

from timbred.engine.codecs.mel_vae import MelVaeCodec
from timbred.engine.codecs.spectral_vocoder import SpectralVocoder
from timbred.engine.compile.compiled_calls import Inputs
from timbred.engine.device import precision_of
from timbred.engine.diffusion.conditioner import Conditioner
from timbred.engine.diffusion.conditioning import Tensors, average_parts
from timbred.engine.diffusion.denoiser import DenoiserSignature
from timbred.engine.diffusion.rendering import MelRendering
from timbred.engine.diffusion.sampler import DISCRETE
from timbred.engine.families.base import FamilySpec
from timbred.engine.families.clap import ClapConditioner
from timbred.ipc.engine_messages import PromptInputs
from timbred.models import families
from timbred.models.long_texts import Part


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
    own_classes={"SpectralVocoder": SpectralVocoder},
)

MUSICLDM = FamilySpec(
    facts=families.MUSICLDM,
    pipeline_class=MusicLDMPipeline,
    conditioner=MusicLdmConditioner,
    denoiser="unet",
    signature=SIGNATURE,
    codec=MelVaeCodec,
    rendering=MelRendering,
    sampling=DISCRETE,
    circular=True,
    own_classes={"SpectralVocoder": SpectralVocoder},
)
