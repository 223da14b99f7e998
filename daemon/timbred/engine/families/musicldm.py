"""MusicLDM (arXiv 2308.01546): AudioLDM's network with the vector of a CLAP that also hears."""

from typing import Any

import diffusers
import torch

from timbred.engine.codecs.mel_vae import MelVaeCodec
from timbred.engine.codecs.spectral_vocoder import SpectralVocoder
from timbred.engine.device import precision_of
from timbred.engine.diffusion.conditioning import Tensors, average_parts
from timbred.engine.diffusion.mel_rendering import MelRendering
from timbred.engine.diffusion.sampler import DISCRETE
from timbred.engine.families import audioldm
from timbred.engine.families.base import FamilySpec
from timbred.engine.families.clap import ClapConditioner
from timbred.ipc.engine_messages import PromptInputs
from timbred.models import families


class MusicLdmConditioner(ClapConditioner):
    """CLAP's vector of the prompt.

    The stock pipeline's own encoding fails with transformers 5, whose CLAP returns an object instead of the vector.
    """

    summary_tensors = ("text",)

    @torch.inference_mode()
    def encode(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Return the CLAP vector of the prompt as `text`, (rows, dimensions)."""
        texts = [inputs.negative] * guided + [inputs.prompt]
        return {"text": torch.cat([self._encode_text(text) for text in texts])}

    @torch.inference_mode()
    def encode_given(self, tensors: Tensors) -> Tensors:
        """Return a given vector as `text`, (1, dimensions)."""
        return {"text": tensors["prompt_embeds"].to(self.device, precision_of(self.pipeline.text_encoder))}

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


SPEC = FamilySpec(
    facts=families.MUSICLDM,
    pipeline_class=diffusers.MusicLDMPipeline,
    conditioner=MusicLdmConditioner,
    denoiser="unet",
    signature=audioldm.SPEC.signature,
    codec=MelVaeCodec,
    rendering=MelRendering,
    sampling=DISCRETE,
    circular=True,
    own_classes={"SpectralVocoder": SpectralVocoder},
)
