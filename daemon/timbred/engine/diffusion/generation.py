"""The life of a generation: begun from an order, stepped in batches, decoded to audio."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.codecs.chunked import VocoderStream
from timbred.engine.codecs.mel import match_mel_level
from timbred.engine.codecs.mel_vae import LatentLayout, MelVaeCodec
from timbred.engine.diffusion.conditioning import Tensors, stack_conditioning
from timbred.engine.diffusion.denoiser import Denoiser
from timbred.engine.diffusion.inpainting import encode_init_audio, keep_outside_region, match_init_level
from timbred.engine.diffusion.looping import decode_loops, determine_loop_kinds, is_loop_kind_due
from timbred.engine.diffusion.outpainting import Outpainting, decode_outpainting, next_window, plan_outpainting
from timbred.engine.diffusion.sampler import draw_noise, make_generators, resize_noise
from timbred.engine.diffusion.state import Generation, make_sampler_state
from timbred.ipc.engine_messages import RenderOrder


def begin_generation(
    order: RenderOrder, conditioning: Tensors, codec: MelVaeCodec, scheduler_config: dict[str, Any]
) -> Generation:
    """Begin a generation, before its first step; `conditioning` covers all its takes."""
    generators = make_generators(order.seeds)
    order, init_gain = match_init_level(order, codec)
    outpainting = plan_outpainting(order, codec)
    if outpainting is None:
        noise = _draw_order_noise(order, generators, codec.latent_layout).to(codec.device)
        init_latents = encode_init_audio(order, codec)
    else:
        noise, init_latents = next_window(outpainting, generators, codec.device)
    sampler = make_sampler_state(order, scheduler_config, noise, generators, init_latents)
    guidance = order.guidance if order.guidance > 1.0 else None
    return Generation(
        order, scheduler_config, sampler, conditioning, guidance, generators, outpainting, init_gain=init_gain
    )


def _draw_order_noise(
    order: RenderOrder, generators: list[torch.Generator], latent_layout: LatentLayout
) -> torch.Tensor:
    """Return new noise for each take, or an earlier take's noise for all of them."""
    shape = latent_layout.shape(order.seconds, order.loop)
    if order.noise is None:
        return draw_noise(shape, generators)
    earlier_generators = make_generators((order.noise.seed,))
    noise = draw_noise(latent_layout.shape(order.noise.seconds, order.noise.loop), earlier_generators)
    return resize_noise(noise, shape[1], earlier_generators[0]).expand(len(order.seeds), *shape)


def step_batch(generations: Sequence[Generation], denoiser: Denoiser, codec: MelVaeCodec) -> None:
    """Advance several generations by one evaluation in one network call, and determine the loop kinds when due."""
    inputs = [generation.network_input() for generation in generations]
    prediction = _predict(generations, inputs, denoiser)
    for generation, part in zip(generations, prediction.split([len(rows) for rows in inputs]), strict=True):
        generation.sampler.advance(generation.apply_guidance(part))
        if is_loop_kind_due(generation):
            determine_loop_kinds(generation, codec)


def _predict(generations: Sequence[Generation], inputs: list[torch.Tensor], denoiser: Denoiser) -> torch.Tensor:
    """Evaluate the network on all rows of several generations in one call."""
    timesteps = [
        generation.sampler.timestep.expand(len(rows)) for generation, rows in zip(generations, inputs, strict=True)
    ]
    levels = torch.cat(timesteps).to(denoiser.device)
    conditioning = stack_conditioning([generation.conditioning for generation in generations])
    circular_masks = [generation.circular_mask for generation in generations if generation.circular_mask is not None]
    circular_mask = torch.cat(circular_masks).to(denoiser.device) if circular_masks else None
    return denoiser(torch.cat(inputs), levels, conditioning, circular_mask).float()


def begin_next_window(generation: Generation, codec: MelVaeCodec) -> None:
    """For outpainting: join the finished window, and begin the next one if there is one."""
    if generation.outpainting is None:
        return
    generation.outpainting.add_window(generation.sampler.latents, codec.decode_mel(generation.sampler.latents))
    if generation.outpainting.remaining_windows:
        generation.restart_sampler(*next_window(generation.outpainting, generation.generators, codec.device))


