"""ACE-Step 1.5: a caption with musical facts, lyrics and a timbre into a flow-matching DiT over Oobleck's latents.

A task tells the network how to use given audio, whose latents are its context: to repaint a part, to cover it, to
extract, add or complete tracks.
"""

import math
from functools import cached_property
from typing import Any, Final

import diffusers
import torch
from diffusers.pipelines.ace_step.modeling_ace_step import (
    AceStepAudioTokenDetokenizer,
    AceStepAudioTokenizer,
    AceStepConditionEncoder,
)
from msgspec import structs

from timbred.engine.batching import BatchSplitter
from timbred.engine.codecs.waveform import NormalizedOobleckCodec, WaveLayout
from timbred.engine.compile.compiled_calls import Inputs
from timbred.engine.diffusion.conditioner import Conditioner
from timbred.engine.diffusion.conditioning import Tensors, given_number, given_tensors, given_text
from timbred.engine.diffusion.denoiser import DenoiserSignature
from timbred.engine.diffusion.generation import Blend
from timbred.engine.diffusion.init_audio import init_channels
from timbred.engine.diffusion.rendering import WaveRendering
from timbred.engine.diffusion.sampler import InitLatents, ProjectedGuidance, ShiftedFlowSampling, start_beside_context
from timbred.engine.families.base import FamilySpec
from timbred.engine.memory.device_memory import ModelStages
from timbred.errors import ModelError
from timbred.ipc.engine_messages import InitAudio, PromptInputs, RenderOrder
from timbred.models import families
from timbred.models.long_texts import LongText, Windows

TEXT_TO_MUSIC: Final = "text2music"
REPAINT: Final = "repaint"
COVER: Final = "cover"
LEGO: Final = "lego"

MAX_TEXT_TOKENS, MAX_LYRIC_TOKENS = 256, 2048
"""Tokens that the pipeline reads of the prompt with its facts, and of the lyrics."""

TIMBRE_S = 30
"""Seconds of the reference sound that the timbre encoder hears: its beginning, middle and end."""

SEGMENT_S = 10
"""Seconds of each of these three."""


def _inputs(latents: torch.Tensor, timestep: torch.Tensor, conditioning: Tensors) -> Inputs:
    return latents, timestep, conditioning["states"], conditioning["context"]


def _evaluate(transformer: Any, *inputs: torch.Tensor) -> torch.Tensor:
    latents, timestep, states, context = inputs
    timestep = timestep.to(latents.dtype)
    output = transformer(
        hidden_states=latents.transpose(1, 2),
        timestep=timestep,
        timestep_r=timestep,
        encoder_hidden_states=states,
        context_latents=context,
        return_dict=False,
    )[0]
    return output.transpose(1, 2)


