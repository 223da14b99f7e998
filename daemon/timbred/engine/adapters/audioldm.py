"""AudioLDM (arXiv 2301.12503): one CLAP vector, added to the UNet's time embedding."""

from typing import Any

import torch
from diffusers import AudioLDMPipeline

from timbred.engine.adapters.conditioning import Tensors
from timbred.engine.adapters.latent_diffusion import LatentDiffusion
from timbred.engine.adapters.network import Calling
from timbred.engine.adapters.prepared import Inputs
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
        return {"text": self.pipeline._encode_prompt(words.prompt, self.device, 1, guided, words.negative)}
