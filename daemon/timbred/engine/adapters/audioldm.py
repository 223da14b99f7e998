"""AudioLDM (arXiv 2301.12503): one CLAP vector, added to the UNet's time embedding."""

from typing import Any

import torch
from diffusers import AudioLDMPipeline

from timbred.engine.adapters.conditioning import Tensors, average
from timbred.engine.adapters.latent_diffusion import LatentDiffusion
from timbred.engine.adapters.network import Calling
from timbred.engine.adapters.prepared import Inputs
from timbred.engine.long_texts import Part
from timbred.engine.wire import Words


def _inputs(latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> Inputs:
    return latents, timestep, conditioning["text"]


def _evaluate(unet: Any, *inputs: torch.Tensor) -> torch.Tensor:
    latents, timestep, text = inputs
    return unet(latents, timestep, encoder_hidden_states=None, class_labels=text, return_dict=False)[0]


class AudioLdm(LatentDiffusion):
    """A resident AudioLDM model."""

    pipeline_class = AudioLDMPipeline
    calling = Calling(3, _inputs, _evaluate)
    summaries = ("text",)

    @torch.inference_mode()
    def encode(self, words: Words, guided: bool) -> Tensors:
        parts, negative = self.parts(words.prompt), self.parts(words.negative)
        if len(parts) == 1 and (not guided or self._takes_negative(negative)):
            return {"text": self.pipeline._encode_prompt(words.prompt, self.device, 1, guided, words.negative)}
        vectors = [self._vector(negative)] * guided + [self._vector(parts)]
        return {"text": torch.cat(vectors)}

    def _takes_negative(self, parts: list[Part]) -> bool:
        """Tell whether the pipeline reads all of a negative prompt: it cuts it to the length of its vectors."""
        length = int(self.pipeline.text_encoder.config.projection_dim)
        return len(parts) == 1 and len(self.pipeline.tokenizer(parts[0].text).input_ids) <= length

    def _vector(self, parts: list[Part]) -> torch.Tensor:
        """The vector of a text, of length 1."""
        vectors = [self.pipeline._encode_prompt(part.text, self.device, 1, False) for part in parts]
        return torch.nn.functional.normalize(average(vectors, parts), dim=-1)
