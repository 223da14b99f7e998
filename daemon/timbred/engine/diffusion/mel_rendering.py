"""Generations over mel spectrograms: repainted in time and frequency, continued in windows, and looped as circles."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.codecs.chunked import PieceStream, VocoderPieces
from timbred.engine.codecs.mel import match_mel_level
from timbred.engine.codecs.mel_vae import MelVaeCodec
from timbred.engine.codecs.spectral_vocoder import named_note
from timbred.engine.diffusion.conditioning import Tensors, repeat_conditioning
from timbred.engine.diffusion.generation import Generation, RenderedSounds, draw_order_noise, make_sampler_state
from timbred.engine.diffusion.inpainting import (
    SILENT_PEAK,
    encode_init_audio,
    encode_samples,
    keep_outside_region,
    match_init_level,
)
from timbred.engine.diffusion.looping import decode_loops, determine_loop_kinds, is_loop_kind_due
from timbred.engine.diffusion.outpainting import Outpainting, decode_outpainting, next_window, plan_outpainting
from timbred.engine.diffusion.rendering import Rendering
from timbred.engine.diffusion.sampler import make_generators
from timbred.ipc.engine_messages import RenderOrder


class MelRendering(Rendering[MelVaeCodec]):
    """The life of a generation over mel spectrograms."""

    def begin(self, order: RenderOrder, text_conditioning: Tensors) -> Generation:
        """Begin a generation, before its first step; `text_conditioning` is the text conditioning of one take."""
        codec, generators = self.codec, make_generators(order.seeds)
        guidance = self.conditioner.guidance_of(order)
        conditioning = repeat_conditioning(text_conditioning, len(order.seeds), guidance is not None)
        order, init_gain = match_init_level(order, codec)
        outpainting = plan_outpainting(order, codec)
        if outpainting is None:
            noise = draw_order_noise(order, generators, codec.latent_layout).to(codec.device)
            init_latents = encode_init_audio(order, codec)
        else:
            noise, init_latents = next_window(outpainting, generators, codec.device)
        return Generation(
            order=order,
            kind=self.sampling,
            scheduler_config=self.scheduler_config,
            sampler=make_sampler_state(order, self.sampling, self.scheduler_config, noise, generators, init_latents),
            conditioning=conditioning,
            guidance=guidance,
            generators=generators,
            outpainting=outpainting,
            init_gain=init_gain,
            padded=self.conditioner.padded,
            guider=self.conditioner.make_guider(order),
        )

    def encode_sound(self, samples: torch.Tensor, seconds: float) -> torch.Tensor:
        """Return the latents of a sound, (channels, frames) at the native rate, fitted to a length: one take.

        It is encoded at the level that the model was trained with.
        """
        mono = samples.mean(dim=0)
        peak = float(mono.abs().max())
        level = self.codec.analysis.peak / peak if peak > SILENT_PEAK else 1.0
        return encode_samples(mono * level, seconds, self.codec).float()

    def after_step(self, generation: Generation) -> None:
        """Determine the loop kinds when they are due."""
        if is_loop_kind_due(generation):
            determine_loop_kinds(generation, self.codec)

    def begin_next_window(self, generation: Generation) -> None:
        """For outpainting: join the finished window, and begin the next one if there is one."""
        if generation.outpainting is None:
            return
        latents = generation.sampler.latents
        generation.outpainting.add_window(latents, self.codec.decode_mel(latents))
        if generation.outpainting.remaining_windows:
            generation.restart_sampler(*next_window(generation.outpainting, generation.generators, self.codec.device))

    def preview(self, generation: Generation) -> RenderedSounds:
        """Decode the predicted result of the first take; for outpainting, all windows so far."""
        codec = self._codec_for(generation)
        latents = generation.sampler.predict_x0()[:1]
        if generation.outpainting is not None:
            mel = generation.outpainting.join_mel(codec.decode_mel(latents))
            return _decode_outpainted(generation, generation.outpainting, mel, codec)
        return _decode_latents(generation, latents, codec)

    def decode(self, generation: Generation) -> RenderedSounds:
        """Decode the takes of a finished generation."""
        codec = self._codec_for(generation)
        if generation.outpainting is not None and generation.outpainting.mel is not None:
            return _decode_outpainted(generation, generation.outpainting, generation.outpainting.mel, codec)
        return _decode_latents(generation, generation.sampler.latents, codec)

    def begin_stream(self, generation: Generation) -> PieceStream:
        """Decode a finished generation up to the vocoder, whose output is then available in pieces."""
        codec, order = self._codec_for(generation), generation.order
        mel = keep_outside_region(order, codec.decode_mel(generation.sampler.latents), codec)

        def run_vocoder(call: Callable[[], torch.Tensor]) -> torch.Tensor:
            return codec.run_vocoder(call) / generation.init_gain

        rate = codec.latent_layout.rate
        pieces = VocoderPieces(codec.chunked_vocoder(mel), codec.analysis, run_vocoder)
        return PieceStream(pieces, int(order.seconds * rate), rate)

    def _codec_for(self, generation: Generation) -> MelVaeCodec:
        """Return the codec at the pitch that the prompt names; init audio keeps its own pitch."""
        order = generation.order
        return self.codec.with_note(None if order.init_audio is not None else named_note(order.inputs))


def _decode_latents(generation: Generation, latents: torch.Tensor, codec: MelVaeCodec) -> RenderedSounds:
    """Decode latents of a generation to audio of the requested length."""
    order, rate = generation.order, codec.latent_layout.rate
    if order.loop:
        circular = generation.circular[: len(latents)]
        return RenderedSounds(decode_loops(latents, circular, order.seconds, codec)[..., None], rate, looped=circular)
    mel = keep_outside_region(order, codec.decode_mel(latents), codec)
    waveforms = codec.vocode(mel)
    if order.init_audio is not None and order.init_audio.repaint:
        waveforms = match_mel_level(mel, torch.from_numpy(waveforms), codec.analysis).numpy()
    return RenderedSounds(_restore_level(waveforms[:, : int(order.seconds * rate)], generation), rate)


def _decode_outpainted(
    generation: Generation, outpainting: Outpainting, mel: torch.Tensor, codec: MelVaeCodec
) -> RenderedSounds:
    waveforms = _restore_level(decode_outpainting(outpainting, mel, codec), generation)
    return RenderedSounds(waveforms, codec.latent_layout.rate, outpainting.first_sample)


def _restore_level(waveforms: NDArray[np.float32], generation: Generation) -> NDArray[np.float32]:
    """Scale waveforms, (takes, frames), back to the level of the init audio: (takes, frames, 1)."""
    return (waveforms / generation.init_gain).astype(np.float32)[..., None]
