"""Stable Audio and Stable Audio 3: states of a text encoder and the length in seconds into a DiT over stereo latents.

Stable Audio (arXiv 2407.14358) has T5 states and Oobleck's latents; Stable Audio 3 (arXiv 2605.17991) has T5Gemma
states and SAME's latents, and is trained by flow matching.
"""

import math
from functools import cached_property
from typing import Any

import diffusers
import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel
from diffusers.pipelines.stable_audio_3.modeling_stable_audio_3 import StableAudio3DurationEmbedder

from timbred.engine.batching import BatchSplitter
from timbred.engine.codecs.waveform import OobleckCodec, SameCodec, WaveLayout
from timbred.engine.compile.compiled_calls import Inputs
from timbred.engine.device import precision_of
from timbred.engine.diffusion.conditioner import TextStatesConditioner
from timbred.engine.diffusion.conditioning import START_NAME, Tensors, given_number, prompt_tensors
from timbred.engine.diffusion.denoiser import DenoiserSignature
from timbred.engine.diffusion.rendering import WaveRendering
from timbred.engine.diffusion.sampler import EdmSampling, FlowSampling, InitLatents, start_beside_context
from timbred.engine.families.base import FamilySpec
from timbred.engine.memory.device_memory import ModelStages
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models import families
from timbred.models.long_texts import Window, Windows


def _inputs(latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> Inputs:
    return latents, timestep, conditioning["states"], conditioning["seconds"]


def _evaluate(transformer: Any, *inputs: torch.Tensor) -> torch.Tensor:
    latents, timestep, states, seconds = inputs
    positions: Any = torch.arange(latents.shape[2] + seconds.shape[1], device=latents.device)
    rotary: Any = get_1d_rotary_pos_embed(
        transformer.config.attention_head_dim // 2, positions, use_real=True, repeat_interleave_real=False
    )
    return transformer(
        latents,
        timestep,
        encoder_hidden_states=states,
        global_hidden_states=seconds,
        rotary_embedding=rotary,
        return_dict=False,
    )[0]


class StableAudioConditioner(TextStatesConditioner):
    """T5 states of the prompt, followed by those of the start and the end in seconds."""

    def encode_states(self, text: str) -> torch.Tensor:
        """Encode a text that fits into T5's window: (1, tokens, dimensions)."""
        return self.pipeline.encode_prompt(text, self.device, False)

    def given_states(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Project T5's states: (1, tokens, dimensions)."""
        return self.pipeline.encode_prompt(None, self.device, False, prompt_embeds=states, attention_mask=mask)

    def negative_row(self, inputs: PromptInputs, row: Tensors) -> Tensors:
        """Return the states of the negative prompt; without one, 0 for each of the prompt's."""
        if not inputs.negative:
            return {"states": torch.zeros_like(row["states"])}
        return super().negative_row(inputs, row)

    @torch.inference_mode()
    def complete(
        self, text_conditioning: Tensors, order: RenderOrder, init_latents: InitLatents | None
    ) -> tuple[Tensors, InitLatents | None]:
        """Add the length; without a negative prompt, all states of its row are 0, as in the stock pipeline."""
        has_negative = bool(order.inputs.negative) or bool(prompt_tensors(order, is_negative=True))
        states = text_conditioning["states"]
        first = given_number(order, START_NAME, 0.0)
        start, end = self.stages.run_stage(
            "text",
            lambda: self.pipeline.encode_duration(first, first + order.seconds, self.device, False, len(states)),
        )
        whole = torch.cat([states, start, end], dim=1)
        if len(whole) == 2 and not has_negative:
            whole = torch.cat([torch.zeros_like(whole[:1]), whole[1:]])
        return {"states": whole, "seconds": torch.cat([start, end], dim=2)}, init_latents


def _layout(pipeline: Any) -> WaveLayout:
    """Return the geometry of a pipeline's latents; they always have the length that the network was trained for."""
    vae, transformer = pipeline.vae.config, pipeline.transformer.config
    return WaveLayout(
        rate=int(vae.sampling_rate),
        samples_per_row=math.prod(vae.downsampling_ratios),
        channels=int(transformer.in_channels),
        audio_channels=int(vae.audio_channels),
        fixed_rows=int(transformer.sample_size),
    )


def _make_codec(
    pipeline: Any, device: torch.device, stages: ModelStages, batch_splitter: BatchSplitter
) -> OobleckCodec:
    """Return the codec of a pipeline."""
    return OobleckCodec(pipeline.vae, _layout(pipeline), device, stages, batch_splitter)


STABLE_AUDIO = FamilySpec(
    facts=families.STABLE_AUDIO,
    pipeline_class=diffusers.StableAudioPipeline,
    conditioner=StableAudioConditioner,
    denoiser="transformer",
    signature=DenoiserSignature(None, _inputs, _evaluate),
    codec=_make_codec,
    rendering=WaveRendering,
    sampling=EdmSampling(),
    own_classes={"StableAudioProjectionModel": StableAudioProjectionModel},
)


STABLE_AUDIO_3_MAX_TOKENS = families.STABLE_AUDIO_3.max_tokens["tokenizer"]
"""Tokens of a text that Stable Audio 3 was trained with, whatever its tokenizer names."""


def _inputs_3(latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> Inputs:
    plain = (latents, timestep, conditioning["states"], conditioning["duration"])
    return (*plain, conditioning["preserved"]) if "preserved" in conditioning else plain


def _evaluate_3(transformer: Any, *inputs: torch.Tensor) -> torch.Tensor:
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
        tokens = min(int(min(tokenizer.model_max_length, STABLE_AUDIO_3_MAX_TOKENS)), STABLE_AUDIO_3_MAX_TOKENS)
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


def _layout_3(pipeline: Any) -> WaveLayout:
    """Return the geometry of a pipeline's latents."""
    vae = pipeline.vae.config
    return WaveLayout(
        rate=int(vae.sampling_rate),
        samples_per_row=int(vae.patch_size) * math.prod(vae.encoder_strides),
        channels=int(vae.latent_dim),
        audio_channels=int(vae.audio_channels),
    )


def _make_codec_3(pipeline: Any, device: torch.device, stages: ModelStages, batch_splitter: BatchSplitter) -> SameCodec:
    """Return the codec of a pipeline."""
    return SameCodec(pipeline.vae, _layout_3(pipeline), device, stages, batch_splitter)


STABLE_AUDIO_3 = FamilySpec(
    facts=families.STABLE_AUDIO_3,
    pipeline_class=diffusers.StableAudio3Pipeline,
    conditioner=StableAudio3Conditioner,
    denoiser="transformer",
    signature=DenoiserSignature(None, _inputs_3, _evaluate_3),
    codec=_make_codec_3,
    rendering=WaveRendering,
    sampling=FlowSampling(),
    own_classes={"StableAudio3DurationEmbedder": StableAudio3DurationEmbedder},
)
