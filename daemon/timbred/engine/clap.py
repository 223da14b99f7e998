"""CLAP embeddings: unit vectors in which similar sounds, and words that describe them, are close to each other."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClapEmbedder:
    """`vectors` has shape (takes, dimensions), float32, of length 1. Only what the same `ear` heard can be compared."""

    vectors: NDArray[np.float32]
    ear: str


def unit_vectors(found: Any) -> NDArray[np.float32]:
    """Embeddings as CLAP gives them, of length 1."""
    embeddings = found if isinstance(found, torch.Tensor) else found.pooler_output
    return torch.nn.functional.normalize(embeddings.float(), dim=-1).cpu().numpy()


def find_clap(projection: torch.nn.Module) -> str:
    """A name for the weights that vectors come from, the same in any precision that holds eight bits of a number."""
    content = hashlib.blake2b(digest_size=8)
    for weights in projection.state_dict().values():
        content.update(weights.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy().tobytes())
    return content.hexdigest()
