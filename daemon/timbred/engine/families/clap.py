"""CLAP (arXiv 2211.06687): embeddings of takes and of texts, which rank takes and find similar ones.

A CLAP is a component of its own (`timbred.models.clap`), or belongs to a model. Any CLAP with the published audio side
can embed the takes of every model. `TakeEmbedder` orders that work: one take at a time, between the steps of jobs.
"""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from timbred.engine.device import precision_of
from timbred.engine.diffusion.conditioner import Conditioner
from timbred.engine.diffusion.conditioning import average_parts
from timbred.engine.diffusion.generation import Embeddings, RenderedSounds
from timbred.engine.families.component_loader import SharedComponents, load_weights
from timbred.engine.memory.device_memory import DeviceMemory, ModelStages
from timbred.errors import ModelError, first_line
from timbred.ipc.engine_messages import RenderJob, RenderOrder
from timbred.models.checkpoint import read_tensor_header
from timbred.models.clap import CLAP_NAME, ClapFolder
from timbred.models.families import AUDIOLDM2
from timbred.models.long_texts import divide, windows_of

log = logging.getLogger("timbred.engine")

MAX_EXCERPTS = 4
"""Excerpts of a long sound that are encoded: they are spread evenly, and their vectors averaged."""

PUBLISHED_RATE_HZ, PUBLISHED_BANDS = 48_000, 64
"""Audio side of the published CLAPs, which know sounds of all kinds; another one is trained for its own model."""

MAX_PENDING_BYTES = 48_000_000
"""Bytes of takes that wait to be embedded until the engine is idle."""

INDEX_DELAY_S = 0.3
"""Seconds after a job in which takes that are only indexed aren't embedded: the same cores write its file, and the next
request may be on its way."""


