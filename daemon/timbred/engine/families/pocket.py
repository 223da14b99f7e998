"""The family pocket: a plan of the sound from the prompt, a sketch from a bank of sounds, and a generator over it.

For each take the prompt's plan is drawn with the take's seed and composed to a sketch. The generator turns it into the
sound in a few steps: what it changes in the sketch's latents is decoded and added to the sketch's bands, which keep
details that the codec loses. A model without a generator encodes and decodes nothing. Latents are (takes, values,
vectors in time). Bands are synthesised without learned parameters, on the CPU, so that a loop has exactly its number of
samples: its frames are spread over them, and all phases return.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import soxr
import torch
from msgspec.structs import replace
from numpy.typing import NDArray
from torch import Tensor

from timbred.engine.batching import BatchSplitter
from timbred.engine.codecs.bands import (
    CENTRES,
    Frames,
    analyse,
    join_frames,
    loudest_level,
    mix_frames,
    replace_frames,
    synthesise,
)
from timbred.engine.codecs.chunked import PieceStream, RenderedPiece
from timbred.engine.compile.compiled_calls import CompiledCalls, CompileQueue, Inputs
from timbred.engine.device import ensure_finite
from timbred.engine.diffusion.conditioner import Conditioner
from timbred.engine.diffusion.conditioning import Tensors, remove_word, repeat_conditioning, scale_contribution
from timbred.engine.diffusion.denoiser import DenoiserSignature
from timbred.engine.diffusion.generation import (
    Embeddings,
    Generation,
    RenderedSounds,
    draw_order_noise,
    make_sampler_state,
)
from timbred.engine.diffusion.init_audio import SILENT_PEAK, init_channels, match_init_level
from timbred.engine.diffusion.rendering import Rendering
from timbred.engine.diffusion.sampler import (
    MIN_NOISE_LEVEL,
    DiscreteSampling,
    EulerSteps,
    InitLatents,
    LinearSteps,
    PlannedSteps,
    make_generators,
)
from timbred.engine.families.base import FamilySpec
from timbred.engine.families.pocket_networks import (
    BandCodec,
    Ear,
    Generator,
    PocketPipeline,
    SketchOutput,
    class_vector,
    flow_times,
    load_pipeline,
    summarise_latents,
)
from timbred.engine.families.pocket_plans import Planner, PlanRequest, PromptReading, named_note
from timbred.engine.families.pocket_sketch import Bank, Sketcher, heard_note
from timbred.engine.memory.device_memory import ModelStages
from timbred.ipc.engine_messages import PromptInputs, RenderOrder, Repaint
from timbred.models import families
from timbred.models.long_texts import Window, Windows
from timbred.models.pocket import (
    BANDS,
    FRAME_SAMPLES,
    GROUPS,
    SAMPLE_RATE,
    SAMPLES_A_VECTOR,
    TOKEN_FRAMES,
    PocketSound,
)
from timbred.models.pocket_words import MAX_WORDS, count_words, read_words
from timbred.process_memory import RecentDict

TRAINED_PEAK = 0.9
"""Peak of the sounds of the training, to which init audio is brought."""

HEARD_SECONDS = 4.0
"""Beginning of a sound by which the ear compares it: longer ones delay the next order."""

SEAM_VECTORS = 4
"""Vectors on each side of a loop's seam that are decoded together with those of the other side."""

MAX_READINGS = 512
"""Prompts whose readings are kept."""


@dataclass(frozen=True)
class PocketLayout:
    """Geometry of samples and latents.

    Attributes:
        channels: Values of a latent vector.
        rate: Sample rate in Hz.
        samples_per_row: Samples of a latent vector.
        is_noise_rows_first: False; noise is drawn value by value.
    """

    channels: int
    rate: int = SAMPLE_RATE
    samples_per_row: int = SAMPLES_A_VECTOR
    is_noise_rows_first: bool = False

    def shape(self, seconds: float, loop: bool = False) -> tuple[int, int]:
        """Return values and vectors for a length in seconds; those of a loop are the same."""
        del loop
        return self.channels, max(1, math.ceil(seconds * self.rate / self.samples_per_row - 1e-6))


