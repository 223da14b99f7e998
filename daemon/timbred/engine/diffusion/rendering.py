"""The life of a generation: begun, continued in windows, decoded to sound, and streamed, by the kind of its latents.

`MelRendering` is for latents of mel spectrograms: they are repainted in time and frequency, continued in windows, and
looped as circles. `WaveRendering` is for latents of waveforms. A loop is rendered by rotation there: before each step
the latents are rotated, so that the network joins both ends. Audio is continued, beyond the model's longest sound in
windows, and parts of it are regenerated, by preserving the latents of the rest.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray

from timbred.engine.codecs.chunked import PieceStream, VocoderPieces
from timbred.engine.codecs.mel import match_mel_level
from timbred.engine.codecs.mel_vae import MelVaeCodec
from timbred.engine.codecs.waveform import WaveCodec, WholePiece
from timbred.engine.compile.compiled_calls import CompiledCalls, CompileQueue
from timbred.engine.diffusion.conditioner import Conditioner
from timbred.engine.diffusion.conditioning import PADDING_NAME, START_NAME, Tensors, given_number, repeat_conditioning
from timbred.engine.diffusion.generation import (
    Blend,
    Generation,
    Layout,
    RenderedSounds,
    WaveWindows,
    draw_order_noise,
    make_sampler_state,
)
from timbred.engine.diffusion.init_audio import (
    SILENT_PEAK,
    Outpainting,
    decode_outpainting,
    encode_init_audio,
    encode_samples,
    init_channels,
    keep_outside_region,
    match_init_level,
    next_window,
    plan_outpainting,
    plan_windows,
)
from timbred.engine.diffusion.looping import decode_loops, determine_loop_kinds, fit_channels, is_loop_kind_due
from timbred.engine.diffusion.sampler import DiscreteSampling, InitLatents, make_generators
from timbred.ipc.engine_messages import InitAudio, RenderOrder


class Codec(Protocol):
    """A model's codec between audio and latents."""

    compiled_calls: CompiledCalls
    vae: Any

    @property
    def latent_layout(self) -> Layout:
        """Geometry of the latents."""
        ...

    def use_compile_queue(self, compile_queue: CompileQueue) -> None:
        """Use a compile queue for the shapes that are decoded often."""
        ...


CodecKind = TypeVar("CodecKind", bound=Codec)


class Rendering(ABC, Generic[CodecKind]):
    """Begins, continues and decodes the generations of one model.

    Args:
        codec: The model's codec.
        conditioner: The model's text side.
        sampling: The kind of its noise schedulers.
        scheduler_config: The checkpoint's scheduler configuration.
    """

    def __init__(
        self,
        codec: CodecKind,
        conditioner: Conditioner,
        sampling: DiscreteSampling,
        scheduler_config: dict[str, Any],
    ) -> None:
        self.codec = codec
        self.conditioner = conditioner
        self.sampling = sampling
        self.scheduler_config = scheduler_config

    @abstractmethod
    def begin(self, order: RenderOrder, text_conditioning: Tensors) -> Generation:
        """Begin a generation, before its first step; `text_conditioning` is the text conditioning of one take."""

    @abstractmethod
    def encode_sound(self, samples: torch.Tensor, seconds: float) -> torch.Tensor:
        """Return the latents of a sound, (channels, frames) at the native rate, fitted to a length: one take."""

    def after_step(self, generation: Generation) -> None:
        """Do what is due after a step."""

    def begin_next_window(self, generation: Generation) -> None:
        """Begin the next window of a generation whose steps are done, if there is one."""

    @abstractmethod
    def preview(self, generation: Generation) -> RenderedSounds:
        """Decode the predicted result of the first take.

        Raises:
            RuntimeError: No step was taken.
        """

    @abstractmethod
    def decode(self, generation: Generation) -> RenderedSounds:
        """Decode the takes of a finished generation."""

    @abstractmethod
    def begin_stream(self, generation: Generation) -> PieceStream:
        """Return a stream of the sound of a finished generation, decoded in pieces."""


