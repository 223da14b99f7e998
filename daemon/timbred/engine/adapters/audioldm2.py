"""AudioLDM 2 (arXiv 2308.05734): CLAP and T5 states through GPT-2 into a UNet with two kinds of cross attention."""

from typing import Any

import diffusers
import soxr
import torch

from timbred.engine.adapters.conditioning import Tensors, filled_to
from timbred.engine.adapters.emphasis import token_factors
from timbred.engine.adapters.finishing import Sounds
from timbred.engine.adapters.hearing import Hearing, directions, ear_of
from timbred.engine.adapters.latent_diffusion import LatentDiffusion
from timbred.engine.adapters.network import Calling
from timbred.engine.adapters.precision import precision_of
from timbred.engine.adapters.prepared import Inputs
from timbred.engine.wire import Words

TEXT_LENGTHS = (8, 16, 32, 64, 128)
"""Numbers of tokens that calls of the network are prepared for."""


def _inputs(latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> Inputs:
    return latents, timestep, conditioning["generated"], conditioning["states"], conditioning["mask"]


def _evaluate(unet: Any, *inputs: torch.Tensor) -> torch.Tensor:
    latents, timestep, generated, states, mask = inputs
    return unet(
        latents,
        timestep,
        encoder_hidden_states=generated,
        encoder_hidden_states_1=states,
        encoder_attention_mask_1=mask,
        return_dict=False,
    )[0]


def _fitted(inputs: Inputs) -> Inputs:
    """Texts filled up to one of a few lengths with what their masks hide."""
    latents, timestep, generated, states, mask = inputs
    length = next((size for size in TEXT_LENGTHS if size >= states.shape[1]), states.shape[1])
    return latents, timestep, generated, filled_to(states, length), filled_to(mask, length)


class AudioLdm2(LatentDiffusion):
    """A resident AudioLDM 2 model, the embedded one among them."""

    pipeline_class = diffusers.AudioLDM2Pipeline
    calling = Calling(5, _inputs, _evaluate, _fitted)
    summaries = ("generated",)

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

    @torch.inference_mode()
    def weighted(self, words: Words, guided: bool) -> Tensors:
        """The eight generated vectors lean; of the T5 states each weighted word's own are scaled."""
        found = super().weighted(words, guided)
        tokenizer = self.pipeline.tokenizer_2
        length = found["states"].shape[1]
        offsets = tokenizer(words.prompt, return_offsets_mapping=True, truncation=True, max_length=length)[
            "offset_mapping"
        ]
        factors = torch.ones(length)
        factors[: len(offsets)] = token_factors(offsets, words.prompt, words.weights)
        states = found["states"].clone()
        states[-1:] *= factors.to(states.device, states.dtype)[None, :, None]  # the prompt's, after the negative ones
        return {**found, "states": states}

    @torch.inference_mode()
    def hear(self, sounds: Sounds) -> Hearing:
        """By the model's own CLAP (arXiv 2211.06687)."""
        pipeline = self.pipeline
        wanted = int(pipeline.feature_extractor.sampling_rate)
        longest = int(pipeline.feature_extractor.nb_max_samples)  # what is longer would be cut at a random place
        heard = [soxr.resample(waveform, sounds.rate, wanted)[:longest] for waveform in sounds.waveforms]
        features = pipeline.feature_extractor(heard, return_tensors="pt", sampling_rate=wanted).input_features
        inputs = features.to(self.device, precision_of(pipeline.text_encoder))
        found = self.stages.at_work("words", lambda: pipeline.text_encoder.get_audio_features(input_features=inputs))
        return Hearing(directions(found), ear_of(pipeline.text_encoder.audio_projection))

    @torch.inference_mode()
    def scores(self, prompt: str, heard: Hearing) -> list[float]:
        """The cosine of the prompt's and each take's embedding."""
        pipeline = self.pipeline
        inputs = pipeline.tokenizer(prompt, return_tensors="pt", padding=True, truncation=True).to(self.device)
        found = self.stages.at_work("words", lambda: pipeline.text_encoder.get_text_features(**inputs))
        return (heard.vectors @ directions(found)[0]).tolist()