class PocketCodec:
    """The codec of bands: latents are (takes, values, vectors), scaled to unit variance.

    Args:
        pipeline: The parts of the model.
        device: Compute device.
        stages: The model's components by stage.
        batch_splitter: Splitter of batches that don't fit into memory.
    """

    compiled_calls: CompiledCalls

    def __init__(
        self, pipeline: PocketPipeline, device: torch.device, stages: ModelStages, batch_splitter: BatchSplitter
    ) -> None:
        self.vae = pipeline.vae
        self.device = device
        self.latent_layout = PocketLayout(pipeline.card.sizes.codec.latent)
        self._scale, self._middle = pipeline.scale.to(device), pipeline.middle.to(device)
        self._stages = stages
        self._batch_splitter = batch_splitter

    def use_compile_queue(self, compile_queue: CompileQueue) -> None:
        """Use a compile queue for the shapes that are decoded often."""
        self.compiled_calls = compile_queue.compiled_calls(_decode_vectors, self.vae)

    def encode(self, channels: Tensor) -> Tensor:
        """Encode bands, (takes, frames, CHANNELS), to latents; the frames fill whole vectors."""
        inputs = channels.to(self.device)
        mean = self._run(lambda: self.vae.encoder(inputs)[0])
        return ((mean - self._middle) / self._scale).transpose(1, 2)

    def decode(self, latents: Tensor, loop: bool = False) -> list[Frames]:
        """Decode latents to the bands of each take; those of a loop are decoded across its seam."""
        count = latents.shape[2]
        seam = min(SEAM_VECTORS, count) if loop else 0
        around = torch.arange(-seam, count + seam, device=latents.device) % count
        vectors = latents[:, :, around].transpose(1, 2) * self._scale + self._middle
        channels = self._run(lambda: self._batch_splitter.call(self.compiled_calls, (vectors,)))
        first, last = seam * TOKEN_FRAMES, (seam + count) * TOKEN_FRAMES
        return [Frames.unstacked(take[first:last]) for take in channels.float().cpu()]

    def decode_stored(self, vectors: Tensor) -> Tensor:
        """Decode vectors of the bank, (1, vectors, values), to bands, (1, frames, CHANNELS), on the CPU."""
        inputs = vectors.to(self.device)
        return self._run(lambda: self.vae.decoder(inputs)).cpu()

    def _run(self, call: Callable[[], Tensor]) -> Tensor:
        return self._stages.run_stage("codec", lambda: ensure_finite(self.vae, call))


def _decode_vectors(codec: BandCodec, vectors: Tensor) -> Tensor:
    return codec.decoder(vectors)