class MelRendering(Rendering[MelVaeCodec]):
    """The life of a generation over mel spectrograms."""

    def begin(self, order: RenderOrder, text_conditioning: Tensors) -> Generation:
        """Begin a generation, before its first step; `text_conditioning` is the text conditioning of one take."""
        codec, generators = self.codec, make_generators(order.seeds)
        guidance = self.conditioner.guidance_of(order)
        conditioning = repeat_conditioning(text_conditioning, len(order.seeds), guidance is not None)
        order, init_gain = match_init_level(order, codec.latent_layout.rate, codec.analysis.peak)
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
        codec, latents = self.codec, generation.sampler.predict_x0()[:1]
        if generation.outpainting is not None:
            mel = generation.outpainting.join_mel(codec.decode_mel(latents))
            return _decode_outpainted(generation, generation.outpainting, mel, codec)
        return _decode_latents(generation, latents, codec)

    def decode(self, generation: Generation) -> RenderedSounds:
        """Decode the takes of a finished generation."""
        codec = self.codec
        if generation.outpainting is not None and generation.outpainting.mel is not None:
            return _decode_outpainted(generation, generation.outpainting, generation.outpainting.mel, codec)
        return _decode_latents(generation, generation.sampler.latents, codec)

    def begin_stream(self, generation: Generation) -> PieceStream:
        """Decode a finished generation up to the vocoder, whose output is then available in pieces."""
        codec, order = self.codec, generation.order
        mel = keep_outside_region(order, codec.decode_mel(generation.sampler.latents), codec)

        def run_vocoder(call: Callable[[], torch.Tensor]) -> torch.Tensor:
            return codec.run_vocoder(call) / generation.init_gain

        rate = codec.latent_layout.rate
        pieces = VocoderPieces(codec.chunked_vocoder(mel), run_vocoder)
        return PieceStream(pieces, int(order.seconds * rate), rate)


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


ROUNDING_ROWS = 1e-6
"""Part of a row of latents that is rounding of a time in seconds."""