class AceStepConditioner(Conditioner):
    """States of the caption and the lyrics, joined with a timbre, and the context of given audio."""

    @cached_property
    def windows(self) -> Windows:
        """No windows: the pipeline reads the first 256 tokens of a caption with its facts."""
        return Windows()

    def inputs_of(self, order: RenderOrder) -> PromptInputs:
        """Return the inputs of the text encoders for an order: with its length, its task, and what it brings along."""
        return structs.replace(
            order.inputs,
            seconds=order.seconds,
            task=task_of(order),
            instruction=given_text(order, "instruction"),
            text_tokens=int(given_number(order, "max_text_length", MAX_TEXT_TOKENS)),
            lyric_tokens=int(given_number(order, "max_lyric_length", MAX_LYRIC_TOKENS)),
        )

    def guidance_of(self, order: RenderOrder) -> float | None:
        """Return the guidance scale of an order; None for distilled checkpoints, which have it in their weights."""
        return None if self.pipeline.is_turbo else super().guidance_of(order)

    def make_guider(self, order: RenderOrder) -> ProjectedGuidance:
        """Return a new guider for a generation."""
        first, last = (given_number(order, f"cfg_interval_{edge}", usual) for edge, usual in (("start", 0), ("end", 1)))
        return ProjectedGuidance(first, last)

    @torch.inference_mode()
    def blend_of(self, order: RenderOrder, conditioning: Tensors) -> Blend | None:
        """Return the conditioning of a new sound, which is mixed into that of a cover of less strength."""
        if task_of(order) != COVER or order.init_audio is None or order.init_audio.strength >= 1.0:
            return None
        text_conditioning = self.mixed_conditioning(structs.replace(self.inputs_of(order), task=TEXT_TO_MUSIC), False)
        timbre = self._timbre_latents(order.reference)
        states = self.stages.run_stage("text", lambda: self._join(text_conditioning, timbre))
        return Blend({"states": states, "context": conditioning["context"][-1:]}, order.init_audio.strength)

    @torch.inference_mode()
    def encode(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Return the states of the caption as `text` and of the lyrics as `lyrics`, (1, tokens, dimensions)."""
        del guided  # the row without a prompt is learned
        text, _, lyrics, _ = self.pipeline.encode_prompt(
            inputs.prompt,
            inputs.lyrics,
            self.device,
            **self._described(inputs),
            max_text_length=inputs.text_tokens or MAX_TEXT_TOKENS,
            max_lyric_length=inputs.lyric_tokens or MAX_LYRIC_TOKENS,
        )
        return {"text": text, "lyrics": lyrics}

    def _described(self, inputs: PromptInputs) -> dict[str, Any]:
        """Return what the pipeline writes beside the prompt and the lyrics."""
        usual = self.pipeline._get_task_instruction(inputs.task, inputs.track or None, inputs.track.split())
        return {
            "vocal_language": inputs.language,
            "audio_duration": inputs.seconds,
            "instruction": inputs.instruction or usual,
            "bpm": round(inputs.bpm) or None,
            "keyscale": inputs.key or None,
            "timesignature": inputs.signature.partition("/")[0] or None,  # captions name the beats alone
        }

    def find_long_texts(self, inputs: PromptInputs) -> list[LongText]:
        """Return the prompt and the lyrics if the pipeline reads their beginning only.

        The facts after a long prompt aren't read either.
        """
        whole = self.pipeline._format_prompt(inputs.prompt, inputs.lyrics, **self._described(inputs))
        cut_texts: list[LongText] = []
        for (key, text), written, limit in zip(
            (("prompt", inputs.prompt), ("lyrics", inputs.lyrics)),
            whole,
            (inputs.text_tokens or MAX_TEXT_TOKENS, inputs.lyric_tokens or MAX_LYRIC_TOKENS),
            strict=True,
        ):
            places = self.pipeline.tokenizer(written, return_offsets_mapping=True)["offset_mapping"]
            if text and len(places) > limit:
                read = min(len(text), max(0, places[limit][0] - written.index(text)))
                cut_texts.append(LongText(key, len(text), read, 1))
        return cut_texts

    @torch.inference_mode()
    def complete(
        self, text_conditioning: Tensors, order: RenderOrder, init_latents: InitLatents | None
    ) -> tuple[Tensors, InitLatents | None]:
        """Join the words with the timbre as `states`, and add the `context`: source latents beside their mask.

        Without a task, init audio isn't context: denoising starts from it. With one, it does so with less strength,
        except for covers, whose strength `blend_of` uses.
        """
        timbre = self._timbre_latents(order.reference)
        states = self.stages.run_stage("text", lambda: self._join(text_conditioning, timbre))
        task = task_of(order)
        source = None if task == TEXT_TO_MUSIC else init_latents
        context = self.stages.run_stage("text", lambda: self._context(order, task, source))
        if self.guidance_of(order) is not None:
            learned = self.pipeline.condition_encoder.null_condition_emb.to(states.device, states.dtype)
            states, context = torch.cat([learned.expand_as(states), states]), torch.cat([context, context])
        start = init_latents if source is None else start_beside_context(source)
        if task == COVER:
            start = None
        return {"states": states, "context": context}, start

    def _join(self, text_conditioning: Tensors, timbre: torch.Tensor) -> torch.Tensor:
        """Return the states of lyrics, timbre and caption, (1, tokens, dimensions)."""
        text, lyrics = text_conditioning["text"], text_conditioning["lyrics"]
        states, _ = self.pipeline.condition_encoder(
            text_hidden_states=text,
            text_attention_mask=torch.ones(text.shape[:2], dtype=torch.bool, device=text.device),
            lyric_hidden_states=lyrics,
            lyric_attention_mask=torch.ones(lyrics.shape[:2], dtype=torch.bool, device=lyrics.device),
            refer_audio_acoustic_hidden_states_packed=timbre.to(text.dtype),
            refer_audio_order_mask=torch.zeros(1, dtype=torch.long, device=text.device),
        )
        return states

    def _timbre_latents(self, reference: InitAudio | None) -> torch.Tensor:
        """Return latents of a reference sound, or of silence: (1, rows, channels)."""
        pipeline = self.pipeline
        if reference is None:
            return self._silence(math.ceil(TIMBRE_S * pipeline.latents_per_second))
        samples = init_channels(reference)
        frames, segment = TIMBRE_S * pipeline.sample_rate, SEGMENT_S * pipeline.sample_rate
        samples = samples.repeat(1, max(1, math.ceil(frames / samples.shape[1])))
        middle = samples.shape[1] // 3
        parts = [samples[:, :segment], samples[:, middle : middle + segment], samples[:, -segment:]]
        excerpts = torch.cat(parts, dim=1)[None].to(self.device, pipeline.vae.dtype)

        def encode() -> torch.Tensor:
            return pipeline.vae.encode(excerpts).latent_dist.mode()

        return self.stages.run_stage("codec", encode).transpose(1, 2)

    def _silence(self, rows: int) -> torch.Tensor:
        """Return latents of silence, (1, rows, channels)."""
        silence = self.pipeline.condition_encoder.silence_latent.to(self.device)
        return silence.repeat(1, math.ceil(rows / silence.shape[1]), 1)[:, :rows]

    def _context(self, order: RenderOrder, task: str, init_latents: InitLatents | None) -> torch.Tensor:
        """Return the context of the network, (1, rows, 2 * channels): latents, and 1 where sound is made."""
        dtype = self.pipeline.transformer.dtype
        codes = given_tensors(order).get("audio_codes")
        if codes is not None:
            rows = math.ceil(order.seconds * self.pipeline.latents_per_second)
            source = self._decode_codes(codes)[:, :rows].to(dtype)
            return torch.cat([source, torch.ones_like(source)], dim=-1)
        if init_latents is None:
            silence = self._silence(math.ceil(order.seconds * self.pipeline.latents_per_second)).to(dtype)
            return torch.cat([silence, torch.ones_like(silence)], dim=-1)
        source = init_latents.latents[:1].transpose(1, 2).to(dtype)
        if task == COVER:
            source = self._tokenized(source)
        generated = torch.ones_like(source)
        if task in (REPAINT, LEGO) and init_latents.preserved is not None:
            generated = (1.0 - init_latents.preserved.to(dtype)).transpose(1, 2).expand_as(source)
        if task == REPAINT:
            source = torch.where(generated > 0.5, self._silence(source.shape[1]).to(dtype), source)
        return torch.cat([source, generated], dim=-1)

    def _decode_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the latents of given codes of the audio tokenizer, (1, rows, channels)."""
        pipeline = self._with_audio_tokenizer()
        quantizers = int(getattr(pipeline.audio_tokenizer.config, "fsq_input_num_quantizers", 1))
        indices = torch.zeros(1, len(codes), quantizers, dtype=torch.long, device=self.device)
        indices[0, :, 0] = codes.to(self.device, torch.long)
        quantized = pipeline.audio_tokenizer.quantizer.get_output_from_indices(indices)
        return pipeline.audio_token_detokenizer(quantized.to(self.device, pipeline.transformer.dtype))

    def _with_audio_tokenizer(self) -> Any:
        """Return the pipeline.

        Raises:
            ModelError: The checkpoint has no audio tokenizer.
        """
        pipeline = self.pipeline
        if pipeline.audio_tokenizer is None or pipeline.audio_token_detokenizer is None:
            raise ModelError("this model can't cover audio: it has no audio tokenizer; use another task or model")
        return pipeline

    def _tokenized(self, source: torch.Tensor) -> torch.Tensor:
        """Return latents reduced to what the audio tokenizer keeps: melody and rhythm.

        Raises:
            ModelError: The checkpoint has no audio tokenizer.
        """
        pipeline = self._with_audio_tokenizer()
        quantized, _ = pipeline.audio_tokenizer.tokenize(source, pipeline.condition_encoder.silence_latent.to(source))
        return pipeline.audio_token_detokenizer(quantized.to(source.dtype))[:, : source.shape[1]]


def task_of(order: RenderOrder) -> str:
    """Return the task of an order: the named one, or that of its init audio or of its codes."""
    if "audio_codes" in given_tensors(order):
        return COVER
    repaints = order.init_audio is not None and (bool(order.init_audio.repaint) or order.window > 0.0)
    return order.inputs.task or (REPAINT if repaints else TEXT_TO_MUSIC)


def wave_layout(pipeline: Any) -> WaveLayout:
    """Return the geometry of a pipeline's latents."""
    vae, transformer = pipeline.vae.config, pipeline.transformer.config
    return WaveLayout(
        rate=int(vae.sampling_rate),
        samples_per_row=math.prod(vae.downsampling_ratios),
        channels=int(transformer.audio_acoustic_hidden_dim),
        audio_channels=int(vae.audio_channels),
        is_noise_rows_first=True,
    )


def make_codec(
    pipeline: Any, device: torch.device, stages: ModelStages, batch_splitter: BatchSplitter
) -> NormalizedOobleckCodec:
    """Return the codec of a pipeline."""
    return NormalizedOobleckCodec(pipeline.vae, wave_layout(pipeline), device, stages, batch_splitter)


ACE_STEP = FamilySpec(
    facts=families.ACE_STEP,
    pipeline_class=diffusers.AceStepPipeline,
    conditioner=AceStepConditioner,
    denoiser="transformer",
    signature=DenoiserSignature(None, _inputs, _evaluate),
    codec=make_codec,
    rendering=WaveRendering,
    sampling=ShiftedFlowSampling(),
    own_classes={
        "AceStepAudioTokenDetokenizer": AceStepAudioTokenDetokenizer,
        "AceStepAudioTokenizer": AceStepAudioTokenizer,
        "AceStepConditionEncoder": AceStepConditionEncoder,
    },
)
