"""The key `embeddings`: the file that a request names, checked against the model and the other keys."""

from dataclasses import dataclass
from pathlib import Path

from timbred.errors import BadAudio, BadRequest
from timbred.ipc.engine_messages import GivenTensor
from timbred.models.checkpoint import read_tensor_inputs
from timbred.models.embeddings import check_tensors, join_digest, read_embeddings, read_header, split_digest
from timbred.models.registry import Entry
from timbred.models.tensor_inputs import TensorInputs
from timbred.protocol.messages import Generate
from timbred.requests.capabilities import is_requested
from timbred.requests.resolve import Parameters
from timbred.storage.paths import AllowedFolders

PROMPT, NEGATIVE, LATENTS = "prompt_embeds", "negative_prompt_embeds", "latents"

REPLACED_KEYS = {
    PROMPT: ("prompt2", "mix", "weights"),
    NEGATIVE: ("negative",),
    LATENTS: ("noise", "extend", "loop"),
}
"""Keys of `generate` that don't go with a tensor, because it is used instead."""


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
        found = read_embeddings(self.path, self.inputs, self.model, self.guided)
        if self.digest not in ("", found.digest):
            raise BadRequest(
                f"embeddings: {self.path} has changed since the take was made (sha256 {found.digest[:12]}..., was "
                f"{self.digest[:12]}...); name it again with @embeddings to render with the new content"
            )
        tensors = (
            GivenTensor(name=name, shape=value.shape, values=value.tobytes()) for name, value in found.values.items()
        )
        return tuple(tensors), join_digest(self.text, found.digest)


def find_embeddings(
    request: Generate, parameters: Parameters, entry: Entry, allowed: AllowedFolders
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
    return EmbeddingsFile(path, text, digest, inputs, entry.card.name, guided)


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


def _check_keys(request: Generate, parameters: Parameters, names: frozenset[str], default_negative: str) -> None:
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