class WaveRendering(Rendering[WaveCodec]):
    """The life of a generation over latents of waveforms."""

    def begin(self, order: RenderOrder, text_conditioning: Tensors) -> Generation:
        """Begin a generation, before its first step; `text_conditioning` is the text conditioning of one take."""
        generators = make_generators(order.seeds)
        windows = self._plan_windows(order, text_conditioning, generators)
        if windows is not None:
            return self._begin_windows(order, windows, generators)
        roomy = replace(order, seconds=order.seconds + given_number(order, PADDING_NAME, 0.0))
        noise = draw_order_noise(roomy, generators, self.codec.latent_layout).to(self.codec.device)
        conditioning, init_latents = self.conditioner.complete(
            text_conditioning, order, self._encode_init(order, generators)
        )
        guidance = self.conditioner.guidance_of(order)
        blend = self.conditioner.blend_of(order, conditioning)
        return Generation(
            order=order,
            kind=self.sampling,
            scheduler_config=self.scheduler_config,
            sampler=make_sampler_state(order, self.sampling, self.scheduler_config, noise, generators, init_latents),
            conditioning=repeat_conditioning(conditioning, len(order.seeds), guidance is not None),
            guidance=guidance,
            generators=generators,
            padded=self.conditioner.padded,
            guider=self.conditioner.make_guider(order),
            rotated_rows=self.codec.latent_layout.sound_rows(order.seconds) if order.loop else 0,
            blend=None
            if blend is None
            else Blend(repeat_conditioning(blend.conditioning, len(order.seeds), False), blend.share),
        )

    def _plan_windows(
        self, order: RenderOrder, text_conditioning: Tensors, generators: list[torch.Generator]
    ) -> WaveWindows | None:
        """Plan the windows in which init audio is continued; None if all fits into the longest sound."""
        layout = self.codec.latent_layout
        longest, rows = int(order.window * layout.rate) // layout.samples_per_row, layout.sound_rows(order.seconds)
        if order.init_audio is None or not longest or rows <= longest:
            return None
        samples = init_channels(order.init_audio)
        init_rows = max(1, samples.shape[1] // layout.samples_per_row)
        plan = plan_windows(init_rows, rows - init_rows, longest)
        first, last = ((init_rows - known) * layout.samples_per_row for known in (plan[0].known, 0))
        latents = self.codec.encode(samples[:, first:last], max(longest, plan[0].known), generators)
        return WaveWindows(plan, latents[:, :, : plan[0].known], text_conditioning, first)

    def _begin_windows(self, order: RenderOrder, windows: WaveWindows, generators: list[torch.Generator]) -> Generation:
        """Begin a generation with its first window."""
        noise, conditioning, init_latents = self._next_window(order, windows, generators)
        return Generation(
            order=order,
            kind=self.sampling,
            scheduler_config=self.scheduler_config,
            sampler=make_sampler_state(order, self.sampling, self.scheduler_config, noise, generators, init_latents),
            conditioning=conditioning,
            guidance=self.conditioner.guidance_of(order),
            generators=generators,
            padded=self.conditioner.padded,
            guider=self.conditioner.make_guider(order),
            wave_windows=windows,
        )

    def _next_window(
        self, order: RenderOrder, windows: WaveWindows, generators: list[torch.Generator]
    ) -> tuple[torch.Tensor, Tensors, InitLatents | None]:
        """Return noise, conditioning of all takes, and init latents of the next window."""
        layout, window = self.codec.latent_layout, windows.remaining_windows[0]
        part = replace(order, seconds=(window.rows * layout.samples_per_row - 0.5) / layout.rate)
        _, rows = layout.shape(part.seconds)
        known = windows.latents[:, :, -window.known :]
        whole = torch.nn.functional.pad(known, (0, rows - window.known))
        preserved = torch.zeros((1, 1, rows), device=whole.device)
        preserved[:, :, : window.known] = 1.0
        completed = [
            self.conditioner.complete(windows.text_conditioning, part, InitLatents(take[None], 1.0, preserved))
            for take in whole
        ]
        halves = 1 if self.conditioner.guidance_of(order) is None else 2
        conditioning = {
            name: torch.cat([tensors[name].chunk(halves)[half] for half in range(halves) for tensors, _ in completed])
            for name in completed[0][0]
        }
        noise = draw_order_noise(part, generators, layout).to(self.codec.device)
        return noise, conditioning, None if completed[0][1] is None else InitLatents(whole, 1.0, preserved)

    def begin_next_window(self, generation: Generation) -> None:
        """Join the finished window of a continued waveform, and begin the next one if there is one."""
        windows = generation.wave_windows
        if windows is None:
            return
        windows.latents = windows.join(generation.sampler.latents)
        windows.remaining_windows.pop(0)
        windows.rendered_windows += 1
        if windows.remaining_windows:
            order = generation.order
            noise, generation.conditioning, init_latents = self._next_window(order, windows, generation.generators)
            generation.guider = self.conditioner.make_guider(order)
            generation.restart_sampler(noise, init_latents)

    def _encode_init(self, order: RenderOrder, generators: list[torch.Generator]) -> InitLatents | None:
        """Return the init latents of each take, with the mask of what is preserved."""
        if order.init_audio is None:
            return None
        samples = init_channels(order.init_audio)
        _, rows = self.codec.latent_layout.shape(order.seconds + given_number(order, PADDING_NAME, 0.0))
        latents = self.codec.encode(samples, rows, generators)
        regenerated = self._regenerated_rows(order, order.init_audio, samples.shape[1])
        if not regenerated:
            return InitLatents(latents, order.init_audio.strength)
        preserved = torch.ones((1, 1, rows), device=latents.device)
        for first, last in regenerated:
            preserved[:, :, first:last] = 0.0
        return InitLatents(latents, order.init_audio.strength, preserved)

    def _regenerated_rows(self, order: RenderOrder, init_audio: InitAudio, frames: int) -> list[tuple[int, int]]:
        """Return the rows of latents that are regenerated: first and one past last of each region; empty for all."""
        layout = self.codec.latent_layout
        if order.window:
            return [(frames // layout.samples_per_row, layout.shape(order.seconds)[1])]
        rows_per_second = layout.rate / layout.samples_per_row
        return [
            (
                math.floor(region.start * rows_per_second + ROUNDING_ROWS),
                math.ceil(region.end * rows_per_second - ROUNDING_ROWS),
            )
            for region in init_audio.repaint
        ]

    def encode_sound(self, samples: torch.Tensor, seconds: float) -> torch.Tensor:
        """Return the latents of a sound, (channels, frames) at the native rate, fitted to a length: one take."""
        _, rows = self.codec.latent_layout.shape(seconds)
        return self.codec.encode(samples, rows, make_generators((0,)))

    def preview(self, generation: Generation) -> RenderedSounds:
        """Decode the predicted result of the first take; of a continued waveform, all windows so far."""
        windows = generation.wave_windows
        if windows is not None:
            return self._decode_windows(generation, windows, windows.join(generation.sampler.predict_x0()[:1]))
        return self._decode(generation, generation.sampler.predict_x0()[:1])

    def decode(self, generation: Generation) -> RenderedSounds:
        """Decode the takes of a finished generation."""
        windows = generation.wave_windows
        if windows is not None:
            return self._decode_windows(generation, windows, windows.latents)
        return self._decode(generation, generation.sampler.latents)

    def begin_stream(self, generation: Generation) -> PieceStream:
        """Return a stream of the sound of a finished generation, decoded in pieces."""
        order, rate = generation.order, self.codec.latent_layout.rate
        latents, frames = generation.sampler.latents, int(order.seconds * rate)
        first = int(given_number(order, START_NAME, 0.0) * rate)
        pieces = self.codec.pieces(latents, order.seconds) if first == 0 else WholePiece(self.codec, latents, first)
        return PieceStream(pieces, frames, rate)

    def _decode(self, generation: Generation, latents: torch.Tensor) -> RenderedSounds:
        layout = self.codec.latent_layout
        if generation.order.loop:
            return self._decode_loop(generation, latents)
        start = given_number(generation.order, START_NAME, 0.0)
        first, last = int(start * layout.rate), int((start + generation.order.seconds) * layout.rate)
        waveforms = self.codec.decode(latents, last)[:, first:]
        return RenderedSounds(np.ascontiguousarray(waveforms, dtype=np.float32), layout.rate)

    def _decode_windows(self, generation: Generation, windows: WaveWindows, latents: torch.Tensor) -> RenderedSounds:
        """Decode a continued waveform from the known end of its init audio on."""
        rate = self.codec.latent_layout.rate
        frames = round(generation.order.seconds * rate) - windows.first_frame
        waveforms = np.ascontiguousarray(self.codec.decode(latents, frames), dtype=np.float32)
        return RenderedSounds(waveforms, rate, windows.first_frame)

    def _decode_loop(self, generation: Generation, latents: torch.Tensor) -> RenderedSounds:
        """Decode loops to exactly the requested length; their last sample is followed by the first one."""
        rate = self.codec.latent_layout.rate
        circles = self.codec.decode_circle(latents[:, :, : generation.rotated_rows])
        frames = max(1, round(generation.order.seconds * rate))
        loops = np.stack([fit_channels(circle, frames, rate) for circle in circles])
        return RenderedSounds(loops, rate, looped=(True,) * len(loops))
