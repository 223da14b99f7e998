"""Stable Audio 3 (arXiv 2605.17991): T5Gemma states and the length into a flow-matching DiT over SAME's latents."""

import math
from functools import cached_property
from typing import Any

import diffusers
import torch
from diffusers.pipelines.stable_audio_3.modeling_stable_audio_3 import StableAudio3DurationEmbedder

from timbred.engine.batching import BatchSplitter
from timbred.engine.codecs.waveform import SameCodec, WaveLayout
from timbred.engine.compile.compiled_calls import Inputs
from timbred.engine.device import precision_of
from timbred.engine.diffusion.conditioner import TextStatesConditioner
from timbred.engine.diffusion.conditioning import Tensors
from timbred.engine.diffusion.denoiser import DenoiserSignature
from timbred.engine.diffusion.sampler import InitLatents, start_beside_context
from timbred.engine.diffusion.sampler_kinds import FlowSampling
from timbred.engine.diffusion.wave_rendering import WaveRendering
from timbred.engine.families.base import FamilySpec
from timbred.engine.memory.device_memory import ModelStages
from timbred.ipc.engine_messages import RenderOrder
from timbred.models import families
from timbred.models.long_texts import Window, Windows

MAX_TOKENS = families.STABLE_AUDIO_3.max_tokens["tokenizer"]
"""Tokens of a text that the network was trained with, whatever the tokenizer names."""


def _inputs(latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> Inputs:
    plain = (latents, timestep, conditioning["states"], conditioning["duration"])
    return (*plain, conditioning["preserved"]) if "preserved" in conditioning else plain


def _evaluate(transformer: Any, *inputs: torch.Tensor) -> torch.Tensor:
    latents, timestep, states, duration, *preserved = inputs
    return transformer(
        latents,
        timestep,
        encoder_hidden_states=states,
        global_hidden_states=duration,
        local_add_cond=preserved[0] if preserved else None,
        return_dict=False,
    )[0]


class StableAudio3Conditioner(TextStatesConditioner):
    """T5Gemma states of the prompt, and the embedding of the length, which is also the last token."""

    @cached_property
    def windows(self) -> Windows:
        """Token window of T5Gemma."""
        tokenizer = self.pipeline.tokenizer
        tokens = min(int(min(tokenizer.model_max_length, MAX_TOKENS)), MAX_TOKENS)
        return Windows((Window(lambda text: len(tokenizer(text).input_ids), tokens),))

    def encode_states(self, text: str) -> torch.Tensor:
        """Encode a text that fits into the window: (1, tokens, dimensions); padding has the network's own embedding."""
        return self._with_padding(*self.pipeline.encode_prompt(text, self.device, 1))

    def given_states(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return T5Gemma's states with the network's own padding: (1, tokens, dimensions)."""
        return self._with_padding(*self.pipeline.encode_prompt(None, self.device, 1, states, mask))

    def _with_padding(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return states with the network's own embedding where the mask is 0."""
        padding = self.pipeline.transformer.prompt_padding_embedding.to(states.device, states.dtype)
        return torch.where(mask.bool().unsqueeze(-1), states, padding)

    @torch.inference_mode()
    def complete(
        self, text_conditioning: Tensors, order: RenderOrder, init_latents: InitLatents | None
    ) -> tuple[Tensors, InitLatents | None]:
        """Add the length and, where parts of init audio are kept, its latents beside their mask.

        The network itself preserves these parts, so the sampler doesn't.
        """
        states = text_conditioning["states"]
        duration = self.stages.run_stage(
            "text", lambda: self.pipeline.encode_duration(order.seconds, self.device, 1, len(states))
        )
        conditioning = {"states": torch.cat([states, duration[:, None].to(states.dtype)], dim=1), "duration": duration}
        if init_latents is None or init_latents.preserved is None:
            return conditioning, init_latents
        mask = init_latents.preserved.to(self.device)
        known = torch.cat([mask, init_latents.latents[:1] * mask], dim=1).to(precision_of(self.pipeline.transformer))
        return {**conditioning, "preserved": known.expand(len(states), -1, -1)}, start_beside_context(init_latents)


def wave_layout(pipeline: Any) -> WaveLayout:
    """Return the geometry of a pipeline's latents."""
    vae = pipeline.vae.config
    return WaveLayout(
        rate=int(vae.sampling_rate),
        samples_per_row=int(vae.patch_size) * math.prod(vae.encoder_strides),
        channels=int(vae.latent_dim),
        audio_channels=int(vae.audio_channels),
    )


def make_codec(pipeline: Any, device: torch.device, stages: ModelStages, batch_splitter: BatchSplitter) -> SameCodec:
    """Return the codec of a pipeline."""
    return SameCodec(pipeline.vae, wave_layout(pipeline), device, stages, batch_splitter)


SPEC = FamilySpec(
    facts=families.STABLE_AUDIO_3,
    pipeline_class=diffusers.StableAudio3Pipeline,
    conditioner=StableAudio3Conditioner,
    denoiser="transformer",
    signature=DenoiserSignature(None, _inputs, _evaluate),
    codec=make_codec,
    rendering=WaveRendering,
    sampling=FlowSampling(),
    own_classes={"StableAudio3DurationEmbedder": StableAudio3DurationEmbedder},
)
