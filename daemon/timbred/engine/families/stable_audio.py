"""Stable Audio (arXiv 2407.14358): T5 states and the length in seconds into a DiT over Oobleck's latents."""

import math
from typing import Any

import diffusers
import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel

from timbred.engine.batching import BatchSplitter
from timbred.engine.codecs.waveform import OobleckCodec, WaveLayout
from timbred.engine.compile.compiled_calls import Inputs
from timbred.engine.diffusion.conditioner import TextStatesConditioner
from timbred.engine.diffusion.conditioning import START_NAME, Tensors, given_number, prompt_tensors
from timbred.engine.diffusion.denoiser import DenoiserSignature
from timbred.engine.diffusion.sampler import InitLatents
from timbred.engine.diffusion.sampler_kinds import EdmSampling
from timbred.engine.diffusion.wave_rendering import WaveRendering
from timbred.engine.families.base import FamilySpec
from timbred.engine.memory.device_memory import ModelStages
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models import families


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


def wave_layout(pipeline: Any) -> WaveLayout:
    """Return the geometry of a pipeline's latents; they always have the length that the network was trained for."""
    vae, transformer = pipeline.vae.config, pipeline.transformer.config
    return WaveLayout(
        rate=int(vae.sampling_rate),
        samples_per_row=math.prod(vae.downsampling_ratios),
        channels=int(transformer.in_channels),
        audio_channels=int(vae.audio_channels),
        fixed_rows=int(transformer.sample_size),
    )


def make_codec(pipeline: Any, device: torch.device, stages: ModelStages, batch_splitter: BatchSplitter) -> OobleckCodec:
    """Return the codec of a pipeline."""
    return OobleckCodec(pipeline.vae, wave_layout(pipeline), device, stages, batch_splitter)


SPEC = FamilySpec(
    facts=families.STABLE_AUDIO,
    pipeline_class=diffusers.StableAudioPipeline,
    conditioner=StableAudioConditioner,
    denoiser="transformer",
    signature=DenoiserSignature(None, _inputs, _evaluate),
    codec=make_codec,
    rendering=WaveRendering,
    sampling=EdmSampling(),
    own_classes={"StableAudioProjectionModel": StableAudioProjectionModel},
)
