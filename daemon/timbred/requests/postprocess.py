"""Postprocessing of rendered samples into stored takes: DSP pipeline, file, library. Runs in worker threads."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from timbred.audio import Clip, SampleRate, frames_in
from timbred.audiofile.files import decode, encode, fits_float32
from timbred.dsp.measurement import Measurement
from timbred.dsp.pipeline import RenderSettings, find_polarities, measure_peak, mix_to_mono, resample, run_pipeline
from timbred.dsp.splice import splice_parts
from timbred.errors import BadRequest
from timbred.process_memory import release_free_memory
from timbred.render_settings import bits_of
from timbred.requests.job import Job, JobStore, PendingEmbeddings
from timbred.requests.resolve import Parameters
from timbred.storage.library import Library, StoredTake, new_take_id
from timbred.storage.recipe import make_recipe, with_measured
from timbred.storage.takes_folder import TakesFolder

MAX_FREE_BYTES = 48_000_000
"""Bytes of freed samples that the daemon keeps for the next takes; more is returned to the system."""

PREVIEWS_FOLDER = "previews"
"""Folder inside the takes folder for previews."""


@dataclass(frozen=True)
class RawTake:
    """One take as rendered by the engine.

    Attributes:
        index: Index among the takes of its job.
        samples: Shape (frames, channels).
        rate: Sample rate in Hz.
        seed: The seed it was rendered with.
        score: Ranking score; None where takes weren't ranked.
        take_id: Its id, if streaming playback has announced one already.
        looped: True if it loops already: its first frame follows its last.
        first: Frame of the whole sound at which the samples begin.
        rendered_index: Index among the takes as the engine sent them.
        device: Description of the device that rendered it.
    """

    index: int
    samples: np.ndarray
    rate: int
    seed: int
    score: float | None
    take_id: str = ""
    looped: bool = False
    first: int = 0
    rendered_index: int = 0
    device: str = ""


def read_init_audio(path: Path, rate: int, parameters: Parameters) -> tuple[bytes, Clip]:
    """Read the beginning of the init audio, as long as the sound to be rendered.

    Returns:
        The samples for the engine (float32 little-endian, interleaved, at `rate`, in the model's channels), and the
        clip as read.

    Raises:
        BadAudio: It can't be read, is empty, or holds NaN or infinity.
        BadRequest: A part of it is kept in the take, whose format can't hold it exactly.
    """
    clip = fit_to(decode(path), parameters.seconds)
    check_kept(path, clip, parameters)
    return _engine_samples(clip, rate, parameters.init_channels), clip


MAX_REFERENCE_S = 600.0
"""Seconds of a reference at most: the longest sound of a model."""


def read_reference(path: Path, rate: int, channels: int) -> bytes:
    """Read a sound whose timbre is taken, as `read_init_audio` does; at most `MAX_REFERENCE_S` of it.

    Raises:
        BadAudio: It can't be read, is empty, or holds NaN or infinity.
    """
    return _engine_samples(fit_to(decode(path), MAX_REFERENCE_S), rate, channels)


def _engine_samples(clip: Clip, rate: int, channels: int) -> bytes:
    """Return a clip's samples for the engine: float32 little-endian, interleaved, at a rate and in channels."""
    resampled = resample(clip, RenderSettings(rate=SampleRate(rate))).samples
    if channels != clip.channels:
        mono = mix_to_mono(resampled, find_polarities(clip.samples))
        resampled = np.repeat(mono[:, None], channels, axis=1)
    return resampled.astype("<f4").tobytes()


def check_kept(path: Path, clip: Clip, parameters: Parameters) -> None:
    """Check that the take's format can hold the kept part of the init audio exactly.

    Raises:
        BadAudio: The init audio can't be read.
        BadRequest: It exceeds full scale, which the format can't hold, or its samples have more bits than the format's.
    """
    if not parameters.edited_parts or parameters.to not in ("file", "both"):
        return
    settings = parameters.render_settings()
    peak = measure_peak(clip.samples)
    is_left_alone = settings.peak is None and settings.loudness is None
    if is_left_alone and peak > 0 and bits_of(settings) != 32:
        raise BadRequest(
            f"init: it reaches {peak:+.1f} dBFS, and {parameters.format} without float samples ends at 0; "
            "ask for @format wav @bits 32, or for another level with @peak -1"
        )
    if parameters.keeps_bits and not fits_float32(path):
        raise BadRequest(
            "bits: init's samples have more bits than the 32 of a float file hold; "
            "name @bits 32 to have them rounded (by -144 dB of their own level)"
        )


def fit_to(clip: Clip, seconds: float) -> Clip:
    """Return the first `seconds` of a clip."""
    return clip.with_samples(clip.samples[: frames_in(seconds, clip.rate)])


@dataclass(frozen=True)
class FinishedTake:
    """A stored take, and its samples as delivered."""

    stored: StoredTake
    clip: Clip


class Postprocessor:
    """Writes takes into one takes folder and its library. Safe for threads.

    Args:
        folder: The takes folder.
        library: The library.
        licence_of: Returns the licence of a model by its name.
        version_of: Returns the version of its weights; empty for none.
    """

    def __init__(
        self,
        folder: TakesFolder,
        library: Library,
        licence_of: Callable[[str], str],
        version_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        self.folder = folder
        self.library = library
        self._licence_of = licence_of
        self._version_of = version_of

    def process(self, parameters: Parameters, raw: RawTake, init: Clip | None = None) -> Clip:
        """Return one take as it is delivered.

        Args:
            parameters: What was rendered.
            raw: The rendered take.
            init: Init audio, of which a part is kept.

        Raises:
            ModelError: The samples hold NaN or infinity.
        """
        return run_pipeline(self._clip(parameters, raw, init), parameters.render_settings())

    def store(
        self,
        parameters: Parameters,
        raw: RawTake,
        request_id: str,
        finished: Clip,
        measurement: Measurement | None = None,
        fit: float | None = None,
    ) -> FinishedTake:
        """Store one take.

        Args:
            parameters: What was rendered.
            raw: The rendered take.
            request_id: The client's id of the request.
            finished: The take as `process` returns it.
            measurement: What was measured in it; None if nothing was.
            fit: How closely it keeps to what was asked, 0 to 1; None if that wasn't asked.

        Raises:
            ForbiddenPath, DiskFull: The file can't be written.
        """
        settings = parameters.render_settings()
        measured = {} if measurement is None else measurement.values
        finished = replace(finished, recipe=with_measured(finished.recipe, measured))
        path = None
        if parameters.to in ("file", "both"):
            path = self.folder.write(
                parameters.name or parameters.prompt,
                parameters.folder,
                parameters.format,
                lambda file: encode(finished, file, settings),
            )
        stored = StoredTake(
            take_id=raw.take_id or new_take_id(),
            path=path,
            created=time.time(),
            prompt=parameters.prompt,
            model=parameters.model,
            seed=raw.seed,
            seconds=finished.seconds,
            rate=finished.rate,
            channels=finished.channels,
            score=raw.score,
            index=raw.index,
            request_id=request_id,
            recipe=finished.recipe,
            tempo=None if measurement is None else measurement.tempo,
            key="" if measurement is None else measurement.key,
            downbeat=None if measurement is None else measurement.downbeat,
            fit=fit,
        )
        self.library.add(stored)
        release_free_memory(MAX_FREE_BYTES)
        return FinishedTake(stored, finished)

    def preview(self, parameters: Parameters, raw: RawTake, init: Clip | None = None) -> Path:
        """Write a preview into the previews folder; it is removed when the daemon stops, unless it was changed.

        The preview of an outpainted sound ends where the rendering has come to.
        """
        beyond = init is not None and measure_peak(init.samples) > 0
        settings = replace(parameters.render_settings(), format="wav", bits=32 if beyond else 16)
        if parameters.extend is not None:
            settings = replace(settings, seconds=None)
        finished = run_pipeline(self._clip(parameters, raw, init), settings)
        name = parameters.name or parameters.prompt
        return self.folder.write(
            name, PREVIEWS_FOLDER, "wav", lambda file: encode(finished, file, settings), temporary=True
        )

    def drop_previews(self) -> None:
        """Remove the previews that this daemon wrote, except those that were changed since."""
        self.folder.remove_temporary()

    def _clip(self, parameters: Parameters, raw: RawTake, init: Clip | None) -> Clip:
        """Return the take with its recipe, joined with the kept part of the init audio."""
        recipe = make_recipe(
            parameters.for_recipe(),
            model=parameters.model,
            licence=self._licence_of(parameters.model),
            prompt=parameters.prompt,
            seed=raw.seed,
            model_prompt=parameters.inputs.prompt,
            device=raw.device,
            model_version=self._version_of(parameters.model),
        )
        samples = raw.samples[: frames_in(parameters.seconds, raw.rate)] if raw.looped else raw.samples
        clip = Clip(
            np.ascontiguousarray(samples, dtype=np.float32),
            SampleRate(raw.rate),
            recipe,
            loop=raw.looped,
            bpm=None if parameters.bars is None else parameters.bpm,
            beats=parameters.beats,
        )
        if init is None or not parameters.edited_parts:
            return clip
        return splice_parts(clip, init, parameters.edited_parts, SampleRate(parameters.rate), raw.first)


class EmbeddingJoin:
    """Joins the embeddings that the engine sends with the ids of stored takes; either may come first.

    Args:
        jobs: The store that holds the jobs.
        store: Called once for each take with its id, the embedding model's name and the vector (float32 bytes).
    """

    def __init__(self, jobs: JobStore, store: Callable[[str, str, bytes], None]) -> None:
        self._jobs = jobs
        self._store = store

    def expect(self, job: Job) -> None:
        """Expect embeddings of a job's takes."""
        job.embeddings = PendingEmbeddings()

    def add_take(self, job: Job, index: int, take_id: str) -> None:
        """Add a stored take."""
        if job.embeddings is not None:
            job.embeddings.take_ids[index] = take_id
            self._join(job, job.embeddings)

    def delivered(self, job: Job) -> None:
        """Expect no more takes of a job."""
        if job.embeddings is not None:
            job.embeddings.delivered = True
            self._join(job, job.embeddings)

    def ready(self, number: int, model: str, vectors: Sequence[bytes]) -> None:
        """Add the embeddings of the job with this number. An empty `model` means that there are none."""
        job = self._jobs.joining(number)
        if job is None or job.embeddings is None:
            return
        job.embeddings.model, job.embeddings.vectors = model, vectors
        self._join(job, job.embeddings)
        if not model:
            self._jobs.end_joining(job)

    def drop_awaited(self, engine: int) -> None:
        """Give up the embeddings that a lost engine hasn't sent."""
        for job in self._jobs.all_joining():
            if job.engine == engine and job.embeddings is not None and not job.embeddings.model:
                self._jobs.end_joining(job)

    def _join(self, job: Job, pending: PendingEmbeddings) -> None:
        if not pending.model:
            return
        for index, take_id in pending.take_ids.items():
            self._store(take_id, pending.model, pending.vectors[index])
        pending.take_ids.clear()
        if pending.delivered:
            self._jobs.end_joining(job)
