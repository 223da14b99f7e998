"""AudioLDM 2 (arXiv 2308.05734): CLAP and T5 states through GPT-2 into a UNet with two kinds of cross attention."""

import diffusers
import torch

from timbred.engine.adapters.latent_diffusion import LatentDiffusion, Tensors
from timbred.engine.wire import Words


class AudioLdm2(LatentDiffusion):
    """A resident AudioLDM 2 model, the embedded one among them."""

    pipeline_class = diffusers.AudioLDM2Pipeline

    @torch.inference_mode()
    def encode(self, words: Words, guided: bool) -> Tensors:
        prompt_states, mask, generated = self.pipeline.encode_prompt(
            words.prompt,
            self.device,
            1,
            guided,
            words.transcription or None,
            words.negative,
        )
        return {"states": prompt_states, "mask": mask, "generated": generated}

    def network(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> torch.Tensor:
        return self.pipeline.unet(
            latents,
            timestep,
            encoder_hidden_states=conditioning["generated"],
            encoder_hidden_states_1=conditioning["states"],
            encoder_attention_mask_1=conditioning["mask"],
            return_dict=False,
        )[0]