class Clap:
    """A CLAP with its tokenizer and feature extractor.

    Args:
        model: transformers' `ClapModel`.
        tokenizer: Its tokenizer.
        feature_extractor: Its feature extractor.
        device: Compute device.
        stages: Stages of components, in which the model belongs to `text`.
    """

    def __init__(
        self, model: Any, tokenizer: Any, feature_extractor: Any, device: torch.device, stages: ModelStages
    ) -> None:
        self.model = model
        self.stages = stages
        self._tokenizer = tokenizer
        self._feature_extractor = feature_extractor
        self._device = device

    @property
    def modules(self) -> list[torch.nn.Module]:
        """The model, as the memory of the device counts it."""
        return [self.model]

    @cached_property
    def encoder_id(self) -> str:
        """Name of the weights, equal for all copies."""
        return weights_digest(self.model.audio_projection)

    @property
    def is_general(self) -> bool:
        """True if its audio side is that of the published CLAPs, so that it can embed takes of other models."""
        extractor = self._feature_extractor
        return (int(extractor.sampling_rate), int(extractor.feature_size)) == (PUBLISHED_RATE_HZ, PUBLISHED_BANDS)

    @torch.inference_mode()
    def embed_sound(self, waveform: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        """Return the unit vector of a sound, (frames, channels), at `rate` Hz.

        Raises:
            ModelError: It has NaN or infinity.
        """
        extractor = self._feature_extractor
        encoder_rate, max_frames = int(extractor.sampling_rate), int(extractor.nb_max_samples)
        excerpts = split_excerpts(soxr.resample(mix_to_mono(waveform), rate, encoder_rate), max_frames)
        features = extractor(excerpts, return_tensors="pt", sampling_rate=encoder_rate).input_features
        inputs = features.to(self._device, precision_of(self.model))
        outputs = self.stages.run_stage("text", lambda: self.model.get_audio_features(input_features=inputs))
        vectors = unit_vectors(outputs)
        if not np.isfinite(vectors).all():
            raise ModelError("the CLAP's vector of a sound has values that aren't finite: install the CLAP again")
        return vectors[0] if len(vectors) == 1 else _normalize(vectors.mean(axis=0))

    def embed_takes(self, sounds: RenderedSounds) -> Embeddings:
        """Return the embeddings of takes."""
        vectors = [self.embed_sound(waveform, sounds.rate) for waveform in sounds.waveforms]
        return Embeddings(np.stack(vectors), self.encoder_id)

    @torch.inference_mode()
    def score_takes(self, prompt: str, embeddings: Embeddings) -> list[float]:
        """Return the cosine similarity of the prompt and each take."""
        parts = divide(prompt, windows_of((self._tokenizer,)))
        vectors = self.stages.run_stage("text", lambda: [self._embed_text(part.text) for part in parts])
        return (embeddings.vectors @ unit_vectors(average_parts(vectors, parts))[0]).tolist()

    def _embed_text(self, text: str) -> torch.Tensor:
        """Return the unit vector of a text that fits into the window, (1, dimensions)."""
        inputs = self._tokenizer(text, return_tensors="pt", padding=True).to(self._device)
        return torch.from_numpy(unit_vectors(self.model.get_text_features(**inputs)))


class ClapConditioner(Conditioner):
    """Conditioner of a pipeline whose `text_encoder` is a CLAP with its audio side."""

    @cached_property
    def clap(self) -> Clap | None:
        """The model's own CLAP; None if it has the text side only."""
        import transformers  # imported only with a family that needs it

        pipeline = self.pipeline
        if not isinstance(pipeline.text_encoder, transformers.ClapModel):
            return None
        return Clap(pipeline.text_encoder, pipeline.tokenizer, pipeline.feature_extractor, self.device, self.stages)


def load_clap(
    checkpoint: ClapFolder,
    precision: torch.dtype,
    shared: SharedComponents,
    device_memory: DeviceMemory,
) -> Clap:
    """Load the component; a model's own CLAP from files of the same content is used for both.

    Raises:
        ModelError: It can't be loaded; says why.
    """
    import transformers  # imported only with a family that needs it

    folder, device = checkpoint.folder, device_memory.device
    kind, files = transformers.ClapModel, checkpoint.files
    try:
        model = shared.find(kind.__name__, files)
        if model is None:
            _check_tensors(checkpoint)
            model = load_weights(kind, files, precision, False, device.type == "cpu").eval().requires_grad_(False)
            shared.add(kind.__name__, files, model)
        tokenizer = transformers.RobertaTokenizer.from_pretrained(str(folder), local_files_only=True)
        extractor = transformers.ClapFeatureExtractor.from_pretrained(str(folder), local_files_only=True)
    except ModelError:
        raise
    except Exception as error:  # the libraries' loaders raise any type
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ModelError(f"{CLAP_NAME}: {folder} can't be loaded: {reason}") from error
    return Clap(model, tokenizer, extractor, device, ModelStages({"text_encoder": model}, AUDIOLDM2, device_memory))


def _check_tensors(checkpoint: ClapFolder) -> None:
    """Compare the tensors in the files with those of the model; the library fills missing ones with random values.

    Raises:
        ModelError: One is missing or has another shape.
    """
    import transformers  # see `load_clap`

    with torch.device("meta"):
        config = transformers.ClapConfig.from_pretrained(str(checkpoint.folder), local_files_only=True)
        expected = dict(transformers.ClapModel(config).named_parameters())
    tensors: dict[str, Any] = {}
    for file in checkpoint.files[1:]:
        tensors |= read_tensor_header(file)[0]
    for name, parameter in expected.items():
        shape = tensors.get(name, {}).get("shape")
        if shape != list(parameter.shape):
            found = "is missing" if shape is None else f"has the shape {shape}"
            raise ModelError(
                f"{CLAP_NAME}: {name} {found} in {checkpoint.folder}, its config.json says {list(parameter.shape)}; "
                "install it again"
            )


def mix_to_mono(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a sound of one or two channels, (frames, channels), as one channel of the same power, (frames,).

    The sign of the second channel is that with which less is cancelled: the mean of a sound and its inverse is silent.
    """
    if waveform.shape[1] == 1:
        return waveform[:, 0]
    left, right = waveform[:, 0].astype(np.float64), waveform[:, 1].astype(np.float64)
    product = float(left @ right)
    mixed = (left + right if product >= 0.0 else left - right) / 2
    power, mixed_power = (float(left @ left) + float(right @ right)) / 2, float(mixed @ mixed)
    return (mixed * math.sqrt(power / mixed_power) if mixed_power else mixed).astype(np.float32)


def split_excerpts(samples: NDArray[np.float32], max_frames: int) -> list[NDArray[np.float32]]:
    """Return excerpts of at most `max_frames`, spread evenly over a sound, (frames,).

    The feature extractor crops longer sounds at a random place.
    """
    count = min(MAX_EXCERPTS, max(1, round(len(samples) / max_frames)))
    starts = np.linspace(0, max(0, len(samples) - max_frames), count).astype(int) if count > 1 else [0]
    return [samples[start : start + max_frames] for start in starts]


def unit_vectors(outputs: Any) -> NDArray[np.float32]:
    """Return the embeddings in CLAP's outputs as unit vectors, (rows, dimensions)."""
    embeddings = outputs if isinstance(outputs, torch.Tensor) else outputs.pooler_output
    return torch.nn.functional.normalize(embeddings.float(), dim=-1).cpu().numpy()


def _normalize(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


def weights_digest(projection: torch.nn.Module) -> str:
    """Return a name for the weights that embeddings come from, equal in any precision of at least bfloat16's."""
    content = hashlib.blake2b(digest_size=8)
    for weights in projection.state_dict().values():
        content.update(weights.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy().tobytes())
    return content.hexdigest()


def is_to_be_ranked(order: RenderOrder) -> bool:
    """Tell if a job has several takes that are to be ordered by their similarity to the prompt."""
    return order.rank and len(order.seeds) > 1


class ClapChoice(Protocol):
    """Chooses the CLAP for the takes of a job."""

    def clap_for(self, render: RenderJob) -> Clap | None:
        """Return it; None if there is none, or if it is being loaded."""
        ...

    def request_clap(self, render: RenderJob) -> bool:
        """Have it loaded if it is installed and not in memory; returns True if that is in progress."""
        ...


@dataclass(eq=False)
class EmbeddingTask:
    """The takes of a job, which are embedded one after the other.

    Attributes:
        render: The job.
        sounds: Its takes.
        ranks: True if the job waits to have them ranked.
        order: Indices of the takes in the order in which they were sent.
        encoder_id: Name of the CLAP's weights; empty before the first take.
        vectors: Unit vectors of the takes so far.
        scores: Similarities of the prompt and the takes, if they are ranked.
        is_waiting: True while the CLAP is loaded.
        error: The error that ended it.
    """

    render: RenderJob
    sounds: RenderedSounds
    ranks: bool = False
    order: Sequence[int] = ()
    encoder_id: str = ""
    vectors: list[NDArray[np.float32]] = field(default_factory=list[NDArray[np.float32]])
    scores: list[float] = field(default_factory=list[float])
    is_waiting: bool = False
    error: Exception | None = None

    def embed_next(self, clap: Clap) -> None:
        """Embed the next take; with another CLAP than before, begin again. After the last one, score all."""
        if self.encoder_id != clap.encoder_id:
            self.encoder_id = clap.encoder_id
            self.vectors.clear()
        self.vectors.append(clap.embed_sound(self.sounds.waveforms[len(self.vectors)], self.sounds.rate))
        if self.is_done and self.ranks:
            self.scores = clap.score_takes(self.render.order.inputs.prompt, self.embeddings)

    @property
    def is_done(self) -> bool:
        """True once all takes are embedded."""
        return len(self.vectors) == len(self.sounds.waveforms)

    @property
    def embeddings(self) -> Embeddings:
        """The embeddings of the takes so far."""
        return Embeddings(np.stack(self.vectors), self.encoder_id)

    @property
    def ranked(self) -> list[tuple[int, float | None]]:
        """The takes' indices with their scores, best first; in the order of the seeds without scores."""
        if not self.scores:
            return [(index, None) for index in range(len(self.sounds.waveforms))]
        best_first = sorted(range(len(self.scores)), key=lambda index: self.scores[index], reverse=True)
        return [(index, self.scores[index]) for index in best_first]


class TakeEmbedder:
    """The takes that wait to be embedded; embeds one at a time.

    Takes that are to be ranked come first, unless a more urgent job is rendered. Takes that are only indexed wait until
    no job is rendered and none were added for `INDEX_DELAY_S`, or until they fill `MAX_PENDING_BYTES`.
    """

    def __init__(self, choice: ClapChoice, clock: Callable[[], float] = time.monotonic) -> None:
        self._choice = choice
        self._clock = clock
        self._indexed_from = 0.0
        self._tasks: list[EmbeddingTask] = []

    def add(self, task: EmbeddingTask) -> None:
        """Add the takes of a job, which has ended now unless they are to be ranked."""
        self._tasks.append(task)
        self._indexed_from = self._clock() + INDEX_DELAY_S

    def drop_ranking(self, job: int) -> None:
        """Drop the takes of a job that no longer waits to have them ranked."""
        self._tasks = [task for task in self._tasks if task.render.job != job or not task.ranks]

    def resume(self) -> None:
        """Continue with the tasks that waited for the CLAP, which is loaded or can't be."""
        for task in self._tasks:
            task.is_waiting = False

    @property
    def is_ranking(self) -> bool:
        """True if any takes are to be ranked."""
        return any(task.ranks for task in self._tasks)

    def next(self, active_ranks: Sequence[int]) -> EmbeddingTask | None:
        """Return the task whose next take is due while jobs of these ranks are rendered; None if none is."""
        due = [task for task in self._tasks if not task.is_waiting]
        ranking = [task for task in due if task.ranks]
        if ranking:
            first = min(ranking, key=lambda task: (task.render.rank, task.render.job))
            if all(first.render.rank <= rank for rank in active_ranks):
                return first
        indexed = [task for task in due if not task.ranks]
        pending_bytes = sum(task.sounds.waveforms.nbytes for task in indexed)
        is_quiet = not active_ranks and not ranking and self._clock() >= self._indexed_from
        return indexed[0] if indexed and (is_quiet or pending_bytes > MAX_PENDING_BYTES) else None

    @property
    def due_in_s(self) -> float | None:
        """Seconds until a take is embedded if no job is rendered; None if none waits for that."""
        waits = any(not task.is_waiting for task in self._tasks)
        return max(0.0, self._indexed_from - self._clock()) if waits else None

    def step(self, active_ranks: Sequence[int]) -> EmbeddingTask | None:
        """Embed the take that is due, if any; returns its task if that has ended, complete or not."""
        task = self.next(active_ranks)
        if task is None:
            return None
        try:
            clap = self._choice.clap_for(task.render)
            if clap is None and self._choice.request_clap(task.render):
                task.is_waiting = True
                return None
            if clap is not None:
                task.embed_next(clap)
                if not task.is_done:
                    return None
        except Exception as error:  # noqa: BLE001  the takes are delivered without embeddings
            log.warning("the takes of job %d aren't compared: %s", task.render.job, error)
            task.error = error
            task.vectors.clear()
        self._tasks.remove(task)
        return task
