"""From what the engine rendered to finished takes: the render chain, the file, the library. Runs in worker threads."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from timbred.audio import Clip, SampleRate, frames_in
from timbred.audiofile.reader import decode, keeps_every_bit
from timbred.audiofile.writer import encode
from timbred.dsp.loudness import measure_peak
from timbred.dsp.pipeline import RenderSettings, find_polarities, mix_to_mono, run_pipeline
from timbred.dsp.resample import resample
from timbred.dsp.splice import OriginalAudio, splice
from timbred.errors import BadRequest
from timbred.ipc.heap import release_free_memory
from timbred.render_settings import bits_of
from timbred.requests.resolve import Parameters
from timbred.storage.library import Library, StoredTake, new_take_id
from timbred.storage.recipe import make_recipe
from timbred.storage.takes_folder import TakesFolder

MAX_FREE_BYTES = 48_000_000
"""Bytes of freed samples that the daemon holds for the next sounds; more goes back to the system."""

PREVIEWS = "previews"
"""Folder inside the takes folder for early renderings."""


@dataclass(frozen=True)
class RawTake:
    """One take as it came from the engine. `samples` has shape (frames, channels); `take_id` is what it is known by
    already, if it is; it is a loop already where it is `looped`, and then its beginning follows its end. It begins with
    frame `first` of the whole."""

    index: int
    samples: np.ndarray
    rate: int
    seed: int
    score: float | None
    take_id: str = ""
    looped: bool = False
    first: int = 0


def given_sound(path: Path, rate: int, parameters: Parameters) -> tuple[bytes, Clip]:
    """The beginning of `init`, as long as the sound: as the engine takes it (float32 little-endian, mono, at `rate`),
    and as it is.

    Raises:
        BadAudio: it can't be read, is empty, or holds values that aren't numbers.
        BadRequest: it stays in the file, which can't hold it as it is.
    """
    clip = fit_to(decode(path), parameters.seconds)
    check_kept(path, clip, parameters)
    heard = resample(clip, RenderSettings(rate=SampleRate(rate))).samples
    return mix_to_mono(heard, find_polarities(clip.samples)).astype("<f4").tobytes(), clip


def check_kept(path: Path, clip: Clip, parameters: Parameters) -> None:
    """Whether a file holds as it is what stays of `init`.

    Raises:
        BadAudio: `init` can't be read.
        BadRequest: it goes beyond full scale, and the file can't; or its samples have more bits than the file's.
    """
    if parameters.anew is None or parameters.to not in ("file", "both"):
        return
    settings = parameters.render_settings()
    peak = measure_peak(clip.samples)
    is_left_alone = settings.peak is None and settings.loudness is None
    if is_left_alone and peak > 0 and bits_of(settings) != 32:
        raise BadRequest(
            f"init: it reaches {peak:+.1f} dBFS, and {parameters.format} without float samples ends at 0; "
            "ask for @format wav @bits 32, or for another level with @peak -1"
        )
    if parameters.keeps_bits and not keeps_every_bit(path):
        raise BadRequest(
            "bits: init's samples have more bits than the 32 of a float file hold; "
            "name @bits 32 to have them rounded (by -144 dB of their own level)"
        )


def fit_to(clip: Clip, seconds: float) -> Clip:
    """The clip's beginning."""
    return clip.with_samples(clip.samples[: frames_in(seconds, clip.rate)])


@dataclass(frozen=True)
class FinishedTake:
    """A take in the library, and its sound as delivered."""

    stored: StoredTake
    clip: Clip


