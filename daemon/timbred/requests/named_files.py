"""The files that a request names: `init`, `reference`, `embeddings`, and the takes of `vary` and `noise`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timbred.audiofile.files import read_recipe
from timbred.errors import BadAudio, BadRequest
from timbred.ipc.engine_messages import GivenTensor, NoiseSource
from timbred.models.checkpoint import read_tensor_inputs
from timbred.models.embeddings import (
    StoredTensor,
    TensorInputs,
    check_tensors,
    join_digest,
    read_embeddings,
    read_header,
    split_digest,
)
from timbred.models.registry import Card, Entry
from timbred.protocol.keys import Recipe
from timbred.protocol.messages import Generate
from timbred.requests.key_checks import is_requested
from timbred.requests.resolve import Parameters, Session, resolve
from timbred.storage.library import Library
from timbred.storage.paths import AllowedFolders
from timbred.storage.recipe import parameters_of

PROMPT, NEGATIVE, LATENTS = "prompt_embeds", "negative_prompt_embeds", "latents"

REPLACED_KEYS = {
    PROMPT: ("prompt2", "mix", "weights"),
    NEGATIVE: ("negative",),
    LATENTS: ("noise", "extend", "loop"),
    "audio_start_in_s": ("init",),
    "audio_codes": ("init", "task"),
}
"""Keys of `generate` that don't go with a tensor, because it is used instead."""


MAX_NOISE_SOURCES = 32
"""Takes through which a starting noise is traced back."""


@dataclass(frozen=True)
class EmbeddingsFile:
    """A file of embeddings whose header was checked.

    Attributes:
        path: The file.
        text: Its path as the request names it.
        digest: SHA-256 that it must have, in hexadecimal digits; empty for any.
        inputs: The tensors that the model takes.
        model: The model's name.
        guided: True if it is rendered with guidance.
    """

    path: Path
    text: str
    digest: str
    inputs: TensorInputs
    model: str
    guided: bool

    def read(self) -> tuple[tuple[GivenTensor, ...], str]:
        """Read the tensors for the engine, and the value of `embeddings` for the recipe. Runs in a thread.

        Raises:
            BadRequest: The file can't be used, or isn't the one that the recipe names.
        """
        embeddings = read_embeddings(self.path, self.inputs, self.model, self.guided)
        if self.digest not in ("", embeddings.digest):
            raise BadRequest(
                f"embeddings: {self.path} has changed since the take was made (sha256 {embeddings.digest[:12]}..., was "
                f"{self.digest[:12]}...); name it again with @embeddings to render with the new content"
            )
        _check_interval(embeddings.values)
        tensors = (
            GivenTensor(name=name, shape=value.shape, values=value.tobytes())
            for name, value in embeddings.values.items()
        )
        return tuple(tensors), join_digest(self.text, embeddings.digest)