@dataclass(frozen=True)
class Embeddings:
    """CLAP embeddings of takes.

    Attributes:
        vectors: Unit vectors, (takes, dimensions), float32.
        encoder_id: Name of the encoder's weights; only embeddings of the same encoder are comparable.
    """

    vectors: NDArray[np.float32]
    encoder_id: str


@dataclass(frozen=True)
class RenderedSounds:
    """Rendered takes.

    Attributes:
        waveforms: Samples, (takes, frames), float32, at the model's native rate.
        rate: Sample rate in Hz.
        first_frame: For outpainting: frame of the whole at which the waveforms begin.
        looped: For loops: True for each take whose end meets its start; the others are longer and have an end of
            their own.
        embeddings: Embeddings of the takes, once computed.
    """

    waveforms: NDArray[np.float32]
    rate: int
    first_frame: int = 0
    looped: tuple[bool, ...] = ()
    embeddings: Embeddings | None = None


def join_takes(parts: Sequence[RenderedSounds]) -> RenderedSounds:
    """Join the takes of several generations of one job, which differ in their seeds only."""
    if len(parts) == 1:
        return parts[0]
    looped = tuple(is_loop for part in parts for is_loop in part.looped)
    return RenderedSounds(
        np.concatenate([part.waveforms for part in parts]), parts[0].rate, parts[0].first_frame, looped
    )


def decode_preview(generation: Generation, codec: MelVaeCodec) -> RenderedSounds:
    """Decode the predicted result of the first take; for outpainting, all windows so far."""
    latents = generation.sampler.predict_x0()[:1]
    if generation.outpainting is not None:
        mel = generation.outpainting.join_mel(codec.decode_mel(latents))
        return _decode_outpainted(generation, generation.outpainting, mel, codec)
    return _decode_latents(generation, latents, codec)


def decode_generation(generation: Generation, codec: MelVaeCodec) -> RenderedSounds:
    """Decode the takes of a finished generation."""
    if generation.outpainting is not None and generation.outpainting.mel is not None:
        return _decode_outpainted(generation, generation.outpainting, generation.outpainting.mel, codec)
    return _decode_latents(generation, generation.sampler.latents, codec)


def stream_generation(generation: Generation, codec: MelVaeCodec) -> VocoderStream:
    """Decode a finished generation up to the vocoder, whose output is then available in pieces."""
    chunked_vocoder = codec.chunked_vocoder(
        keep_outside_region(generation.order, codec.decode_mel(generation.sampler.latents), codec)
    )

    def run_vocoder(call: Callable[[], torch.Tensor]) -> torch.Tensor:
        return codec.run_vocoder(call) / generation.init_gain

    rate = codec.latent_layout.rate
    return VocoderStream(chunked_vocoder, int(generation.order.seconds * rate), rate, codec.analysis, run_vocoder)


def _decode_latents(generation: Generation, latents: torch.Tensor, codec: MelVaeCodec) -> RenderedSounds:
    """Decode latents of a generation to audio of the requested length."""
    order, rate = generation.order, codec.latent_layout.rate
    if order.loop:
        circular = generation.circular[: len(latents)]
        return RenderedSounds(decode_loops(latents, circular, order.seconds, codec), rate, looped=circular)
    mel = keep_outside_region(order, codec.decode_mel(latents), codec)
    waveforms = codec.vocode(mel)
    if order.given is not None and order.given.repaint is not None:
        waveforms = match_mel_level(mel, torch.from_numpy(waveforms), codec.analysis).numpy()
    return RenderedSounds(_restore_level(waveforms[:, : int(order.seconds * rate)], generation), rate)


def _decode_outpainted(
    generation: Generation, outpainting: Outpainting, mel: torch.Tensor, codec: MelVaeCodec
) -> RenderedSounds:
    return RenderedSounds(
        _restore_level(decode_outpainting(outpainting, mel, codec), generation),
        codec.latent_layout.rate,
        outpainting.first_sample,
    )


def _restore_level(waveforms: NDArray[np.float32], generation: Generation) -> NDArray[np.float32]:
    """Scale waveforms back to the level of the init audio."""
    return (waveforms / generation.init_gain).astype(np.float32)