class Postprocessor:
    """Finishes takes into one takes folder and its library. Safe for threads."""

    def __init__(self, folder: TakesFolder, library: Library, licence_of: Callable[[str], str]) -> None:
        self.folder = folder
        self.library = library
        self._licence_of = licence_of

    def __call__(
        self, parameters: Parameters, raw: RawTake, request_id: str, given: Clip | None = None
    ) -> FinishedTake:
        """Finish one take. `given` is the sound that it is a part of, if it is.

        Raises:
            ModelError: values that aren't finite numbers.
            ForbiddenPath, DiskFull: its file can't be written.
        """
        clip = self._clip(parameters, raw, given)
        settings = parameters.render_settings()
        finished = run_pipeline(clip, settings)
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
            recipe=clip.recipe,
        )
        self.library.add(stored)
        release_free_memory(MAX_FREE_BYTES)
        return FinishedTake(stored, finished)

    def preview(self, parameters: Parameters, raw: RawTake, given: Clip | None = None) -> Path:
        """Write an early rendering into the previews' folder. It isn't a take, and is removed when the daemon stops,
        unless it was changed. That of a sound that is continued ends where the rendering has come to."""
        beyond = given is not None and measure_peak(given.samples) > 0
        settings = replace(parameters.render_settings(), format="wav", bits=32 if beyond else 16)
        if parameters.extend is not None:
            settings = replace(settings, seconds=None)
        finished = run_pipeline(self._clip(parameters, raw, given), settings)
        name = parameters.name or parameters.prompt
        return self.folder.write(name, PREVIEWS, "wav", lambda file: encode(finished, file, settings), temporary=True)

    def drop_previews(self) -> None:
        """Remove the early renderings that this daemon wrote, those that nobody changed since."""
        self.folder.remove_temporary()

    def _clip(self, parameters: Parameters, raw: RawTake, given: Clip | None) -> Clip:
        recipe = make_recipe(
            parameters.for_recipe(),
            model=parameters.model,
            licence=self._licence_of(parameters.model),
            prompt=parameters.prompt,
            seed=raw.seed,
        )
        samples = raw.samples[: frames_in(parameters.seconds, raw.rate)] if raw.looped else raw.samples
        clip = Clip(
            np.ascontiguousarray(samples, dtype=np.float32),
            SampleRate(raw.rate),
            recipe,
            loop=raw.looped,
            bpm=parameters.bpm,
            beats=parameters.beats,
        )
        if given is None or parameters.anew is None:
            return clip
        return splice(clip, OriginalAudio(given, parameters.anew), SampleRate(parameters.rate), raw.first)


@dataclass
class _PendingEmbeddings:
    takes: dict[int, str] = field(default_factory=dict[int, str])
    vectors: Sequence[bytes] = ()
    ear: str = ""
    delivered: bool = False


class EmbeddingJoin:
    """`keep` gets take id, ear and vector as soon as both are known, once for each take."""

    def __init__(self, keep: Callable[[str, str, bytes], None]) -> None:
        self.keep = keep
        self._pending: dict[int, _PendingEmbeddings] = {}

    def expect(self, job: int) -> None:
        """The engine will say what this job's takes sound like."""
        self._pending[job] = _PendingEmbeddings()

    def take(self, job: int, index: int, take_id: str) -> None:
        """One of the job's takes is stored."""
        if (pending := self._pending.get(job)) is not None:
            pending.takes[index] = take_id
            self._settle(job, pending)

    def delivered(self, job: int) -> None:
        """No more takes of this job come."""
        if (pending := self._pending.get(job)) is not None:
            pending.delivered = True
            self._settle(job, pending)

    def heard(self, job: int, ear: str, vectors: Sequence[bytes]) -> None:
        """The engine has listened to the job's takes; without an ear it couldn't."""
        if (pending := self._pending.get(job)) is not None:
            pending.ear, pending.vectors = ear, vectors
            self._settle(job, pending)
            if not ear:
                del self._pending[job]

    def drop(self) -> None:
        """The engine is gone: what it hasn't said, it won't say."""
        self._pending = {job: pending for job, pending in self._pending.items() if pending.ear}

    def _settle(self, job: int, pending: _PendingEmbeddings) -> None:
        if not pending.ear:
            return
        for index, take_id in pending.takes.items():
            self.keep(take_id, pending.ear, pending.vectors[index])
        pending.takes.clear()
        if pending.delivered:
            del self._pending[job]