@dataclass(frozen=True)
class JobFiles:
    """The files that a job reads: init audio, a reference for its timbre, and embeddings; None for each without."""

    init: Path | None = None
    reference: Path | None = None
    embeddings: EmbeddingsFile | None = None

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to read."""
        return (self.init, self.reference, self.embeddings) == (None, None, None)


NO_FILES = JobFiles()
"""No files."""


@dataclass(frozen=True)
class NamedFiles:
    """Finds the takes and the sounds that requests name.

    Args:
        library: The library of takes.
        allowed: Folders that files may be read from.
        session: Returns the defaults of the session.
    """

    library: Library
    allowed: AllowedFolders
    session: Callable[[], Session]

    def find(self, request: Recipe) -> JobFiles:
        """Return the files of `init` and `reference`.

        Raises:
            BadRequest: No take has this id.
            ForbiddenPath, BadAudio: A path may not be read, or the file doesn't exist.
        """
        paths = {key: self.file_of(key, named) for key in ("init", "reference") if (named := getattr(request, key))}
        return JobFiles(paths.get("init"), paths.get("reference"))

    def file_of(self, key: str, named: str) -> Path:
        """Return the file of a take id or a path, which the value of a key names.

        Raises:
            BadRequest: No take has this id.
            ForbiddenPath, BadAudio: The path may not be read, or the file doesn't exist.
        """
        stored = self.library.get(named)
        if stored is None:
            _refuse_unknown_take(named)
            return self.allowed.resolve(named)
        if stored.path is None or stored.missing:
            raise BadAudio(f"{key}: take {named} has no file: it was only played or deleted; render it with vary")
        return stored.path

    def recipe_of(self, named: str) -> dict[str, Any]:
        """Return the parameters in the recipe of a stored take or of a file.

        Raises:
            BadRequest: No take has this id.
            ForbiddenPath, BadAudio: The path may not be read, or the file has no recipe.
        """
        return parameters_of(self._stored_recipe(named))

    def model_version_of(self, named: str) -> str:
        """Return the version of the weights in the recipe of a stored take or of a file; empty for none.

        Raises:
            BadRequest, ForbiddenPath, BadAudio: as for `recipe_of`.
        """
        return str(self._stored_recipe(named).get("model_version", ""))

    def _stored_recipe(self, named: str) -> Mapping[str, Any]:
        stored = self.library.get(named)
        if stored is not None:
            return stored.recipe
        _refuse_unknown_take(named)
        return read_recipe(self.allowed.resolve(named))

    def noise_of(self, take: str, card: Card) -> NoiseSource:
        """Return the starting noise of a stored take, which may itself have had that of an earlier one.

        Raises:
            BadRequest: It is another model's, comes from a file of embeddings, or depends on too many earlier takes.
        """
        for _ in range(MAX_NOISE_SOURCES):
            recipe = self.recipe_of(take)
            if recipe["model"] != card.name:
                raise BadRequest(
                    f"noise: {take} was rendered by {recipe['model']}; its noise can't be used with another model"
                )
            check_own_noise(take, recipe.get("embeddings"), self.allowed)
            if "noise" not in recipe:
                source = resolve(Generate(id="noise", **recipe), card, self.session(), 0)
                return NoiseSource(seed=source.seed, seconds=source.rendered_seconds, loop=source.loop)
            take = recipe["noise"]
        raise BadRequest(f"noise: {take} depends on more than {MAX_NOISE_SOURCES} earlier takes; use an earlier one")


def _refuse_unknown_take(named: str) -> None:
    if not any(mark in named for mark in "/\\."):
        raise BadRequest(f"take: no take has the id {named!r}, and it isn't a path; `takes` lists them")


def find_embeddings(
    request: Recipe, parameters: Parameters, entry: Entry, allowed: AllowedFolders
) -> EmbeddingsFile | None:
    """Return the file that a request names in `embeddings`, with its header checked; None without one.

    Raises:
        ForbiddenPath: The file is outside the folders that may be read.
        BadRequest: It can't be used with the model or the other keys.
        MissingWeights, ModelError: The model's files can't be read.
    """
    if not request.embeddings:
        return None
    text, digest = split_digest(request.embeddings)
    path = _resolve(text, allowed)
    inputs = read_tensor_inputs(entry.checkpoint(), entry.card.name, parameters.rendered_seconds)
    guided = parameters.guidance > 1.0
    header = read_header(path)
    check_tensors(header, inputs, entry.card.name, guided)
    _check_keys(request, parameters, frozenset(header), entry.card.negative)
    _check_schedule(parameters, header)
    return EmbeddingsFile(path, text, digest, inputs, entry.card.name, guided)


def _check_interval(values: Mapping[str, NDArray[np.float32]]) -> None:
    start, end = (values.get(f"cfg_interval_{edge}") for edge in ("start", "end"))
    if float(0.0 if start is None else start) > float(1.0 if end is None else end):
        raise BadRequest("embeddings: cfg_interval_start is above cfg_interval_end; swap them")


def check_own_noise(take: str, embeddings: str | None, allowed: AllowedFolders) -> None:
    """Check that a take's starting noise follows from its seed.

    Raises:
        BadRequest: It came from a file of embeddings, or that file can't be read to tell.
        ForbiddenPath: The file is outside the folders that may be read.
    """
    if embeddings and LATENTS in read_header(_resolve(split_digest(embeddings)[0], allowed)):
        raise BadRequest(f"noise: {take} began with the latents in {embeddings[:200]}; name that file with @embeddings")


def _resolve(text: str, allowed: AllowedFolders) -> Path:
    try:
        return allowed.resolve(text)
    except BadAudio as error:
        raise BadRequest(f"embeddings: {error}; name a safetensors file") from error


def _check_schedule(parameters: Parameters, header: Mapping[str, StoredTensor]) -> None:
    """Check that a schedule in the file has the steps of the request, and that its noise has the rows of the sound."""
    schedule = header.get("timesteps")
    if schedule is not None and schedule.shape != (parameters.steps,):
        raise BadRequest(
            f"steps: got {parameters.steps}, and timesteps in the embeddings has {schedule.shape[0]}; "
            f"ask for @steps {schedule.shape[0]}"
        )
    for number, other in (("silence_padding_duration", LATENTS), ("shift", "timesteps")):
        if number in header and other in header:
            raise BadRequest(f"embeddings: {number} doesn't go with {other}; leave one of them out")


def _check_keys(request: Recipe, parameters: Parameters, names: frozenset[str], default_negative: str) -> None:
    """Check that no other key asks for what the tensors replace; a recipe may name the default negative prompt.

    Raises:
        BadRequest: Names the key and the tensor.
    """
    for name, keys in REPLACED_KEYS.items():
        for key in keys:
            value = getattr(request, key)
            if name in names and is_requested(value) and value not in ("", default_negative):
                raise BadRequest(f"{key}: it doesn't go with {name} in the embeddings; leave one of them out")
    if LATENTS in names and parameters.takes > 1:
        raise BadRequest(
            f"takes: got {parameters.takes}, but with latents in the embeddings there is only one: "
            "they would all be the same"
        )
    if NEGATIVE in names and parameters.guidance <= 1.0:
        raise BadRequest(
            f"guidance: got {parameters.guidance:g}, and negative_prompt_embeds in the embeddings needs more than 1, "
            "as in: @guidance 4"
        )
