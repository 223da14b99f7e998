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
    randomness = make_generators(order.seeds)
    order, lift = match_init_level(order, codec)
    extension = plan_outpainting(order, codec)
    if extension is None:
        noise = _noise(order, randomness, codec.grid).to(codec.device)
        beginning = encode_init_audio(order, codec)
    else:
        noise, beginning = next_window(extension, randomness, codec.device)
    steps = make_sampler_state(order, scheduler_config, noise, randomness, beginning)
    guidance = order.guidance if order.guidance > 1.0 else None
    return Generation(order, scheduler_config, steps, conditioning, guidance, randomness, extension, lift=lift)


def _noise(order: RenderOrder, randomness: list[torch.Generator], grid: LatentLayout) -> torch.Tensor:
    """Return new noise for each take, or an earlier take's noise for all of them."""
    shape = grid.shape(order.seconds, order.loop)
    if order.noise is None:
        return draw_noise(shape, randomness)
    earlier = make_generators((order.noise.seed,))
    noise = draw_noise(grid.shape(order.noise.seconds, order.noise.loop), earlier)
    return resize_noise(noise, shape[1], earlier[0]).expand(len(order.seeds), *shape)


def step_batch(runs: Sequence[Generation], network: Denoiser, codec: MelVaeCodec) -> None:
    """Advance several generations by one evaluation in one network call, and determine the loop kinds when due."""
    inputs = [run.network_input() for run in runs]
    prediction = _predicted(runs, inputs, network)
    for run, part in zip(runs, prediction.split([len(rows) for rows in inputs]), strict=True):
        run.sampling.advance(run.guided(part))
        if is_loop_kind_due(run):
            determine_loop_kinds(run, codec)


def _predicted(runs: Sequence[Generation], inputs: list[torch.Tensor], network: Denoiser) -> torch.Tensor:
    """Evaluate the network on all rows of several generations in one call."""
    timesteps = [run.sampling.timestep.expand(len(rows)) for run, rows in zip(runs, inputs, strict=True)]
    levels = torch.cat(timesteps).to(network.device)
    conditioning = stack_conditioning([run.conditioning for run in runs])
    around = [run.around for run in runs if run.around is not None]
    circles = torch.cat(around).to(network.device) if around else None
    return network(torch.cat(inputs), levels, conditioning, circles).float()


def continue_windows(run: Generation, codec: MelVaeCodec) -> None:
    """For outpainting: join the finished window, and begin the next one if there is one."""
    if run.extension is None:
        return
    run.extension.take(run.sampling.latents, codec.spectrogram(run.sampling.latents))
    if run.extension.left:
        run.begin_steps(*next_window(run.extension, run.randomness, codec.device))


@dataclass(frozen=True)
class Embeddings:
    """CLAP embeddings of takes.

    Attributes:
        vectors: Unit vectors, (takes, dimensions), float32.
        ear: Name of the encoder's weights; only embeddings of the same encoder are comparable.
    """

    vectors: NDArray[np.float32]
    ear: str


@dataclass(frozen=True)
class RenderedSounds:
    """Rendered takes.

    Attributes:
        waveforms: Samples, (takes, frames), float32, at the model's native rate.
        rate: Sample rate in Hz.
        first: For outpainting: frame of the whole at which the waveforms begin.
        looped: For loops: True for each take whose end meets its start; the others are longer and have an end of
            their own.
        heard: Embeddings of the takes, once computed.
    """

    waveforms: NDArray[np.float32]
    rate: int
    first: int = 0
    looped: tuple[bool, ...] = ()
    heard: Embeddings | None = None


def join_takes(parts: Sequence[RenderedSounds]) -> RenderedSounds:
    """Join the takes of several generations of one job, which differ in their seeds only."""
    if len(parts) == 1:
        return parts[0]
    looped = tuple(goes for part in parts for goes in part.looped)
    return RenderedSounds(np.concatenate([part.waveforms for part in parts]), parts[0].rate, parts[0].first, looped)


def decode_preview(run: Generation, codec: MelVaeCodec) -> RenderedSounds:
    """Decode the predicted result of the first take; for outpainting, all windows so far."""
    latents = run.sampling.predict_x0()[:1]
    if run.extension is not None:
        mel = run.extension.with_window(codec.spectrogram(latents))
        return _continued(run, run.extension, mel, codec)
    return _sounds(run, latents, codec)


def decode_generation(run: Generation, codec: MelVaeCodec) -> RenderedSounds:
    """Decode the takes of a finished generation."""
    if run.extension is not None and run.extension.mel is not None:
        return _continued(run, run.extension, run.extension.mel, codec)
    return _sounds(run, run.sampling.latents, codec)


def stream_generation(run: Generation, codec: MelVaeCodec) -> VocoderStream:
    """Decode a finished generation up to the vocoder, whose output is then available in pieces."""
    vocoding = codec.vocoding(keep_outside_region(run.order, codec.spectrogram(run.sampling.latents), codec))

    def vocoded(make: Callable[[], torch.Tensor]) -> torch.Tensor:
        return codec.vocoded(make) / run.lift

    rate = codec.grid.rate
    return VocoderStream(vocoding, int(run.order.seconds * rate), rate, codec.analysis, vocoded)


def _sounds(run: Generation, latents: torch.Tensor, codec: MelVaeCodec) -> RenderedSounds:
    """Decode latents of a generation to audio of the requested length."""
    order, rate = run.order, codec.grid.rate
    if order.loop:
        circular = run.circular[: len(latents)]
        return RenderedSounds(decode_loops(latents, circular, order.seconds, codec), rate, looped=circular)
    mel = keep_outside_region(order, codec.spectrogram(latents), codec)
    made = codec.waveforms(mel)
    if order.given is not None and order.given.repaint is not None:
        made = match_mel_level(mel, torch.from_numpy(made), codec.analysis).numpy()
    return RenderedSounds(_lowered(made[:, : int(order.seconds * rate)], run), rate)


def _continued(run: Generation, extension: Outpainting, mel: torch.Tensor, codec: MelVaeCodec) -> RenderedSounds:
    return RenderedSounds(_lowered(decode_outpainting(extension, mel, codec), run), codec.grid.rate, extension.first)


def _lowered(waveforms: NDArray[np.float32], run: Generation) -> NDArray[np.float32]:
    """Scale waveforms back to the level of the init audio."""
    return (waveforms / run.lift).astype(np.float32)