class SketchSampling(DiscreteSampling):
    """Rectified flow of a network that predicts the sound itself."""

    def make_scheduler(self, name: str, config: dict[str, Any]) -> EulerSteps:
        """Return the schedule of one job."""
        del name, config
        return EulerSteps()

    def plan_steps(self, scheduler: EulerSteps, steps: int, strength: float | None) -> PlannedSteps:
        """Set a schedule's steps; with `strength` (0 to 1), all of them are run, from that noise level on."""
        level = 1.0 if strength is None else max(MIN_NOISE_LEVEL, strength)
        scheduler.set_levels(flow_times(steps, level))
        return PlannedSteps(0, steps)

    def initial_latents(self, scheduler: EulerSteps, noise: Tensor) -> Tensor:
        """Return unit noise, with which the flow begins."""
        del scheduler
        return noise

    def add_noise(self, scheduler: EulerSteps, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Return the mixture of latents and noise at a step."""
        del scheduler
        return (1.0 - timestep) * latents + timestep * noise

    def network_input(self, scheduler: EulerSteps, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return the latents, which the network takes as they are."""
        del scheduler, timestep
        return latents

    def linear_steps(self, scheduler: EulerSteps) -> LinearSteps | None:
        """Return the steps as weighted sums of the latents and the predicted sound."""
        kept = scheduler.levels[1:] / scheduler.levels[:-1]
        return LinearSteps(torch.stack([kept, 1.0 - kept, torch.zeros_like(kept)], dim=1), scheduler.timesteps, False)

    def predict_x0(
        self, scheduler: EulerSteps, evaluation: int, latents: Tensor, network_input: Tensor, output: Tensor
    ) -> Tensor:
        """Return the network's output, which is the predicted sound."""
        del scheduler, evaluation, latents, network_input
        return output


class PocketConditioner(Conditioner):
    """The vector by which a prompt conditions the generator, named `vector`; NaN for no prompt."""

    def __init__(self, pipeline: PocketPipeline, device: torch.device, stages: ModelStages) -> None:
        super().__init__(pipeline, device, stages)
        self._encoder = pipeline.text_encoder
        self._readings: RecentDict[tuple[object, ...], tuple[Tensor, PromptReading]] = RecentDict(MAX_READINGS)

    @cached_property
    def windows(self) -> Windows:
        """Window of words."""
        return Windows((Window(count_words, MAX_WORDS),))

    def encode(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Return the condition of the prompt as `vector`, with guidance that of the negative prompt first."""
        rows = [self._condition(self.read(inputs.prompt, inputs.weights)[0])]
        if guided:
            negative = self._condition(self.read(inputs.negative)[0]) if inputs.negative.strip() else None
            rows.insert(0, torch.full_like(rows[0], torch.nan) if negative is None else negative)
        return {"vector": torch.cat(rows)}

    def encode_weighted(self, inputs: PromptInputs, guided: bool) -> Tensors:
        """Return the same for a prompt with weighted words, which its vector has already."""
        return self.encode(inputs, guided)

    @torch.inference_mode()
    def read(self, text: str, weights: tuple[tuple[str, float], ...] = ()) -> tuple[Tensor, PromptReading]:
        """Return a text's vector, (1, vector), and how it is understood."""
        key = (text, weights, torch.are_deterministic_algorithms_enabled())
        known = self._readings.get(key)
        if known is None:
            known = self._readings[key] = self.stages.run_stage("text", lambda: self._read(text, weights))
        return known

    def _read(self, text: str, weights: tuple[tuple[str, float], ...]) -> tuple[Tensor, PromptReading]:
        vector = plain = self._vector(text)
        for word, weight in weights:
            vector = vector + (scale_contribution(plain, self._vector(remove_word(text, word)), weight) - plain)
        if weights:
            vector = self._encoder.norm(vector)
        chances = {
            name: head(vector).softmax(-1)[0].float().cpu().numpy() for name, head in self._encoder.heads.items()
        }
        heard = text
        for word, weight in weights:
            heard = heard if weight > 0 else remove_word(heard, word)
        return vector, PromptReading(tuple(read_words(heard)), chances, vector[0].float().cpu().numpy())

    def _vector(self, text: str) -> Tensor:
        """Return the vector of a text: the mean of its parts, weighted by their words."""
        parts = self.split_text(text)
        vectors = self._encoder.read_prompts([part.text for part in parts])
        if len(parts) == 1:
            return vectors
        shares = torch.tensor([part.share for part in parts], device=vectors.device)
        return self._encoder.norm((shares[:, None] * vectors).sum(0, keepdim=True))

    def _condition(self, vector: Tensor) -> Tensor:
        return self.stages.run_stage("text", lambda: self._encoder.condition(vector))


class PocketEar:
    """Compares sounds with prompts by the probabilities of their classes, as a CLAP does by its vectors.

    A vector has the roots of the probabilities, so that a product of two is the Bhattacharyya coefficient of both.
    """

    is_general = False

    def __init__(self, conditioner: PocketConditioner, codec: PocketCodec, planner: Planner, ear: Ear) -> None:
        self._conditioner = conditioner
        self._codec = codec
        self._planner = planner
        self._ear = ear
        self.modules: list[torch.nn.Module] = [ear]

    @cached_property
    def encoder_id(self) -> str:
        """Name of the weights, equal for all copies."""
        pipeline: PocketPipeline = self._conditioner.pipeline
        return f"pocket-{pipeline.card.version}-{pipeline.card.encoder:08x}"

    @torch.inference_mode()
    def embed_sound(self, waveform: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        """Return the unit vector of the beginning of a sound, (frames, channels), at `rate` Hz."""
        samples = waveform[: round(HEARD_SECONDS * rate)]
        if rate != SAMPLE_RATE:
            samples = soxr.resample(samples, rate, SAMPLE_RATE)
        peak = float(np.abs(samples).max(initial=0.0))
        level = TRAINED_PEAK / peak if peak > SILENT_PEAK else 1.0
        vectors = self._codec.latent_layout.shape(len(samples) / SAMPLE_RATE)[1]
        stereo = _fit_vectors(torch.from_numpy(np.ascontiguousarray(samples.T * np.float32(level))), vectors)
        latents = self._codec.encode(analyse(stereo, vectors * TOKEN_FRAMES).stacked()[None])
        logits = self._conditioner.stages.run_stage("text", lambda: self._ear(summarise_latents(latents)))
        return class_vector({name: values[0].softmax(-1).float().cpu().numpy() for name, values in logits.items()})

    def embed_takes(self, sounds: RenderedSounds) -> Embeddings:
        """Return the embeddings of takes."""
        vectors = [self.embed_sound(waveform, sounds.rate) for waveform in sounds.waveforms]
        return Embeddings(np.stack(vectors), self.encoder_id)

    def score_takes(self, prompt: str, embeddings: Embeddings) -> list[float]:
        """Return the similarity of the prompt and each take, 0 to 1."""
        reading = self._conditioner.read(prompt)[1]
        chances = {**reading.chances, "kind": self._planner.kind_chances(reading)}
        return (embeddings.vectors @ class_vector(chances)).tolist()


@dataclass(eq=False)
class PocketGeneration(Generation):
    """One order during denoising, with what its sketch leaves to the synthesis.

    Attributes:
        noise_seeds: Seed of the noise and the phases of each take's synthesis.
        sketches: Bands of each take's sketch.
        kept: Bands of the init audio with a mask, (frames, bands), of what of them is heard; None for nothing.
    """

    noise_seeds: tuple[int, ...] = ()
    sketches: tuple[Frames, ...] = ()
    kept: "tuple[Frames, Tensor] | None" = None

    @property
    def circular_mask(self) -> Tensor | None:
        """No mask: a loop's sketch is a circle already."""
        return None


class PocketRendering(Rendering[PocketCodec]):
    """The life of a generation: sketched, denoised, and synthesised."""

    conditioner: PocketConditioner

    def __init__(
        self, codec: PocketCodec, conditioner: Conditioner, sampling: DiscreteSampling, scheduler_config: dict[str, Any]
    ) -> None:
        assert isinstance(conditioner, PocketConditioner)
        super().__init__(codec, conditioner, sampling, scheduler_config)
        self.conditioner = conditioner
        pipeline: PocketPipeline = conditioner.pipeline
        vocabulary = pipeline.card.vocabulary
        self._refinement = 0.0 if pipeline.card.sizes.generator is None else pipeline.card.refinement
        self._planner = Planner(vocabulary, pipeline.bank.entries, pipeline.entry_vectors)
        self._sketcher = Sketcher(Bank(codec.decode_stored, pipeline.bank), vocabulary)
        if pipeline.ear is not None:
            conditioner.clap = PocketEar(conditioner, codec, self._planner, pipeline.ear)

    def begin(self, order: RenderOrder, text_conditioning: Tensors) -> Generation:
        """Begin a generation, before its first step; `text_conditioning` is the text conditioning of one take."""
        generators = make_generators(order.seeds)
        order, init_gain = match_init_level(order, SAMPLE_RATE, TRAINED_PEAK)
        vectors = self.codec.latent_layout.shape(order.seconds, order.loop)[1]
        init_frames = None if order.init_audio is None else self._analyse(order, vectors)
        sketches = [self._sketch(order, seed, vectors * TOKEN_FRAMES, init_frames) for seed in _plan_seeds(order)]
        mask = _kept_bands(order, vectors * TOKEN_FRAMES)
        preserved = None if mask is None else self._preserved(mask)
        if init_frames is not None and order.init_audio is not None and preserved is None:
            sketches = [mix_frames(init_frames, sketch, order.init_audio.strength) for sketch in sketches]
        sketch = self._latents(sketches)
        init_latents, kept = None, None
        if init_frames is not None and order.init_audio is not None:
            latents = self._latents([init_frames]).expand(len(sketch), -1, -1)
            init_latents = InitLatents(latents, order.init_audio.strength, preserved)
            if mask is not None and preserved is not None:
                sketch = torch.where(preserved > 0, latents, sketch)
                kept = init_frames, mask
        noise = draw_order_noise(order, generators, self.codec.latent_layout).to(self.codec.device)
        guidance = self.conditioner.guidance_of(order)
        conditioning = repeat_conditioning(text_conditioning, len(order.seeds), guidance is not None)
        conditioning["sketch"] = torch.cat([sketch] * (1 if guidance is None else 2))
        return PocketGeneration(
            order=order,
            kind=self.sampling,
            scheduler_config=self.scheduler_config,
            sampler=make_sampler_state(order, self.sampling, self.scheduler_config, noise, generators, init_latents),
            conditioning=conditioning,
            guidance=guidance,
            generators=generators,
            init_gain=init_gain,
            guider=self.conditioner.make_guider(order),
            noise_seeds=_plan_seeds(order),
            sketches=tuple(sketches),
            kept=kept,
            knows=self._knows(order),
        )

    def _latents(self, sounds: Sequence[Frames]) -> Tensor:
        """Return the latents of sounds of one length; zeros in a model without a generator."""
        if self._refinement:
            return self.codec.encode(torch.stack([frames.stacked() for frames in sounds]))
        vectors = len(sounds[0].energy) // TOKEN_FRAMES
        return torch.zeros(len(sounds), self.codec.latent_layout.channels, vectors, device=self.codec.device)

    def _sketch(self, order: RenderOrder, seed: int, frames: int, init_frames: Frames | None) -> Frames:
        """Return the sketch of an order's prompts for one take.

        For extended audio, it begins with that audio; for repainted audio, a new sound begins with each region.
        """
        known, regions = _known_frames(order), _regenerated_frames(order, frames)
        if init_frames is not None and known:
            before = init_frames.before(known)
            note = heard_note(before)
            continued = self._mixed(
                order, seed, lambda sounds: self._sketcher.continuation(sounds, before, frames - known), note
            )
            return join_frames(init_frames, continued, known)
        if init_frames is None or not regions:
            return self._mixed(order, seed, lambda sounds: self._sketcher.sketch(sounds, frames, order.loop))
        sketch, level, note = init_frames, loudest_level(init_frames.energy), heard_note(init_frames)
        for first, last in regions:
            part = replace(order, seconds=(last - first) * FRAME_SAMPLES / SAMPLE_RATE, loop=False)
            made = self._mixed(
                part, seed, lambda sounds, count=last - first: self._sketcher.sketch(sounds, count), note
            )
            made = made.amplified(level - loudest_level(made.energy))
            sketch = join_frames(join_frames(sketch, made, first), sketch.after(last), last)
        return sketch

    def _mixed(
        self, order: RenderOrder, seed: int, compose: Callable[[list[PocketSound]], Frames], note: int | None = None
    ) -> Frames:
        """Return the composed sketches of both prompts, mixed; `note` is for prompts without one."""
        sketches = [compose(sounds) for sounds in self._plans(order, seed, note)]
        return sketches[0] if len(sketches) == 1 else mix_frames(sketches[0], sketches[1], order.inputs.mix)

    def _readings(self, inputs: PromptInputs) -> list[list[PromptReading]]:
        """Return how each prompt that is heard is understood: its parts that name sounds of their own."""
        prompts = [(inputs.prompt, inputs.weights)] if inputs.mix < 1.0 else []
        if inputs.prompt2 and inputs.mix > 0.0:
            prompts.append((inputs.prompt2, ()))
        return [
            [self.conditioner.read(part, weights)[1] for part in self._planner.split_layers(prompt)]
            for prompt, weights in prompts
        ]

    def _knows(self, order: RenderOrder) -> float:
        """Return how much of the prompts the model knows, 0 to 1, by their shares; of a prompt, the least of a part."""
        shares = [min(map(self._planner.knows, parts)) for parts in self._readings(order.inputs)]
        return shares[0] if len(shares) == 1 else (1 - order.inputs.mix) * shares[0] + order.inputs.mix * shares[1]

    def _plans(self, order: RenderOrder, seed: int, heard: int | None) -> list[list[PocketSound]]:
        """Return the plans of the sounds of each prompt that is heard.

        Where one names no note, it takes that of the other, or the note of what it joins.
        """
        inputs, readings = order.inputs, self._readings(order.inputs)
        words = [reading.words for parts in readings for reading in parts]
        note = next((note for part in words if (note := named_note(part)) is not None), heard)
        negative = self.conditioner.read(inputs.negative)[1] if inputs.negative.strip() else None
        request = PlanRequest(order.seconds, seed, inputs.bpm or None, order.loop, note, negative=negative)
        return [self._planner.plan_layers(parts, request) for parts in readings]

    def _analyse(self, order: RenderOrder, vectors: int) -> Frames:
        """Return the bands of the init audio, padded with silence or truncated to a number of vectors."""
        assert order.init_audio is not None
        return analyse(_fit_vectors(init_channels(order.init_audio), vectors), vectors * TOKEN_FRAMES)

    def _preserved(self, kept: Tensor) -> Tensor:
        """Return a mask of the latents, (1, values, vectors): 1 where all bands, (frames, BANDS), are kept."""
        whole = kept.unflatten(0, (-1, TOKEN_FRAMES)).unflatten(2, (GROUPS, -1)).amin(dim=(1, 3))
        values = self.codec.latent_layout.channels // GROUPS
        return whole.repeat_interleave(values, 1).T[None].to(self.codec.device)

    def encode_sound(self, samples: Tensor, seconds: float) -> Tensor:
        """Return the latents of a sound, (channels, frames) at the native rate, fitted to a length: one take."""
        vectors = self.codec.latent_layout.shape(seconds)[1]
        return self.codec.encode(analyse(_fit_vectors(samples, vectors), vectors * TOKEN_FRAMES).stacked()[None])

    def preview(self, generation: Generation) -> RenderedSounds:
        """Decode the predicted result of the first take."""
        return self._decode(generation, generation.sampler.predict_x0()[:1])

    def decode(self, generation: Generation) -> RenderedSounds:
        """Decode the takes of a finished generation."""
        return self._decode(generation, generation.sampler.latents)

    def begin_stream(self, generation: Generation) -> PieceStream:
        """Return the sound of a finished generation as a stream of one piece."""
        sounds = self.decode(generation)
        return PieceStream(RenderedPiece(sounds.waveforms), sounds.waveforms.shape[1], sounds.rate)

    def _decode(self, generation: Generation, latents: Tensor) -> RenderedSounds:
        assert isinstance(generation, PocketGeneration)
        order = generation.order
        samples = max(1, round(order.seconds * SAMPLE_RATE))
        takes: list[NDArray[np.float32]] = []
        for frames, seed in zip(self._refined(generation, latents), generation.noise_seeds, strict=False):
            heard = frames if generation.kept is None else replace_frames(frames, *generation.kept)
            sound = synthesise(heard, samples, seed, circle=order.loop)
            takes.append((sound if order.init_audio is not None else _at_trained_level(sound)).T.numpy())
        waveforms = np.ascontiguousarray(np.stack(takes) / generation.init_gain, dtype=np.float32)
        return RenderedSounds(waveforms, SAMPLE_RATE, looped=(True,) * len(takes) if order.loop else ())

    def _refined(self, generation: PocketGeneration, latents: Tensor) -> list[Frames]:
        """Return the sketches of as many takes as there are latents, with what the generator has changed."""
        sketches = list(generation.sketches[: len(latents)])
        if not self._refinement:
            return sketches
        drawn = generation.conditioning["sketch"][: len(latents)]
        changed, coded = (self.codec.decode(part, generation.order.loop) for part in (latents, drawn))
        return [
            sketch.changed(after, before, self._refinement)
            for sketch, after, before in zip(sketches, changed, coded, strict=True)
        ]


def _plan_seeds(order: RenderOrder) -> tuple[int, ...]:
    """Return the seed of what each take's prompt leaves open: that of another take whose noise is used, if any."""
    return order.seeds if order.noise is None else (order.noise.seed,) * len(order.seeds)


def _at_trained_level(sound: Tensor) -> Tensor:
    """Return a sound with the peak of the training."""
    return sound * (TRAINED_PEAK / sound.abs().max().clamp_min(SILENT_PEAK))


def _fit_vectors(samples: Tensor, vectors: int) -> Tensor:
    """Return samples, (channels, frames), as two channels, padded with silence or truncated to whole vectors."""
    stereo, count = samples.expand(2, -1) if len(samples) == 1 else samples[:2], vectors * SAMPLES_A_VECTOR
    return torch.nn.functional.pad(stereo, (0, max(0, count - samples.shape[1])))[:, :count]


def _known_frames(order: RenderOrder) -> int:
    """Return the frames of bands of audio that is extended, in whole vectors; 0 for an order that extends none."""
    if order.init_audio is None or not order.window:
        return 0
    samples = len(order.init_audio.samples) // (4 * order.init_audio.channels)
    return max(1, samples // SAMPLES_A_VECTOR) * TOKEN_FRAMES


def _regenerated_frames(order: RenderOrder, frames: int) -> list[tuple[int, int]]:
    """Return the first frame of each repainted region, and that after its last one."""
    if order.init_audio is None:
        return []
    spans = (_region_frames(region) for region in order.init_audio.repaint)
    return [(first, min(last, frames)) for first, last in spans if first < min(last, frames)]


def _region_frames(region: Repaint) -> tuple[int, int]:
    first = math.floor(region.start * SAMPLE_RATE / FRAME_SAMPLES + 1e-6)
    return first, math.ceil(region.end * SAMPLE_RATE / FRAME_SAMPLES - 1e-6)


def _kept_bands(order: RenderOrder, frames: int) -> Tensor | None:
    """Return a mask of the bands, (frames, BANDS): 1 where init audio is kept; None if none of it is."""
    known = _known_frames(order)
    if known:
        return (torch.arange(frames) < known).float()[:, None].expand(-1, BANDS)
    if order.init_audio is None or not order.init_audio.repaint:
        return None
    kept = torch.ones(frames, BANDS)
    for region in order.init_audio.repaint:
        first, last = _region_frames(region)
        kept[first:last, (region.low <= CENTRES) & (region.high >= CENTRES)] = 0.0
    return kept


def _inputs(latents: Tensor, timestep: Tensor, conditioning: Tensors) -> Inputs:
    return latents, timestep, conditioning["vector"].to(latents.dtype), conditioning["sketch"].to(latents.dtype)


def _evaluate(generator: Generator | SketchOutput, *inputs: Tensor) -> Tensor:
    latents, timestep, vector, sketch = inputs
    return generator(latents.transpose(1, 2), timestep, vector, None, sketch.transpose(1, 2)).transpose(1, 2)


POCKET = FamilySpec(
    facts=families.POCKET,
    pipeline_class=PocketPipeline,
    conditioner=PocketConditioner,
    denoiser="generator",
    signature=DenoiserSignature(None, _inputs, _evaluate),
    codec=PocketCodec,
    rendering=PocketRendering,
    sampling=SketchSampling(),
    load=load_pipeline,
)
